//! The ledger in a file: what it keeps, what it refuses, and who comes first.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::budget::ledger::{Amendment, Patience};
use crate::budget::limit::{GroupBy, Limit, Unit, WindowKind};
use crate::budget::sample::{ask, by_agent, id, labels, limit, need, settlement};
use crate::budget::sqlite_order::Done;
use crate::budget::sqlite_report::By;
use crate::types::cure::Cure;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// A ledger in a directory of its own.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ledger.db")
    }

    fn open(&self) -> Arc<SqliteLedger> {
        SqliteLedger::open(&self.path()).unwrap()
    }
}

/// What counts: settled, reserved, held.
async fn counts(ledger: &SqliteLedger, limit: &Arc<Limit>) -> (u64, u64, u64) {
    let balances = ledger.balances(labels("a"), vec![limit.clone()], Timestamp::now());
    let balance = balances.await.unwrap().remove(0);
    (balance.settled, balance.reserved, balance.held)
}

/// A whole call.
async fn spend(ledger: &SqliteLedger, request: &str, cost: u64, limit: &Arc<Limit>) {
    ledger.reserve(ask(request, cost, &[limit])).await.unwrap();
    ledger.settle(settlement(request, cost)).await.unwrap();
}

fn queued(id: &str, max: u64, queue: Duration) -> Arc<Limit> {
    Arc::new(Limit {
        queue,
        ..limit(id, max)
    })
}

