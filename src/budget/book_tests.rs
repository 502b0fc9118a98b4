//! The books against a plain model, and their rules one by one.

use std::collections::HashMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::budget::ledger::Patience;
use crate::budget::limit::{Enforcement, GroupBy, Period, WindowKind};
use crate::budget::sample::{at, by_agent, id, labels, limit, need, settlement};
use crate::budget::span::span;

/// The books, as the ledger's thread uses them.
#[derive(Default)]
struct Desk {
    book: Book,
}

impl Desk {
    fn reserve(&mut self, ask: &Ask) -> Result<Vec<Balance>, Misfit> {
        for (limit, scope) in self.book.unknown(&ask.labels, &ask.limits) {
            self.book.adopt(&limit, &scope, &[], ask.at);
        }
        let places = self.book.places(&ask.labels, &ask.limits, ask.at);
        self.book.check(&ask.need, &places)?;
        self.book.admit(ask, ask.at, &places);
        Ok(self.book.balances_of(&ask.id))
    }

    fn at(
        &mut self,
        request: &str,
        moment: &str,
        cost: u64,
        limit: &Arc<Limit>,
    ) -> Result<Balance, Misfit> {
        let ask = call(request, "a", at(moment), cost, &[limit]);
        self.reserve(&ask).map(|mut balances| balances.remove(0))
    }

    /// A whole call.
    fn spend(&mut self, request: &str, moment: &str, cost: u64, limit: &Arc<Limit>) -> Settled {
        self.at(request, moment, cost, limit).unwrap();
        self.book.settle(&settlement(request, cost)).unwrap()
    }

    fn left(&mut self, moment: &str, limit: &Arc<Limit>) -> u64 {
        let limits = [limit.clone()];
        for (limit, scope) in self.book.unknown(&labels("a"), &limits) {
            self.book.adopt(&limit, &scope, &[], at(moment));
        }
        let places = self.book.places(&labels("a"), &limits, at(moment));
        self.book.balances(&places)[0].remaining()
    }
}

fn call(request: &str, agent: &str, at: Timestamp, cost: u64, limits: &[&Arc<Limit>]) -> Ask {
    Ask {
        id: id(request),
        at,
        labels: labels(agent),
        limits: limits.iter().map(|limit| (*limit).clone()).collect(),
        need: need(cost),
        patience: Patience::Queue,
        unwritten: NanoUsd(0),
    }
}

fn windowed(max: u64, window: WindowKind) -> Arc<Limit> {
    Arc::new(Limit {
        window,
        ..limit("cap", max)
    })
}

fn exhausted<T>(outcome: Result<T, Misfit>) -> Box<Shortage> {
    match outcome {
        Err(Misfit::Exhausted(shortage)) => shortage,
        Err(Misfit::Contended(..)) => panic!("contended"),
        Ok(_) => panic!("reserved"),
    }
}

fn is_contended<T>(outcome: &Result<T, Misfit>) -> bool {
    matches!(outcome, Err(Misfit::Contended(..)))
}

#[test]
fn a_call_takes_from_every_limit_or_from_none() {
    let mut desk = Desk::default();
    let (wide, narrow) = (
        Arc::new(limit("wide", 1000)),
        Arc::new(limit("narrow", 100)),
    );
    let now = at("2026-11-21T12:00:00Z");
    let refused = desk.reserve(&call("r1", "a", now, 500, &[&wide, &narrow]));
    assert_eq!(exhausted(refused).balance.limit.id.as_ref(), "narrow");
    assert_eq!(desk.left("2026-11-21T12:00:00Z", &wide), 1000);
    let balances = desk
        .reserve(&call("r2", "a", now, 60, &[&wide, &narrow]))
        .unwrap();
    let left: Vec<u64> = balances.iter().map(Balance::remaining).collect();
    assert_eq!(left, [40, 940]);
}

