//! Clouds that serve others' models, and a server of one's own: what they bill is what the books have.

use serde_json::{Value, json};

use crate::provider::undone;
use crate::support::books::assert_equal;
use crate::support::budgeted::{Budgeted, cap};
use crate::support::provider::clouds::{AZURE, BEDROCK, OLLAMA, PUBLISHERS, VERTEX};
use crate::support::provider::conduct::{Coding, Conduct, Tells};
use crate::support::provider::gate::Gate;
use crate::support::provider::server::{GEMINI, Provider};
use crate::support::spender::{Ask, chat, contents, streamed};

const GLOBAL: &str = "global.anthropic.claude-sonnet-4-5-20250929-v1:0";
const REGIONAL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

async fn scene(provider: Provider, dollars: &str) -> Budgeted {
    let proxy = provider
        .proxy_of_clouds()
        .document("EgressBudget", "cap", &cap(dollars))
        .start()
        .await;
    Budgeted { provider, proxy }
}

fn conversation(most: u64) -> Value {
    json!({
        "messages": [{"role": "user", "content": [{"text": "Say something, größer."}]}],
        "inferenceConfig": {"maxTokens": most},
    })
}

/// To a model of Anthropic's on somebody else's servers.
fn anthropics(version: &str, most: u64) -> Value {
    json!({
        "anthropic_version": version,
        "max_tokens": most,
        "messages": [{"role": "user", "content": "Say something, größer."}],
    })
}

fn local(most: u64) -> Value {
    json!({
        "model": "llama3.2",
        "messages": [{"role": "user", "content": "Say something, größer."}],
        "options": {"num_predict": most},
    })
}

/// The deployment says which model.
fn deployed(most: u64) -> Value {
    let mut body = chat("", most);
    body.as_object_mut().unwrap().remove("model");
    body
}

/// Those that come in pieces, of Bedrock and Vertex AI.
fn streamed_asks() -> impl Iterator<Item = (&'static str, Ask)> {
    let streamed = |(name, _): &(&str, Ask)| name.contains("tream");
    cached_asks().into_iter().filter(streamed)
}

/// Whole and streamed, of those whose caches are told.
fn cached_asks() -> Vec<(&'static str, Ask)> {
    let bedrock = anthropics("bedrock-2023-05-31", 300);
    let vertex = anthropics("vertex-2023-10-16", 300);
    vec![
        ("invoke", Ask::bedrock(GLOBAL, "invoke", &bedrock)),
        (
            "invoke stream",
            Ask::bedrock(GLOBAL, "invoke-with-response-stream", &bedrock),
        ),
        (
            "invoke in a region",
            Ask::bedrock(REGIONAL, "invoke", &bedrock),
        ),
        (
            "converse",
            Ask::bedrock(GLOBAL, "converse", &conversation(300)),
        ),
        (
            "converse stream",
            Ask::bedrock(GLOBAL, "converse-stream", &conversation(300)),
        ),
        (
            "rawPredict",
            Ask::vertex(
                "anthropic/models/claude-sonnet-4-5@20250929:rawPredict",
                &vertex,
            ),
        ),
        (
            "streamRawPredict",
            Ask::vertex(
                "anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
                &streamed(vertex.clone()),
            ),
        ),
    ]
}

/// All others that tell what they used.
fn plain_asks() -> Vec<(&'static str, Ask)> {
    let mut asking = streamed(deployed(300));
    asking["stream_options"] = json!({"include_usage": true});
    let mut whole = local(300);
    whole["stream"] = false.into();
    vec![
        (
            "gemini on vertex",
            Ask::vertex(
                "google/models/gemini-2.5-pro:generateContent",
                &contents(300),
            ),
        ),
        (
            "gemini on vertex, events",
            Ask::vertex(
                "google/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
                &contents(300),
            ),
        ),
        (
            "gemini on vertex, array",
            Ask::vertex(
                "google/models/gemini-2.5-pro:streamGenerateContent",
                &contents(300),
            ),
        ),
        (
            "azure",
            Ask::azure("gpt-4o", "chat/completions", &deployed(300)),
        ),
        (
            "azure stream",
            Ask::azure("gpt-4o", "chat/completions", &asking),
        ),
        ("ollama", Ask::ollama("chat", &whole)),
        ("ollama lines", Ask::ollama("chat", &local(300))),
    ]
}

