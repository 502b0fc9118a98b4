//! Owns how budgets stand, as the API tells it: every limit of every budget, for every group of calls
//! that it has counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::amend_request::window_name;
use super::amount::{Measure, Rounding};
use super::moment::{rfc3339, zone_name};
use crate::budget::limit::{Enforcement, Limit, WindowKind};
use crate::budget::set::BudgetSet;
use crate::budget::span::{moment, span};
use crate::budget::sqlite_report::Standing;
use crate::telemetry::spend_metrics::BudgetLeft;

/// Where one limit stands for one group of calls. Amounts of `usd` are decimal numbers in strings, those
/// of `tokens` and `requests` are numbers.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetState {
    /// The budget's name.
    pub budget: String,
    /// `usd`, `tokens` or `requests`.
    pub unit: String,
    /// `day UTC`, `rolling 1h`, `total`.
    pub window: String,
    /// Whose calendar times of the window are told in.
    pub time_zone: String,
    /// The group of calls (`agent=team-a/scan`); empty where all are counted together, and absent for a
    /// limit that has counted none yet.
    pub scope: Option<String>,
    /// What the document allows.
    pub configured: Value,
    /// What may be spent, raises included.
    pub max: Value,
    /// What was spent.
    pub spent: Value,
    /// What requests in flight have reserved.
    pub reserved: Value,
    /// What an unclean end left unknown, and nobody may spend before the window ends.
    pub held: Value,
    /// What is left.
    pub remaining: Value,
    /// Spent, in percent of `max`.
    pub percent: u64,
    /// Spent by the end of the window, in percent of `max`, if it goes on as since the window's start.
    pub forecast_percent: Option<u64>,
    /// When the window began (RFC 3339).
    pub since: Option<String>,
    /// When it ends, or enough of it; absent where it never does.
    pub resets: Option<String>,
    /// `hard` or `soft`.
    pub enforcement: String,
    /// Percentages at which to warn.
    pub alerts: Vec<u8>,
    /// Those that were reached in this window, and told.
    pub alerts_told: Vec<u8>,
}

/// Every limit of `budgets`, or of the budget called `only`.
pub fn states(
    budgets: &BudgetSet,
    only: Option<&str>,
    standing: &[Standing],
    now: Timestamp,
) -> Vec<BudgetState> {
    let mut by_limit: HashMap<&str, Vec<&Standing>> = HashMap::new();
    for row in standing {
        by_limit.entry(&row.limit).or_default().push(row);
    }
    let mut states = Vec::new();
    for budget in budgets.budgets() {
        if only.is_some_and(|only| *only != *budget.name && *only != *budget.key) {
            continue;
        }
        for limit in &budget.limits {
            match by_limit.get(&*limit.id) {
                Some(rows) => states.extend(rows.iter().map(|row| state(limit, Some(row), now))),
                None => states.push(state(limit, None, now)),
            }
        }
    }
    states
}

/// What is left of the budgets that have counted something, for each group of calls: of a budget's
/// limits the least, and of their forecasts the most.
pub fn left(budgets: &BudgetSet, standing: &[Standing], now: Timestamp) -> Vec<BudgetLeft> {
    let limits = budgets.budgets().iter().flat_map(|budget| &budget.limits);
    let limits: HashMap<&str, &Arc<Limit>> = limits.map(|limit| (&*limit.id, limit)).collect();
    let mut told: HashMap<(Arc<str>, Arc<str>), BudgetLeft> = HashMap::new();
    for row in standing {
        let Some(limit) = limits.get(&*row.limit) else {
            continue;
        };
        let own = left_of(limit, row, now);
        match told.entry((own.budget.clone(), own.scope.clone())) {
            Entry::Vacant(vacant) => {
                vacant.insert(own);
            }
            Entry::Occupied(mut other) => {
                let other = other.get_mut();
                other.remaining = other.remaining.min(own.remaining);
                other.forecast = match (other.forecast, own.forecast) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
            }
        }
    }
    told.into_values().collect()
}

