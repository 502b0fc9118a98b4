//! Owns the books at work: an order changes them and is in the journal before anybody hears of it, in the
//! task that gives it. Only what needs the tables, or the disk itself, goes to the thread beside.
//!
//! Two short writes a call are the price: handing each to a thread and back costs many times as much, and
//! one transaction of tables as much again.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::book::Book;
use super::hold::Changes;
use super::journal::Journal;
use super::ledger::{HoldId, LedgerError, Settled, Settlement};
use super::line::Line;
use super::row::rows;
use super::series::SeriesId;
use super::sqlite_file::{InPlace, unwritable};
use super::sqlite_order::{Done, Order, Reply, Unwritten, Waiting, answer};
use crate::types::map::HashSet;

/// So many rows wait for the tables before they are written out of turn.
pub(super) const MANY: usize = 4096;

/// Files that are taken away are missed after so long at most.
const GLANCE: Duration = Duration::from_millis(100);

/// Tables that cannot be written are nobody's concern for so long: the journal has everything.
const GRACE: Duration = Duration::from_secs(10);

/// The books, their queue and their journal.
pub struct Desk {
    pub(super) book: Book,
    pub(super) line: Line<Waiting>,
    /// What is to be answered once it is in the journal.
    pub(super) done: Vec<Done>,
    pub(super) looked: Instant,
    pub(super) bell: Sender<Order>,
    pub(super) journal: Journal,
    pub(super) place: InPlace,
    /// Whether the files were in their place, when last seen.
    in_place: Result<(), LedgerError>,
    seen: Instant,
    /// The disk failed.
    pub(super) broken: Option<LedgerError>,
    /// What the journal has and the tables have not.
    pub(super) pending: Changes,
    /// Since when it has something.
    pub(super) pending_since: Option<Instant>,
    /// The thread was told that there are [`MANY`].
    pub(super) rung: bool,
    /// When the tables last could not be written.
    pub(super) failed: Option<Instant>,
    /// Reservations that the tables have.
    pub(super) tabled: HashSet<HoldId>,
    /// What is to be answered once the disk has it, and how far series may go then.
    pub(super) unsynced: Vec<Done>,
    pub(super) promises: BTreeMap<SeriesId, u64>,
    /// What was reserved since the journal could last be written, and let pass all the same.
    unwritten: u64,
    /// Documents were read that the tables do not know yet: new calls ask there.
    pub(super) configuring: u32,
    pub(super) closed: bool,
    pub(super) trouble: Option<LedgerError>,
    pub(super) behind: Option<(Instant, LedgerError)>,
    /// How often the disk was waited for.
    pub(super) syncs: u64,
}

impl Desk {
    /// Over books that the tables have whole.
    pub fn new(book: Book, journal: Journal, place: InPlace, bell: Sender<Order>) -> Self {
        Self {
            book,
            line: Line::default(),
            done: Vec::new(),
            looked: Instant::now(),
            bell,
            journal,
            place,
            in_place: Ok(()),
            seen: Instant::now(),
            broken: None,
            pending: Changes::default(),
            pending_since: None,
            rung: false,
            failed: None,
            tabled: HashSet::default(),
            unsynced: Vec::new(),
            promises: BTreeMap::new(),
            unwritten: 0,
            configuring: 0,
            closed: false,
            trouble: None,
            behind: None,
            syncs: 0,
        }
    }

    /// Does what was ordered, or gives it on to the thread that has the tables. Who is gone hears nothing.
    pub fn take(&mut self, order: Order) {
        if self.closed {
            return;
        }
        if matches!(order, Order::Configure(_)) {
            self.configuring += 1;
        }
        if self.needs_tables(&order) {
            self.bell.send(order).ok();
            return;
        }
        self.apply(order);
    }

    fn needs_tables(&self, order: &Order) -> bool {
        match order {
            Order::Reserve(ask, _) => {
                self.configuring > 0 || self.book.is_unknown(&ask.labels, &ask.limits)
            }
            Order::Balances(labels, limits, ..) => {
                self.configuring > 0 || self.book.is_unknown(labels, limits)
            }
            Order::Settle(settlement, _) => {
                let id = &settlement.id;
                !self.book.is_open(id) && !self.book.is_closed(id)
            }
            Order::Extend(..) | Order::Shrink(..) | Order::Retry(..) | Order::Abandon(_) => false,
            _ => true,
        }
    }

