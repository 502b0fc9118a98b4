//! Owns what is counted of money and tokens. Agents, models and budgets come from documents and price
//! tables; a model that has no price is counted as `other`.

use prometheus::{CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::types::charge::Charge;

/// The metrics of spending.
#[derive(Clone)]
pub struct SpendMetrics {
    tokens: IntCounterVec,
    spend: CounterVec,
    remaining: GaugeVec,
    alerts: IntCounterVec,
    underreserved: IntCounter,
    ledger: Gauge,
}

impl SpendMetrics {
    /// Registers everything once.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let tokens = IntCounterVec::new(
            Opts::new(
                "tollgate_tokens_total",
                "Tokens of calls that a budget counts, by class",
            ),
            &["agent", "model", "type"],
        )?;
        let spend = CounterVec::new(
            Opts::new(
                "tollgate_spend_usd_total",
                "What calls that a budget counts cost, in US dollars; for show, the ledger is exact",
            ),
            &["agent", "model"],
        )?;
        let remaining = GaugeVec::new(
            Opts::new(
                "tollgate_budget_remaining_ratio",
                "The part of a budget that is left in its present window; of several limits, the least",
            ),
            &["budget", "scope"],
        )?;
        let alerts = IntCounterVec::new(
            Opts::new(
                "tollgate_budget_alerts_total",
                "Thresholds that budgets have reached, each once in a window",
            ),
            &["budget", "percent"],
        )?;
        let underreserved = IntCounter::new(
            "tollgate_budget_underreserved_total",
            "Calls that cost more than was reserved for them",
        )?;
        let ledger = Gauge::new(
            "tollgate_ledger_ok",
            "1 while the spending ledger can be written; 0 without one",
        )?;
        registry.register(Box::new(tokens.clone()))?;
        registry.register(Box::new(spend.clone()))?;
        registry.register(Box::new(remaining.clone()))?;
        registry.register(Box::new(alerts.clone()))?;
        registry.register(Box::new(underreserved.clone()))?;
        registry.register(Box::new(ledger.clone()))?;
        Ok(Self {
            tokens,
            spend,
            remaining,
            alerts,
            underreserved,
            ledger,
        })
    }

    /// A call of this agent came to this.
    pub fn spent(&self, agent: &str, model: &str, charge: &Charge) {
        for (class, count) in charge.usage.iter().filter(|(_, count)| *count > 0) {
            let labels = [agent, model, class.as_str()];
            self.tokens.with_label_values(&labels).inc_by(count);
        }
        // A float shows the sum; nothing is decided by it.
        let dollars = charge.cost.0 as f64 / 1e9;
        let labels = [agent, model];
        self.spend.with_label_values(&labels).inc_by(dollars);
    }

    /// A limit of a budget has this left of that.
    pub fn budget(&self, budget: &str, scope: &str, remaining: u64, max: u64) {
        let ratio = match max {
            0 => 0.0,
            max => remaining as f64 / max as f64,
        };
        self.remaining
            .with_label_values(&[budget, scope])
            .set(ratio);
    }

    /// Forgets what is left of budgets: their windows end, and documents change, with nobody calling.
    pub fn forget_budgets(&self) {
        self.remaining.reset();
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

    /// Whether the ledger can be written.
    pub fn ledger(&self, is_well: Result<(), ()>) {
        self.ledger.set(if is_well.is_ok() { 1.0 } else { 0.0 });
    }
}
