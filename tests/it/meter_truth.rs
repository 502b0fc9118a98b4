//! What the meter reads of requests and answers comes to what the provider bills, without a proxy between.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use tollgate::meter::bound;
use tollgate::meter::charge::{Bill, charges};
use tollgate::meter::endpoint::{Endpoint, classify};
use tollgate::meter::price_table::PriceTable;
use tollgate::meter::reader::{AnswerHead, Memory, Reader};
use tollgate::meter::scan;
use tollgate::net::room::Room;
use tollgate::types::charge::Need;
use tollgate::types::model_api::ModelApi;

use super::support::provider::conduct::{Coding, Conduct, Tells};
use super::support::provider::prices::usd;
use super::support::provider::server::{ANTHROPIC, OPENAI, Provider};
use super::support::provider::truth::Used;
use super::support::spender::{Ask, Spender, chat, contents, message, response, streamed};
use super::support::wire::Answer;

const SONNET: &str = "claude-sonnet-4-5";

fn asks() -> Vec<(&'static str, Ask)> {
    let mut asking = streamed(chat("gpt-5", 300));
    asking["stream_options"] = serde_json::json!({"include_usage": true});
    vec![
        ("message", Ask::message(&message(SONNET, 300))),
        (
            "message stream",
            Ask::message(&streamed(message(SONNET, 300))),
        ),
        ("chat", Ask::chat(&chat("gpt-5", 300))),
        ("chat stream", Ask::chat(&asking)),
        ("response", Ask::response(&response("gpt-5", 300))),
        (
            "response stream",
            Ask::response(&streamed(response("gpt-5", 300))),
        ),
        (
            "gemini",
            Ask::gemini("gemini-2.5-pro", "generateContent", &contents(300)),
        ),
        (
            "gemini events",
            Ask::gemini(
                "gemini-2.5-pro",
                "streamGenerateContent?alt=sse",
                &contents(300),
            ),
        ),
        (
            "gemini array",
            Ask::gemini("gemini-2.5-pro", "streamGenerateContent", &contents(300)),
        ),
    ]
}

fn api_of(host: &str) -> ModelApi {
    match host {
        ANTHROPIC => ModelApi::Anthropic,
        OPENAI => ModelApi::OpenAI,
        _ => ModelApi::Gemini,
    }
}

/// What a call would reserve in strict mode, and what it is charged at.
fn metered(ask: &Ask, answer: &Answer) -> (Need, Bill) {
    let api = api_of(ask.host);
    let (path, query) = match ask.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*ask.target, None),
    };
    let Endpoint::Metered(operation) = classify(api, &Method::POST, path) else {
        panic!("{path} is not metered");
    };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let call = scan::read(api, operation, path, query, &headers, &ask.body).unwrap();
    let mut told = HeaderMap::new();
    for (name, value) in &answer.headers {
        let name: HeaderName = name.parse().unwrap();
        told.append(name, value.parse().unwrap());
    }
    let head = AnswerHead {
        status: StatusCode::from_u16(answer.status).unwrap(),
        headers: &told,
    };
    let mut reader = Reader::new(&call, &head, Memory::of(&Arc::new(Room::of(u64::MAX))));
    for piece in answer.body.chunks(7) {
        reader.feed(piece);
    }
    let now = Timestamp::now();
    let prices = PriceTable::builtin();
    let price = prices.for_call(&call, now).unwrap();
    let need = bound::strict(Some(&price), &call);
    let bill = charges(&prices, Some(&price), &call, reader.finish(), &need, now);
    (need, bill)
}

async fn both(
    provider: &Provider,
    customer: &Spender,
    conduct: &Conduct,
    ask: &Ask,
) -> (u64, Need, Bill) {
    let before = provider.truth.total();
    provider.next(conduct.clone());
    let answer = customer.ask(ask).await;
    provider.truth.idle().await;
    let (need, bill) = metered(ask, &answer);
    (provider.truth.total() - before, need, bill)
}