#[test]
fn exhausted_on_one_limit_wins_over_contended_on_another() {
    let mut desk = Desk::default();
    let (busy, spent) = (Arc::new(limit("busy", 100)), Arc::new(limit("spent", 100)));
    let now = at("2026-11-21T12:00:00Z");
    desk.left("2026-11-21T12:00:00Z", &busy);
    desk.left("2026-11-21T12:00:00Z", &spent);
    desk.reserve(&call("r1", "a", now, 80, &[&busy])).unwrap();
    desk.reserve(&call("r2", "a", now, 80, &[&spent])).unwrap();
    desk.book.settle(&settlement("r2", 80)).unwrap();
    assert!(is_contended(&desk.reserve(&call(
        "r3",
        "a",
        now,
        30,
        &[&busy]
    ))));
    let refused = desk.reserve(&call("r3", "a", now, 30, &[&busy, &spent]));
    assert_eq!(exhausted(refused).balance.limit.id.as_ref(), "spent");
}

#[test]
fn debt_stays_visible_and_is_not_cut_down() {
    let mut desk = Desk::default();
    let cap = Arc::new(limit("cap", 100));
    desk.at("r1", "2026-11-21T12:00:00Z", 100, &cap).unwrap();
    let settled = desk.book.settle(&settlement("r1", 250)).unwrap();
    assert_eq!(
        (settled.balances[0].settled, settled.balances[0].remaining()),
        (250, 0)
    );
    assert_eq!(settled.underreserved, 1);
    exhausted(desk.at("r2", "2026-11-21T13:00:00Z", 1, &cap));
    desk.at("r3", "2026-11-22T00:00:00Z", 100, &cap).unwrap();
}

#[test]
fn debt_is_carried_into_the_next_window_where_that_is_wanted() {
    let carrying = Arc::new(Limit {
        carry_debt: true,
        ..limit("cap", 100)
    });
    let mut desk = Desk::default();
    desk.at("r1", "2026-11-21T12:00:00Z", 100, &carrying)
        .unwrap();
    desk.book.settle(&settlement("r1", 330)).unwrap();
    // 230 too much: the 22nd and the 23rd pay 200 of it back.
    assert_eq!(desk.left("2026-11-24T12:00:00Z", &carrying), 70);
    // One that ends late counts in the day that admitted it, and so from there on.
    let mut desk = Desk::default();
    desk.at("r2", "2026-11-21T23:59:59Z", 100, &carrying)
        .unwrap();
    assert_eq!(desk.left("2026-11-22T00:00:01Z", &carrying), 100);
    desk.book.settle(&settlement("r2", 140)).unwrap();
    assert_eq!(desk.left("2026-11-22T00:00:02Z", &carrying), 60);
}

/// Complaint 17: budgets that never reset, reset within minutes, or refused at once in a new window.
#[test]
fn windows_roll_over_when_they_are_read_and_no_job_has_to_run() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    for (period, spent, still, fresh) in [
        (
            Period::Hour,
            "2026-10-25T00:30:00Z",
            "2026-10-25T00:59:59Z",
            "2026-10-25T01:00:00Z",
        ),
        (
            Period::Day,
            "2026-10-24T22:00:00Z",
            "2026-10-25T22:59:59Z",
            "2026-10-25T23:00:00Z",
        ),
        (
            Period::Day,
            "2026-03-28T23:00:00Z",
            "2026-03-29T21:59:59Z",
            "2026-03-29T22:00:00Z",
        ),
        (
            Period::Week,
            "2026-11-15T23:00:00Z",
            "2026-11-22T22:59:59Z",
            "2026-11-22T23:00:00Z",
        ),
        (
            Period::Month,
            "2028-01-31T23:00:00Z",
            "2028-02-29T22:59:59Z",
            "2028-02-29T23:00:00Z",
        ),
    ] {
        let cap = windowed(100, WindowKind::Calendar(period, berlin.clone()));
        let mut desk = Desk::default();
        desk.spend("r1", spent, 100, &cap);
        let shortage = exhausted(desk.at("r2", still, 1, &cap));
        assert_eq!(shortage.balance.resets, Some(at(fresh)), "{period:?}");
        assert_eq!(desk.left(fresh, &cap), 100, "{period:?}");
        // Months without a call, and no job that ran meanwhile.
        assert_eq!(desk.left("2029-12-31T00:00:00Z", &cap), 100, "{period:?}");
    }
}