#[tokio::test]
async fn what_is_settled_is_there_when_it_is_opened_again() {
    let scene = Scene::new();
    let cap = Arc::new(limit("cap", 1000));
    let ledger = scene.open();
    let balances = ledger.reserve(ask("r1", 300, &[&cap])).await.unwrap();
    assert_eq!((balances[0].reserved, balances[0].remaining()), (300, 700));
    let settled = ledger.settle(settlement("r1", 120)).await.unwrap();
    let after = &settled.balances[0];
    assert_eq!((after.settled, after.reserved), (120, 0));
    ledger.close().await.unwrap();
    let late = ledger.reserve(ask("r2", 1, &[&cap])).await;
    assert!(matches!(late, Err(NotReserved::Unavailable(_))), "{late:?}");
    let again = scene.open();
    assert_eq!(counts(&again, &cap).await, (120, 0, 0));
    let mode = std::fs::metadata(scene.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn contended_is_not_exhausted() {
    let scene = Scene::new();
    let cap = Arc::new(limit("cap", 1000));
    let ledger = scene.open();
    ledger.reserve(ask("r1", 800, &[&cap])).await.unwrap();
    let refused = ledger.reserve(ask("r2", 300, &[&cap])).await;
    assert!(
        matches!(refused, Err(NotReserved::Contended(_))),
        "{refused:?}"
    );
    ledger.settle(settlement("r1", 800)).await.unwrap();
    let refused = ledger.reserve(ask("r2", 300, &[&cap])).await;
    assert!(
        matches!(refused, Err(NotReserved::Exhausted(_))),
        "{refused:?}"
    );
    assert_eq!(counts(&ledger, &cap).await, (800, 0, 0));
}

/// Complaint 1: a key of $10 spent $217, since calls were counted after they were made.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_do_not_get_past_a_cap() {
    let scene = Scene::new();
    let cap = queued("cap", 1_000_000_000, LONG);
    let ledger = scene.open();
    let price = 16_800_000;
    let calls = (0..200).map(|number| {
        let (ledger, cap) = (ledger.clone(), cap.clone());
        tokio::spawn(async move {
            let request = format!("r{number}");
            let mut outcome = ledger.reserve(ask(&request, price, &[&cap])).await;
            // The queue is full: the agent comes again.
            while matches!(outcome, Err(NotReserved::Contended(_))) {
                outcome = ledger.reserve(ask(&request, price, &[&cap])).await;
            }
            match outcome {
                Ok(_) => ledger
                    .settle(settlement(&request, price))
                    .await
                    .map(|_| price)
                    .unwrap(),
                Err(_) => 0,
            }
        })
    });
    let billed: u64 = join_all(calls).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(billed, 59 * price);
    assert_eq!(counts(&ledger, &cap).await, (billed, 0, 0));
}

/// Complaints 3 and 4: spend that was pushed again counted again.
#[tokio::test]
async fn settling_again_changes_nothing_also_after_a_restart() {
    let scene = Scene::new();
    let cap = Arc::new(limit("cap", 1000));
    let ledger = scene.open();
    spend(&ledger, "r1", 300, &cap).await;
    let again = ledger.settle(settlement("r1", 300)).await.unwrap();
    assert!(again.balances.is_empty());
    assert_eq!(counts(&ledger, &cap).await, (300, 0, 0));
    ledger.close().await.unwrap();
    let ledger = scene.open();
    ledger.settle(settlement("r1", 300)).await.unwrap();
    assert_eq!(counts(&ledger, &cap).await, (300, 0, 0));
    let unknown = ledger.settle(settlement("r9", 300)).await.unwrap_err();
    assert!(unknown.0.contains("nothing is reserved"), "{unknown}");
}

/// Complaint 8: budgets of sessions were checked, then added to: parallel calls all passed.
#[tokio::test]
async fn parallel_first_calls_of_one_run_share_its_budget() {
    let scene = Scene::new();
    let cap = Arc::new(Limit {
        window: WindowKind::Execution,
        group_by: Box::new([GroupBy::Execution]),
        ..limit("cap", 100)
    });
    let ledger = scene.open();
    let calls = (0..50).map(|number| {
        let mut ask = ask(&format!("r{number}"), 60, &[&cap]);
        ask.labels.execution = Some("job-1".into());
        ledger.reserve(ask)
    });
    let admitted = join_all(calls)
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    assert_eq!(admitted, 1);
}

/// Complaint 18: spend that waited in a queue was dropped when the process ended.
#[tokio::test]
async fn whatever_was_ordered_before_the_end_is_in_the_books() {
    let scene = Scene::new();
    let cap = Arc::new(limit("cap", 1_000_000));
    let ledger = scene.open();
    let open = (0..100).map(|number| ledger.reserve(ask(&format!("r{number}"), 100, &[&cap])));
    for outcome in join_all(open).await {
        outcome.unwrap();
    }
    // Nobody waits for these answers.
    for number in 0..60 {
        drop(ledger.settle(settlement(&format!("r{number}"), 10)));
    }
    ledger.close().await.unwrap();
    let ledger = scene.open();
    // The forty that were open count as far as they were reserved.
    assert_eq!(counts(&ledger, &cap).await, (600 + 4000, 0, 0));
    let rows = ledger
        .reader()
        .await
        .unwrap()
        .entries(Timestamp::UNIX_EPOCH, 1000)
        .unwrap();
    let orphans = rows
        .iter()
        .filter(|row| &*row.ending == "orphaned" && row.estimated)
        .count();
    assert_eq!((rows.len(), orphans), (100, 40));
}

/// Complaint 19: each of several processes counted for itself.
#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused() {
    let scene = Scene::new();
    let ledger = scene.open();
    let refused = SqliteLedger::open(&scene.path()).unwrap_err();
    assert!(refused.0.contains("in use by another process"), "{refused}");
    assert_eq!(refused.cure(), Cure::Time);
    ledger.close().await.unwrap();
    scene.open();
}

#[tokio::test]
async fn files_of_others_and_of_later_versions_are_refused() {
    let scene = Scene::new();
    std::fs::write(
        scene.path(),
        "not a database at all, but long enough to look at".repeat(40),
    )
    .unwrap();
    let refused = SqliteLedger::open(&scene.path()).unwrap_err();
    assert!(refused.0.contains("is not a ledger"), "{refused}");
    assert_eq!(refused.cure(), Cure::Change);
    std::fs::remove_file(scene.path()).unwrap();
    let other = rusqlite::Connection::open(scene.path()).unwrap();
    other
        .execute_batch("CREATE TABLE songs(name TEXT)")
        .unwrap();
    drop(other);
    let refused = SqliteLedger::open(&scene.path()).unwrap_err();
    assert!(refused.0.contains("another program"), "{refused}");
    assert_eq!(refused.cure(), Cure::Change);
    std::fs::remove_file(scene.path()).unwrap();
    scene.open().close().await.unwrap();
    let later = rusqlite::Connection::open(scene.path()).unwrap();
    later.pragma_update(None, "user_version", 99).unwrap();
    drop(later);
    let refused = SqliteLedger::open(&scene.path()).unwrap_err();
    assert!(refused.0.contains("later version"), "{refused}");
    assert_eq!(refused.cure(), Cure::Change);
    let nowhere = SqliteLedger::open(&scene.dir.path().join("no/ledger.db")).unwrap_err();
    assert!(nowhere.0.contains("directory must be there"), "{nowhere}");
    assert_eq!(nowhere.cure(), Cure::Change);
}

