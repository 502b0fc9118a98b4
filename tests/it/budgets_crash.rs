//! Books outlive the process: killed at any moment, it never knows of less than was spent, and of more
//! only by what was under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::budgeted::{Budgeted, cap, is_exhausted};
use crate::support::clients::one_at_a_time;
use crate::support::operator::{PATIENCE, until};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, Spender, chat, message, streamed};

const SONNET: &str = "claude-sonnet-4-5";

/// Agents that never rest, whatever becomes of the proxy, until there is no more of it.
struct Load {
    door: watch::Sender<Spender>,
    /// Answers that came whole.
    served: Arc<AtomicUsize>,
    agents: JoinSet<()>,
}

impl Load {
    fn of(agents: usize, spender: Spender) -> Self {
        let (door, seen) = watch::channel(spender);
        let served = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        for number in 0..agents {
            running.spawn(work(number, seen.clone(), served.clone()));
        }
        Self {
            door,
            served,
            agents: running,
        }
    }

    /// Each agent ends once its last answer has come.
    async fn end(self) {
        let Self { door, agents, .. } = self;
        drop(door);
        agents.join_all().await;
    }

    /// Waits until so many more were served, from a request that may have begun before.
    async fn serves(&self, more: usize) {
        let wanted = self.served.load(Ordering::SeqCst) + more;
        let enough = async || self.served.load(Ordering::SeqCst) >= wanted;
        until("the agents are served", PATIENCE, enough).await;
    }
}