#[test]
fn a_clock_that_steps_back_opens_no_window_again() {
    let cap = Arc::new(limit("cap", 100));
    let mut desk = Desk::default();
    desk.spend("r1", "2026-11-21T23:00:00Z", 100, &cap);
    desk.spend("r2", "2026-11-22T00:00:00Z", 70, &cap);
    let shortage = exhausted(desk.at("r3", "2026-11-21T23:59:00Z", 31, &cap));
    assert_eq!(shortage.balance.settled, 70);
    desk.spend("r4", "2026-11-21T12:00:00Z", 30, &cap);
    assert_eq!(desk.left("2026-11-22T23:59:59Z", &cap), 0);
    assert_eq!(desk.left("2026-11-23T00:00:00Z", &cap), 100);
}

#[test]
fn no_stretch_as_long_as_a_rolling_window_holds_more_than_its_limit() {
    let cap = windowed(100, WindowKind::Rolling(Duration::from_secs(3600)));
    let mut desk = Desk::default();
    desk.spend("r1", "2026-11-21T12:00:30Z", 60, &cap);
    desk.spend("r2", "2026-11-21T12:30:00Z", 40, &cap);
    let shortage = exhausted(desk.at("r3", "2026-11-21T13:00:29Z", 50, &cap));
    assert_eq!(shortage.balance.resets, Some(at("2026-11-21T13:01:00Z")));
    exhausted(desk.at("r3", "2026-11-21T13:00:59Z", 50, &cap));
    desk.at("r3", "2026-11-21T13:01:00Z", 50, &cap).unwrap();
    // More for a call of an old bucket counts in every hour that it is in.
    assert!(is_contended(&desk.at(
        "r4",
        "2026-11-21T13:05:00Z",
        20,
        &cap
    )));
    assert!(desk.book.extend(&id("r3"), &need(11)).is_err());
    desk.book.extend(&id("r3"), &need(10)).unwrap();
}

#[test]
fn a_soft_limit_counts_and_never_refuses() {
    let soft = Arc::new(Limit {
        enforcement: Enforcement::Soft,
        alerts: Box::new([50, 100]),
        ..limit("soft", 100)
    });
    let mut desk = Desk::default();
    let told = desk.spend("r1", "2026-11-21T12:00:00Z", 500, &soft).alerts;
    let told: Vec<u8> = told.iter().map(|(_, percent)| *percent).collect();
    assert_eq!(told, [50, 100]);
    assert!(
        desk.spend("r2", "2026-11-21T12:00:01Z", 500, &soft)
            .alerts
            .is_empty()
    );
}

#[test]
fn a_threshold_is_told_once_in_each_window() {
    let cap = Arc::new(Limit {
        alerts: Box::new([50, 80, 95, 100]),
        ..limit("cap", 100)
    });
    let mut desk = Desk::default();
    let mut told = |request: &str, moment: &str, cost| {
        let settled = desk.spend(request, moment, cost, &cap);
        settled
            .alerts
            .iter()
            .map(|(_, percent)| *percent)
            .collect::<Vec<u8>>()
    };
    assert_eq!(told("r1", "2026-11-21T01:00:00Z", 49), [0; 0]);
    assert_eq!(told("r2", "2026-11-21T02:00:00Z", 1), [50]);
    assert_eq!(told("r3", "2026-11-21T03:00:00Z", 10), [0; 0]);
    assert_eq!(told("r4", "2026-11-21T04:00:00Z", 36), [80, 95]);
    assert_eq!(told("r5", "2026-11-22T01:00:00Z", 50), [50]);
}

#[test]
fn each_agent_has_its_own_count_where_it_is_grouped_so() {
    let each = Arc::new(by_agent(limit("each", 100)));
    let now = at("2026-11-21T12:00:00Z");
    let mut desk = Desk::default();
    desk.reserve(&call("r1", "a", now, 100, &[&each])).unwrap();
    desk.reserve(&call("r2", "b", now, 100, &[&each])).unwrap();
    assert!(is_contended(&desk.reserve(&call(
        "r3",
        "a",
        now,
        1,
        &[&each]
    ))));
}

