//! Owns the parts of the books: reservations, raises, where a call counts, and what is not on disk yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::entry::Entry;
use super::ledger::{HoldId, Shortage};
use super::limit::{Enforcement, Labels, Limit};
use super::series::SeriesId;
use crate::types::charge::Need;
use crate::types::map::{HashMap, HashSet};

/// What a reservation takes, and where.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The moment that decided its windows, in milliseconds.
    pub at: i64,
    /// Who calls what.
    pub labels: Arc<Labels>,
    /// The most it can use.
    pub need: Need,
    /// What it takes of each limit.
    pub items: Vec<Item>,
}

/// What a reservation takes of one limit.
#[derive(Clone, Debug)]
pub struct Item {
    /// The limit; unknown for what an earlier process left open.
    pub limit: Option<Arc<Limit>>,
    /// The counts it is in.
    pub series: SeriesId,
    /// The start of its window.
    pub start: i64,
    /// How much.
    pub amount: u64,
}

/// More that may be spent for a time, by an operator's word.
#[derive(Clone, Debug)]
pub struct Raise {
    /// The group of calls; nothing means every group.
    pub scope: Option<Arc<str>>,
    /// How much more.
    pub by: u64,
    /// Until when, in milliseconds.
    pub until: Option<i64>,
}

/// What the disk has to learn. Counts and reservations are written as they then are.
#[derive(Debug, Default)]
pub struct Changes {
    /// Series that are new, or whose newest window is.
    pub series: BTreeSet<SeriesId>,
    /// Series that were taken from: whether the disk vouches for it is to be seen.
    pub taken: BTreeSet<SeriesId>,
    /// Windows that changed.
    pub windows: BTreeSet<(SeriesId, i64)>,
    /// Windows that no longer count.
    pub past: BTreeSet<(SeriesId, i64)>,
    /// Series that nobody needs any more.
    pub gone: BTreeSet<SeriesId>,
    /// Reservations that were made, changed or closed.
    pub holds: HashSet<HoldId>,
    /// New rows.
    pub entries: Vec<Entry>,
    /// Limits that are new, or have another amount.
    pub limits: HashMap<Arc<str>, Arc<Limit>>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
            && self.windows.is_empty()
            && self.gone.is_empty()
            && self.holds.is_empty()
            && self.entries.is_empty()
            && self.limits.is_empty()
    }

    /// Adds what changed after it.
    pub fn absorb(&mut self, later: Self) {
        let Self {
            series,
            taken,
            windows,
            past,
            gone,
            holds,
            entries,
            limits,
        } = later;
        self.series.extend(series);
        self.taken.extend(taken);
        self.windows.extend(windows);
        self.past.extend(past);
        self.gone.extend(gone);
        self.holds.extend(holds);
        self.entries.extend(entries);
        self.limits.extend(limits);
    }
}

/// Where a call counts for one limit.
#[derive(Clone, Debug)]
pub struct Place {
    /// The limit.
    pub limit: Arc<Limit>,
    /// The counts.
    pub series: SeriesId,
    /// The start of its window.
    pub start: i64,
}

impl Place {
    /// Whether the limit can refuse.
    pub fn is_hard(&self) -> bool {
        self.limit.enforcement == Enforcement::Hard
    }
}

/// Why a reservation does not fit now.
#[derive(Debug)]
pub enum Misfit {
    /// Not before the window ends.
    Exhausted(Box<Shortage>),
    /// Not before others settle: these limits.
    Contended(Vec<Place>, Box<Shortage>),
}
