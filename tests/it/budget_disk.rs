//! The ledger gives nothing out that it cannot write, loses nothing meanwhile, and goes on by itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tollgate::budget::ledger::{
    Ask, Balance, Ending, HoldId, Ledger, NotReserved, Patience, Settlement,
};
use tollgate::budget::limit::{Enforcement, Labels, Limit, Period, Selector, Unit, WindowKind};
use tollgate::budget::sqlite::SqliteLedger;
use tollgate::types::agent::Agent;
use tollgate::types::charge::{Charge, Need};
use tollgate::types::money::NanoUsd;
use tollgate::types::usage::Usage;

use crate::support::volume::Volume;

/// Ten dollars each month, which no call here comes near.
fn cap() -> Arc<Limit> {
    Arc::new(Limit {
        budget: "cap".into(),
        id: "cap".into(),
        selector: Selector::default(),
        unit: Unit::Usd,
        max: 10 * NanoUsd::DOLLAR,
        window: WindowKind::Calendar(Period::Month, TimeZone::UTC),
        group_by: Box::new([]),
        enforcement: Enforcement::Hard,
        carry_debt: false,
        alerts: Box::new([]),
        queue: Duration::ZERO,
        waiters: 64,
        exhausted_status: None,
    })
}

fn labels() -> Labels {
    Labels {
        agent: Agent::parse("bot").unwrap(),
        execution: None,
        host: "api.anthropic.com".into(),
        model: "claude".into(),
    }
}

fn id(request: &str) -> HoldId {
    HoldId {
        request: request.into(),
        attempt: 1,
    }
}

async fn reserve(ledger: &SqliteLedger, request: &str) -> Result<Vec<Balance>, NotReserved> {
    let ask = Ask {
        id: id(request),
        at: Timestamp::now(),
        labels: labels(),
        limits: vec![cap()],
        need: Need {
            cost: NanoUsd(1000),
            input: 1,
            output: 1,
        },
        patience: Patience::Queue,
        unwritten: NanoUsd(0),
    };
    ledger.reserve(ask).await
}

fn cost(request: &str, nano: u64) -> Settlement {
    let charge = Charge {
        model: "claude".into(),
        usage: Usage::default(),
        fees: Vec::new(),
        cost: NanoUsd(nano),
    };
    Settlement {
        id: id(request),
        charges: vec![charge],
        estimated: false,
        ending: Ending::Complete,
        prices: [1; 32],
        credential: None,
    }
}

async fn counts(ledger: &SqliteLedger) -> (u64, u64) {
    let balances = ledger.balances(labels(), vec![cap()], Timestamp::now());
    let balance = balances.await.unwrap().remove(0);
    (balance.settled, balance.reserved)
}

#[tokio::test]
async fn a_full_disk_stops_reservations_and_loses_no_settlement() {
    let Some(volume) = Volume::mounted(1024) else {
        return;
    };
    let path = volume.file("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    reserve(&ledger, "before").await.unwrap();
    volume.fill();
    // What fits into the pages that are there already may still go through.
    let mut open = vec!["before".to_owned()];
    let error = loop {
        let request = format!("r{}", open.len());
        match reserve(&ledger, &request).await {
            Ok(_) => open.push(request),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, NotReserved::Unavailable(_)), "{error}");
    let told = error.to_string();
    assert!(
        told.contains("make room") && told.contains("ledger.db"),
        "{told}"
    );
    assert!(ledger.health().is_err());
    for request in &open {
        ledger.settle(cost(request, 400)).await.unwrap_err();
    }
    let spent = 400 * open.len() as u64;
    assert_eq!(counts(&ledger).await, (spent, 0));
    reserve(&ledger, "still full").await.unwrap_err();
    volume.make_room();
    reserve(&ledger, "after").await.unwrap();
    assert_eq!(ledger.health(), Ok(()));
    ledger.settle(cost("after", 100)).await.unwrap();
    ledger.close().await.unwrap();
    let again = SqliteLedger::open(&path).unwrap();
    assert_eq!(counts(&again).await, (spent + 100, 0));
}

#[tokio::test]
async fn a_read_only_disk_is_told_of_at_the_start() {
    let Some(volume) = Volume::mounted(1024) else {
        return;
    };
    let path = volume.file("ledger.db");
    SqliteLedger::open(&path).unwrap().close().await.unwrap();
    volume.remount("ro").await;
    let refused = SqliteLedger::open(&path).unwrap_err();
    assert!(refused.0.contains("writable"), "{refused}");
    volume.remount("rw").await;
    let ledger = SqliteLedger::open(&path).unwrap();
    reserve(&ledger, "r1").await.unwrap();
    ledger.close().await.unwrap();
}