#[tokio::test]
async fn what_is_told_is_read_to_the_nano_dollar() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    for conduct in [
        Conduct::says(137).input(1001),
        Conduct::says(137).input(1001).cached(0, 0, 500).hidden(40),
        Conduct::says(0).input(1),
        Conduct::says(250).input(250_001),
        Conduct::says(137).input(1001).newline("\r\n"),
        Conduct::says(137).input(1001).newline("\r"),
        Conduct::says(137).input(1001).coded(Coding::Gzip),
        Conduct::says(137).input(1001).coded(Coding::Brotli),
        Conduct::says(137).input(1001).coded(Coding::Zstd),
    ] {
        for (name, ask) in asks() {
            let (billed, _, bill) = both(&provider, &customer, &conduct, &ask).await;
            assert_eq!(bill.total().0, billed, "{name} {conduct:?}: {bill:#?}");
            assert!(!bill.estimated, "{name} {conduct:?}: {bill:#?}");
        }
    }
}

#[tokio::test]
async fn what_is_hidden_or_garbled_comes_to_no_less_than_it_costs() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    for tells in [
        Tells::Nothing,
        Tells::Null,
        Tells::Nonsense,
        Tells::Twice,
        Tells::Late,
        Tells::Shrinking,
    ] {
        for (name, ask) in asks() {
            let conduct = Conduct::says(137).tells(tells);
            let (billed, need, bill) = both(&provider, &customer, &conduct, &ask).await;
            let total = bill.total().0;
            assert!(total >= billed, "{name} {tells:?}: {billed} {bill:#?}");
            assert!(total <= need.cost.0, "{name} {tells:?}: {need:?} {bill:#?}");
        }
    }
}

#[tokio::test]
async fn a_strict_bound_is_never_less_than_the_bill() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    for (name, ask) in asks() {
        // As many tokens as octets in the prompt, and the longest answer that is allowed.
        let octets = ask.body.len() as u64;
        for conduct in [
            Conduct::says(300).input(octets),
            Conduct::says(300).input(0).cached(0, 0, octets),
        ] {
            let (billed, need, _) = both(&provider, &customer, &conduct, &ask).await;
            assert!(need.cost.0 >= billed, "{name}: {need:?} {billed}");
        }
    }
    let mut cached = message(SONNET, 300);
    cached["system"] = serde_json::json!([{
        "type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }]);
    let ask = Ask::message(&cached);
    let conduct = Conduct::says(300)
        .input(0)
        .cached(0, ask.body.len() as u64, 0);
    let (billed, need, bill) = both(&provider, &customer, &conduct, &ask).await;
    assert!(need.cost.0 >= billed, "{need:?} {billed}");
    assert_eq!(bill.total().0, billed);
}

#[tokio::test]
async fn each_model_of_a_call_and_each_search_is_read() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    let used = |model: &str, input, output| Used {
        model: model.to_owned(),
        input,
        output,
        ..Used::default()
    };
    let three = Conduct::says(0)
        .iteration("message", used(SONNET, 1000, 100))
        .iteration("compaction", used("claude-haiku-4-5", 5000, 200))
        .iteration("fallback_message", used("claude-opus-4-5", 1000, 100));
    let searching = Conduct::says(100).input(1000).searches(3);
    for body in [message(SONNET, 1000), streamed(message(SONNET, 1000))] {
        let ask = Ask::message(&body);
        let (billed, _, bill) = both(&provider, &customer, &three, &ask).await;
        assert_eq!(
            (bill.total().0, billed),
            (usd("0.018"), usd("0.018")),
            "{bill:#?}"
        );
        assert_eq!(bill.charges.len(), 3);
        let (billed, _, bill) = both(&provider, &customer, &searching, &ask).await;
        assert_eq!(
            (bill.total().0, billed),
            (usd("0.0345"), usd("0.0345")),
            "{bill:#?}"
        );
    }
}
