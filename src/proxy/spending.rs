//! Owns what all exchanges share that cost money: the books, the limits on pace, and what was learned of
//! earlier calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::budget::ledger::Ledger;
use crate::budget::rate::Rates;
use crate::meter::learned::LearnedTable;
use crate::telemetry::audit::AuditLog;
use crate::telemetry::metrics::Metrics;
use crate::types::agent::Agent;
use crate::types::limits::LEFT_ANSWERS;

/// What exchanges that cost money share.
pub struct Spending {
    ledger: OnceLock<Arc<dyn Ledger>>,
    /// Requests per time, and at once.
    pub rates: Rates,
    /// What a prompt of each agent and model costs by its length.
    pub learned: LearnedTable,
    /// One call of each agent at a time may run on an estimate that no answer has confirmed: a wrong one is
    /// then wrong once, however many calls there are at once.
    trust: Mutex<HashMap<Agent, Arc<Semaphore>>>,
    /// Answers that their agent left, and that are read to their end since they are billed whole.
    pub drains: Arc<Semaphore>,
    /// Where settlements are counted.
    pub metrics: Metrics,
    /// Where thresholds are recorded.
    pub audit: AuditLog,
}

impl Spending {
    /// Without books: they are opened when the first budget comes.
    pub fn new(metrics: Metrics, audit: AuditLog) -> Self {
        Self {
            ledger: OnceLock::new(),
            rates: Rates::default(),
            learned: LearnedTable::default(),
            trust: Mutex::default(),
            drains: Arc::new(Semaphore::new(LEFT_ANSWERS)),
            metrics,
            audit,
        }
    }

    /// The books, once there was a budget.
    pub fn ledger(&self) -> Option<&Arc<dyn Ledger>> {
        self.ledger.get()
    }

    /// The right to run on an estimate; there is one for each agent.
    pub fn trust(&self, agent: &Agent) -> Arc<Semaphore> {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        match trust.get(agent) {
            Some(own) => own.clone(),
            None => {
                let own = Arc::new(Semaphore::new(1));
                trust.insert(agent.clone(), own.clone());
                own
            }
        }
    }

    /// Waits until no abandoned answer is read on any more, or for this long.
    pub async fn drained(&self, patience: Duration) {
        let all = self.drains.acquire_many(LEFT_ANSWERS as u32);
        // What is still read then counts as it was reserved when the books are next opened.
        tokio::time::timeout(patience, all).await.ok();
    }

    /// Keeps the books for the life of the process; a second call changes nothing.
    pub fn keep(&self, ledger: Arc<dyn Ledger>) {
        // Only one task opens books: whoever starts or reloads.
        self.ledger.get_or_init(|| ledger);
    }
}
