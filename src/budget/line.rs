//! Owns the order in which calls wait for others to settle: first come, first served, limit by limit.
//!
//! A waiter stands in the queue of every limit that once was too full for it, and stays there until it is
//! served or gives up, so that nobody overtakes it. It may be served when it is the first in each of its
//! queues. All queues have the order of arrival, so the one who has waited longest always is: there is no
//! deadlock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::series::SeriesId;
use crate::types::map::HashMap;

/// A place in the order of arrival. Calls under way come before calls that are not made yet: those may
/// be waiting for just this one to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    rank: Rank,
    number: u64,
}

/// Who comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// A call under way that needs more.
    UnderWay,
    /// A new call.
    New,
}

/// Everybody who waits, with what they wait for.
#[derive(Debug)]
pub struct Line<T> {
    waiters: BTreeMap<Ticket, Left<T>>,
    queues: HashMap<SeriesId, BTreeSet<Ticket>>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    next: u64,
}

/// One who waits, or did.
#[derive(Debug)]
pub struct Left<T> {
    /// For what.
    pub what: T,
    /// In which queues.
    pub queues: Vec<SeriesId>,
    /// Until when.
    pub deadline: Instant,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiters: BTreeMap::new(),
            queues: HashMap::default(),
            deadlines: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<T> Line<T> {
    /// The next place in the order.
    pub fn ticket(&mut self, rank: Rank) -> Ticket {
        self.next += 1;
        Ticket {
            rank,
            number: self.next,
        }
    }

    /// The queues in which somebody with an earlier ticket waits.
    pub fn behind(&self, ticket: Ticket, series: impl Iterator<Item = SeriesId>) -> Vec<SeriesId> {
        let earlier = |id: &SeriesId| {
            let queue = self.queues.get(id);
            queue.is_some_and(|queue| queue.range(..ticket).next().is_some())
        };
        series.filter(earlier).collect()
    }

    /// How many wait in a queue.
    pub fn waiting(&self, series: SeriesId) -> usize {
        self.queues.get(&series).map_or(0, BTreeSet::len)
    }

    /// How many of them `chosen` says.
    pub fn waiting_for(&self, series: SeriesId, chosen: impl Fn(&T) -> bool) -> usize {
        let queue = self.queues.get(&series).into_iter().flatten();
        let waiters = queue.filter_map(|ticket| self.waiters.get(ticket));
        waiters.filter(|waiter| chosen(&waiter.what)).count()
    }

    /// Waits in these queues, no longer than until `deadline`.
    pub fn join(&mut self, ticket: Ticket, what: T, queues: &[SeriesId], deadline: Instant) {
        let mut own = Vec::with_capacity(queues.len());
        for id in queues {
            if self.queues.entry(*id).or_default().insert(ticket) {
                own.push(*id);
            }
        }
        self.deadlines.insert((deadline, ticket));
        let left = Left {
            what,
            queues: own,
            deadline,
        };
        self.waiters.insert(ticket, left);
    }

    /// No longer waits, and leaves its queues to others.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Left<T>> {
        let left = self.waiters.remove(&ticket)?;
        self.deadlines.remove(&(left.deadline, ticket));
        for id in &left.queues {
            let Some(queue) = self.queues.get_mut(id) else {
                continue;
            };
            queue.remove(&ticket);
            if queue.is_empty() {
                self.queues.remove(id);
            }
        }
        Some(left)
    }

    /// The first in a queue.
    pub fn head(&self, series: SeriesId) -> Option<Ticket> {
        self.queues.get(&series)?.first().copied()
    }

    /// The first in each of these queues.
    pub fn heads_of<'a>(&self, queues: impl IntoIterator<Item = &'a SeriesId>) -> BTreeSet<Ticket> {
        queues.into_iter().filter_map(|id| self.head(*id)).collect()
    }

    /// The first of every queue.
    pub fn heads(&self) -> BTreeSet<Ticket> {
        let firsts = self.queues.values().filter_map(BTreeSet::first);
        firsts.copied().collect()
    }

    /// Whether it is the first in each of its queues.
    pub fn is_first(&self, ticket: Ticket) -> bool {
        let Some(waiter) = self.waiters.get(&ticket) else {
            return false;
        };
        waiter
            .queues
            .iter()
            .all(|id| self.head(*id) == Some(ticket))
    }

    /// Those who wait for what `chosen` says.
    pub fn find(&self, chosen: impl Fn(&T) -> bool) -> Vec<Ticket> {
        let waiters = self.waiters.iter().filter(|(_, w)| chosen(&w.what));
        waiters.map(|(ticket, _)| *ticket).collect()
    }

    /// Somebody whose time is up.
    pub fn expired(&self, now: Instant) -> Option<Ticket> {
        let (deadline, ticket) = self.deadlines.first()?;
        (*deadline <= now).then_some(*ticket)
    }

    /// When the next one's time is up.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }
}
