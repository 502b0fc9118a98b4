//! Owns the port to the books: what calls reserve before they are made, and what they cost once they are.
//!
//! The order is fixed: a reservation is written before its request is sent, and its settlement is written
//! before the last piece of the answer goes on. What is reserved and never settled (the process died) is
//! charged at the reserved amount when the books are opened again.
//!
//! A ledger that several replicas share implements the same port: it hands out leases and adds up what
//! each replica has spent in total, so nothing here asks for one global order of events.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::limit::{Labels, Limit};
use crate::types::charge::{Charge, Need};
use crate::types::cure::Cure;
use crate::types::money::NanoUsd;

/// One try of one request. Each has its own row; settling it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HoldId {
    /// The exchange's id, as the access log has it. Unique across restarts.
    pub request: Arc<str>,
    /// 1 for the first try.
    pub attempt: u32,
}

/// What a call wants to reserve before it is made: from every limit, or from none.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The try.
    pub id: HoldId,
    /// When: it decides the windows, for the reservation and for what it will cost.
    pub at: Timestamp,
    /// Who calls what.
    pub labels: Labels,
    /// Every limit that covers the call.
    pub limits: Vec<Arc<Limit>>,
    /// The most it can use.
    pub need: Need,
    /// Whether it may wait for others to settle, within each limit's own time.
    pub patience: Patience,
    /// How much may be reserved together, by this call and others, while the books cannot be written: an
    /// operator's word that a little overspending is better than standing still. Zero refuses.
    pub unwritten: NanoUsd,
}

/// Whether a call may wait where it would fit once others settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as the limits allow.
    Queue,
    /// No longer than this.
    UpTo(Duration),
}

/// Where a limit stands for one group of calls.
#[derive(Clone, Debug)]
pub struct Balance {
    /// The limit.
    pub limit: Arc<Limit>,
    /// The group: see [`Limit::scope`].
    pub scope: Arc<str>,
    /// The most that may be spent, raises included, in the limit's unit.
    pub max: u64,
    /// What was spent.
    pub settled: u64,
    /// What requests in flight have reserved.
    pub reserved: u64,
    /// What an unclean end left open, and nobody may spend before the window ends.
    pub held: u64,
    /// When the window ends, if it does.
    pub resets: Option<Timestamp>,
}

impl Balance {
    /// What is left to reserve.
    pub fn remaining(&self) -> u64 {
        let taken = self.settled.saturating_add(self.reserved);
        self.max.saturating_sub(taken.saturating_add(self.held))
    }
}

/// Why a reservation was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotReserved {
    /// It does not fit even if everything in flight were free: not before the window ends.
    #[error("the budget {} is exhausted", .0.balance.limit.budget)]
    Exhausted(Box<Shortage>),
    /// It would fit once requests in flight settle, and they did not in time.
    #[error("the budget {} is held by requests in flight", .0.balance.limit.budget)]
    Contended(Box<Shortage>),
    /// The books cannot be written.
    #[error("{0}")]
    Unavailable(#[from] LedgerError),
}

/// The limit that stood in the way.
#[derive(Clone, Debug)]
pub struct Shortage {
    /// Where it stands.
    pub balance: Balance,
    /// What was asked of it.
    pub asked: u64,
}

/// Why the books cannot be used now. The text names the place and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LedgerError(pub String, Cure);

impl LedgerError {
    /// What may be gone the next time.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into(), Cure::Time)
    }

    /// The same, with what it takes to be gone.
    pub fn of(cure: Cure, text: impl Into<String>) -> Self {
        Self(text.into(), cure)
    }

    /// What it takes to be gone.
    pub fn cure(&self) -> Cure {
        self.1
    }
}

/// How a call ended, for its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Whole.
    Complete,
    /// The origin answered with an error, or not at all: nothing is charged.
    Refused,
    /// The agent left.
    AgentLeft,
    /// The origin broke off or fell silent.
    OriginBroke,
    /// It was cut here: the budget had no more.
    Cut,
    /// The process died with it open.
    Orphaned,
}

impl Ending {
    /// The word in the ledger and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Refused => "refused",
            Self::AgentLeft => "agent_left",
            Self::OriginBroke => "origin_broke",
            Self::Cut => "cut",
            Self::Orphaned => "orphaned",
        }
    }
}

/// What a call came to.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The try.
    pub id: HoldId,
    /// One for each model that worked on it; none where nothing is charged.
    pub charges: Vec<Charge>,
    /// Whether some of it had to be estimated.
    pub estimated: bool,
    /// How it ended.
    pub ending: Ending,
    /// The prices it was reckoned with, by the SHA-256 of their text.
    pub prices: [u8; 32],
    /// The credential that went into it.
    pub credential: Option<Arc<str>>,
}

/// What a settlement changed.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Where its limits stand now.
    pub balances: Vec<Balance>,
    /// Thresholds that were crossed, each told once: the balance and the percentage.
    pub alerts: Vec<(Balance, u8)>,
    /// Limits from which it took more than was reserved.
    pub underreserved: u32,
}

/// A change that an operator makes, with its reason.
#[derive(Clone, Debug)]
pub enum Amendment {
    /// More may be spent until then; without an end, for good.
    Raise {
        /// By how much, in the limit's unit.
        by: u64,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// What was spent in the present window counts no more.
    Reset,
}

/// An operator's change, for the audit.
#[derive(Clone, Debug)]
pub struct Change {
    /// The limit, as the documents have it now.
    pub limit: Arc<Limit>,
    /// One group of calls; nothing means every group.
    pub scope: Option<Arc<str>>,
    /// What changes.
    pub amendment: Amendment,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who ordered it.
    pub who: String,
}

/// What a change came to: of a raise what might be spent, of a reset what was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amended {
    /// Before.
    pub old: u64,
    /// After.
    pub new: u64,
}

/// The books. Orders are given when a method is called; the future tells what came of them.
pub trait Ledger: Send + Sync {
    /// Reserves from every limit, or from none. When it returns, the reservation outlives a crash.
    fn reserve(&self, ask: Ask) -> BoxFuture<'static, Result<Vec<Balance>, NotReserved>>;

    /// Reserves more for a call under way, in the windows it was admitted in. It may wait for others as
    /// long as `patience`.
    fn extend(
        &self,
        id: HoldId,
        more: Need,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), NotReserved>>;

    /// Gives back what turned out not to be needed: the reservation is `need` from now on, if that is less.
    fn shrink(&self, id: HoldId, need: Need);

    /// The try came to nothing and is made once more: its row is closed with no cost, and its reservation
    /// is the next one's.
    fn retry(&self, id: HoldId) -> BoxFuture<'static, Result<(), LedgerError>>;

    /// Books what a call came to, in the windows it was admitted in. It is never refused and never cut
    /// down, whatever the limit. When it returns it outlives the end of the process.
    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<Settled, LedgerError>>;

    /// Where limits stand for a call that is not made.
    fn balances(
        &self,
        labels: Labels,
        limits: Vec<Arc<Limit>>,
        at: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<Balance>, LedgerError>>;

    /// Tells which limits there are, each time documents were read. A limit that was gone for a while then
    /// counts what was spent meanwhile, too.
    fn configure(&self, limits: Vec<Arc<Limit>>);

    /// Whether the books can be written, as far as the last order showed.
    fn health(&self) -> Result<(), LedgerError>;
}
