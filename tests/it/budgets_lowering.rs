//! A budget may rather have a shorter answer than none: what still fits is asked for in the agent's place.

use serde_json::{Value, json};

use crate::support::budgeted::{Budgeted, cap, with};
use crate::support::provider::conduct::Conduct;
use crate::support::spender::{Ask, chat, message, response, streamed};

const SONNET: &str = "claude-sonnet-4-5";

async fn scene(dollars: &str, min: u64) -> Budgeted {
    let lower = format!("lowerMaxTokens: {{min: {min}}}\nstreams: {{mode: strict}}");
    let scene = Budgeted::new(&with(&cap(dollars), &lower)).await;
    scene.provider.usually(Conduct::says(400).input(30));
    scene
}

#[tokio::test]
async fn what_does_not_fit_is_asked_for_with_as_long_an_answer_as_does() {
    // 32,000 tokens cost $0.48 with the one, $0.32 with the others.
    for (field, ask) in [
        ("max_tokens", Ask::message(&message(SONNET, 32_000))),
        (
            "max_tokens",
            Ask::message(&streamed(message(SONNET, 32_000))),
        ),
        ("max_completion_tokens", Ask::chat(&chat("gpt-5", 32_000))),
        (
            "max_completion_tokens",
            Ask::chat(&streamed(chat("gpt-5", 32_000))),
        ),
        (
            "max_output_tokens",
            Ask::response(&response("gpt-5", 32_000)),
        ),
    ] {
        let scene = scene("0.10", 1024).await;
        let answer = scene.spender().ask(&ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told: u64 = answer
            .header("x-tollgate-max-tokens")
            .unwrap()
            .parse()
            .unwrap();
        let sent = scene.provider.origin.requests().remove(0).json();
        assert_eq!(sent[field], told, "{sent}");
        // What is left of $0.10 after the prompt, at $15 and $10 for a million.
        assert!((5_000..10_000).contains(&told), "{field} {told}");
        let mut asked: Value = serde_json::from_slice(&ask.body).unwrap();
        let mut rest = sent.clone();
        for body in [&mut asked, &mut rest] {
            let body = body.as_object_mut().unwrap();
            body.remove(field);
            body.remove("stream_options");
        }
        assert_eq!(rest, asked, "nothing else is changed");
        scene.agree().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_worth_it_is_refused_and_one_that_fits_is_left_alone() {
    let ask = Ask::message(&message(SONNET, 32_000));
    // $0.10 is enough for some 6,000 tokens.
    let refused = scene("0.10", 7_000).await.spender().ask(&ask).await;
    assert_eq!(refused.status, 402, "{}", refused.text());
    let mut thinking = message(SONNET, 32_000);
    thinking["thinking"] = json!({"type": "enabled", "budget_tokens": 7_000});
    let thinking = Ask::message(&thinking);
    let refused = scene("0.10", 1).await.spender().ask(&thinking).await;
    assert_eq!(refused.status, 402, "it needs more than it thinks with");
    let scene = scene("1.00", 1024).await;
    let answer = scene.spender().ask(&ask).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-tollgate-max-tokens"), None);
    let sent = scene.provider.origin.requests().remove(0);
    assert_eq!(sent.body, ask.body, "not an octet is changed");
    scene.agree().await;
}

/// All its budgets are asked, one after the other.
#[tokio::test]
async fn the_shortest_of_several_budgets_decides() {
    let lower = "lowerMaxTokens: {min: 100}";
    let scene = Budgeted::of(&[
        ("dollars", &with(&cap("0.10"), lower)),
        (
            "tokens",
            &with(
                "limits: [{unit: tokens, max: 4000, window: total}]\n",
                lower,
            ),
        ),
    ])
    .await;
    scene.provider.usually(Conduct::says(400).input(30));
    let ask = Ask::message(&message(SONNET, 32_000));
    let answer = scene.spender().ask(&ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told: u64 = answer
        .header("x-tollgate-max-tokens")
        .unwrap()
        .parse()
        .unwrap();
    assert!((1_000..2_000).contains(&told), "{told}");
    scene.agree().await;
}
