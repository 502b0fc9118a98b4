//! Owns the vocabulary of the ledger: what it is asked, what it answers, and who waits for what.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::hold::{Misfit, Place};
use super::ledger::{
    Amended, Ask, Balance, Change, HoldId, LedgerError, NotReserved, Settled, Settlement,
};
use super::limit::{Labels, Limit};
use super::sqlite_report::Standing;
use crate::types::agent::Agent;
use crate::types::charge::Need;

/// What is asked: the methods of the port, and a few of the ledger's own.
#[derive(Debug)]
pub enum Order {
    /// See [`Ledger::reserve`](super::ledger::Ledger::reserve).
    Reserve(Box<Ask>, Reply<Vec<Balance>, NotReserved>),
    /// See [`Ledger::extend`](super::ledger::Ledger::extend).
    Extend(HoldId, Need, Duration, Reply<(), NotReserved>),
    /// See [`Ledger::shrink`](super::ledger::Ledger::shrink).
    Shrink(HoldId, Need),
    /// See [`Ledger::retry`](super::ledger::Ledger::retry).
    Retry(HoldId, Reply<(), LedgerError>),
    /// See [`Ledger::settle`](super::ledger::Ledger::settle).
    Settle(Box<Settlement>, Reply<Settled, LedgerError>),
    /// Nobody waits any more for the answer to this reservation.
    Abandon(HoldId),
    /// See [`Ledger::balances`](super::ledger::Ledger::balances).
    Balances(
        Box<Labels>,
        Vec<Arc<Limit>>,
        Timestamp,
        Reply<Vec<Balance>, LedgerError>,
    ),
    /// Where all limits stand.
    Standing(Reply<Vec<Standing>, LedgerError>),
    /// See [`Ledger::configure`](super::ledger::Ledger::configure).
    Configure(Vec<Arc<Limit>>),
    /// An operator's change.
    Amend(Box<Change>, Reply<Amended, LedgerError>),
    /// Nothing: the thread should look what there is to do.
    Look,
    /// Write to the tables what they have not yet: somebody wants to read them.
    Fold(Reply<(), LedgerError>),
    /// Write everything and end.
    Close(Reply<(), LedgerError>),
}

/// Where an answer goes.
pub type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// An answer that has to wait until it is written what it says.
pub(super) enum Done {
    Reserved(
        HoldId,
        Vec<Balance>,
        Unwritten,
        Reply<Vec<Balance>, NotReserved>,
    ),
    Extended(HoldId, Need, Reply<(), NotReserved>),
    Retried(HoldId, Reply<(), LedgerError>),
    Settled(Settled, Reply<Settled, LedgerError>),
    Amended(Amended, Reply<Amended, LedgerError>),
    Told(Vec<Balance>, Reply<Vec<Balance>, LedgerError>),
}

/// What a reservation may do while the file cannot be written.
#[derive(Clone, Copy)]
pub(super) struct Unwritten {
    pub(super) cost: u64,
    pub(super) allowed: u64,
}

/// Somebody who waits for others to settle.
pub(super) struct Waiting {
    pub(super) want: Want,
    pub(super) shortage: NotReserved,
    pub(super) since: Instant,
    pub(super) at: Timestamp,
}

pub(super) enum Want {
    Reserve(Box<Ask>, Reply<Vec<Balance>, NotReserved>),
    Extend(HoldId, Need, Reply<(), NotReserved>),
}

impl Want {
    pub(super) fn id(&self) -> &HoldId {
        match self {
            Self::Reserve(ask, _) => &ask.id,
            Self::Extend(id, ..) => id,
        }
    }

    /// Who makes a new call.
    pub(super) fn caller(&self) -> Option<&Agent> {
        match self {
            Self::Reserve(ask, _) => Some(&ask.labels.agent),
            Self::Extend(..) => None,
        }
    }

    pub(super) fn is_unheard(&self) -> bool {
        match self {
            Self::Reserve(_, reply) => reply.is_closed(),
            Self::Extend(_, _, reply) => reply.is_closed(),
        }
    }

    pub(super) fn refuse(self, why: NotReserved) {
        match self {
            Self::Reserve(_, reply) => answer(reply, Err(why)),
            Self::Extend(_, _, reply) => answer(reply, Err(why)),
        }
    }
}

/// What became of a try to reserve.
pub(super) enum Attempt {
    Fits,
    Refused(NotReserved),
    /// These limits have no room now, or somebody else comes first there.
    Full(Vec<Place>, NotReserved),
}

impl Attempt {
    pub(super) fn of(misfit: Misfit, blocked: Vec<Place>) -> Self {
        match misfit {
            Misfit::Exhausted(shortage) => Self::Refused(NotReserved::Exhausted(shortage)),
            Misfit::Contended(mut places, shortage) => {
                places.extend(blocked);
                Self::Full(places, NotReserved::Contended(shortage))
            }
        }
    }
}

/// Whoever asked may have left.
pub(super) fn answer<T, E>(reply: Reply<T, E>, outcome: Result<T, E>) {
    reply.send(outcome).ok();
}
