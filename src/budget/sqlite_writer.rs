//! Owns the one thread that has the ledger's tables: it writes to them, a moment later and many at a time,
//! what the journal has, reads from them what the books do not remember, and waits for the disk.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::book::nothing_open;
use super::desk::Desk;
use super::desk_thread::{AGAIN, Batch};
use super::desk_wait::LOOK;
use super::hold::Raise;
use super::journal::{Turned, empty};
use super::ledger::{Amended, Amendment, Change, LedgerError, Settlement};
use super::limit::{Labels, Limit};
use super::row::{EntryRow, Row};
use super::sqlite_catch_up::write_record;
use super::sqlite_file::{LedgerFile, Transaction, broken, set_folded};
use super::sqlite_load::{history, is_settled};
use super::sqlite_order::{Done, Order, Reply, answer};
use super::sqlite_report::{Standing, limits, standing};
use super::sqlite_rows::{self, Prices};
use super::sqlite_upkeep::{UPKEEP, Upkeep};

/// So many orders are looked at together at most.
const BATCH: usize = 512;

/// The thread's state.
pub struct Writer {
    file: LedgerFile,
    desk: Arc<Mutex<Desk>>,
    prices: Prices,
    /// Limits that were read from documents and are not noted yet.
    configured: VecDeque<Vec<Arc<Limit>>>,
    /// When that last failed.
    unnoted: Option<Instant>,
    /// A file of the journal that is to be emptied.
    turned: Option<Turned>,
    upkeep: Upkeep,
}

impl Writer {
    /// Over an open file and the books that were read from it.
    pub fn new(file: LedgerFile, desk: Arc<Mutex<Desk>>) -> Self {
        Self {
            upkeep: Upkeep::new(&file.path),
            file,
            desk,
            prices: Prices::default(),
            configured: VecDeque::new(),
            unnoted: None,
            turned: None,
        }
    }