    /// Does what the books alone can tell.
    pub fn apply(&mut self, order: Order) {
        match order {
            Order::Reserve(ask, reply) => self.reserve(ask, reply),
            Order::Extend(id, more, patience, reply) => self.extend(id, more, patience, reply),
            Order::Shrink(id, need) => {
                self.book.shrink(&id, &need);
                // Nobody hears of it: it goes into the journal with what comes next. Lost, it counts as before.
                if self.line.is_empty() {
                    return;
                }
            }
            Order::Retry(id, reply) => match self.book.retry(&id) {
                Ok(()) => self.done.push(Done::Retried(id, reply)),
                Err(error) => answer(reply, Err(error)),
            },
            Order::Settle(settlement, reply) => self.settle(&settlement, reply),
            Order::Abandon(id) => self.abandon(&id),
            Order::Balances(labels, limits, at, reply) => {
                let places = self.book.places(&labels, &limits, at);
                let balances = self.book.balances(&places);
                self.done.push(Done::Told(balances, reply));
            }
            _ => return,
        }
        self.finish();
    }

    /// Undoes a reservation that nobody waits for any more. One that is still on its way to the tables'
    /// thread is undone there.
    pub fn give_up(&mut self, id: &HoldId) {
        if self.closed {
            return;
        }
        let known = self.book.is_open(id) || !self.waiters(id).is_empty();
        match known {
            true => self.apply(Order::Abandon(id.clone())),
            false => drop(self.bell.send(Order::Abandon(id.clone()))),
        }
    }

    fn waiters(&self, id: &HoldId) -> Vec<super::line::Ticket> {
        match self.line.is_empty() {
            true => Vec::new(),
            false => self.line.find(|waiting| waiting.want.id() == id),
        }
    }

    fn abandon(&mut self, id: &HoldId) {
        for ticket in self.waiters(id) {
            if let Some(left) = self.line.leave(ticket) {
                self.book.freed.extend(left.queues);
            }
        }
        self.book.abandon(id);
    }

    fn settle(&mut self, settlement: &Settlement, reply: Reply<Settled, LedgerError>) {
        let settled = self.book.settle(settlement).unwrap_or_default();
        self.done.push(Done::Settled(settled, reply));
    }

    /// Serves those who wait, writes what changed, and answers. What cannot be written stays in memory and
    /// is tried again; nobody is told that it was reserved.
    pub fn finish(&mut self) {
        self.wake();
        if self.book.changes.is_empty() {
            return answer_all(&mut self.done);
        }
        let promises = self.promise();
        if let Err(error) = self.write() {
            self.report(Some(error.clone()));
            let done = std::mem::take(&mut self.done);
            return self.refuse(done, &error);
        }
        self.report(None);
        self.unwritten = 0;
        self.pending.absorb(std::mem::take(&mut self.book.changes));
        let many = self.pending.entries.len() >= MANY && !self.rung;
        if self.pending_since.is_none() || many {
            self.rung |= many;
            self.pending_since.get_or_insert_with(Instant::now);
            self.bell.send(Order::Look).ok();
        }
        if promises.is_empty() {
            return answer_all(&mut self.done);
        }
        self.promises.extend(promises);
        self.unsynced.append(&mut self.done);
        self.bell.send(Order::Look).ok();
    }

    /// The series of which more was taken than the disk vouches for, and how far they may go once it was
    /// waited for, so that it need not be soon again: two in a hundred of the limit, or four requests, but no
    /// more than a tenth of it.
    fn promise(&mut self) -> Vec<(SeriesId, u64)> {
        let mut promises = Vec::new();
        let changes = &self.book.changes;
        let changed: Vec<SeriesId> = changes.series.union(&changes.taken).copied().collect();
        for id in changed {
            let Some(series) = self.book.series_mut(id) else {
                continue;
            };
            let taken = series.spent.saturating_add(series.reserved);
            if taken <= series.escrow {
                continue;
            }
            if taken > series.promised {
                // A soft limit may be far behind what was spent.
                let size = series.max.max(taken);
                let block = (size / 50).max(series.mean.saturating_mul(4));
                series.promised = taken.saturating_add(block.min(size / 10));
                promises.push((id, series.promised));
                self.book.changes.series.insert(id);
            } else {
                promises.push((id, series.promised));
            }
        }
        promises
    }

