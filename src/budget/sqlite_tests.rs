//! The ledger in a file: what it refuses, what it keeps, and what it makes of a file it finds.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::budget::ledger::{Amendment, Patience};
use crate::budget::limit::Limit;
use crate::budget::sample::{ask, id, labels, limit, need, settlement};
use crate::budget::sqlite_report::By;

/// A ledger in a directory of its own.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("ledger.db")
    }

    fn open(&self) -> Arc<SqliteLedger> {
        SqliteLedger::open(&self.path()).unwrap()
    }
}

async fn balance(ledger: &SqliteLedger, limit: &Arc<Limit>) -> Balance {
    let balances = ledger.balances(labels("a"), vec![limit.clone()], Timestamp::now());
    balances.await.unwrap().remove(0)
}

/// What counts: settled, reserved, held.
async fn counts(ledger: &SqliteLedger, limit: &Arc<Limit>) -> (u64, u64, u64) {
    let balance = balance(ledger, limit).await;
    (balance.settled, balance.reserved, balance.held)
}

#[tokio::test]
async fn what_is_settled_is_there_when_it_is_opened_again() {
    let scene = Scene::new();
    let cap = Arc::new(limit("cap", 1000));
    let ledger = scene.open();
    let balances = ledger.reserve(ask("r1", 300, &[&cap])).await.unwrap();
    assert_eq!((balances[0].reserved, balances[0].remaining()), (300, 700));
    let settled = ledger.settle(settlement("r1", 120)).await.unwrap();
    assert_eq!(
        (settled.balances[0].settled, settled.balances[0].reserved),
        (120, 0)
    );
    ledger.close().await.unwrap();
    assert!(ledger.reserve(ask("r2", 1, &[&cap])).await.is_err());
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
