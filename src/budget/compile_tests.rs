//! Which documents become which limits, and what keeps a limit's place in the ledger.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::budget::fixture::{compiled, set};

const DAY: &str = "limits: [{ unit: usd, max: 5, window: { calendar: day } }]";

fn only(metadata: &str, spec: &str) -> Arc<Limit> {
    let set = set(&[(metadata, spec)]);
    set.budgets()[0].limits[0].clone()
}

#[test]
fn what_nobody_wrote_has_its_default() {
    let limit = only("name: daily", DAY);
    assert_eq!(&*limit.budget, "daily");
    assert_eq!((limit.unit, limit.max), (Unit::Usd, 5_000_000_000));
    assert_eq!(
        limit.window,
        WindowKind::Calendar(Period::Day, TimeZone::UTC)
    );
    assert_eq!(*limit.group_by, [GroupBy::Agent]);
    assert_eq!(*limit.alerts, ALERTS);
    assert_eq!((limit.queue, limit.waiters), (Duration::from_secs(20), 64));
    assert_eq!(limit.enforcement, Enforcement::Hard);
}

#[test]
fn a_limit_keeps_its_place_in_the_ledger_while_it_counts_the_same() {
    let spec = |max: &str, agents: &str| {
        format!(
            "match: {{ agents: [{agents}], models: [b, a] }}, limits: [{{ unit: tokens, max: {max}, window: {{ fixed: 6h }} }}]"
        )
    };
    let id = |metadata: &str, spec: &str| only(metadata, spec).id.to_string();
    let first = id("name: n", &spec("1", "x, y/*"));
    assert!(first.starts_with("n tokens fixed 21600s "), "{first}");
    assert_eq!(id("name: n", &spec("2", "y/*, x")), first);
    assert_eq!(
        id(
            "name: n",
            &format!("{}, enforcement: soft, alerts: [7]", spec("2", "x, y/*"))
        ),
        first
    );
    for other in [
        id("name: m", &spec("1", "x, y/*")),
        id("name: n, namespace: s", &spec("1", "x, y/*")),
        id("name: n", &spec("1", "x")),
        id(
            "name: n",
            &spec("1", "x, y/*").replace("fixed: 6h", "rolling: 6h"),
        ),
        id(
            "name: n",
            &spec("1", "x, y/*").replace("6h }", "6h }, weights: { input: 2 }"),
        ),
        id(
            "name: n",
            &spec("1", "x, y/*").replace("models", "groupBy: [none], models"),
        ),
        id(
            "name: n",
            &spec("1", "x, y/*").replace("models", "hosts: [a.com], models"),
        ),
        id("name: n", &spec("1", "x, y/*").replace("tokens", "usd")),
    ] {
        assert_ne!(other, first);
    }
    // A renamed document that keeps its uid keeps what was spent, too.
    let renamed = only("name: m, uid: u-1", DAY);
    assert_eq!(renamed.id, only("name: n, uid: u-1", DAY).id);
    assert_eq!(&*renamed.budget, "m");
}

#[test]
fn an_execution_s_window_counts_each_execution() {
    let limit = only(
        "name: n",
        "limits: [{ unit: usd, max: 5, window: execution }]",
    );
    assert_eq!(*limit.group_by, [GroupBy::Agent, GroupBy::Execution]);
    let set = set(&[(
        "name: n",
        "limits: [{ unit: usd, max: 5, window: execution }]",
    )]);
    assert!(set.wants_executions().is_some());
}

#[test]
fn two_limits_that_count_the_same_are_refused() {
    let twice =
        "limits: [{ unit: usd, max: 5, window: total }, { unit: usd, max: 9, window: total }]";
    let errors = compiled(&[("name: n", twice)]).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].code, "TG0710");
    let errors = compiled(&[("name: n, uid: u", DAY), ("name: m, uid: u", DAY)]).unwrap_err();
    assert_eq!(errors[0].code, "TG0710");
    assert!(errors[0].place.is_some());
}

#[test]
fn paths_of_unmetered_endpoints_are_patterns() {
    let spec = "concurrency: 1, unmetered: [{ paths: [/v1/a**] }]";
    let errors = compiled(&[("name: n", spec)]).unwrap_err();
    assert_eq!(errors[0].code, "TG0503");
}

#[test]
fn a_rate_has_a_burst() {
    let rate = |spec: &str| {
        set(&[("name: n", spec)]).budgets()[0]
            .rate
            .unwrap()
            .burst
            .get()
    };
    assert_eq!(rate("rate: { requests: 60/min }"), 10);
    assert_eq!(rate("rate: { requests: 3/h }"), 3);
    assert_eq!(rate("rate: { requests: 3/h, burst: 7 }"), 7);
}
