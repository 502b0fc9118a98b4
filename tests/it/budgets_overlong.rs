//! Answers that get longer than their request allows, and thinking that nobody sees.

use std::time::Duration;

use serde_json::json;

use crate::support::budgeted::{Budgeted, cap, is_exhausted, with};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, chat, message, streamed};

/// Some 20,000 tokens, though 100 were asked for: at the price of gpt-4o $0.20, and of gpt-5 as much.
fn heedless() -> Conduct {
    Conduct::says(20_000).heedless().input(30)
}

/// As fast as models are, so that what is made between a cut and its arrival is little.
fn at_pace() -> Conduct {
    heedless().piece(64).pace(Duration::from_millis(5))
}

/// Reserved whole by the budget's wish, whole since its thinking is unseen, and in tranches.
const WAYS: [(&str, &str); 3] = [
    ("gpt-4o", "streams: {mode: strict}"),
    ("gpt-5", "streams: {mode: tranche}"),
    ("gpt-4o", "streams: {mode: tranche}"),
];

#[tokio::test]
async fn a_stream_that_outruns_its_request_is_cut_where_the_budget_has_no_more() {
    for (model, mode) in WAYS {
        let spec = with(&cap("0.10"), mode);
        let scene = Budgeted::before(Provider::http1().await, &spec).await;
        scene.provider.usually(at_pace());
        let ask = Ask::chat(&streamed(chat(model, 100)));
        let mut answer = scene.spender().begin(&ask).await;
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.rest().await).unwrap();
        assert!(text.contains("insufficient_quota"), "{model} {mode}");
        assert!(!text.contains("[DONE]"), "{model} {mode}");
        let books = scene.never_under().await;
        assert_eq!(books.entries.len(), 1);
        assert_eq!(books.entries[0].ending(), "cut", "{model} {mode}");
        let spent = scene.provider.truth.total();
        assert!(spent <= usd("0.10"), "{model} {mode}: {spent}");
        assert!(spent >= usd("0.02"), "{model} {mode}: {spent}");
    }
}

#[tokio::test]
async fn a_stream_that_outruns_its_request_goes_on_where_there_is_room_and_is_paid_whole() {
    for (model, mode) in WAYS {
        let scene = Budgeted::new(&with(&cap("1.00"), mode)).await;
        scene.provider.usually(heedless());
        let ask = Ask::chat(&streamed(chat(model, 100)));
        let answer = scene.spender().ask(&ask).await;
        assert!(answer.text().contains("[DONE]"), "{model} {mode}");
        let books = scene.agree().await;
        assert!(books.total() > usd("0.20"), "{model} {mode}");
    }
}

/// Where the budget only warns, nothing is cut.
#[tokio::test]
async fn a_soft_budget_lets_an_overlong_stream_go_on() {
    let spec = with(&cap("0.05"), "enforcement: soft");
    let scene = Budgeted::new(&spec).await;
    scene.provider.usually(heedless());
    let ask = Ask::chat(&streamed(chat("gpt-4o", 100)));
    let answer = scene.spender().ask(&ask).await;
    assert!(answer.text().contains("[DONE]"), "{}", answer.text());
    scene.agree().await;
}

/// An answer in one piece is there when its length is known: it cannot be cut, and is charged as it is.
#[tokio::test]
async fn a_plain_answer_that_outruns_its_request_is_charged_in_full_and_the_next_one_refused() {
    let scene = Budgeted::new(&cap("0.05")).await;
    scene.provider.usually(heedless());
    let ask = Ask::chat(&chat("gpt-4o", 100));
    let spender = scene.spender();
    assert_eq!(spender.ask(&ask).await.status, 200);
    let books = scene.agree().await;
    assert!(books.total() > usd("0.20"));
    assert!(is_exhausted(&spender.ask(&ask).await));
    let more = scene.proxy.metric("tollgate_budget_underreserved_total");
    assert_eq!(more.await, Some(1.0));
}

/// Four octets a token is what the estimate of three takes for more than it is: an honest answer to its limit
/// is not taken for an overlong one.
#[tokio::test]
async fn an_answer_to_its_very_limit_needs_no_more_than_was_reserved() {
    for tokens in [1, 16, 100, 2_000] {
        let spec = with(&cap("0.0275"), "streams: {mode: strict}");
        let scene = Budgeted::new(&spec).await;
        scene.provider.usually(Conduct::says(tokens).input(30));
        let ask = Ask::chat(&streamed(chat("gpt-4o", tokens)));
        let answer = scene.spender().ask(&ask).await;
        assert!(answer.text().contains("[DONE]"), "{}", answer.text());
        scene.agree().await;
    }
}

/// Claude 5 thinks where nobody says otherwise, and the stream shows nothing of it.
#[tokio::test]
async fn a_model_that_thinks_unseen_by_default_is_reserved_whole() {
    // 9,000 tokens cost $0.09, a first tranche of 4,096 no more than $0.05.
    let scene = Budgeted::new(&cap("0.05")).await;
    let body = streamed(message("claude-sonnet-5", 9_000));
    let spender = scene.spender();
    let refused = spender.ask(&Ask::message(&body)).await;
    assert_eq!(refused.status, 402, "{}", refused.text());
    let mut plain = body.clone();
    plain["thinking"] = json!({"type": "disabled"});
    assert_eq!(spender.ask(&Ask::message(&plain)).await.status, 200);
    let beta = "thinking-token-count-2026-05-13";
    let told = Ask::message(&body).header("anthropic-beta", beta);
    assert_eq!(spender.ask(&told).await.status, 200);
    assert_eq!(scene.reached(), 2);
    // One that thinks when asked to only.
    let plain = Ask::message(&streamed(message("claude-haiku-4-5", 9_500)));
    assert_eq!(spender.ask(&plain).await.status, 200);
    scene.agree().await;
}
