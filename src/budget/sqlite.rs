//! Owns the ledger of one process, in a file of SQLite's: it outlives `kill -9` whole, and a loss of
//! power without giving anything out twice.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rusqlite::TransactionBehavior;
use tokio::sync::oneshot;

use super::book::Book;
use super::ledger::{
    Amended, Ask, Balance, Change, HoldId, Ledger, LedgerError, NotReserved, Settled, Settlement,
};
use super::limit::{Labels, Limit};
use super::sqlite_file::{LedgerFile, Left, begin, boot_id, broken};
use super::sqlite_load::load;
use super::sqlite_order::{Health, Order, Reply};
use super::sqlite_report::{LedgerReader, Question, Spent, Standing};
use super::sqlite_rows::{self, Escrow, Prices};
use super::sqlite_writer::Writer;
use crate::types::charge::Need;

/// The ledger in a file. One process at a time has it open; any number may read it.
#[derive(Debug)]
pub struct SqliteLedger {
    orders: Sender<Order>,
    health: Health,
    path: PathBuf,
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
        let book = recover(&mut file, boot).map_err(|error| broken(path, &error))?;
        let (orders, received) = channel();
        let health: Health = Arc::new(Mutex::new(None));
        let writer = Writer::new(file, book, health.clone());
        start(writer, received)?;
        Ok(Arc::new(Self {
            orders,
            health,
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
        let path = self.path.clone();
        let read = move || LedgerReader::open(&path)?.spend(&question);
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|_| Err(closed()))
    }

    /// A reader of the same file, for reports that take their time.
    pub fn reader(&self) -> Result<LedgerReader, LedgerError> {
        LedgerReader::open(&self.path)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn order<T, E>(
        &self,
        order: impl FnOnce(Reply<T, E>) -> Order,
    ) -> oneshot::Receiver<Result<T, E>> {
        let (reply, answer) = oneshot::channel();
        // A thread that is gone drops the reply, which tells the receiver.
        self.orders.send(order(reply)).ok();
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
        self.orders.send(Order::Shrink(id, need)).ok();
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
        self.orders.send(Order::Configure(limits)).ok();
    }

    fn health(&self) -> Result<(), LedgerError> {
        match self.health.lock() {
            Ok(health) => health.clone().map_or(Ok(()), Err),
            Err(_) => Err(closed()),
        }
    }
}

/// Gives a reservation back that nobody waits for any more.
struct Guard {
    orders: Sender<Order>,
    id: Option<HoldId>,
}

impl Guard {
    fn new(ledger: &SqliteLedger, id: &HoldId) -> Self {
        Self {
            orders: ledger.orders.clone(),
            id: Some(id.clone()),
        }
    }

    fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.orders.send(Order::Abandon(id)).ok();
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
    // What was marked as closed well must not look so after a loss of power from here on.
    file.connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = file
        .connection
        .transaction_with_behavior(TransactionBehavior::Immediate)?;
    let escrow = Escrow::wanted(&book);
    sqlite_rows::write(&transaction, &book, &escrow, &mut Prices::default(), now)?;
    begin(&transaction, boot)?;
    transaction.commit()?;
    escrow.granted(&mut book);
    book.changes = Default::default();
    book.freed.clear();
    file.connection
        .pragma_update(None, "synchronous", "NORMAL")?;
    Ok(book)
}

fn start(writer: Writer, received: Receiver<Order>) -> Result<(), LedgerError> {
    let thread = std::thread::Builder::new().name("ledger".into());
    let started = thread.spawn(move || writer.run(&received));
    let cannot = |error| LedgerError(format!("the ledger's thread cannot be started: {error}"));
    started.map(drop).map_err(cannot)
}

fn closed() -> LedgerError {
    LedgerError("the ledger is closed: the process is about to end".into())
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sqlite_crash_tests.rs"]
mod crash_tests;
