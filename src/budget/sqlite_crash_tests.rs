//! The ledger after its process was killed, and after the machine went down.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::budget::sample::{ask, labels, limit, settlement};

const CHILD: &str = "TOLLGATE_TEST_LEDGER";

/// The books of the child: an amount that it never comes near.
fn cap() -> Arc<Limit> {
    Arc::new(limit("cap", 1_000_000_000))
}

async fn balance(ledger: &SqliteLedger, cap: &Arc<Limit>) -> Balance {
    let balances = ledger.balances(labels("a"), vec![cap.clone()], Timestamp::now());
    balances.await.unwrap().remove(0)
}

/// Not a test of its own: what `kill_9_loses_nothing_that_was_acknowledged` kills.
#[tokio::test]
async fn child() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let ledger = SqliteLedger::open(Path::new(&path)).unwrap();
    let run = std::process::id();
    let clients = (0..16).map(|client| {
        let ledger = ledger.clone();
        async move {
            for number in 0..u64::MAX {
                let request = format!("{run}-{client}-{number}");
                ledger.reserve(ask(&request, 100, &[&cap()])).await.unwrap();
                say(&format!("reserved {request}"));
                let cost = number % 100;
                ledger.settle(settlement(&request, cost)).await.unwrap();
                say(&format!("settled {request} {cost}"));
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

/// Whole lines, at once: nothing of it stays in the process.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[tokio::test]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut known: HashMap<String, u64> = HashMap::new();
    for run in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "budget::sqlite::crash_tests::child",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let first = lines.by_ref().take(150 + run * 37);
        first.for_each(|line| note(&mut known, &line));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| note(&mut known, &line));
        let ledger = SqliteLedger::open(&path).unwrap();
        let least: u64 = known.values().sum();
        let found = balance(&ledger, &cap()).await;
        assert_eq!((found.reserved, found.held), (0, 0));
        // It is over by what was reserved: at most one call of each client.
        let most = least + 16 * 100;
        assert!(
            (least..=most).contains(&found.settled),
            "{least}..={most}: {}",
            found.settled
        );
        let rows = ledger
            .reader()
            .await
            .unwrap()
            .entries(Timestamp::UNIX_EPOCH, u32::MAX)
            .unwrap();
        known = rows
            .iter()
            .map(|row| (row.request.to_string(), row.cost))
            .collect();
        assert_eq!(known.values().sum::<u64>(), found.settled);
        ledger.close().await.unwrap();
    }
    assert!(known.len() > 1000, "{}", known.len());
}

/// What the provider bills, whether the child still heard of it or not.
fn note(known: &mut HashMap<String, u64>, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    match *words {
        ["reserved", request] => {
            let number: u64 = request.rsplit('-').next().unwrap().parse().unwrap();
            known.insert(request.to_owned(), number % 100)
        }
        ["settled", request, cost] => known.insert(request.to_owned(), cost.parse().unwrap()),
        _ => None,
    };
}

/// The files as the disk has them: what was written up to the last time that it was waited for.
fn disk(path: &Path, copy: &Path) {
    for end in ["", "-wal", ".journal-1", ".journal-2"] {
        let name = |path: &Path| format!("{}{end}", path.display());
        std::fs::copy(name(path), name(copy)).unwrap();
    }
}

#[tokio::test]
async fn a_loss_of_power_gives_nothing_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let cap = Arc::new(limit("cap", 100_000));
    let ledger = SqliteLedger::open_on(&path, Some("boot-1")).unwrap();
    let (mut spent, mut seen, mut times) = (0, 0, 0);
    for number in 0..120u64 {
        let request = format!("r{number}");
        let reserved = 50 + number % 7 * 20;
        ledger
            .reserve(ask(&request, reserved, &[&cap]))
            .await
            .unwrap();
        spent += reserved / 2;
        let durable = ledger.desk.lock().unwrap().syncs;
        if durable != seen {
            (seen, times) = (durable, times + 1);
            disk(&path, &dir.path().join("durable.db"));
        }
        ledger
            .settle(settlement(&request, reserved / 2))
            .await
            .unwrap();
        if number % 10 != 9 {
            continue;
        }
        // The power fails here. Nothing of what came after the last wait for the disk is there.
        let lost = dir.path().join(format!("lost-{number}.db"));
        disk(&dir.path().join("durable.db"), &lost);
        let ledger = SqliteLedger::open_on(&lost, Some("boot-2")).unwrap();
        let found = balance(&ledger, &cap).await;
        let taken = found.settled + found.held;
        assert!(taken >= spent, "{taken} of {spent} after {number}");
        // Two in a hundred of the limit, and the call that was under way.
        assert!(
            taken <= spent + 2000 + 170,
            "{taken} of {spent} after {number}"
        );
        ledger.close().await.unwrap();
        let again = SqliteLedger::open_on(&lost, Some("boot-3")).unwrap();
        assert_eq!(
            balance(&again, &cap).await.held,
            found.held,
            "a clean end holds nothing more"
        );
    }
    assert!(
        (2..40).contains(&times),
        "the disk was waited for {times} times"
    );
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn what_is_held_after_a_loss_of_power_is_free_when_the_window_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let cap = Arc::new(limit("cap", 100_000));
    let ledger = SqliteLedger::open_on(&path, Some("boot-1")).unwrap();
    ledger.reserve(ask("r1", 500, &[&cap])).await.unwrap();
    let lost = dir.path().join("lost.db");
    disk(&path, &lost);
    let found = SqliteLedger::open_on(&lost, None).unwrap();
    let today = balance(&found, &cap).await;
    assert_eq!((today.settled, today.held), (500, 2000));
    let tomorrow = Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let next = found
        .balances(labels("a"), vec![cap.clone()], tomorrow)
        .await
        .unwrap();
    assert_eq!((next[0].settled, next[0].held), (0, 0));
}
