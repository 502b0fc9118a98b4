//! A cap holds whatever comes at once, and nearly all of it can be used.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::books::{Row, assert_equal};
use crate::support::budgeted::{Budgeted, cap, is_exhausted, with};
use crate::support::clients::one_at_a_time;
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::ANTHROPIC;
use crate::support::provider::truth::Bill;
use crate::support::spender::{Ask, Spender, chat, contents, message, response, streamed};

const SONNET: &str = "claude-sonnet-4-5";

/// What agents who spend all they may were answered.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicUsize,
    cut: AtomicUsize,
    contended: AtomicUsize,
    exhausted: AtomicUsize,
}

impl Tally {
    fn whole(&self) -> usize {
        self.whole.load(Ordering::SeqCst)
    }
}

/// Asks again and again until the budget is used up.
async fn spend(spender: &Spender, ask: &Ask, tally: &Tally) {
    loop {
        let answer = spender.ask(ask).await;
        match answer.status {
            200 => {
                let text = answer.text();
                let cut =
                    text.contains("\"billing_error\"") || text.contains("\"insufficient_quota\"");
                let count = if cut { &tally.cut } else { &tally.whole };
                count.fetch_add(1, Ordering::SeqCst);
            }
            429 if !is_exhausted(&answer) => {
                assert_eq!(answer.header("retry-after"), Some("5"), "{}", answer.text());
                tally.contended.fetch_add(1, Ordering::SeqCst);
                // Not the five seconds that are asked for: the more there is to refuse, the better.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            _ => {
                assert!(is_exhausted(&answer), "{} {}", answer.status, answer.text());
                tally.exhausted.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

/// So many agents at once, each with what `ask` makes for its number.
async fn all_spend(scene: &Budgeted, agents: usize, ask: impl Fn(usize) -> Ask) -> Tally {
    let tally = Tally::default();
    let spender = scene.spender();
    let asks: Vec<Ask> = (0..agents).map(ask).collect();
    join_all(asks.iter().map(|ask| spend(&spender, ask, &tally))).await;
    assert_eq!(tally.exhausted.load(Ordering::SeqCst), agents);
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_plain_calls_at_once_use_up_a_strict_cap_and_never_exceed_it() {
    let _alone = one_at_a_time("many-agents.lock").await;
    let scene = Budgeted::new(&cap("2.00")).await;
    scene.provider.usually(Conduct::says(400));
    let asks = |number: usize| match number % 4 {
        0 | 1 => Ask::message(&message(SONNET, 500)),
        2 => Ask::chat(&chat("gpt-5", 500)),
        _ => Ask::response(&response("gpt-5", 500)),
    };
    let tally = all_spend(&scene, 200, asks).await;
    let books = scene.agree().await;
    let spent = scene.provider.truth.total();
    assert!(spent <= usd("2.00"), "{spent} {tally:?}");
    assert!(spent * 100 >= usd("2.00") * 93, "{spent} {tally:?}");
    assert_eq!(books.served().len(), tally.whole());
    assert!(books.served().iter().all(|row| row.ending() == "complete"));
}

/// Models make hundreds of tokens in a second, not millions; what a provider makes while nobody reads is
/// what the bound of tranches is about.
fn talkative(tokens: u64) -> Conduct {
    Conduct::says(tokens)
        .piece(16)
        .pace(Duration::from_millis(40))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_at_once_use_up_a_cap_and_exceed_it_by_no_more_than_the_stated_bound() {
    let _alone = one_at_a_time("many-agents.lock").await;
    let scene = Budgeted::new(&cap("3.00")).await;
    // Each by a prompt of its own size, by which both sides know it again.
    for agent in 0..200u64 {
        let conduct = talkative(500 + agent % 20 * 100).input(100 + agent);
        scene.provider.on(&format!("agent {agent}"), conduct);
    }
    let mut body = streamed(message(SONNET, 32_000));
    body["messages"][0]["content"] = "So it goes. ".repeat(100).into();
    let ask = |number: usize| Ask::message(&body).call(&format!("agent {number}"));
    let tally = all_spend(&scene, 200, ask).await;
    let books = scene.never_under().await;
    let bills = scene.provider.truth.bills();
    let spent = scene.provider.truth.total();
    // What was made and never seen, beyond the 1,024 tokens that each stream keeps in hand.
    let unseen: u64 = unseen(&bills, &books.served());
    let bound = unseen * 15_000;
    assert!(
        spent <= usd("3.00") + bound,
        "{spent}, bound {bound}, {tally:?}"
    );
    assert!(spent * 100 >= usd("3.00") * 93, "{spent} {tally:?}");
    let whole: Vec<Bill> = bills.into_iter().filter(|bill| bill.whole).collect();
    let exact = books.exact();
    // One may have come to its end in the moment in which it was cut.
    let complete = exact.iter().filter(|row| row.ending() == "complete");
    assert_eq!(complete.count(), tally.whole());
    if whole.len() == exact.len() {
        assert_equal(&whole, &exact);
    }
}

/// A provider does not wait while a stream stands still: what it makes until it is left is in the books.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_fast_model_that_are_cut_are_charged_for_all_that_was_made() {
    // Of 16 at once, each some 9 cents long, half find room.
    let scene = Budgeted::new(&with(&cap("1.20"), "contention: {queue: 1ms}")).await;
    for agent in 0..16u64 {
        let conduct = Conduct::says(6000).input(100 + agent).piece(20);
        let conduct = conduct.pace(Duration::from_millis(10));
        scene.provider.on(&format!("agent {agent}"), conduct);
    }
    let body = streamed(message(SONNET, 32_000));
    let spender = scene.spender();
    let asks: Vec<Ask> = (0..16)
        .map(|number| Ask::message(&body).call(&format!("agent {number}")))
        .collect();
    let answers = join_all(asks.iter().map(|ask| spender.ask(ask))).await;
    let cut = answers
        .iter()
        .filter(|answer| answer.status == 200 && answer.text().contains("\"billing_error\""))
        .count();
    assert!(cut >= 4, "{cut} were cut");
    let books = scene.never_under().await;
    // On a machine that has no time for it, a cut comes later.
    let spent = scene.provider.truth.total();
    assert!(
        spent <= usd("1.30"),
        "{spent} of {} calls",
        books.served().len()
    );
}

/// Tokens of answers that were billed beyond what was booked, prompt by prompt.
fn unseen(bills: &[Bill], rows: &[&Row]) -> u64 {
    let mut made: BTreeMap<u64, u64> = BTreeMap::new();
    for used in bills.iter().flat_map(|bill| &bill.used) {
        *made.entry(used.input).or_default() += used.output;
    }
    for row in rows {
        if let Some(made) = made.get_mut(&row.used().input) {
            *made = made.saturating_sub(row.used().output);
        }
    }
    made.values()
        .map(|unseen| unseen.saturating_sub(1024))
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_strict_mode_streams_cannot_exceed_a_cap_at_all_and_none_is_cut() {
    let _alone = one_at_a_time("many-agents.lock").await;
    let scene = Budgeted::new(&with(&cap("2.00"), "streams: {mode: strict}")).await;
    scene.provider.usually(Conduct::says(500).piece(100));
    let asks = |number: usize| match number % 4 {
        0 => Ask::message(&streamed(message(SONNET, 600))),
        1 => Ask::chat(&streamed(chat("gpt-5", 600))),
        2 => Ask::response(&streamed(response("gpt-5", 600))),
        _ => Ask::gemini(
            "gemini-2.5-pro",
            "streamGenerateContent?alt=sse",
            &contents(600),
        ),
    };
    let tally = all_spend(&scene, 100, asks).await;
    scene.agree().await;
    let spent = scene.provider.truth.total();
    assert!(spent <= usd("2.00"), "{spent} {tally:?}");
    assert!(spent * 100 >= usd("2.00") * 93, "{spent} {tally:?}");
    assert_eq!(tally.cut.load(Ordering::SeqCst), 0);
}

/// As many streams on one connection as HTTP/2 lets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_share_a_connection_share_no_reservation() {
    let gate = Gate::closed();
    let scene = Budgeted::new(&with(
        &cap("0.25"),
        "contention: {queue: 1ms}\nstreams: {mode: strict}",
    ))
    .await;
    scene
        .provider
        .usually(Conduct::says(1000).piece(100).held(1, &gate));
    let connection = scene.proxy.spender().multiplexed(ANTHROPIC).await;
    let ask = Ask::message(&streamed(message(SONNET, 1000)));
    // Each may cost a little more than 2 cents: of 80 at once, 8 to 12 find room.
    let answers = join_all((0..80).map(|_| connection.begin(&ask))).await;
    let admitted = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((8..=12).contains(&admitted), "{admitted}");
    assert!(
        answers
            .iter()
            .all(|answer| [200, 429].contains(&answer.status))
    );
    gate.arrived(admitted).await;
    assert_eq!(gate.came(), admitted, "no more reached the provider");
    gate.open();
    for answer in answers {
        answer.whole().await;
    }
    let books = scene.agree().await;
    assert_eq!(books.served().len(), admitted);
    assert!(scene.provider.truth.total() <= usd("0.25"));
}

/// Reservations are not spend: what was held comes back, and the rest of the cap can be used.
#[tokio::test]
async fn a_call_that_waits_for_others_to_settle_goes_on_when_they_do() {
    let gate = Gate::closed();
    // Room for one reservation of about 2.5 cents, not for two.
    let scene = Budgeted::new(&with(&cap("0.04"), "contention: {queue: 60s}")).await;
    scene.provider.on("first", Conduct::says(10).held(0, &gate));
    let spender = scene.spender();
    let ask = |name: &str| Ask::message(&message(SONNET, 1000)).call(name);
    let (one, two) = (ask("first"), ask("second"));
    let first = spender.ask(&one);
    let second = async {
        gate.arrived(1).await;
        let second = spender.ask(&two);
        tokio::pin!(second);
        // The first holds the room until somebody lets it go: the second cannot be there before.
        let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
        assert!(early.is_err(), "{early:?}");
        assert_eq!(scene.reached(), 1);
        gate.open();
        second.await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(
        (first.status, second.status),
        (200, 200),
        "{}",
        second.text()
    );
    scene.agree().await;
}

#[tokio::test]
async fn tokens_are_counted_with_their_weights() {
    let spec = "
        limits: [{unit: tokens, max: 10000, window: total, weights: {cache_read: 0.1}}]
    ";
    let scene = Budgeted::new(spec).await;
    scene
        .provider
        .usually(Conduct::says(100).input(1000).cached(0, 0, 10_000));
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 100));
    // 1000 + 100 + a tenth of 10,000 each.
    let mut served = 0;
    let last: Value = loop {
        let answer = spender.ask(&ask).await;
        if answer.status != 200 {
            assert_eq!(answer.status, 402, "{}", answer.text());
            break serde_json::from_slice(&answer.body).unwrap();
        }
        served += 1;
    };
    let told = last["error"]["message"].as_str().unwrap();
    assert!(
        told.contains("10000 tokens") || told.contains("10,000 tokens"),
        "{told}"
    );
    assert!((3..=4).contains(&served), "{served}: {told}");
    scene.agree().await;
}

#[tokio::test]
async fn requests_are_counted_too() {
    let scene = Budgeted::new("limits: [{unit: requests, max: 3, window: total}]").await;
    let spender = scene.spender();
    let ask = Ask::chat(&chat("gpt-5", 100));
    for _ in 0..3 {
        assert_eq!(spender.ask(&ask).await.status, 200);
    }
    let refused = spender.ask(&ask).await;
    assert!(is_exhausted(&refused), "{}", refused.text());
    assert_eq!(scene.reached(), 3);
}