#[test]
fn one_execution_has_one_budget_for_as_long_as_it_runs() {
    let cap = Arc::new(Limit {
        window: WindowKind::Execution,
        group_by: Box::new([GroupBy::Execution]),
        ..limit("cap", 100)
    });
    let mut desk = Desk::default();
    let mut of = |request: &str, run: &str, moment: &str| {
        let mut ask = call(request, "a", at(moment), 60, &[&cap]);
        ask.labels.execution = Some(run.into());
        desk.reserve(&ask).is_ok()
    };
    assert!(of("r1", "job-1", "2026-11-21T12:00:00Z"));
    assert!(!of("r2", "job-1", "2027-02-01T12:00:00Z"));
    assert!(of("r3", "job-2", "2026-11-21T12:00:00Z"));
}

#[test]
fn a_try_that_is_made_again_keeps_its_reservation_and_has_its_own_row() {
    let cap = Arc::new(limit("cap", 100));
    let mut desk = Desk::default();
    desk.at("r1", "2026-11-21T12:00:00Z", 80, &cap).unwrap();
    desk.book.retry(&id("r1")).unwrap();
    assert_eq!(desk.left("2026-11-21T12:00:00Z", &cap), 20);
    assert!(desk.book.settle(&settlement("r1", 80)).is_none());
    let mut second = settlement("r1", 30);
    second.id = next_attempt(&id("r1"));
    assert!(desk.book.settle(&second).is_some());
    assert_eq!(desk.left("2026-11-21T12:00:00Z", &cap), 70);
    let rows: Vec<_> = desk
        .book
        .changes
        .entries
        .iter()
        .map(|e| (e.id.attempt, e.ending, e.charge.cost.0))
        .collect();
    assert_eq!(rows, [(1, "retried", 0), (2, "complete", 30)]);
}

#[test]
fn a_retry_that_was_taken_back_is_remembered_once_when_it_is_closed_after_all() {
    let mut book = Book::default();
    let moment = at("2026-11-21T12:00:00Z");
    let whole = |book: &mut Book, request: &str| {
        book.admit(&call(request, "a", moment, 1, &[]), moment, &[]);
        book.settle(&settlement(request, 1)).unwrap();
    };
    book.admit(&call("r", "a", moment, 1, &[]), moment, &[]);
    book.retry(&id("r")).unwrap();
    book.unretry(&id("r"));
    book.settle(&settlement("r", 1)).unwrap();
    for number in 1..REMEMBERED {
        whole(&mut book, &format!("other-{number}"));
    }
    assert!(book.is_closed(&id("r")));
    whole(&mut book, "one-more");
    assert!(!book.is_closed(&id("r")));
}

#[test]
fn a_settlement_of_any_number_of_models_has_few_rows_that_add_up_to_it() {
    let mut book = Book::default();
    let moment = at("2026-11-21T12:00:00Z");
    book.admit(&call("r", "a", moment, 1, &[]), moment, &[]);
    let mut many = settlement("r", 3);
    let charge = crate::types::charge::Charge {
        fees: vec![(crate::types::usage::Fee::WebSearch, 2)],
        ..many.charges.remove(0)
    };
    let named = |number| crate::types::charge::Charge {
        model: format!("model-{number}").into(),
        ..charge.clone()
    };
    many.charges = (0..100_000).map(named).collect();
    book.settle(&many).unwrap();
    let rows = &book.changes.entries;
    assert_eq!(rows.len(), 64);
    let sum = |of: &dyn Fn(&Entry) -> u64| rows.iter().map(of).sum::<u64>();
    assert_eq!(sum(&|row| row.charge.cost.0), 300_000);
    assert_eq!(sum(&|row| row.charge.usage.total_input()), 300_000);
    assert_eq!(
        sum(&|row| row.charge.fees.iter().map(|fee| fee.1).sum()),
        200_000
    );
    let parts: Vec<u32> = rows.iter().map(|row| row.part).collect();
    assert_eq!(parts, (0..64).collect::<Vec<_>>());
    let models = [0, 62, 63].map(|row| &*rows[row].charge.model);
    assert_eq!(models, ["model-0", "model-62", "(others)"]);
}

