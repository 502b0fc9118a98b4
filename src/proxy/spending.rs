//! Owns what all exchanges share that cost money: the books, the limits on pace, and what was learned of
//! earlier calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    own: Mutex<HashMap<Agent, Own>>,
    /// Answers that their agent left, and that are read on for what they cost.
    drains: Arc<Semaphore>,
    /// Where settlements are counted.
    pub metrics: Metrics,
    /// Where thresholds are recorded.
    pub audit: AuditLog,
}

/// What each agent has to itself.
#[derive(Clone)]
struct Own {
    /// One call at a time may run on an estimate that no answer has confirmed: a wrong one is then wrong once,
    /// however many calls there are at once.
    trust: Arc<Semaphore>,
    /// Its share of `drains` for those that are read on for minutes: it is not to take them all.
    drains: Arc<Semaphore>,
}

/// How far an answer is read on that its agent has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOn {
    /// Where leaving ends it: what the provider has sent by then is made, and billed.
    UnderWay,
    /// Where the provider makes and bills all of it: to its end, nearly always. What is not read to its end is
    /// charged as the longest that it may be.
    ToItsEnd,
}

impl ReadOn {
    /// For how long at most.
    pub fn time(self) -> Duration {
        match self {
            Self::UnderWay => Duration::from_millis(100),
            Self::ToItsEnd => Duration::from_secs(600),
        }
    }
}

/// Room to read an abandoned answer on in.
pub struct Drain {
    _own: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

impl Spending {
    /// Without books: they are opened when the first budget comes.
    pub fn new(metrics: Metrics, audit: AuditLog) -> Self {
        Self {
            ledger: OnceLock::new(),
            rates: Rates::default(),
            learned: LearnedTable::default(),
            own: Mutex::default(),
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
        self.own(agent).trust
    }

    /// Room to read on in what this agent has left.
    pub fn drain(&self, agent: &Agent, far: ReadOn) -> Option<Drain> {
        let own = match far {
            ReadOn::ToItsEnd => Some(self.own(agent).drains.try_acquire_owned().ok()?),
            ReadOn::UnderWay => None,
        };
        let all = self.drains.clone().try_acquire_owned().ok()?;
        Some(Drain {
            _own: own,
            _all: all,
        })
    }

    fn own(&self, agent: &Agent) -> Own {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(agent) {
            Some(own) => own.clone(),
            None => {
                let own = Own {
                    trust: Arc::new(Semaphore::new(1)),
                    drains: Arc::new(Semaphore::new(LEFT_ANSWERS / 2)),
                };
                all.insert(agent.clone(), own.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_agent_takes_all_the_room_for_answers_that_are_left() {
        let spending = Spending::new(Metrics::new().unwrap(), AuditLog::off());
        let [greedy, other] = ["greedy", "other"].map(|name| Agent::parse(name).unwrap());
        let most = |agent| {
            std::iter::from_fn(|| spending.drain(agent, ReadOn::ToItsEnd)).collect::<Vec<_>>()
        };
        let held = most(&greedy);
        assert_eq!(held.len(), LEFT_ANSWERS / 2);
        // What takes a moment has all the room there is.
        assert!(spending.drain(&greedy, ReadOn::UnderWay).is_some());
        let rest = most(&other);
        assert_eq!(rest.len(), LEFT_ANSWERS / 2);
        assert!(
            spending.drain(&other, ReadOn::UnderWay).is_none(),
            "there is no more"
        );
        drop(held);
        assert!(spending.drain(&greedy, ReadOn::ToItsEnd).is_some());
        assert!(spending.drain(&other, ReadOn::ToItsEnd).is_none());
    }
}