async fn work(number: usize, door: watch::Receiver<Spender>, served: Arc<AtomicUsize>) {
    let ask = match number % 3 {
        0 => Ask::message(&message(SONNET, 400)),
        1 => Ask::message(&streamed(message(SONNET, 8000))),
        _ => Ask::chat(&streamed(chat("gpt-5", 400))),
    };
    while door.has_changed().is_ok() {
        let spender = door.borrow().clone();
        if let Ok(mut answer) = spender.try_begin(&ask).await {
            answer.rest().await;
            if answer.status == 200 && !answer.cut {
                served.fetch_add(1, Ordering::SeqCst);
                continue;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_under_load_the_books_are_the_truth_or_more_by_what_was_under_way() {
    let _alone = one_at_a_time("many-agents.lock").await;
    let mut scene = Budgeted::before(Provider::http1().await, &cap("1000.00")).await;
    let conduct = Conduct::says(300).piece(10).pace(Duration::from_millis(5));
    scene.provider.usually(conduct);
    let load = Load::of(24, scene.spender());
    let mut stranded = BTreeMap::new();
    for kill in 0..20u64 {
        load.serves(8).await;
        // At another point of the calls each time.
        tokio::time::sleep(Duration::from_millis(kill * 7 % 40)).await;
        scene.proxy.kill().await;
        for open in scene.proxy.books().reservations {
            stranded.insert(open.text("rid").to_owned(), open.cost());
        }
        scene.proxy.restart().await;
        load.door.send_replace(scene.spender());
    }
    load.end().await;
    scene.provider.truth.idle().await;
    let books = scene.proxy.books_of(0).await;
    assert!(!stranded.is_empty(), "nothing was ever under way");
    // Each call that was open at a kill is charged as it was reserved just then, and no other is.
    let orphans = books.entries.iter();
    let orphans = orphans.filter(|row| row.ending() == "orphaned");
    let orphans: BTreeMap<String, u64> = orphans
        .map(|row| (row.text("rid").to_owned(), row.cost()))
        .collect();
    assert_eq!(orphans, stranded);
    // All others are to the nano-dollar what was billed for them.
    let settled = books.served().into_iter();
    for row in settled.filter(|row| row.ending() != "orphaned") {
        assert_eq!((row.ending(), row.is_estimated()), ("complete", false));
    }
    let (booked, billed) = (books.total(), scene.provider.truth.total());
    let open: u64 = stranded.values().sum();
    assert!(booked >= billed, "{booked} booked, {billed} billed");
    assert!(
        booked <= billed + open,
        "{booked} booked, {billed} billed, {open} open at the kills"
    );
}

#[tokio::test]
async fn a_call_that_was_answered_before_a_kill_is_in_the_books_after_it() {
    let mut scene = Budgeted::new(&cap("10.00")).await;
    for _ in 0..5 {
        let ask = Ask::message(&streamed(message(SONNET, 400)));
        assert_eq!(scene.spender().ask(&ask).await.status, 200);
        // Not a moment after the last piece has come.
        scene.proxy.kill().await;
        let billed = scene.provider.truth.total();
        assert_eq!(scene.proxy.books().total(), billed);
        scene.proxy.restart().await;
        assert_eq!(scene.proxy.books().total(), billed);
    }
    scene.agree().await;
}

#[tokio::test]
async fn a_killed_stream_is_charged_as_it_was_reserved_and_not_given_back() {
    let gate = Gate::closed();
    let mut scene = Budgeted::before(Provider::http1().await, &cap("0.30")).await;
    scene
        .provider
        .usually(Conduct::says(1000).piece(10).held(20, &gate));
    let ask = Ask::message(&streamed(message(SONNET, 2000)));
    let spender = scene.spender();
    let streams = join_all((0..5).map(|_| spender.begin(&ask))).await;
    gate.arrived(5).await;
    scene.proxy.kill().await;
    let under_way = scene.proxy.books().reservations.len();
    assert_eq!(under_way, 5);
    drop(streams);
    scene.provider.truth.idle().await;
    scene.proxy.restart().await;
    let books = scene.never_under().await;
    assert_eq!(books.entries.len(), 5);
    for row in &books.entries {
        assert_eq!((row.ending(), row.is_estimated()), ("orphaned", true));
        // 2000 tokens at 15 dollars a million, and a little for the prompt.
        assert!((usd("0.03")..usd("0.04")).contains(&row.cost()), "{row:?}");
    }
    // What is left is what they did not take: more find room, and not as many as without them.
    gate.open();
    scene.provider.usually(Conduct::says(2000).piece(500));
    let spent = books.total();
    let mut served = 0;
    loop {
        let answer = scene.spender().ask(&ask).await;
        if answer.status != 200 {
            assert!(is_exhausted(&answer), "{}", answer.text());
            break;
        }
        served += 1;
    }
    assert!(served >= 1, "{spent}");
    let books = scene.never_under().await;
    assert!(books.total() <= usd("0.30"), "{}", books.total());
}

/// A killed process and an orderly end come to the same: nothing waits to be written.
#[tokio::test]
async fn an_orderly_end_loses_nothing_either() {
    let gate = Gate::closed();
    let mut scene = Budgeted::new(&cap("10.00")).await;
    scene.provider.on("held", Conduct::says(100).held(5, &gate));
    let spender = scene.spender();
    for _ in 0..10 {
        assert_eq!(
            spender.ask(&Ask::chat(&chat("gpt-5", 100))).await.status,
            200
        );
    }
    let held = spender
        .begin(&Ask::message(&streamed(message(SONNET, 400))).call("held"))
        .await;
    gate.arrived(1).await;
    scene.proxy.terminate().await;
    gate.open();
    let whole = held.whole().await;
    assert!(whole.text().contains("message_stop"), "{}", whole.text());
    scene.proxy.ended().await;
    assert_eq!(scene.proxy.books().total(), scene.provider.truth.total());
    scene.proxy.restart().await;
    scene.agree().await;
}

#[tokio::test]
async fn a_restart_keeps_what_was_spent() {
    let mut scene = Budgeted::new(&cap("0.018")).await;
    scene.provider.usually(Conduct::says(400));
    let ask = Ask::message(&message(SONNET, 400));
    assert_eq!(scene.spender().ask(&ask).await.status, 200);
    for _ in 0..3 {
        let refused = scene.spender().ask(&ask).await;
        assert_eq!(refused.status, 402, "{}", refused.text());
        scene.proxy.kill().await;
        scene.proxy.restart().await;
    }
    assert_eq!(scene.reached(), 1);
    scene.agree().await;
}