#[test]
fn a_raise_ends_when_it_was_said_to() {
    let cap = Arc::new(limit("cap", 100));
    let mut desk = Desk::default();
    desk.spend("r1", "2026-11-21T12:00:00Z", 100, &cap);
    let raise = Raise {
        scope: None,
        by: 50,
        until: Some(at("2026-11-21T18:00:00Z").as_millisecond()),
    };
    desk.book.raise(&cap.id, raise);
    assert_eq!(desk.left("2026-11-21T17:59:59Z", &cap), 50);
    assert_eq!(desk.left("2026-11-21T18:00:00Z", &cap), 0);
    desk.book.reset(&cap.id, None);
    assert_eq!(desk.left("2026-11-21T18:00:00Z", &cap), 100);
}

#[test]
fn calls_under_way_count_for_a_limit_that_is_new() {
    let mut desk = Desk::default();
    let old = Arc::new(limit("old", 1000));
    desk.at("r1", "2026-11-21T12:00:00Z", 300, &old).unwrap();
    desk.spend("r2", "2026-11-21T12:00:00Z", 200, &old);
    let new = Arc::new(limit("new", 600));
    assert_eq!(desk.left("2026-11-21T12:00:01Z", &new), 100);
    desk.book.settle(&settlement("r1", 50)).unwrap();
    assert_eq!(desk.left("2026-11-21T12:00:02Z", &new), 350);
}

#[test]
fn counts_that_nobody_needs_are_dropped_and_others_stay() {
    let day = 86_400_000;
    let (daily, total) = (
        Arc::new(limit("daily", 100)),
        windowed(100, WindowKind::Total),
    );
    let mut desk = Desk::default();
    desk.spend("r1", "2026-11-21T12:00:00Z", 10, &daily);
    desk.spend("r2", "2026-11-21T12:00:00Z", 10, &total);
    desk.at("r3", "2026-11-21T12:00:00Z", 10, &daily).unwrap();
    let mut left = |moment: &str| {
        desk.book.drop_idle(at(moment).as_millisecond(), 30 * day);
        let left = desk.book.all_series().count();
        desk.book.settle(&settlement("r3", 10));
        left
    };
    assert_eq!(left("2026-11-25T00:00:00Z"), 2, "a call is under way");
    assert_eq!(left("2026-11-22T23:59:59Z"), 2, "it was over not long ago");
    assert_eq!(left("2026-11-25T00:00:00Z"), 1);
    assert_eq!(left("2026-12-22T00:00:00Z"), 0, "the rows can tell");
}

