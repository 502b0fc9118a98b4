//! A stream for which there is no more budget: what its agent sees of its end, and what is paid for it.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::budgeted::{Budgeted, cap, with};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, chat, message, streamed};

const SONNET: &str = "claude-sonnet-4-5";

/// Some 2,000 tokens in a second.
fn fast(tokens: u64) -> Conduct {
    let conduct = Conduct::says(tokens).input(40).piece(20);
    conduct.pace(Duration::from_millis(10))
}

/// One may come to its end in the very moment in which it is cut.
#[tokio::test]
async fn a_stream_that_ends_while_it_is_cut_is_whole_or_says_why_not() {
    let endings = (0..8).map(|number| async move {
        // Of the first 4,096 tokens by the estimate, three quarters are let through, which are 2,304 real ones.
        let tokens = if number == 7 {
            20_000
        } else {
            2_260 + number * 40
        };
        let conduct = fast(tokens).trailing();
        let scene = Budgeted::before(Provider::http1().await, &cap("0.08")).await;
        scene.provider.usually(conduct);
        let body = streamed(message(SONNET, 32_000));
        let ask = Ask::message(&body).header("te", "trailers");
        let answer = scene.spender().ask(&ask).await;
        let text = answer.text();
        let (whole, cut) = (
            text.contains("message_stop"),
            text.contains("billing_error"),
        );
        assert!(whole != cut, "{number}: {text}");
        let books = scene.never_under().await;
        let ending = if whole { "complete" } else { "cut" };
        assert_eq!(books.served()[0].ending(), ending, "{number}");
        let log = scene.proxy.access_log(1).await;
        let end = if whole { None } else { Some("budget_cut") };
        assert_eq!(log[0]["end"].as_str(), end, "{number}");
        cut
    });
    let cut = join_all(endings).await;
    assert!(cut[7], "the longest is not whole");
}

/// Faster than any model of today: what comes while it is cut is not what the cap was for.
#[tokio::test]
async fn a_stream_is_cut_the_sooner_the_faster_it_is() {
    for pieces in [50, 100] {
        let scene = Budgeted::new(&with(&cap("0.08"), "contention: {queue: 1ms}")).await;
        let conduct = Conduct::says(40_000).input(40).piece(pieces);
        scene
            .provider
            .usually(conduct.pace(Duration::from_millis(10)));
        let ask = Ask::chat(&streamed(chat("gpt-4o", 16_000)));
        let answer = scene.spender().ask(&ask).await;
        assert!(answer.text().contains("insufficient_quota"), "{pieces}");
        scene.never_under().await;
        let made: u64 = scene.provider.truth.bills()[0].used[0].output;
        // On a machine that has no time for it, it is later.
        assert!(made < 12_000, "{pieces}: {made}");
    }
}
