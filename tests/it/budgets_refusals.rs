//! What an agent is told where a budget has no room: at once and for good, or to come again soon, in the
//! words of the provider it asked.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::budgeted::{Budgeted, cap, error_of, is_exhausted, with};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, chat, contents, message, response, streamed};
use crate::support::wire::Answer;

const SONNET: &str = "claude-sonnet-4-5";

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.text()))
}

/// Where the budget stands, on any answer to a call that it counts.
#[track_caller]
fn balance(answer: &Answer) -> [u64; 3] {
    let of = |name: &str| {
        let name = format!("x-tollgate-budget-{name}");
        let value = answer.header(&name);
        value
            .unwrap_or_else(|| panic!("no {name}: {answer:?}"))
            .to_owned()
    };
    assert!(of("id").contains("cap"), "{answer:?}");
    ["limit", "spent", "remaining"].map(|name| usd(of(name).trim_start_matches('$')))
}

/// No client is told to wait for longer than a minute, unless it is told not to try again at all.
#[track_caller]
fn never_a_long_wait(answer: &Answer) {
    if let Some(wait) = answer.header("retry-after") {
        let seconds: u64 = wait.parse().unwrap();
        assert!(seconds <= 60, "{answer:?}");
    }
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let content_type = answer.header("content-type").unwrap();
    assert!(
        content_type.starts_with("application/json"),
        "{content_type}"
    );
    never_a_long_wait(answer);
}

const TOLD: &str = "Egress budget exhausted: budget ";