    /// Works until it is told to close.
    pub fn run(mut self, orders: &Receiver<Order>) {
        let closing = loop {
            let first = match orders.recv_timeout(self.patience()) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break None,
            };
            if let Some(reply) = self.round(first, orders) {
                break Some(reply);
            }
        };
        let outcome = self.close();
        if let Err(error) = &outcome {
            tracing::error!(%error, "the ledger could not be closed");
        }
        if let Some(reply) = closing {
            reply.send(outcome).ok();
        }
    }

    /// Whoever panicked at the desk left it as it was before its order, or with an order half done, which the
    /// journal does not have: the books are not given out any more, and closed as they are on disk.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything there is to do now. The order to close ends it.
    fn round(
        &mut self,
        first: Option<Order>,
        orders: &Receiver<Order>,
    ) -> Option<Reply<(), LedgerError>> {
        let mut closing = None;
        let mut asked = Vec::new();
        let mut readers = Vec::new();
        let mut next = first;
        let mut count = 0;
        while let Some(order) = next.take() {
            match order {
                Order::Close(reply) => closing = Some(reply),
                Order::Look => {}
                Order::Fold(reply) => readers.push(reply),
                order => asked.push(order),
            }
            count += 1;
            if count < BATCH && closing.is_none() {
                next = orders.try_recv().ok();
            }
        }
        self.sync();
        let due = self.upkeep.is_due();
        let must = !asked.is_empty() || !readers.is_empty() || !self.configured.is_empty();
        let ripe = self.desk().fold_in() == Some(Duration::ZERO);
        if must || due || ripe {
            let folded = self.fold();
            readers
                .drain(..)
                .for_each(|reply| answer(reply, folded.clone()));
        }
        self.configure();
        for order in asked {
            self.serve(order);
        }
        self.desk().finish();
        self.sync();
        if due {
            self.keep();
        }
        closing
    }

    /// Does what needs the tables, then what is left of the order at the desk.
    fn serve(&mut self, order: Order) {
        match order {
            Order::Reserve(ask, reply) => match self.adopt(&ask.labels, &ask.limits, ask.at) {
                Ok(()) => self.desk().apply(Order::Reserve(ask, reply)),
                Err(error) => answer(reply, Err(error.into())),
            },
            Order::Balances(labels, limits, at, reply) => match self.adopt(&labels, &limits, at) {
                Ok(()) => self
                    .desk()
                    .apply(Order::Balances(labels, limits, at, reply)),
                Err(error) => answer(reply, Err(error)),
            },
            Order::Settle(settlement, reply) => self.settle(settlement, reply),
            Order::Configure(limits) => {
                self.configured.push_back(limits);
                self.configure();
            }
            Order::Standing(reply) => answer(reply, self.standing()),
            Order::Amend(change, reply) => match self.amend(&change) {
                Ok(amended) => self.amended(amended, &change.amendment, reply),
                Err(error) => answer(reply, Err(error)),
            },
            order => self.desk().apply(order),
        }
    }

    /// Reads what was spent before for limits that never counted such a call.
    fn adopt(
        &self,
        labels: &Labels,
        limits: &[Arc<Limit>],
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        let unknown = self.desk().book.unknown(labels, limits);
        for (limit, scope) in unknown {
            let connection = &self.file.connection;
            let past = history(connection, &limit, &scope, labels, at.as_millisecond());
            let mut past = past.map_err(|error| broken(&self.file.path, &error))?;
            let mut desk = self.desk();
            // Only this thread moves entries to the tables: each is either there or here.
            past.extend(desk.unfolded_entries());
            desk.book.adopt(&limit, &scope, &past, at);
        }
        Ok(())
    }

    /// A try that the books do not have open, and did not close lately.
    fn settle(
        &self,
        settlement: Box<Settlement>,
        reply: Reply<super::ledger::Settled, LedgerError>,
    ) {
        let id = &settlement.id;
        let known = {
            let desk = self.desk();
            desk.book.is_open(id) || desk.book.is_closed(id)
        };
        if known {
            return self.desk().apply(Order::Settle(settlement, reply));
        }
        let outcome = match is_settled(&self.file.connection, id) {
            Ok(true) => Ok(Default::default()),
            Ok(false) => Err(nothing_open(id)),
            Err(error) => Err(broken(&self.file.path, &error)),
        };
        answer(reply, outcome);
    }

    fn standing(&self) -> Result<Vec<Standing>, LedgerError> {
        let limits = limits(&self.file.connection);
        let limits = limits.map_err(|error| broken(&self.file.path, &error))?;
        Ok(standing(&self.desk().book, &limits, Timestamp::now()))
    }

    /// The change is written before it counts: one that failed is given again, and must not count twice.
    fn amend(&self, change: &Change) -> Result<Amended, LedgerError> {
        self.file.place.check()?;
        let (limit, scope) = (&change.limit, change.scope.as_deref());
        let at = Timestamp::now();
        let desk = self.desk();
        let (old, new) = match change.amendment {
            Amendment::Raise { by, .. } => {
                let raised = desk.book.raised(&limit.id, scope.unwrap_or(""), at);
                let old = limit.max.saturating_add(raised);
                (old, old.saturating_add(by))
            }
            Amendment::Reset => (desk.book.spent(&limit.id, scope, at), 0),
        };
        // Another program may keep the file to itself for a moment: nobody at the desk waits for that.
        drop(desk);
        let amended = Amended { old, new };
        let written = sqlite_rows::write_amendment(&self.file.connection, at, change, amended);
        written.map_err(|error| broken(&self.file.path, &error))?;
        let mut desk = self.desk();
        match &change.amendment {
            Amendment::Raise { by, until } => {
                let raise = Raise {
                    scope: change.scope.clone(),
                    by: *by,
                    until: until.map(Timestamp::as_millisecond),
                };
                desk.book.raise(&limit.id, raise);
            }
            Amendment::Reset => desk.book.reset(&limit.id, scope),
        }
        Ok(amended)
    }

    fn amended(&self, amended: Amended, amendment: &Amendment, reply: Reply<Amended, LedgerError>) {
        let mut desk = self.desk();
        match amendment {
            // It is written whole.
            Amendment::Raise { .. } => answer(reply, Ok(amended)),
            Amendment::Reset => desk.done.push(Done::Amended(amended, reply)),
        }
        desk.finish();
    }

    /// Notes which limits there are. Those that are back are added up anew when they are next asked for.
    fn configure(&mut self) {
        if self.unnoted.is_some_and(|failed| failed.elapsed() < AGAIN) {
            return;
        }
        self.unnoted = None;
        while let Some(limits) = self.configured.front() {
            match sqlite_rows::configure(&self.file.connection, limits) {
                Ok(back) => self.desk().configured(&back),
                Err(error) => {
                    let error = broken(&self.file.path, &error);
                    tracing::warn!(%error, "the ledger could not note which limits there are");
                    // Which of them are back is not known: all are added up anew.
                    self.desk().distrust(limits);
                    self.unnoted = Some(Instant::now());
                    return;
                }
            }
            self.configured.pop_front();
        }
    }

    /// Writes to the tables what only the journal has, unless that failed a moment ago.
    fn fold(&mut self) -> Result<(), LedgerError> {
        let resting = self.desk().resting();
        resting.map_or_else(|| self.fold_now(), Err)
    }

    fn fold_now(&mut self) -> Result<(), LedgerError> {
        let batch = self.desk().batch()?;
        let Some(mut batch) = batch else {
            return Ok(());
        };
        // What a file had that is emptied has to be on the disk.
        self.turned = batch.turned.take().or(self.turned.take());
        match self.write(&batch) {
            Ok(()) => {
                self.desk().folded(&batch);
                self.empty();
                Ok(())
            }
            Err(error) => {
                self.prices = Prices::default();
                let error = broken(&self.file.path, &error);
                self.desk().unfolded(batch, &error);
                Err(error)
            }
        }
    }

    /// Empties the file of the journal that is done with.
    fn empty(&mut self) {
        let Some(turned) = &self.turned else {
            return;
        };
        let file = self.desk().journal().file(turned);
        match empty(&file) {
            Ok(()) => {
                self.desk().journal().has_spare();
                self.turned = None;
            }
            Err(error) => {
                tracing::warn!(%error, "a file of the ledger's journal could not be emptied");
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let connection = &self.file.connection;
        if self.turned.is_some() {
            connection.pragma_update(None, "synchronous", "FULL")?;
        }
        let outcome = transact(connection, batch, &mut self.prices);
        if self.turned.is_some() {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
        }
        outcome
    }

    /// Waits for the disk, where somebody must not hear sooner.
    fn sync(&self) {
        let unsynced = self.desk().unsynced();
        let Some(unsynced) = unsynced else {
            return;
        };
        let outcome = unsynced.files.iter().try_for_each(|file| file.sync_data());
        match outcome {
            Ok(()) => self.desk().synced(unsynced),
            Err(error) => self.desk().not_synced(unsynced, &error),
        }
    }

    /// Once in a while: what is old goes, the log goes into the file, and clocks are compared.
    fn keep(&mut self) {
        self.upkeep.compare_clocks();
        if let Err(error) = self.upkeep.work(&self.file.connection, &self.desk) {
            let error = broken(&self.file.path, &error);
            tracing::debug!(%error, "the ledger's upkeep has to wait");
        }
    }

    /// How long to wait for the next order.
    fn patience(&self) -> Duration {
        let desk = self.desk();
        let mut patience = UPKEEP;
        if !desk.line.is_empty() {
            patience = LOOK;
        }
        if let Some(deadline) = desk.line.next_deadline() {
            patience = patience.min(deadline.saturating_duration_since(Instant::now()));
        }
        if let Some(fold) = desk.fold_in() {
            patience = patience.min(fold);
        }
        if !desk.book.changes.is_empty() {
            patience = patience.min(AGAIN);
        }
        patience
    }

    fn close(mut self) -> Result<(), LedgerError> {
        let closed = self.desk().close();
        self.sync();
        let folded = self.fold_now();
        let desk = self.desk.clone();
        self.upkeep.end();
        closed.and(folded)?;
        self.file.close()?;
        // Whoever reads later has nothing to catch up with. The lock is still held.
        let files = desk.lock().map(|mut desk| desk.journal().files());
        for file in files.into_iter().flatten() {
            if let Err(error) = file.set_len(0) {
                tracing::debug!(%error, "the ledger's journal could not be emptied");
            }
        }
        Ok(())
    }
}

fn transact(
    connection: &rusqlite::Connection,
    batch: &Batch,
    prices: &mut Prices,
) -> rusqlite::Result<()> {
    let now = Timestamp::now();
    let transaction = Transaction::begin(connection)?;
    write_record(&transaction, &batch.rows, prices, now)?;
    for entry in &batch.changes.entries {
        let row = Row::Entry(Box::new(EntryRow::of(entry)));
        sqlite_rows::write(&transaction, &row, prices, now)?;
    }
    set_folded(&transaction, batch.number)?;
    transaction.commit()
}
