//! Owns what tests of the books are made of: limits, calls and charges with everything ordinary left out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::ledger::{Ask, Ending, HoldId, Patience, Settlement};
use super::limit::{Enforcement, GroupBy, Labels, Limit, Period, Selector, Unit, WindowKind};
use crate::types::agent::Agent;
use crate::types::charge::{Charge, Need};
use crate::types::money::NanoUsd;
use crate::types::usage::{TokenClass, Usage};

/// A hard limit in nano-dollars for each day of UTC and all agents, without a queue.
pub(super) fn limit(id: &str, max: u64) -> Limit {
    Limit {
        budget: format!("budget-{id}").into(),
        id: id.into(),
        selector: Selector::default(),
        unit: Unit::Usd,
        max,
        window: WindowKind::Calendar(Period::Day, TimeZone::UTC),
        group_by: Box::new([]),
        enforcement: Enforcement::Hard,
        carry_debt: false,
        alerts: Box::new([]),
        exhausted_status: None,
        queue: Duration::ZERO,
        waiters: 64,
    }
}

/// For each agent by itself.
pub(super) fn by_agent(limit: Limit) -> Limit {
    Limit {
        group_by: Box::new([GroupBy::Agent]),
        ..limit
    }
}

/// A call of an agent to a model.
pub(super) fn labels(agent: &str) -> Labels {
    Labels {
        agent: Agent::parse(agent).unwrap(),
        execution: None,
        host: "api.anthropic.com".into(),
        model: "claude".into(),
    }
}

/// The first try of a request.
pub(super) fn id(request: &str) -> HoldId {
    HoldId {
        request: request.into(),
        attempt: 1,
    }
}

/// So much money.
pub(super) fn need(cost: u64) -> Need {
    Need {
        cost: NanoUsd(cost),
        input: cost,
        output: 0,
    }
}

/// A moment.
pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Asks for money for the agent `a`, now; it does not wait.
pub(super) fn ask(request: &str, cost: u64, limits: &[&Arc<Limit>]) -> Ask {
    Ask {
        id: id(request),
        at: Timestamp::now(),
        labels: labels("a"),
        limits: limits.iter().map(|limit| (*limit).clone()).collect(),
        need: need(cost),
        patience: Patience::Queue,
        unwritten: NanoUsd(0),
    }
}

/// A whole call that cost so much, and as many tokens of its prompt.
pub(super) fn settlement(request: &str, cost: u64) -> Settlement {
    let mut usage = Usage::default();
    usage[TokenClass::Input] = cost;
    let charge = Charge {
        model: "claude".into(),
        usage,
        fees: Vec::new(),
        cost: NanoUsd(cost),
    };
    Settlement {
        id: id(request),
        charges: vec![charge],
        estimated: false,
        ending: Ending::Complete,
        prices: [7; 32],
        credential: Some("anthropic".into()),
    }
}
