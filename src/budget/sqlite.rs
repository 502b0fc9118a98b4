//! Owns the ledger of one process, in a file of SQLite's: it outlives `kill -9` whole, and a loss of
//! power without giving anything out twice.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rusqlite::TransactionBehavior;
use tokio::sync::oneshot;

use super::book::Book;
use super::desk::{Desk, closed};
use super::hold::Changes;
use super::journal::{Journal, rows_as_octets};
use super::ledger::{
    Amended, Ask, Balance, Change, HoldId, Ledger, LedgerError, NotReserved, Settled, Settlement,
};
use super::limit::{Labels, Limit};
use super::row::rows;
use super::sqlite_catch_up::{catch_up, write_record};
use super::sqlite_file::{LedgerFile, Left, begin, boot_id, broken, sync_directory, unreachable};
use super::sqlite_load::load;
use super::sqlite_order::{Order, Reply};
use super::sqlite_report::{LedgerReader, Question, Spent, Standing};
use super::sqlite_rows::Prices;
use super::sqlite_writer::Writer;
use crate::types::charge::Need;

/// The ledger in a file. One process at a time has it open; any number may read it.
pub struct SqliteLedger {
    desk: Arc<Mutex<Desk>>,
    orders: Sender<Order>,
    path: PathBuf,
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLedger")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens the ledger at `path`, or makes it. What the process before left open is charged as far as
    /// it was reserved. After a loss of power, what may have been spent and not written is held back.
    ///
    /// Errors: the directory is missing or not writable, another process has it open, or the file is no
    /// ledger or one of a later version.
    pub fn open(path: &Path) -> Result<Arc<Self>, LedgerError> {
        Self::open_on(path, boot_id().as_deref())
    }

    /// See [`Self::open`], on the run of the machine that `boot` names.
    pub fn open_on(path: &Path, boot: Option<&str>) -> Result<Arc<Self>, LedgerError> {
        let mut file = LedgerFile::open(path, boot)?;
        let number = catch_up(&mut file)?;
        let book = recover(&mut file, boot).map_err(|error| broken(path, &error))?;
        let journal = Journal::start(path, number).map_err(|error| unreachable(path, &error))?;
        sync_directory(path).map_err(|error| unreachable(path, &error))?;
        file.serve()?;
        let (orders, received) = channel();
        let desk = Desk::new(book, journal, file.place.clone(), orders.clone());
        let desk = Arc::new(Mutex::new(desk));
        let end = ThreadEnd(desk.clone());
        start(Writer::new(file, desk.clone()), received, end)?;
        Ok(Arc::new(Self {
            desk,
            orders,
            path: path.to_owned(),
        }))
    }

    /// Writes everything, and marks the file as closed well. Later orders are refused.
    pub fn close(&self) -> BoxFuture<'static, Result<(), LedgerError>> {
        let answer = self.order(Order::Close);
        Box::pin(async move { answer.await.unwrap_or(Ok(())) })
    }

    /// Changes a limit by an operator's word, and writes down what it was before.
    pub fn amend(&self, change: Change) -> BoxFuture<'static, Result<Amended, LedgerError>> {
        let answer = self.order(|reply| Order::Amend(Box::new(change), reply));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed())) })
    }

    /// Where the limits stand whose windows are open.
    pub fn standing(&self) -> BoxFuture<'static, Result<Vec<Standing>, LedgerError>> {
        let answer = self.order(Order::Standing);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed())) })
    }

    /// What was spent.
    pub async fn spend(&self, question: Question) -> Result<Vec<Spent>, LedgerError> {
        self.fold().await?;
        let path = self.path.clone();
        let read = move || LedgerReader::open(&path)?.spend(&question);
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|_| Err(closed()))
    }

    /// A reader of the same file, for reports that take their time. It knows everything up to now.
    pub async fn reader(&self) -> Result<LedgerReader, LedgerError> {
        self.fold().await?;
        LedgerReader::open(&self.path)
    }

    /// Returns once the tables have everything up to now.
    pub async fn fold(&self) -> Result<(), LedgerError> {
        let answer = self.order(Order::Fold);
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Orders are done, or on their way to the thread, in the order in which they are given.
    fn take(&self, order: Order) {
        if let Ok(mut desk) = self.desk.lock() {
            desk.take(order);
        }
    }

    fn order<T, E>(
        &self,
        order: impl FnOnce(Reply<T, E>) -> Order,
    ) -> oneshot::Receiver<Result<T, E>> {
        let (reply, answer) = oneshot::channel();
        // A desk that is closed or gone drops the reply, which tells the receiver.
        self.take(order(reply));
        answer
    }
}

