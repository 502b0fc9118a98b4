//! Owns what is counted of money and tokens. Agents, models and budgets come from documents and price
//! tables; a model that has no price is counted as `other`.

use std::sync::Arc;

use prometheus::{CounterVec, GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::families;
use super::lanes::{Lanes, OTHER};
use crate::types::charge::Charge;

/// Groups of calls whose budgets are told; of more, those with the least left. The rest is told together.
const MOST_SCOPES: usize = 1000;

/// The metrics of spending.
pub struct SpendMetrics {
    lanes: Arc<Lanes>,
    tokens: IntCounterVec,
    spend: CounterVec,
    remaining: GaugeVec,
    forecast: GaugeVec,
    alerts: IntCounterVec,
    underreserved: IntCounter,
    /// Without labels: one that can be absent.
    ledger: IntGaugeVec,
}

/// Where a budget stands for one group of calls.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetLeft {
    /// The budget's name.
    pub budget: Arc<str>,
    /// The group.
    pub scope: Arc<str>,
    /// The part that is left.
    pub remaining: f64,
    /// The part that will be spent when the window ends, if that can be told.
    pub forecast: Option<f64>,
}

impl SpendMetrics {
    /// Registers everything once.
    pub(super) fn new(registry: &Registry, lanes: Arc<Lanes>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            lanes,
            tokens: families::TOKENS.int_counters(registry)?,
            spend: families::SPEND.counters(registry)?,
            remaining: families::BUDGET_REMAINING.gauges(registry)?,
            forecast: families::BUDGET_FORECAST.gauges(registry)?,
            alerts: families::BUDGET_ALERTS.int_counters(registry)?,
            underreserved: families::UNDERRESERVED.int_counter(registry)?,
            ledger: families::LEDGER_OK.int_gauges(registry)?,
        })
    }

    /// A call of this agent came to this.
    pub fn spent(&self, agent: &str, model: &str, charge: &Charge) {
        let agent = self.lanes.agent(agent);
        for (class, count) in charge.usage.iter().filter(|(_, count)| *count > 0) {
            let labels = [agent, model, class.as_str()];
            self.tokens.with_label_values(&labels).inc_by(count);
        }
        // A float shows the sum; nothing is decided by it.
        let dollars = charge.cost.0 as f64 / 1e9;
        let labels = [agent, model];
        self.spend.with_label_values(&labels).inc_by(dollars);
    }

    /// A budget has reached this much of a limit.
    pub fn alert(&self, budget: &str, percent: u8) {
        let percent = percent.to_string();
        self.alerts.with_label_values(&[budget, &percent]).inc();
    }

    /// So many limits gave more than was reserved.
    pub fn underreserved(&self, limits: u32) {
        self.underreserved.inc_by(limits.into());
    }

    /// Says where budgets stand now, and nothing any more of those that are gone: windows end, and
    /// documents change, with nobody calling.
    pub(super) fn observe(&self, ledger: Option<Result<(), ()>>, budgets: &[BudgetLeft]) {
        self.ledger.reset();
        if let Some(health) = ledger {
            let ledger = self.ledger.with_label_values::<&str>(&[]);
            ledger.set(i64::from(health.is_ok()));
        }
        self.remaining.reset();
        self.forecast.reset();
        for left in bounded(budgets) {
            let labels = [&*left.budget, &*left.scope];
            self.remaining
                .with_label_values(&labels)
                .set(left.remaining);
            if let Some(forecast) = left.forecast {
                self.forecast.with_label_values(&labels).set(forecast);
            }
        }
    }
}

/// Those with the least left, and for each budget the worst of the rest as `other`.
fn bounded(budgets: &[BudgetLeft]) -> Vec<BudgetLeft> {
    let mut told = budgets.to_vec();
    if told.len() <= MOST_SCOPES {
        return told;
    }
    told.sort_by(|a, b| a.remaining.total_cmp(&b.remaining));
    let mut others: Vec<BudgetLeft> = Vec::new();
    for left in told.split_off(MOST_SCOPES) {
        match others.iter_mut().find(|other| other.budget == left.budget) {
            // The first one has the least left.
            Some(other) => {
                other.forecast = match (other.forecast, left.forecast) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                }
            }
            None => others.push(BudgetLeft {
                scope: OTHER.into(),
                ..left
            }),
        }
    }
    told.extend(others);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_groups_those_with_the_least_left_are_told_and_the_rest_together() {
        let count = MOST_SCOPES + 500;
        let left = |index: usize| BudgetLeft {
            budget: ["a", "b"][index % 2].into(),
            scope: format!("agent={index}").into(),
            remaining: index as f64 / count as f64,
            forecast: Some(index as f64),
        };
        let all: Vec<BudgetLeft> = (0..count).rev().map(left).collect();
        let told = bounded(&all);
        assert_eq!(told.len(), MOST_SCOPES + 2);
        assert_eq!(&*told[0].scope, "agent=0");
        let others = &told[MOST_SCOPES..];
        let first = MOST_SCOPES as f64 / count as f64;
        assert!(others.iter().all(|o| &*o.scope == OTHER));
        assert_eq!(others[0].remaining, first);
        assert_eq!(others[1].forecast, Some((count - 1) as f64));
        assert_eq!(bounded(&all[..3]), all[..3]);
    }
}