#[track_caller]
fn assert_told(message: &Value, limit: &str) {
    let message = message.as_str().unwrap();
    assert!(message.starts_with(TOLD), "{message}");
    for part in [
        "cap",
        " for agent agent, limit ",
        limit,
        ", spent $",
        ", this request may need $",
        "Resets 20",
        "T00:00:00Z. Not retryable.",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// Less than any request may need.
const NOTHING_LEFT: &str = "limits: [{unit: usd, max: \"0.0001\", window: {calendar: month}}]\n";

#[tokio::test]
async fn an_exhausted_budget_is_a_402_of_the_messages_api_that_no_client_tries_again() {
    let scene = Budgeted::new(NOTHING_LEFT).await;
    for body in [message(SONNET, 100), streamed(message(SONNET, 32_000))] {
        let answer = scene.spender().ask(&Ask::message(&body)).await;
        assert_refused(&answer, 402);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(answer.header("retry-after"), None);
        let body = json_of(&answer);
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "billing_error");
        assert_told(&body["error"]["message"], "$0.0001");
        let id = answer.header("x-tollgate-request-id").unwrap();
        assert!(body["request_id"].as_str().unwrap().ends_with(id), "{body}");
        assert_eq!(balance(&answer), [100_000, 0, 100_000]);
        let reset = answer.header("x-tollgate-budget-reset").unwrap();
        assert!(reset.ends_with("T00:00:00Z"), "{reset}");
    }
    assert_eq!(scene.reached(), 0);
    assert!(scene.proxy.books().entries.is_empty());
}

#[tokio::test]
async fn an_exhausted_budget_is_a_429_of_openai_that_no_client_tries_again() {
    let scene = Budgeted::new(NOTHING_LEFT).await;
    for ask in [
        Ask::chat(&chat("gpt-5", 100)),
        Ask::chat(&streamed(chat("gpt-5", 100))),
        Ask::response(&response("gpt-5", 100)),
        Ask::response(&streamed(response("gpt-5", 100))),
    ] {
        let answer = scene.spender().ask(&ask).await;
        assert_refused(&answer, 429);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(answer.header("retry-after"), None);
        let error = error_of(&answer);
        assert_told(&error["message"], "$0.0001");
        let mut rest = error.clone();
        rest.as_object_mut().unwrap().remove("message");
        assert_eq!(
            rest,
            json!({"type": "insufficient_quota", "param": null, "code": "insufficient_quota"})
        );
        balance(&answer);
    }
    assert_eq!(scene.reached(), 0);
}

#[tokio::test]
async fn an_exhausted_budget_is_resource_exhausted_to_gemini() {
    let scene = Budgeted::new(NOTHING_LEFT).await;
    for method in ["generateContent", "streamGenerateContent?alt=sse"] {
        let answer = scene
            .spender()
            .ask(&Ask::gemini("gemini-2.5-pro", method, &contents(100)))
            .await;
        assert_refused(&answer, 429);
        assert_eq!(answer.header("retry-after"), None);
        let error = error_of(&answer);
        assert_eq!(error["code"], 429);
        assert_eq!(error["status"], "RESOURCE_EXHAUSTED");
        assert_told(&error["message"], "$0.0001");
        balance(&answer);
    }
    assert_eq!(scene.reached(), 0);
}

#[tokio::test]
async fn a_budget_may_name_the_status_that_its_clients_stop_at() {
    let scene = Budgeted::new(&with(NOTHING_LEFT, "exhaustedStatus: 403")).await;
    let gemini = Ask::gemini("gemini-2.5-pro", "generateContent", &contents(100));
    for ask in [
        Ask::message(&message(SONNET, 100)),
        Ask::chat(&chat("gpt-5", 100)),
        gemini,
    ] {
        let answer = scene.spender().ask(&ask).await;
        assert_refused(&answer, 403);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        let error = error_of(&answer);
        assert_told(&error["message"], "$0.0001");
        assert!(
            matches!(error["code"].as_u64(), None | Some(403)),
            "{error}"
        );
    }
    assert_eq!(scene.reached(), 0);
}

/// The room is taken by a call that somebody else waits for.
#[tokio::test]
async fn a_contended_budget_asks_to_come_again_in_five_seconds() {
    let gate = Gate::closed();
    let scene = Budgeted::new(&with(&cap("0.04"), "contention: {queue: 10ms}")).await;
    scene.provider.on("first", Conduct::says(10).held(0, &gate));
    let spender = scene.spender();
    let holder = Ask::message(&message(SONNET, 1500)).call("first");
    let holder = tokio::spawn({
        let spender = spender.clone();
        async move { spender.ask(&holder).await }
    });
    gate.arrived(1).await;
    for (ask, kind, code) in [
        (
            Ask::message(&message(SONNET, 1000)),
            "rate_limit_error",
            Value::Null,
        ),
        (
            Ask::chat(&chat("gpt-5", 2000)),
            "rate_limit_error",
            "rate_limit_exceeded".into(),
        ),
        (
            Ask::response(&response("gpt-5", 2000)),
            "rate_limit_error",
            "rate_limit_exceeded".into(),
        ),
    ] {
        let answer = spender.ask(&ask).await;
        assert_refused(&answer, 429);
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert_ne!(answer.header("x-should-retry"), Some("false"));
        assert!(!is_exhausted(&answer));
        let error = error_of(&answer);
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(error["type"], kind, "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("held by requests in flight"), "{message}");
        let [limit, spent, _] = balance(&answer);
        assert_eq!((limit, spent), (usd("0.04"), 0));
    }
    assert_eq!(scene.reached(), 1);
    gate.open();
    assert_eq!(holder.await.unwrap().status, 200);
    let answer = spender.ask(&Ask::message(&message(SONNET, 1000))).await;
    assert_eq!(answer.status, 200);
    scene.agree().await;
}

#[tokio::test]
async fn every_answer_tells_where_the_budget_stands() {
    let scene = Budgeted::new(&cap("1.00")).await;
    scene.provider.usually(Conduct::says(100).input(1000));
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 100));
    let mut last = 0;
    for _ in 0..3 {
        let answer = spender.ask(&ask).await;
        assert_eq!(answer.status, 200);
        let [limit, spent, remaining] = balance(&answer);
        assert_eq!(limit, usd("1.00"));
        assert!(spent >= last && spent <= usd("0.0135"), "{spent}");
        assert!(remaining <= limit - spent, "{answer:?}");
        last = spent;
        scene.books().await;
    }
    assert!(last >= usd("0.009"), "{last}");
    let stream = spender
        .ask(&Ask::message(&streamed(message(SONNET, 100))))
        .await;
    balance(&stream);
    // The provider's own failure is no reason not to tell.
    scene.provider.next(Conduct::fails(529));
    let failed = spender.ask(&ask).await;
    assert_eq!(failed.status, 529);
}

