//! Owns what the thread that has the tables does at the desk: it takes what they have not yet, and says what
//! became of it, and of what had to reach the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::{Desk, MANY, answer_all, closed};
use super::entry::Past;
use super::hold::Changes;
use super::journal::{Journal, Turned, rows_as_octets};
use super::ledger::{HoldId, LedgerError};
use super::limit::Limit;
use super::row::rows;
use super::series::SeriesId;
use super::sqlite_file::unwritable;
use super::sqlite_order::Done;

/// The tables have what changed so long after: many calls then share one transaction.
const FOLD: Duration = Duration::from_millis(100);

/// What could not be written is tried again so often.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// What the tables are to learn.
#[derive(Debug)]
pub struct Batch {
    /// Rows, as they stand in a record.
    pub rows: Vec<u8>,
    /// What changed; the entries among it are not in `rows`.
    pub changes: Changes,
    /// The tables then have everything up to this record.
    pub number: u64,
    /// A file of the journal that is done with then.
    pub turned: Option<Turned>,
    closed: Vec<HoldId>,
}

impl Desk {
    /// What the tables have not yet.
    pub fn batch(&mut self) -> Result<Option<Batch>, LedgerError> {
        self.pending_since = None;
        self.rung = false;
        if self.pending.is_empty() && !self.journal.is_full() {
            return Ok(None);
        }
        // Of what came and went without the tables there is nothing to tell them, now or the next time.
        let (book, tabled) = (&self.book, &self.tabled);
        let told = |id: &HoldId| book.is_open(id) || tabled.contains(id);
        self.pending.holds.retain(told);
        // They are written from what they are: there may be many, and the desk is not kept waiting for them.
        let entries = std::mem::take(&mut self.pending.entries);
        let (book, pending, tabled) = (&self.book, &self.pending, &self.tabled);
        let rows = rows_as_octets(|give| rows(book, pending, |id| tabled.contains(id), give));
        let mut changes = std::mem::take(&mut self.pending);
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                changes.entries = entries;
                self.pending = changes;
                return Err(unwritable(self.place.path(), &error));
            }
        };
        let mut closed = Vec::new();
        for id in &changes.holds {
            if self.book.is_open(id) {
                self.tabled.insert(id.clone());
            } else if self.tabled.contains(id) {
                closed.push(id.clone());
            }
        }
        changes.entries = entries;
        Ok(Some(Batch {
            rows,
            changes,
            number: self.journal.number(),
            turned: self.journal.turn(),
            closed,
        }))
    }

    /// The tables have it.
    pub fn folded(&mut self, batch: &Batch) {
        (self.behind, self.failed) = (None, None);
        for id in &batch.closed {
            self.tabled.remove(id);
        }
    }

    /// The journal, to take turns with its files.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The tables could not take it: it is tried again, after a while.
    pub fn unfolded(&mut self, batch: Batch, error: &LedgerError) {
        if self.behind.is_none() {
            tracing::warn!(%error, "the ledger's tables cannot be written: its journal keeps everything meanwhile");
        }
        let now = Instant::now();
        let since = self.behind.as_ref().map_or(now, |(since, _)| *since);
        self.behind = Some((since, error.clone()));
        self.failed = Some(now);
        self.pending_since.get_or_insert(now);
        let later = std::mem::replace(&mut self.pending, batch.changes);
        self.pending.absorb(later);
    }

    /// Entries that the tables have not.
    pub fn unfolded_entries(&self) -> Vec<Past> {
        self.pending.entries.iter().map(Into::into).collect()
    }

    /// How long the tables may wait for what changed; nothing where nothing did.
    pub fn fold_in(&self) -> Option<Duration> {
        let since = self.pending_since?;
        let ripe = match self.pending.entries.len() >= MANY {
            true => Duration::ZERO,
            false => FOLD.saturating_sub(since.elapsed()),
        };
        let failed = self.failed.map(|failed| failed.elapsed());
        Some(ripe.max(failed.map_or(Duration::ZERO, |ago| AGAIN.saturating_sub(ago))))
    }

    /// Why the tables are left alone: they could not be written a moment ago. To try it each time somebody wants
    /// something would keep everybody waiting.
    pub fn resting(&self) -> Option<LedgerError> {
        let rests = self.failed.is_some_and(|failed| failed.elapsed() < AGAIN);
        let (_, error) = self.behind.as_ref().filter(|_| rests)?;
        Some(error.clone())
    }

    /// What waits for the disk, and the files that have to reach it.
    pub fn unsynced(&mut self) -> Option<Unsynced> {
        if self.unsynced.is_empty() && self.promises.is_empty() {
            return None;
        }
        self.syncs += 1;
        Some(Unsynced {
            done: std::mem::take(&mut self.unsynced),
            promises: std::mem::take(&mut self.promises),
            files: self.journal.files(),
        })
    }

    /// The disk has it.
    pub fn synced(&mut self, mut unsynced: Unsynced) {
        for (id, promised) in unsynced.promises {
            if let Some(series) = self.book.series_mut(id) {
                series.escrow = series.escrow.max(promised);
            }
        }
        answer_all(&mut unsynced.done);
    }

    /// The disk has it not.
    pub fn not_synced(&mut self, unsynced: Unsynced, error: &std::io::Error) {
        // The system may take for written what it could not write: no later wait proves anything.
        let error = LedgerError::new(format!(
            "the disk could not take the journal of the ledger {}: {error}; see to the disk, then start this process again",
            self.place.path().display()
        ));
        self.broken = Some(error.clone());
        self.report(Some(error.clone()));
        let (retried, rest) = unsynced
            .done
            .into_iter()
            .partition(|done| matches!(done, Done::Retried(..)));
        let mut retried: Vec<Done> = retried;
        answer_all(&mut retried);
        self.refuse(rest, &error);
        self.finish();
    }

    /// The thread ended without closing: nothing is given out any more, and whoever waits is told.
    pub fn forsaken(&mut self) {
        if self.closed {
            return;
        }
        let error = LedgerError::new(format!(
            "the thread of the ledger {} ended unexpectedly: start this process again",
            self.place.path().display()
        ));
        self.broken = Some(error.clone());
        self.report(Some(error.clone()));
        let mut done = std::mem::take(&mut self.unsynced);
        done.append(&mut self.done);
        self.refuse(done, &error);
        self.shut(&error);
    }

    /// Adds these limits up anew when they are next asked for.
    pub fn distrust(&mut self, limits: &[Arc<Limit>]) {
        limits
            .iter()
            .for_each(|limit| self.book.distrust(&limit.id));
    }

    /// The tables know the documents now.
    pub fn configured(&mut self, back: &[Arc<str>]) {
        self.configuring = self.configuring.saturating_sub(1);
        back.iter().for_each(|id| self.book.distrust(id));
    }

    /// Takes no more orders.
    pub fn close(&mut self) -> Result<(), LedgerError> {
        self.finish();
        self.shut(&closed());
        match (self.book.changes.is_empty(), &self.trouble) {
            (true, _) => Ok(()),
            (false, Some(error)) => Err(error.clone()),
            (false, None) => Err(LedgerError::new("the ledger could not be written")),
        }
    }

    fn shut(&mut self, why: &LedgerError) {
        self.closed = true;
        for ticket in self.line.find(|_| true) {
            if let Some(left) = self.line.leave(ticket) {
                left.what.want.refuse(why.clone().into());
            }
        }
    }
}

/// What is answered once the disk has it.
pub struct Unsynced {
    done: Vec<Done>,
    promises: BTreeMap<SeriesId, u64>,
    /// What has to reach the disk.
    pub files: [Arc<std::fs::File>; 2],
}