    /// Whether the files are where they belong. Four looks a call would cost as much as its two writes.
    fn look(&mut self) -> Result<(), LedgerError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if self.in_place.is_ok() && self.seen.elapsed() < GLANCE {
            return Ok(());
        }
        self.seen = Instant::now();
        self.in_place = self.place.check();
        if self.in_place.is_ok() && self.journal.is_gone() {
            self.in_place = Err(LedgerError::new(format!(
                "the journal of the ledger {} was removed or replaced while it is in use: put it back, or start this process again",
                self.place.path().display()
            )));
        }
        self.in_place.clone()
    }

    fn write(&mut self) -> Result<(), LedgerError> {
        self.look()?;
        let now = Timestamp::now().as_millisecond();
        for entry in &mut self.book.changes.entries {
            entry.settled_at = match entry.settled_at {
                0 => now,
                known => known,
            };
        }
        let book = &self.book;
        let written = self
            .journal
            .append(|give| rows(book, &book.changes, |_| true, give));
        written.map_err(|error| unwritable(self.place.path(), &error))
    }

    /// Takes back in reverse order what was promised to nobody yet.
    pub(super) fn refuse(&mut self, done: Vec<Done>, error: &LedgerError) {
        for done in done.into_iter().rev() {
            match done {
                Done::Reserved(_, balances, unwritten, reply) if self.let_pass(unwritten) => {
                    answer(reply, Ok(balances));
                }
                Done::Reserved(id, _, _, reply) => {
                    self.book.abandon(&id);
                    answer(reply, Err(error.clone().into()));
                }
                Done::Extended(id, more, reply) => {
                    self.book.unextend(&id, &more);
                    answer(reply, Err(error.clone().into()));
                }
                Done::Retried(id, reply) => {
                    self.book.unretry(&id);
                    answer(reply, Err(error.clone()));
                }
                Done::Settled(_, reply) => answer(reply, Err(error.clone())),
                Done::Amended(_, reply) => answer(reply, Err(error.clone())),
                Done::Told(balances, reply) => answer(reply, Ok(balances)),
            }
        }
    }

    /// Whether a reservation may stand that is in memory only.
    fn let_pass(&mut self, Unwritten { cost, allowed }: Unwritten) -> bool {
        if allowed == u64::MAX {
            return true;
        }
        // What has no price has no bound either.
        let sum = self.unwritten.saturating_add(cost);
        let passes = cost > 0 && sum <= allowed;
        if passes {
            self.unwritten = sum;
        }
        passes
    }

    pub(super) fn report(&mut self, error: Option<LedgerError>) {
        match (&self.trouble, &error) {
            (None, Some(error)) => tracing::error!(%error, "the ledger cannot be written"),
            (Some(_), None) => tracing::info!("the ledger can be written again"),
            _ => {}
        }
        self.trouble = error;
    }

    /// Whether the books can be written.
    pub fn health(&self) -> Result<(), LedgerError> {
        let behind = self.behind.as_ref();
        let behind = behind.filter(|(since, _)| since.elapsed() > GRACE);
        let behind = behind.map(|(_, error)| error);
        self.trouble
            .as_ref()
            .or(behind)
            .map_or(Ok(()), |error| Err(error.clone()))
    }
}

/// Why nothing is done any more.
pub fn closed() -> LedgerError {
    LedgerError::new("the ledger is closed: the process is about to end")
}

/// Answers in the order in which it was done.
pub(super) fn answer_all(done: &mut Vec<Done>) {
    for done in done.drain(..) {
        match done {
            Done::Reserved(_, balances, _, reply) => answer(reply, Ok(balances)),
            Done::Extended(_, _, reply) => answer(reply, Ok(())),
            Done::Retried(_, reply) => answer(reply, Ok(())),
            Done::Settled(settled, reply) => answer(reply, Ok(settled)),
            Done::Amended(amended, reply) => answer(reply, Ok(amended)),
            Done::Told(balances, reply) => answer(reply, Ok(balances)),
        }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