/// What an agent sends under these names goes nowhere, and what a provider sends does not come through.
#[tokio::test]
async fn where_a_budget_stands_is_told_by_the_proxy_alone() {
    let scene = Budgeted::new(&cap("1.00")).await;
    let ask = Ask::message(&message(SONNET, 100))
        .header("x-tollgate-budget-limit", "999")
        .header("x-tollgate-budget-remaining", "999");
    let answer = scene.spender().ask(&ask).await;
    assert_eq!(answer.status, 200);
    assert_eq!(balance(&answer)[0], usd("1.00"));
    let sent = scene.provider.origin.requests().remove(0);
    let leaked = sent
        .headers
        .iter()
        .any(|(name, _)| name.starts_with("x-tollgate"));
    assert!(!leaked, "{sent:#?}");
}

/// The stream ends in an event that the SDKs raise, not in a broken connection.
#[tokio::test]
async fn a_messages_stream_that_outgrows_its_budget_ends_in_an_error_event() {
    let scene = Budgeted::before(Provider::http1().await, &cap("0.08")).await;
    // 20,000 tokens are 30 cents; the first tranche of 4,096 fits, the second does not.
    scene.provider.usually(
        Conduct::says(20_000)
            .input(40)
            .piece(64)
            .pace(Duration::from_millis(5)),
    );
    let ask = Ask::message(&streamed(message(SONNET, 32_000)));
    let answer = scene.spender().ask(&ask).await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.starts_with("event: message_start\n"), "{text}");
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    let last = events.last().unwrap();
    let data = last.strip_prefix("event: error\ndata: ");
    let data = data.unwrap_or_else(|| panic!("the last event is {last}"));
    let error: Value = serde_json::from_str(data).unwrap();
    assert_eq!(error["type"], "error");
    assert_eq!(error["error"]["type"], "billing_error");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with(TOLD),
        "{error}"
    );
    assert!(!text.contains("message_stop"));
    // All before it is the provider's, event by event.
    for event in &events[..events.len() - 1] {
        assert!(event.starts_with("event: "), "{event}");
    }
    let books = scene.never_under().await;
    let row = books.served()[0];
    assert_eq!((row.ending(), row.is_estimated()), ("cut", true));
    // On a machine that has no time for it, a cut comes later.
    assert!(books.total() <= usd("0.12"), "{}", books.total());
    let bill = &scene.provider.truth.bills()[0];
    assert!(!bill.whole, "the provider was told to stop");
    assert_eq!(row.used().input, 40, "the prompt's count was seen");
}

#[tokio::test]
async fn an_openai_stream_that_outgrows_its_budget_ends_in_an_error_without_done() {
    for responses in [false, true] {
        let scene = Budgeted::before(Provider::http1().await, &cap("0.06")).await;
        scene.provider.usually(
            Conduct::says(20_000)
                .input(40)
                .piece(64)
                .pace(Duration::from_millis(5)),
        );
        let ask = match responses {
            false => Ask::chat(&streamed(chat("gpt-4o", 16_000))),
            true => Ask::response(&streamed(response("gpt-4o", 16_000))),
        };
        let answer = scene.spender().ask(&ask).await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        assert!(
            !text.contains("[DONE]") && !text.contains("response.completed"),
            "{text}"
        );
        let last = text.split_terminator("\n\n").last().unwrap();
        let data = last
            .lines()
            .find_map(|line| line.strip_prefix("data: "))
            .unwrap();
        let error: Value = serde_json::from_str(data).unwrap();
        let told = error["error"].to_string() + &error.to_string();
        assert!(
            told.contains("insufficient_quota") && told.contains(TOLD),
            "{error}"
        );
        scene.never_under().await;
        assert_eq!(scene.proxy.books().served()[0].ending(), "cut");
    }
}

