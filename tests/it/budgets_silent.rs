//! Providers that fail in the middle of a call: it is given up at the rule's limits, nothing stays reserved,
//! and what may have been billed is in the books.

use std::time::{Duration, Instant};

use super::support::budgeted::{Budgeted, cap};
use super::support::provider::conduct::{Conduct, Fate};
use super::support::provider::prices::usd;
use super::support::provider::server::Provider;
use super::support::spender::{Ask, chat, message, streamed};

const SONNET: &str = "claude-sonnet-4-5";

#[tokio::test]
async fn a_call_whose_provider_fails_at_any_stage_is_settled_and_the_next_is_served() {
    for provider in [Provider::http1().await, Provider::start().await] {
        let limits = ", timeouts: {responseHeaders: 1s, idle: 1s}";
        let proxy = provider.proxy_saying(limits);
        let proxy = proxy
            .document("EgressBudget", "cap", &cap("1.00"))
            .start()
            .await;
        let scene = Budgeted { provider, proxy };
        let mut failed = 0;
        for (fate, status) in [
            (Fate::Silent(0), 504),
            (Fate::Cut(0), 502),
            (Fate::Fails(529), 529),
            (Fate::Silent(5), 200),
            (Fate::Cut(5), 200),
        ] {
            for ask in [
                Ask::message(&message(SONNET, 1000)),
                Ask::message(&streamed(message(SONNET, 1000))),
                Ask::chat(&streamed(chat("gpt-5", 1000))),
            ] {
                let is_stream = String::from_utf8_lossy(&ask.body).contains("\"stream\":true");
                // An answer in one piece has two pieces only.
                let fate = match fate {
                    Fate::Silent(5) if !is_stream => Fate::Silent(1),
                    Fate::Cut(5) if !is_stream => Fate::Cut(1),
                    other => other,
                };
                let case = format!("{fate:?} {} {is_stream}", ask.host);
                scene.provider.next(Conduct::says(400).piece(8).fate(fate));
                let asked = Instant::now();
                // Head and break may come in one packet, or one after the other.
                match scene.spender().try_begin(&ask).await {
                    Ok(mut answer) => {
                        // A reset may overtake the head.
                        let lost = matches!(fate, Fate::Cut(1..)) && answer.status == 502;
                        assert!(answer.status == status || lost, "{case}: {}", answer.status);
                        answer.rest().await;
                    }
                    Err(error) => assert_eq!(status, 200, "{case}: {error}"),
                }
                assert!(
                    asked.elapsed() < Duration::from_secs(20),
                    "{case}: {:?}",
                    asked.elapsed()
                );
                failed += u64::from(status != 529);
                let books = scene.never_under().await;
                let (booked, billed) = (books.total(), scene.provider.truth.total());
                // A thousand tokens at 15 dollars a million, and a little for the prompt.
                assert!(
                    booked <= billed + failed * usd("0.03"),
                    "{case}: {booked} booked, {billed} billed"
                );
                let fine = scene.spender().ask(&ask).await;
                assert_eq!(fine.status, 200, "{case}: {}", fine.text());
            }
        }
        let books = scene.never_under().await;
        assert!(books.reservations.is_empty(), "{books:#?}");
    }
}