#[tokio::test]
async fn those_who_wait_are_served_in_their_order() {
    let scene = Scene::new();
    let cap = queued("cap", 100, LONG);
    let ledger = scene.open();
    ledger.reserve(ask("r0", 100, &[&cap])).await.unwrap();
    let mut first = ledger.reserve(ask("r1", 60, &[&cap]));
    let mut second = ledger.reserve(ask("r2", 60, &[&cap]));
    let mut third = ledger.reserve(ask("r3", 10, &[&cap]));
    ledger.settle(settlement("r0", 0)).await.unwrap();
    (&mut first).await.unwrap();
    // It would fit, but the second came earlier.
    counts(&ledger, &cap).await;
    assert!((&mut third).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    ledger.settle(settlement("r1", 0)).await.unwrap();
    second.await.unwrap();
    third.await.unwrap();
    assert_eq!(counts(&ledger, &cap).await, (0, 70, 0));
}

#[tokio::test]
async fn one_who_waits_for_a_limit_is_not_in_the_way_on_others() {
    let scene = Scene::new();
    let (own, all) = (
        Arc::new(by_agent((*queued("own", 100, LONG)).clone())),
        queued("all", 1000, LONG),
    );
    let ledger = scene.open();
    ledger.reserve(ask("r0", 100, &[&own, &all])).await.unwrap();
    let waiting = ledger.reserve(ask("r1", 100, &[&own, &all]));
    let mut other = ask("r2", 100, &[&own, &all]);
    other.labels = labels("b");
    ledger.reserve(other).await.unwrap();
    ledger.settle(settlement("r0", 0)).await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn one_who_leaves_makes_room() {
    let scene = Scene::new();
    let cap = queued("cap", 100, LONG);
    let ledger = scene.open();
    ledger.reserve(ask("r0", 50, &[&cap])).await.unwrap();
    let big = ledger.reserve(ask("r1", 100, &[&cap]));
    let small = ledger.reserve(ask("r2", 50, &[&cap]));
    drop(big);
    small.await.unwrap();
    // Reserved for somebody who does not hear of it any more.
    drop(ledger.reserve(ask("r3", 0, &[&cap])));
    let gone = ledger.settle(settlement("r3", 0)).await.unwrap_err();
    assert!(gone.0.contains("nothing is reserved"), "{gone}");
    assert_eq!(counts(&ledger, &cap).await, (0, 100, 0));
}

#[tokio::test]
async fn nobody_waits_longer_than_was_said_and_no_more_than_may() {
    let scene = Scene::new();
    let cap = Arc::new(Limit {
        waiters: 2,
        ..(*queued("cap", 100, LONG)).clone()
    });
    let ledger = scene.open();
    ledger.reserve(ask("r0", 100, &[&cap])).await.unwrap();
    let impatient = Ask {
        patience: Patience::UpTo(Duration::from_millis(20)),
        ..ask("r1", 10, &[&cap])
    };
    let refused = ledger.reserve(impatient).await;
    assert!(
        matches!(refused, Err(NotReserved::Contended(_))),
        "{refused:?}"
    );
    let waiting = [
        ledger.reserve(ask("r2", 10, &[&cap])),
        ledger.reserve(ask("r3", 10, &[&cap])),
    ];
    let refused = ledger.reserve(ask("r4", 10, &[&cap])).await;
    assert!(
        matches!(refused, Err(NotReserved::Contended(_))),
        "{refused:?}"
    );
    ledger.settle(settlement("r0", 0)).await.unwrap();
    for outcome in join_all(waiting).await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn no_agent_fills_the_whole_queue_of_a_shared_pot() {
    let scene = Scene::new();
    let cap = Arc::new(Limit {
        waiters: 4,
        ..(*queued("cap", 100, LONG)).clone()
    });
    let ledger = scene.open();
    ledger.reserve(ask("r0", 100, &[&cap])).await.unwrap();
    let waiting = ["r1", "r2", "r3"].map(|request| ledger.reserve(ask(request, 10, &[&cap])));
    let refused = ledger.reserve(ask("r4", 10, &[&cap])).await;
    assert!(
        matches!(refused, Err(NotReserved::Contended(_))),
        "{refused:?}"
    );
    let other = ledger.reserve(Ask {
        labels: labels("b"),
        ..ask("r5", 10, &[&cap])
    });
    ledger.settle(settlement("r0", 0)).await.unwrap();
    for outcome in join_all(waiting).await {
        outcome.unwrap();
    }
    other.await.unwrap();
}

#[tokio::test]
async fn a_call_under_way_gets_more_before_a_new_one_starts() {
    let scene = Scene::new();
    let cap = queued("cap", 100, LONG);
    let ledger = scene.open();
    ledger.reserve(ask("r0", 50, &[&cap])).await.unwrap();
    ledger.reserve(ask("r1", 40, &[&cap])).await.unwrap();
    let waiting = ledger.reserve(ask("r2", 30, &[&cap]));
    ledger
        .extend(id("r1"), need(10), Duration::ZERO)
        .await
        .unwrap();
    let refused = ledger
        .extend(id("r1"), need(10), Duration::from_millis(10))
        .await;
    assert!(
        matches!(refused, Err(NotReserved::Contended(_))),
        "{refused:?}"
    );
    let never = ledger.extend(id("r1"), need(51), LONG).await;
    assert!(matches!(never, Err(NotReserved::Exhausted(_))), "{never:?}");
    let more = ledger.extend(id("r1"), need(20), LONG);
    ledger.shrink(id("r0"), need(30));
    more.await.unwrap();
    assert_eq!(counts(&ledger, &cap).await, (0, 100, 0));
    ledger.settle(settlement("r1", 70)).await.unwrap();
    assert!(waiting.now_or_never().is_none());
}

/// Everybody is served in the end, however limits overlap: no deadlock, nobody left behind.
#[tokio::test(flavor = "multi_thread")]
async fn overlapping_limits_serve_everybody() {
    let scene = Scene::new();
    let limits: Vec<Arc<Limit>> = (0..4)
        .map(|n| queued(&format!("cap{n}"), 100, LONG))
        .collect();
    let ledger = scene.open();
    let calls = (0..240u64).map(|number| {
        let (ledger, limits) = (ledger.clone(), limits.clone());
        tokio::spawn(async move {
            let own = [
                &limits[number as usize % 4],
                &limits[(number as usize / 4) % 4],
            ];
            let request = format!("r{number}");
            let cost = 20 + (number * 7) % 80;
            let outcome = ledger.reserve(ask(&request, cost, &own)).await;
            if let Err(refused) = outcome {
                // More than may wait at once; nothing else.
                assert!(matches!(refused, NotReserved::Contended(_)), "{refused}");
                return 0;
            }
            tokio::task::yield_now().await;
            ledger.settle(settlement(&request, 0)).await.unwrap();
            1
        })
    });
    let calls = tokio::time::timeout(LONG, join_all(calls)).await.unwrap();
    let served: u32 = calls.into_iter().map(Result::unwrap).sum();
    assert!(served >= 64, "{served}");
    for limit in &limits {
        assert_eq!(counts(&ledger, limit).await, (0, 0, 0));
    }
}

#[tokio::test]
async fn editing_a_limit_never_resets_what_was_spent() {
    let scene = Scene::new();
    let ledger = scene.open();
    let before = Arc::new(limit("before", 1000));
    spend(&ledger, "r1", 300, &before).await;
    ledger.reserve(ask("r2", 50, &[&before])).await.unwrap();
    ledger.close().await.unwrap();
    let ledger = scene.open();
    ledger.reserve(ask("r3", 70, &[&before])).await.unwrap();
    let week = Arc::new(Limit {
        window: WindowKind::Rolling(Duration::from_secs(7 * 86_400)),
        ..limit("after", 1000)
    });
    assert_eq!(counts(&ledger, &week).await, (350, 70, 0));
    let each = Arc::new(by_agent(limit("each", 1000)));
    assert_eq!(counts(&ledger, &each).await, (350, 70, 0));
    let requests = Arc::new(Limit {
        unit: Unit::Requests,
        ..limit("requests", 1000)
    });
    assert_eq!(counts(&ledger, &requests).await, (2, 1, 0));
    let tokens = Arc::new(Limit {
        unit: Unit::Tokens(Default::default()),
        window: WindowKind::Total,
        ..limit("tokens", 1_000_000)
    });
    assert_eq!(counts(&ledger, &tokens).await, (350_000, 70_000, 0));
    ledger.settle(settlement("r3", 60)).await.unwrap();
    assert_eq!(counts(&ledger, &tokens).await, (410_000, 0, 0));
}

/// Two limits that counted 100; the first was gone while the second counted 30 more, and is back.
async fn gone_for_a_while(ledger: &SqliteLedger) -> (Arc<Limit>, Arc<Limit>) {
    let (one, two) = (Arc::new(limit("one", 1000)), Arc::new(limit("two", 1000)));
    ledger.configure(vec![one.clone(), two.clone()]);
    ledger.reserve(ask("r1", 100, &[&one, &two])).await.unwrap();
    ledger.settle(settlement("r1", 100)).await.unwrap();
    ledger.configure(vec![two.clone()]);
    spend(ledger, "r2", 30, &two).await;
    ledger.configure(vec![one.clone(), two.clone()]);
    (one, two)
}

#[tokio::test]
async fn a_limit_that_was_gone_for_a_while_counts_what_was_spent_meanwhile() {
    let scene = Scene::new();
    let ledger = scene.open();
    let (one, two) = gone_for_a_while(&ledger).await;
    assert_eq!(counts(&ledger, &one).await, (130, 0, 0));
    spend(&ledger, "r3", 5, &one).await;
    assert_eq!(counts(&ledger, &one).await, (135, 0, 0));
    assert_eq!(counts(&ledger, &two).await, (130, 0, 0));
}

#[tokio::test]
async fn an_old_row_counts_in_the_bucket_of_its_time() {
    let scene = Scene::new();
    let ledger = scene.open();
    let now = Timestamp::now();
    let ago = |minutes| now - jiff::SignedDuration::from_mins(minutes);
    let total = Arc::new(Limit {
        window: WindowKind::Total,
        ..limit("total", 1000)
    });
    for (request, minutes, cost) in [("r1", 90, 1), ("r2", 59, 20), ("r3", 30, 300)] {
        let ask = Ask {
            at: ago(minutes),
            ..ask(request, cost, &[&total])
        };
        ledger.reserve(ask).await.unwrap();
        ledger.settle(settlement(request, cost)).await.unwrap();
    }
    let rolling = Arc::new(Limit {
        window: WindowKind::Rolling(Duration::from_secs(3600)),
        ..limit("rolling", 1000)
    });
    assert_eq!(counts(&ledger, &rolling).await, (320, 0, 0));
    let later = ledger.balances(
        labels("a"),
        vec![rolling],
        now + jiff::SignedDuration::from_mins(15),
    );
    assert_eq!(later.await.unwrap()[0].settled, 300);
}

#[tokio::test]
async fn a_threshold_is_told_once_also_across_restarts() {
    let scene = Scene::new();
    let cap = Arc::new(Limit {
        alerts: Box::new([50, 80]),
        ..limit("cap", 100)
    });
    let told = async |request: &str, cost| {
        let ledger = scene.open();
        ledger.reserve(ask(request, cost, &[&cap])).await.unwrap();
        let settled = ledger.settle(settlement(request, cost)).await.unwrap();
        ledger.close().await.unwrap();
        settled
            .alerts
            .iter()
            .map(|(_, percent)| *percent)
            .collect::<Vec<u8>>()
    };
    assert_eq!(told("r1", 60).await, [50]);
    assert_eq!(told("r2", 10).await, [0; 0]);
    assert_eq!(told("r3", 10).await, [80]);
}

#[tokio::test]
async fn an_operator_raises_and_resets_and_both_outlive_the_process() {
    let scene = Scene::new();
    let ledger = scene.open();
    let cap = Arc::new(limit("cap", 100));
    spend(&ledger, "r1", 100, &cap).await;
    let change = |amendment| Change {
        limit: cap.clone(),
        scope: None,
        amendment,
        reason: "the release".into(),
        who: "ops".into(),
    };
    let raise = Amendment::Raise {
        by: 50,
        until: None,
    };
    let raised = ledger.amend(change(raise)).await;
    assert_eq!(raised, Ok(Amended { old: 100, new: 150 }));
    ledger.close().await.unwrap();
    let ledger = scene.open();
    spend(&ledger, "r2", 50, &cap).await;
    let full = ledger.reserve(ask("r3", 1, &[&cap])).await;
    assert!(matches!(full, Err(NotReserved::Exhausted(_))), "{full:?}");
    // A call of the same millisecond counts when a limit is added up anew: rather twice than not at all.
    let spent = Timestamp::now().as_millisecond();
    while Timestamp::now().as_millisecond() == spent {
        tokio::task::yield_now().await;
    }
    let reset = ledger.amend(change(Amendment::Reset)).await;
    assert_eq!(reset, Ok(Amended { old: 150, new: 0 }));
    assert_eq!(counts(&ledger, &cap).await, (0, 0, 0));
    let audit = ledger.reader().await.unwrap().amendments(10).unwrap();
    let told: Vec<_> = audit
        .iter()
        .map(|row| (&*row.kind, row.old, row.new))
        .collect();
    assert_eq!(told, [("reset", 150, 0), ("raise", 100, 150)]);
    assert_eq!((&*audit[1].reason, &*audit[1].who), ("the release", "ops"));
    assert_eq!(audit[1].by, Some(50));
    // Nor does it come back when the limit is edited.
    let edited = Arc::new(Limit {
        budget: cap.budget.clone(),
        ..limit("cap2", 100)
    });
    assert_eq!(counts(&ledger, &edited).await, (0, 0, 0));
    let audit = rusqlite::Connection::open(scene.path()).unwrap();
    let sql = "SELECT group_concat(budget || ' ' || kind || ' ' || reason || ' ' || who, '; ') FROM amendment";
    let text: String = audit.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(
        text,
        "budget-cap raise the release ops; budget-cap reset the release ops"
    );
}

#[tokio::test]
async fn reports_add_up_what_was_spent_and_tell_where_limits_stand() {
    let scene = Scene::new();
    let ledger = scene.open();
    let cap = Arc::new(by_agent(limit("cap", 1000)));
    spend(&ledger, "r1", 300, &cap).await;
    let mut other = ask("r2", 50, &[&cap]);
    other.labels = labels("team-b/bot");
    ledger.reserve(other).await.unwrap();
    ledger.settle(settlement("r2", 40)).await.unwrap();
    ledger.reserve(ask("r3", 10, &[&cap])).await.unwrap();
    let question = |by| Question {
        by,
        from: None,
        until: None,
        agent: None,
    };
    let rows = ledger.spend(question(By::Agent)).await.unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (&*row.key, row.requests, row.cost))
        .collect();
    assert_eq!(rows, [("a", 1, 300), ("team-b/bot", 1, 40)]);
    let rows = ledger.spend(question(By::Credential)).await.unwrap();
    assert_eq!(
        (&*rows[0].key, rows[0].requests, rows[0].cost),
        ("anthropic", 2, 340)
    );
    assert_eq!(ledger.spend(question(By::Day)).await.unwrap().len(), 1);
    let standing = ledger.standing().await.unwrap();
    let lines: Vec<_> = standing
        .iter()
        .map(|s| (&*s.scope, s.settled, s.reserved, s.max))
        .collect();
    assert_eq!(
        lines,
        [
            ("agent=a", 300, 10, 1000),
            ("agent=team-b/bot", 40, 0, 1000)
        ]
    );
    // Another process reads the same, while this one writes.
    let read = LedgerReader::open(&scene.path())
        .unwrap()
        .standing(Timestamp::now())
        .unwrap();
    assert_eq!(read, standing);
}

/// Two answers that told `prompt_tokens: 18446744073709551615` were enough to end every report.
#[tokio::test]
async fn counts_that_no_model_ever_had_keep_nobody_from_the_books() {
    let scene = Scene::new();
    let ledger = scene.open();
    for request in ["r1", "r2"] {
        spend_beside(&ledger, request, u64::MAX).await;
    }
    ledger.fold().await.unwrap();
    let tables = rusqlite::Connection::open(scene.path()).unwrap();
    let sql = "SELECT max(input), max(cost) FROM entry";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let most = tables.query_row(sql, [], read).unwrap();
    assert_eq!(most, (1 << 50, 1 << 50));
    // As versions before wrote them.
    let sql = "UPDATE entry SET input = ?1, output = ?1, cost = ?1";
    tables.execute(sql, [i64::MAX]).unwrap();
    spend_beside(&ledger, "r3", 7).await;
    let question = Question {
        by: By::Agent,
        from: None,
        until: None,
        agent: None,
    };
    let rows = ledger.spend(question).await.unwrap();
    let sums = (rows[0].requests, rows[0].usage.total_output(), rows[0].cost);
    assert_eq!(sums, (3, i64::MAX.unsigned_abs(), i64::MAX.unsigned_abs()));
    // A limit that is new adds them up, too.
    let cap = Arc::new(limit("cap", 1000));
    let (settled, ..) = counts(&ledger, &cap).await;
    assert!(settled >= i64::MAX.unsigned_abs(), "{settled}");
}

/// A whole call that no limit counts.
async fn spend_beside(ledger: &SqliteLedger, request: &str, cost: u64) {
    ledger.reserve(ask(request, 1, &[])).await.unwrap();
    ledger.settle(settlement(request, cost)).await.unwrap();
}

/// An hour of `sqlite3 ledger.db 'BEGIN IMMEDIATE'` in a forgotten terminal.
#[tokio::test]
async fn whoever_keeps_the_tables_to_itself_keeps_nobody_waiting() {
    let scene = Scene::new();
    let ledger = scene.open();
    spend_beside(&ledger, "r0", 1).await;
    ledger.fold().await.unwrap();
    let other = rusqlite::Connection::open(scene.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = std::time::Instant::now();
    for number in 0..12 {
        // Each asks the thread twice: what was spent before, and that the disk has it.
        let cap = Arc::new(limit(&format!("cap-{number}"), 1000));
        spend(&ledger, &format!("r{}", number + 1), 10, &cap).await;
    }
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(25),
        "{took:?}: five seconds each"
    );
    assert!(ledger.fold().await.is_err(), "a report would lack them");
    other.execute_batch("ROLLBACK").unwrap();
    while ledger.fold().await.is_err() {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sql = "SELECT count(*) FROM entry";
    let rows: i64 = other.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 13);
}

#[tokio::test]
async fn more_than_a_file_of_the_journal_may_hold_is_written_all_the_same() {
    let scene = Scene::new();
    let ledger = scene.open();
    ledger.desk.lock().unwrap().journal.most = 2000;
    spend_beside(&ledger, "r1", 1).await;
    ledger.reserve(ask("r2", 1, &[])).await.unwrap();
    let mut large = settlement("r2", 1);
    large.charges = vec![large.charges.remove(0); 60];
    let refused = ledger.settle(large).await.unwrap_err();
    assert!(refused.0.contains("cannot be written"), "{refused}");
    let begun = std::time::Instant::now();
    while ledger.health().is_err() {
        assert!(begun.elapsed() < LONG, "{:?}", ledger.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ledger.desk.lock().unwrap().journal.most = u64::MAX;
    spend_beside(&ledger, "r3", 1).await;
    ledger.close().await.unwrap();
    let question = Question {
        by: By::Agent,
        from: None,
        until: None,
        agent: None,
    };
    let rows = LedgerReader::open(&scene.path()).unwrap().spend(&question);
    let rows = rows.unwrap();
    assert_eq!((rows[0].requests, rows[0].cost), (3, 62));
}

#[tokio::test]
async fn a_ledger_whose_file_is_taken_away_gives_nothing_out() {
    let scene = Scene::new();
    let ledger = scene.open();
    let cap = Arc::new(limit("cap", 1000));
    ledger.reserve(ask("r1", 100, &[&cap])).await.unwrap();
    let aside = scene.dir.path().join("aside.db");
    std::fs::rename(scene.path(), &aside).unwrap();
    // It is seen within a moment; what passes until then is in the journal.
    let mut passed = Vec::new();
    let refused = loop {
        let request = format!("until-{}", passed.len());
        match ledger.reserve(ask(&request, 0, &[&cap])).await {
            Ok(_) => passed.push(request),
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(refused, NotReserved::Unavailable(_)),
        "{refused:?}"
    );
    let kept = ledger.settle(settlement("r1", 70)).await.unwrap_err();
    assert!(kept.0.contains("removed or replaced"), "{kept}");
    assert!(ledger.health().is_err());
    std::fs::rename(&aside, scene.path()).unwrap();
    ledger.reserve(ask("r3", 10, &[&cap])).await.unwrap();
    assert_eq!(ledger.health(), Ok(()));
    for request in passed {
        ledger.settle(settlement(&request, 0)).await.unwrap();
    }
    ledger.close().await.unwrap();
    assert_eq!(counts(&scene.open(), &cap).await, (80, 0, 0));
}

#[tokio::test]
async fn a_count_that_was_dropped_and_is_there_anew_can_be_written_and_read() {
    let scene = Scene::new();
    let ledger = scene.open();
    let cap = Arc::new(limit("cap", 1000));
    spend(&ledger, "r1", 100, &cap).await;
    ledger.fold().await.unwrap();
    {
        let mut desk = ledger.desk.lock().unwrap();
        // Long after its day, and nobody told the tables yet.
        desk.book.drop_idle(i64::MAX, 0);
        assert!(!desk.book.changes.gone.is_empty());
    }
    assert_eq!(counts(&ledger, &cap).await, (100, 0, 0));
    ledger.fold().await.unwrap();
    ledger.close().await.unwrap();
    assert_eq!(counts(&scene.open(), &cap).await, (100, 0, 0));
}

#[tokio::test]
async fn a_limit_that_was_gone_for_a_while_is_added_up_anew_also_after_a_restart() {
    let scene = Scene::new();
    let ledger = scene.open();
    let (one, two) = gone_for_a_while(&ledger).await;
    ledger.fold().await.unwrap();
    // Nobody asked for it since it is back.
    ledger.close().await.unwrap();
    let again = scene.open();
    again.configure(vec![one.clone(), two.clone()]);
    assert_eq!(counts(&again, &one).await, (130, 0, 0));
}

#[tokio::test]
async fn those_who_wait_when_it_is_closed_hear_of_it() {
    let scene = Scene::new();
    let ledger = scene.open();
    let cap = queued("cap", 100, Duration::from_secs(600));
    ledger.reserve(ask("r1", 100, &[&cap])).await.unwrap();
    let waiting = ledger.reserve(ask("r2", 100, &[&cap]));
    ledger.close().await.unwrap();
    let refused = waiting.await.unwrap_err();
    assert!(
        matches!(refused, NotReserved::Unavailable(_)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn whoever_waits_for_the_disk_is_told_when_the_thread_that_asks_it_is_gone() {
    let scene = Scene::new();
    let file = LedgerFile::open(&scene.path(), None).unwrap();
    let journal = Journal::start(&scene.path(), 0).unwrap();
    let (bell, _orders) = channel();
    let mut desk = Desk::new(Book::default(), journal, file.place.clone(), bell);
    let (reply, answer) = oneshot::channel();
    desk.unsynced.push(Done::Settled(Settled::default(), reply));
    let desk = Arc::new(Mutex::new(desk));
    let end = ThreadEnd(desk.clone());
    let thread = std::thread::spawn(move || {
        let _end = end;
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    let told = tokio::time::timeout(LONG, answer).await.expect("an answer");
    let error = told.unwrap().unwrap_err().to_string();
    assert!(error.contains("start this process again"), "{error}");
    let health = desk.lock().unwrap().health();
    assert!(health.is_err(), "nothing can be written any more");
}