#[derive(Clone, Debug)]
enum Step {
    Reserve { agent: u8, cost: u64, limits: u8 },
    Extend { which: usize, more: u64 },
    Shrink { which: usize, to: u64 },
    Settle { which: usize, percent: u64 },
    Retry { which: usize },
    Abandon { which: usize },
    Pass { minutes: i64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any_step = prop_oneof![
        6 => (0..3u8, 1..60u64, 1..8u8).prop_map(|(agent, cost, limits)| Step::Reserve { agent, cost, limits }),
        2 => (any::<usize>(), 1..40u64).prop_map(|(which, more)| Step::Extend { which, more }),
        1 => (any::<usize>(), 0..40u64).prop_map(|(which, to)| Step::Shrink { which, to }),
        5 => (any::<usize>(), 0..=100u64).prop_map(|(which, percent)| Step::Settle { which, percent }),
        1 => any::<usize>().prop_map(|which| Step::Retry { which }),
        1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        1 => (-90..400i64).prop_map(|minutes| Step::Pass { minutes }),
    ];
    prop::collection::vec(any_step, 1..120)
}

/// What the model knows of a call: what it reserved, and where.
struct Open {
    id: HoldId,
    amount: u64,
    keys: Vec<(usize, String, i64)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Against a model that knows nothing but sums: no admission takes a limit beyond its amount, all or
    /// nothing, and the books balance after any interleaving.
    #[test]
    fn the_books_agree_with_plain_sums(steps in steps()) {
        let limits = [
            Arc::new(limit("day", 150)),
            Arc::new(by_agent(limit("each", 80))),
            windowed(100, WindowKind::Fixed(Duration::from_secs(7200))),
        ];
        let mut desk = Desk::default();
        let mut now = at("2026-11-21T12:00:00Z");
        let mut newest: HashMap<(usize, String), i64> = HashMap::new();
        let mut taken: HashMap<(usize, String, i64), u64> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        for (index, limit) in limits.iter().enumerate() {
            for agent in ["agent0", "agent1", "agent2"] {
                let scope = limit.scope(&labels(agent));
                desk.book.adopt(limit, &scope.clone().into(), &[], now);
                newest.insert((index, scope), span(&limit.window, now.as_millisecond()).start);
            }
        }
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Pass { minutes } => {
                    now = now.checked_add(jiff::SignedDuration::from_mins(minutes)).unwrap();
                }
                Step::Reserve { agent, cost, limits: chosen } => {
                    let indexes: Vec<usize> = (0..3).filter(|bit| chosen & (1 << bit) != 0).collect();
                    let own: Vec<&Arc<Limit>> = indexes.iter().map(|index| &limits[*index]).collect();
                    let ask = call(&format!("r{number}"), &format!("agent{agent}"), now, cost, &own);
                    let mut keys = Vec::new();
                    for index in indexes {
                        let scope = limits[index].scope(&ask.labels);
                        let start = span(&limits[index].window, now.as_millisecond()).start;
                        let newest = newest.entry((index, scope.clone())).or_insert(start);
                        *newest = start.max(*newest);
                        keys.push((index, scope, *newest));
                    }
                    let fits = keys.iter().all(|key| {
                        taken.get(key).copied().unwrap_or(0) + cost <= limits[key.0].max
                    });
                    let outcome = desk.reserve(&ask);
                    prop_assert_eq!(outcome.is_ok(), fits, "{:?}", outcome);
                    if fits {
                        keys.iter().for_each(|key| *taken.entry(key.clone()).or_default() += cost);
                        open.push(Open { id: ask.id, amount: cost, keys });
                    }
                }
                _ if open.is_empty() => {}
                Step::Extend { which, more } => {
                    let index = which % open.len();
                    let call = &mut open[index];
                    let fits = call.keys.iter().all(|key| taken[key] + more <= limits[key.0].max);
                    prop_assert_eq!(desk.book.extend(&call.id, &need(more)).is_ok(), fits);
                    if fits {
                        call.amount += more;
                        call.keys.iter().for_each(|key| *taken.get_mut(key).unwrap() += more);
                    }
                }
                Step::Shrink { which, to } => {
                    let index = which % open.len();
                    let call = &mut open[index];
                    desk.book.shrink(&call.id, &need(to));
                    let less = call.amount.saturating_sub(to);
                    call.amount -= less;
                    call.keys.iter().for_each(|key| *taken.get_mut(key).unwrap() -= less);
                }
                Step::Settle { which, percent } => {
                    let call = open.swap_remove(which % open.len());
                    let cost = call.amount * percent / 100;
                    let settlement = Settlement { id: call.id.clone(), ..settlement("", cost) };
                    prop_assert!(desk.book.settle(&settlement).is_some());
                    prop_assert!(desk.book.settle(&settlement).is_none());
                    call.keys.iter().for_each(|key| *taken.get_mut(key).unwrap() -= call.amount - cost);
                }
                Step::Retry { which } => {
                    let index = which % open.len();
                    let call = &mut open[index];
                    prop_assert!(desk.book.retry(&call.id).is_ok());
                    call.id = next_attempt(&call.id);
                }
                Step::Abandon { which } => {
                    let call = open.swap_remove(which % open.len());
                    desk.book.abandon(&call.id);
                    call.keys.iter().for_each(|key| *taken.get_mut(key).unwrap() -= call.amount);
                }
            }
            for ((index, scope), start) in &newest {
                let id = desk.book.find(&limits[*index], scope).unwrap();
                let own = desk.book.series(id).unwrap().taken(*start);
                let model = taken.get(&(*index, scope.clone(), *start)).copied().unwrap_or(0);
                prop_assert_eq!(own.all(), model);
                prop_assert!(own.all() <= limits[*index].max);
            }
        }
        let reserved: u64 = desk.book.all_series().map(|series| series.reserved).sum();
        let model: u64 = open.iter().map(|call| call.amount * call.keys.len() as u64).sum();
        prop_assert_eq!(reserved, model);
    }
}