/// Ratios are for show: nothing is decided by a float.
fn left_of(limit: &Limit, row: &Standing, now: Timestamp) -> BudgetLeft {
    let max = limit.max.saturating_add(row.raised);
    let forecast = window_of(limit, now).and_then(|own| forecast(row.settled, max, own, now));
    BudgetLeft {
        budget: limit.budget.clone(),
        scope: row.scope.clone(),
        remaining: match max {
            0 => 0.0,
            max => max.saturating_sub(taken(row)) as f64 / max as f64,
        },
        forecast: forecast.map(|percent| percent as f64 / 100.0),
    }
}

fn taken(row: &Standing) -> u64 {
    let taken = row.settled.saturating_add(row.reserved);
    taken.saturating_add(row.held)
}

fn state(limit: &Arc<Limit>, row: Option<&Standing>, now: Timestamp) -> BudgetState {
    let measure = Measure::of(&limit.unit);
    let used = |amount: u64| measure.json(amount, Rounding::Up);
    let room = |amount: u64| measure.json(amount, Rounding::Down);
    let (settled, reserved, held) = row.map_or((0, 0, 0), |r| (r.settled, r.reserved, r.held));
    let max = row.map_or(limit.max, |row| limit.max.saturating_add(row.raised));
    let left = max.saturating_sub(row.map_or(0, taken));
    let own = window_of(limit, now);
    let told = row.map_or(0, |row| row.told);
    let is_one_pot = limit.group_by.is_empty();
    BudgetState {
        budget: limit.budget.to_string(),
        unit: measure.as_str().to_owned(),
        window: window_name(&limit.window),
        time_zone: zone_name(&zone(limit)).to_owned(),
        scope: match row {
            Some(row) => Some(row.scope.to_string()),
            None => is_one_pot.then(String::new),
        },
        configured: room(limit.max),
        max: room(max),
        spent: used(settled),
        reserved: used(reserved),
        held: used(held),
        remaining: room(left),
        percent: percent(settled, max),
        forecast_percent: own.and_then(|own| forecast(settled, max, own, now)),
        since: own.map(|(start, _)| rfc3339(start)),
        resets: match row {
            Some(row) => row.resets,
            None => own.map(|(_, end)| end),
        }
        .map(rfc3339),
        enforcement: match limit.enforcement {
            Enforcement::Hard => "hard",
            Enforcement::Soft => "soft",
        }
        .to_owned(),
        alerts: limit.alerts.to_vec(),
        alerts_told: limit
            .alerts
            .iter()
            .copied()
            .filter(|a| *a <= told)
            .collect(),
    }
}

/// The first moment of a limit's present window, and the first after it, where it has both.
pub fn window_of(limit: &Limit, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    match limit.window {
        WindowKind::Calendar(..) | WindowKind::Fixed(_) => {
            let own = span(&limit.window, now.as_millisecond());
            Some((moment(own.start), moment(own.end?)))
        }
        WindowKind::Rolling(_) | WindowKind::Total | WindowKind::Execution => None,
    }
}

/// The zone in which times of a limit are read and told.
pub fn zone(limit: &Limit) -> TimeZone {
    match &limit.window {
        WindowKind::Calendar(_, zone) => zone.clone(),
        _ => TimeZone::UTC,
    }
}

/// Rounded down, so that 100 means all of it.
fn percent(part: u64, whole: u64) -> u64 {
    match (part, whole) {
        (0, _) => 0,
        (_, 0) => 100,
        _ => narrow(u128::from(part) * 100 / u128::from(whole)),
    }
}

/// What the share will be at the window's end. Nothing in its first hundredth: that would be a guess.
fn forecast(
    settled: u64,
    max: u64,
    (start, end): (Timestamp, Timestamp),
    now: Timestamp,
) -> Option<u64> {
    let millis = |from: Timestamp, to: Timestamp| {
        u128::try_from(to.as_millisecond() - from.as_millisecond()).ok()
    };
    let (gone, whole) = (millis(start, now)?, millis(start, end)?);
    if gone < whole / 100 || gone == 0 || max == 0 || settled == 0 {
        return None;
    }
    let by_end = u128::from(settled).saturating_mul(whole) / gone;
    Some(narrow(by_end.saturating_mul(100) / u128::from(max)))
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