#[tokio::test]
async fn a_stream_may_be_let_finish_and_what_it_cost_beyond_stays_in_the_books() {
    let spec = with(
        &cap("0.08"),
        "streams: {mode: tranche, onExhausted: finish}",
    );
    let scene = Budgeted::new(&spec).await;
    scene
        .provider
        .usually(Conduct::says(20_000).input(40).piece(64));
    let ask = Ask::message(&streamed(message(SONNET, 32_000)));
    let answer = scene.spender().ask(&ask).await;
    assert!(answer.text().contains("message_stop"));
    let books = scene.agree().await;
    assert_eq!(books.total(), usd("0.30012"));
    let next = scene.spender().ask(&ask).await;
    assert_eq!(next.status, 402);
    let told = error_of(&next)["message"].to_string();
    assert!(told.contains("spent $0.30012"), "{told}");
}

#[tokio::test]
async fn a_model_without_a_price_is_not_found_and_nothing_is_sent() {
    let scene = Budgeted::new(&cap("100.00")).await;
    for (ask, kind) in [
        (
            Ask::message(&message("claude-unheard-of", 10)),
            "not_found_error",
        ),
        (Ask::chat(&chat("gpt-unheard-of", 10)), ""),
        (
            Ask::gemini("gemini-unheard-of", "generateContent", &contents(10)),
            "",
        ),
    ] {
        let answer = scene.spender().ask(&ask).await;
        assert_refused(&answer, 404);
        let error = error_of(&answer);
        assert!(kind.is_empty() || error["type"] == kind, "{error}");
        assert!(
            error["message"].as_str().unwrap().contains("unheard-of"),
            "{error}"
        );
    }
    assert_eq!(scene.reached(), 0);
}

#[tokio::test]
async fn a_model_without_a_price_costs_what_another_does_where_the_budget_says_so() {
    let spec = with(&cap("100.00"), "unknownModel: {priceAs: claude-opus-4-5}");
    let scene = Budgeted::new(&spec).await;
    scene.provider.usually(Conduct::says(100).input(1000));
    let ask = Ask::message(&message("claude-unheard-of", 100));
    assert_eq!(scene.spender().ask(&ask).await.status, 200);
    let books = scene.books().await;
    assert_eq!(books.total(), usd("0.0075"));
}

#[tokio::test]
async fn too_many_requests_in_a_short_time_are_told_to_wait_a_little() {
    let scene = Budgeted::new("rate: {requests: 2/min, burst: 2}").await;
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 10));
    let mut served = 0;
    let refused = loop {
        let answer = spender.ask(&ask).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served <= 4, "there is no limit");
    };
    assert!(served >= 2);
    assert_refused(&refused, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(error_of(&refused)["type"], "rate_limit_error");
    assert!(!is_exhausted(&refused));
    assert_eq!(scene.reached(), served);
}

#[tokio::test]
async fn too_many_requests_under_way_at_once_are_told_to_wait_a_little() {
    let gate = Gate::closed();
    let spec = "concurrency: 2\ncontention: {queue: 10ms}\n";
    let scene = Budgeted::new(spec).await;
    scene.provider.usually(Conduct::says(10).held(1, &gate));
    let spender = scene.spender();
    let ask = Ask::message(&streamed(message(SONNET, 10)));
    let first = spender.begin(&ask).await;
    let second = spender.begin(&ask).await;
    gate.arrived(2).await;
    let third = spender.ask(&ask).await;
    assert_refused(&third, 429);
    assert!(!is_exhausted(&third), "{}", third.text());
    let wait: u64 = third.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    gate.open();
    for answer in [first, second] {
        assert!(answer.whole().await.text().contains("message_stop"));
    }
    assert!(spender.ask(&ask).await.text().contains("message_stop"));
    assert_eq!(scene.reached(), 3);
}