fn embeddings() -> Vec<(&'static str, Ask)> {
    let text = json!("Say something, größer.");
    let openai = json!({"model": "text-embedding-3-small", "input": text});
    let azure = json!({"input": text});
    let local = json!({"model": "llama3.2", "input": text});
    vec![
        (
            "embeddings",
            Ask::of(
                crate::support::provider::server::OPENAI,
                "POST",
                "/v1/embeddings",
                openai.to_string(),
            ),
        ),
        (
            "embeddings on azure",
            Ask::azure("text-embedding-3-small", "embeddings", &azure),
        ),
        ("embeddings of one's own", Ask::ollama("embed", &local)),
    ]
}

/// Asks in each way with and without the proxy between: the agent gets the very octets of the origin, without
/// their coding where there is one, since they are searched for the key that went out; and what is booked is what was billed, call by call.
async fn honest(scene: &Budgeted, conduct: &Conduct, asks: Vec<(&'static str, Ask)>) {
    let (customer, _relay) = scene.provider.customer().await;
    for (name, ask) in asks {
        scene.provider.next(conduct.clone());
        let direct = customer.ask(&ask.clone().call("direct")).await;
        assert_eq!(direct.status, 200, "{name}: {}", direct.text());
        let before = scene.proxy.books();
        scene.provider.next(conduct.clone());
        let through = scene.proxy.spender();
        let through = through.ask(&ask.clone().call(name)).await;
        assert_eq!(through.status, 200, "{name}: {}", through.text());
        // Where no key went out there is nothing to search for.
        let sent = match (conduct.coding, through.header("content-encoding")) {
            (Some(coding), None) => undone(coding, &direct.body).await,
            _ => direct.body.to_vec(),
        };
        assert!(through.body == sent, "{name} {conduct:?}");
        for header in ["content-type", "x-request-id"] {
            assert_eq!(through.header(header), direct.header(header), "{name}");
        }
        scene.provider.truth.idle().await;
        let books = scene.proxy.books_of(before.served().len() + 1).await;
        let row = books.new_since(&before);
        let bills = scene.provider.truth.bills();
        let bill = bills.iter().rfind(|bill| bill.call == name).unwrap();
        assert_equal(std::slice::from_ref(bill), &[&row]);
        assert_eq!(
            (row.ending(), row.is_estimated()),
            ("complete", false),
            "{name} {conduct:?}"
        );
        assert!(row.cost() > 0, "{name}");
    }
}

#[tokio::test]
async fn clouds_are_booked_to_the_nano_dollar_and_no_octet_is_changed() {
    let scene = scene(Provider::start().await, "100.00").await;
    for conduct in [
        Conduct::says(137).input(1001),
        Conduct::says(137).input(1001).chunk(7),
        Conduct::says(137).input(1001).piece(1),
    ] {
        let all = [cached_asks(), plain_asks(), embeddings()].concat();
        honest(&scene, &conduct, all).await;
    }
    let conduct = Conduct::says(137).input(1001).cached(11, 13, 500);
    honest(&scene, &conduct, cached_asks()).await;
}

/// They are asked for `identity`, and some compress all the same.
#[tokio::test]
async fn compressed_answers_of_clouds_are_read_in_passing() {
    let scene = scene(Provider::start().await, "100.00").await;
    for coding in Coding::ALL {
        let conduct = Conduct::says(137).input(1001).coded(coding);
        let all = [cached_asks(), plain_asks(), embeddings()].concat();
        honest(&scene, &conduct, all).await;
    }
}

#[tokio::test]
async fn a_cloud_that_tells_no_usage_is_booked_for_no_less_than_it_costs() {
    let scene = scene(Provider::start().await, "100.00").await;
    // The prompt's tokens are a quarter of its octets.
    let conduct = Conduct::says(137).tells(Tells::Nothing);
    for (name, ask) in [cached_asks(), plain_asks()].concat() {
        let before = (scene.proxy.books(), scene.provider.truth.total());
        scene.provider.next(conduct.clone());
        assert_eq!(scene.proxy.spender().ask(&ask).await.status, 200, "{name}");
        scene.provider.truth.idle().await;
        let books = scene.proxy.books_of(before.0.served().len() + 1).await;
        let row = books.new_since(&before.0);
        let billed = scene.provider.truth.total() - before.1;
        assert!(
            row.cost() >= billed && billed > 0,
            "{name}: {billed} {row:?}"
        );
    }
}

/// They make an answer to its end whoever listens, and bill all of it: it is read to its end here, too.
#[tokio::test]
async fn an_answer_of_bedrock_or_vertex_that_its_agent_left_is_read_out_and_paid_whole() {
    let scene = scene(Provider::http1().await, "100.00").await;
    for (name, ask) in streamed_asks() {
        let gate = Gate::closed();
        let conduct = Conduct::says(300).input(30).piece(10).held(12, &gate);
        scene.provider.next(conduct);
        let before = scene.proxy.books();
        let mut answer = scene.proxy.spender().begin(&ask.call(name)).await;
        gate.arrived(1).await;
        assert!(answer.piece().await.is_some());
        drop(answer);
        // The proxy knows of it before the rest is made.
        let left = scene
            .proxy
            .books_with("still open", |books| books.reservations.len() == 1);
        left.await;
        gate.open();
        scene.provider.truth.idle().await;
        let bill = scene.provider.truth.bill(name);
        assert!(bill.whole, "{name}");
        let books = scene.proxy.books_of(before.served().len() + 1).await;
        let row = books.new_since(&before);
        assert_equal(&[bill], &[&row]);
    }
}

/// What nobody reads is made and billed all the same: the most that it may be is reserved, and charged where its
/// count is never heard.
#[tokio::test]
async fn an_answer_of_bedrock_or_vertex_that_its_agent_left_unheard_is_charged_whole() {
    let scene = scene(Provider::http1().await, "100.00").await;
    for (name, ask) in streamed_asks() {
        let gate = Gate::closed();
        scene
            .provider
            .next(Conduct::says(300).input(30).held(0, &gate));
        let before = scene.proxy.books();
        let spender = scene.proxy.spender();
        let call = ask.call(name);
        let asking = tokio::spawn(async move { spender.begin(&call).await.whole().await });
        gate.arrived(1).await;
        asking.abort();
        let books = scene.proxy.books_of(before.served().len() + 1).await;
        let row = books.new_since(&before);
        assert_eq!(row.ending(), "agent_left", "{name}");
        assert_eq!(row.number("output"), 300, "{name}: {row:?}");
        assert!(row.is_estimated(), "{name}: {row:?}");
        gate.open();
        scene.provider.truth.idle().await;
    }
}

/// Endpoints that speak another's API than their host.
fn borrowed_asks() -> Vec<(&'static str, Ask)> {
    let of = |host, target: &str, body: Value| Ask::of(host, "POST", target, body.to_string());
    let anthropic = json!({
        "model": "llama3.2", "max_tokens": 300, "messages": [{"role": "user", "content": "Hi"}],
    });
    let openapi = format!(
        "{}/endpoints/openapi",
        PUBLISHERS.trim_end_matches("/publishers")
    );
    vec![
        (
            "gemini",
            of(
                GEMINI,
                "/v1beta/openai/chat/completions",
                chat("gemini-2.5-pro", 300),
            ),
        ),
        (
            "gemini, its model with a place",
            of(
                GEMINI,
                "/v1beta/openai/chat/completions",
                chat("models/gemini-2.5-pro", 300),
            ),
        ),
        (
            "vertex",
            of(
                VERTEX,
                &format!("{openapi}/chat/completions"),
                chat("google/gemini-2.5-pro", 300),
            ),
        ),
        (
            "ollama",
            of(OLLAMA, "/v1/chat/completions", chat("llama3.2", 300)),
        ),
        ("ollama's messages", of(OLLAMA, "/v1/messages", anthropic)),
    ]
}

#[tokio::test]
async fn an_endpoint_that_speaks_anothers_api_refuses_in_that_ones_words() {
    let scene = scene(Provider::start().await, "0.000001").await;
    for (name, ask) in borrowed_asks() {
        let answer = scene.proxy.spender().ask(&ask).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let (status, kind) = match name {
            "ollama's messages" => (402, "billing_error"),
            _ => (429, "insufficient_quota"),
        };
        assert_eq!(answer.status, status, "{name} {body}");
        assert_eq!(body["error"]["type"], kind, "{name} {body}");
    }
    assert_eq!(scene.reached(), 0);
}

#[tokio::test]
async fn each_cloud_hears_of_an_exhausted_budget_in_its_own_words() {
    let scene = scene(Provider::start().await, "0.000001").await;
    for (name, ask) in [cached_asks(), plain_asks()].concat() {
        let answer = scene.proxy.spender().ask(&ask).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let told = match ask.host {
            BEDROCK => {
                assert_eq!(answer.status, 400, "{name}");
                let kind = answer.header("x-amzn-errortype");
                assert_eq!(kind, Some("ServiceQuotaExceededException"), "{name}");
                &body["message"]
            }
            AZURE => {
                assert_eq!(answer.status, 429, "{name}");
                assert_eq!(body["error"]["code"], "insufficient_quota", "{name}");
                &body["error"]["message"]
            }
            OLLAMA => {
                assert_eq!(answer.status, 429, "{name}");
                &body["error"]
            }
            // Claude's own words: its clients read them wherever it runs.
            _ if name.ends_with("awPredict") => {
                assert_eq!(answer.status, 402, "{name}");
                assert_eq!(body["error"]["type"], "billing_error", "{name}");
                &body["error"]["message"]
            }
            _ => {
                assert_eq!(answer.status, 429, "{name}");
                assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED", "{name}");
                &body["error"]["message"]
            }
        };
        assert!(
            told.to_string().contains("budget exhausted"),
            "{name} {body}"
        );
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{name}");
    }
    assert_eq!(scene.reached(), 0);
}

/// Its clients read frames with checksums: what is cut ends with a whole one that says why.
#[tokio::test]
async fn a_stream_of_bedrock_that_is_cut_ends_with_an_exception() {
    let scene = scene(Provider::http1().await, "0.09").await;
    // It is reserved whole: only one that takes no notice of how long it may be outgrows that.
    let conduct = Conduct::says(30_000).heedless().input(30).piece(64);
    let conduct = conduct.pace(std::time::Duration::from_millis(5));
    scene.provider.usually(conduct);
    let ask = Ask::bedrock(GLOBAL, "converse-stream", &conversation(1_000));
    let mut answer = scene.proxy.spender().begin(&ask).await;
    assert_eq!(answer.status, 200);
    let mut left = bytes::Bytes::from(answer.rest().await);
    let mut last = None;
    while !left.is_empty() {
        let message = aws_smithy_eventstream::frame::read_message_from(&mut left);
        last = Some(message.expect("a whole frame"));
    }
    let last = last.unwrap();
    let header = |name: &str| {
        let headers = last.headers().iter();
        let mut found = headers.filter(|header| header.name().as_str() == name);
        found
            .next()
            .map(|header| header.value().as_string().unwrap().as_str().to_owned())
    };
    assert_eq!(header(":message-type").as_deref(), Some("exception"));
    let told: Value = serde_json::from_slice(last.payload()).unwrap();
    assert!(
        told["message"].to_string().contains("budget exhausted"),
        "{told}"
    );
    let books = scene.never_under().await;
    assert_eq!(books.entries[0].ending(), "cut");
}