impl Ledger for SqliteLedger {
    fn reserve(&self, ask: Ask) -> BoxFuture<'static, Result<Vec<Balance>, NotReserved>> {
        let guard = Guard::new(self, &ask.id);
        let answer = self.order(|reply| Order::Reserve(Box::new(ask), reply));
        Box::pin(async move {
            let outcome = answer.await.unwrap_or_else(|_| Err(closed().into()));
            guard.disarm();
            outcome
        })
    }

    fn extend(
        &self,
        id: HoldId,
        more: Need,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), NotReserved>> {
        let answer = self.order(|reply| Order::Extend(id, more, patience, reply));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed().into())) })
    }

    fn shrink(&self, id: HoldId, need: Need) {
        self.take(Order::Shrink(id, need));
    }

    fn retry(&self, id: HoldId) -> BoxFuture<'static, Result<(), LedgerError>> {
        let answer = self.order(|reply| Order::Retry(id, reply));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<Settled, LedgerError>> {
        let answer = self.order(|reply| Order::Settle(Box::new(settlement), reply));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn balances(
        &self,
        labels: Labels,
        limits: Vec<Arc<Limit>>,
        at: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<Balance>, LedgerError>> {
        let answer = self.order(|reply| Order::Balances(Box::new(labels), limits, at, reply));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn configure(&self, limits: Vec<Arc<Limit>>) {
        self.take(Order::Configure(limits));
    }

    fn health(&self) -> Result<(), LedgerError> {
        self.desk
            .lock()
            .map_or_else(|_| Err(closed()), |desk| desk.health())
    }
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        // Whoever forgets to close it finds it closed all the same.
        let (reply, _) = oneshot::channel();
        self.orders.send(Order::Close(reply)).ok();
    }
}

/// Gives a reservation back that nobody waits for any more.
struct Guard {
    desk: Arc<Mutex<Desk>>,
    id: Option<HoldId>,
}

impl Guard {
    fn new(ledger: &SqliteLedger, id: &HoldId) -> Self {
        Self {
            desk: ledger.desk.clone(),
            id: Some(id.clone()),
        }
    }

    fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && let Ok(mut desk) = self.desk.lock()
        {
            desk.give_up(&id);
        }
    }
}

/// Reads the books and makes good what the process before left, before anything is given out.
fn recover(file: &mut LedgerFile, boot: Option<&str>) -> rusqlite::Result<Book> {
    let now = Timestamp::now();
    let mut book = load(&file.connection, now)?;
    let orphans = book.close_orphans();
    if orphans > 0 {
        tracing::warn!(
            orphans,
            "calls were under way when the ledger was last open: they count as reserved"
        );
    }
    if file.left == Left::PowerLost {
        book.lose(now);
        tracing::warn!(
            "the machine went down with the ledger open: what may have been spent unseen is held back"
        );
    }
    let Changes { entries, .. } = &mut book.changes;
    for entry in entries {
        entry.settled_at = now.as_millisecond();
    }
    let record = rows_as_octets(|give| rows(&book, &book.changes, |_| true, give));
    let record = record.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    // What was marked as closed well must not look so after a loss of power from here on.
    file.connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = file
        .connection
        .transaction_with_behavior(TransactionBehavior::Immediate)?;
    write_record(&transaction, &record, &mut Prices::default(), now)?;
    begin(&transaction, boot)?;
    transaction.commit()?;
    book.changes = Changes::default();
    book.freed.clear();
    file.connection
        .pragma_update(None, "synchronous", "NORMAL")?;
    Ok(book)
}

/// Goes with the thread, however that ends.
struct ThreadEnd(Arc<Mutex<Desk>>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        let desk = self.0.lock();
        desk.unwrap_or_else(PoisonError::into_inner).forsaken();
    }
}

fn start(writer: Writer, received: Receiver<Order>, end: ThreadEnd) -> Result<(), LedgerError> {
    let thread = std::thread::Builder::new().name("ledger".into());
    let started = thread.spawn(move || {
        let _end = end;
        writer.run(&received);
    });
    let cannot =
        |error| LedgerError::new(format!("the ledger's thread cannot be started: {error}"));
    started.map(drop).map_err(cannot)
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sqlite_crash_tests.rs"]
mod crash_tests;
