//! Owns the one thread that changes the books: everything that waits for it goes into one transaction,
//! and nobody gets an answer before that is committed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::book::{Book, nothing_open};
use super::hold::{Place, Raise};
use super::ledger::{Amended, Amendment, Change, HoldId, LedgerError, Settled, Settlement};
use super::limit::{Labels, Limit};
use super::line::Line;
use super::sqlite_file::{LedgerFile, Transaction, broken};
use super::sqlite_load::{history, is_settled};
use super::sqlite_order::{Done, Health, Order, Reply, Unwritten, Waiting, answer};
use super::sqlite_report::Standing;
use super::sqlite_rows::{self, Escrow, Prices};
use super::sqlite_upkeep::{UPKEEP, Upkeep};

/// So many orders go into one transaction at most: it stays short.
const BATCH: usize = 512;

/// While orders come in crowds, so long is waited for more of them: many calls then share one
/// transaction, which costs more than all its rows. One who is alone never waits.
const GATHERING: Duration = Duration::from_micros(100);

/// Those who wait are looked at so often even if nobody gave anything back: windows end by themselves.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// A file that could not be written is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);

/// The thread's state.
pub struct Writer {
    pub(super) file: LedgerFile,
    pub(super) book: Book,
    pub(super) line: Line<Waiting>,
    prices: Prices,
    pub(super) done: Vec<Done>,
    /// What was reserved since the file could last be written, and let pass all the same.
    unwritten: u64,
    /// Limits that were read from documents and are not noted yet.
    configured: Option<Vec<Arc<Limit>>>,
    /// The transaction before had several orders.
    crowd: bool,
    pub(super) looked: Instant,
    upkeep: Upkeep,
    health: Health,
}

impl Writer {
    /// Over the books of an open file.
    pub fn new(file: LedgerFile, book: Book, health: Health) -> Self {
        Self {
            upkeep: Upkeep::new(&file.path),
            file,
            book,
            line: Line::default(),
            prices: Prices::default(),
            done: Vec::new(),
            unwritten: 0,
            configured: None,
            crowd: false,
            looked: Instant::now(),
            health,
        }
    }

    /// Works until it is told to close, or nobody can tell it any more.
    pub fn run(mut self, orders: &Receiver<Order>) {
        let closing = loop {
            let first = match orders.recv_timeout(self.patience()) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break None,
            };
            if let Some(reply) = self.batch(first, orders) {
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

    /// One transaction. The order to close ends it.
    fn batch(
        &mut self,
        first: Option<Order>,
        orders: &Receiver<Order>,
    ) -> Option<Reply<(), LedgerError>> {
        let mut closing = None;
        let mut next = first;
        let mut count = 0;
        if self.crowd && next.is_some() {
            // Asleep, and not waiting at the queue, where every order would wake this thread.
            std::thread::sleep(GATHERING);
        }
        while let Some(order) = next.take() {
            match order {
                Order::Close(reply) => closing = Some(reply),
                order => self.apply(order),
            }
            count += 1;
            if count < BATCH && closing.is_none() {
                next = orders.try_recv().ok();
            }
        }
        self.crowd = count > 1;
        self.configure();
        self.wake();
        self.commit();
        self.keep();
        closing
    }

    fn apply(&mut self, order: Order) {
        match order {
            Order::Reserve(ask, reply) => self.reserve(ask, reply),
            Order::Extend(id, more, patience, reply) => self.extend(id, more, patience, reply),
            Order::Shrink(id, need) => self.book.shrink(&id, &need),
            Order::Retry(id, reply) => match self.book.retry(&id) {
                Ok(()) => self.done.push(Done::Retried(id, reply)),
                Err(error) => answer(reply, Err(error)),
            },
            Order::Settle(settlement, reply) => self.settle(&settlement, reply),
            Order::Abandon(id) => self.abandon(&id),
            Order::Balances(labels, limits, at, reply) => {
                let places = self.places(&labels, &limits, at);
                let balances = places.map(|places| self.book.balances(&places));
                answer(reply, balances);
            }
            Order::Configure(limits) => {
                self.configured = Some(limits);
                self.configure();
            }
            Order::Standing(reply) => answer(reply, self.standing()),
            Order::Amend(change, reply) => match self.amend(&change) {
                Ok(amended) => self.done.push(Done::Amended(amended, reply)),
                Err(error) => answer(reply, Err(error)),
            },
            Order::Close(_) => {}
        }
    }

    fn abandon(&mut self, id: &HoldId) {
        for ticket in self.line.find(|waiting| waiting.want.id() == id) {
            if let Some(left) = self.line.leave(ticket) {
                self.book.freed.extend(left.queues);
            }
        }
        self.book.abandon(id);
    }

    fn settle(&mut self, settlement: &Settlement, reply: Reply<Settled, LedgerError>) {
        let id = &settlement.id;
        if let Some(settled) = self.book.settle(settlement) {
            return self.done.push(Done::Settled(settled, reply));
        }
        if self.book.is_closed(id) {
            return self.done.push(Done::Settled(Settled::default(), reply));
        }
        let outcome = match is_settled(&self.file.connection, id) {
            Ok(true) => Ok(Settled::default()),
            Ok(false) => Err(nothing_open(id)),
            Err(error) => Err(broken(&self.file.path, &error)),
        };
        answer(reply, outcome);
    }

    /// Where a call counts. What was spent before is read for limits that never counted such a call.
    pub(super) fn places(
        &mut self,
        labels: &Labels,
        limits: &[Arc<Limit>],
        at: Timestamp,
    ) -> Result<Vec<Place>, LedgerError> {
        for (limit, scope) in self.book.unknown(labels, limits) {
            let at_millis = at.as_millisecond();
            let past = history(&self.file.connection, &limit, &scope, labels, at_millis);
            let past = past.map_err(|error| broken(&self.file.path, &error))?;
            self.book.adopt(&limit, &scope, &past, at);
        }
        Ok(self.book.places(labels, limits, at))
    }

    fn standing(&self) -> Result<Vec<Standing>, LedgerError> {
        let limits = super::sqlite_report::limits(&self.file.connection);
        let limits = limits.map_err(|error| broken(&self.file.path, &error))?;
        Ok(super::sqlite_report::standing(
            &self.book,
            &limits,
            Timestamp::now(),
        ))
    }

    /// The change is written before it counts: one that failed is given again, and must not count twice.
    fn amend(&mut self, change: &Change) -> Result<Amended, LedgerError> {
        self.file.is_in_place()?;
        let (limit, scope) = (&change.limit, change.scope.as_deref());
        let at = Timestamp::now();
        let (old, new) = match change.amendment {
            Amendment::Raise { by, .. } => {
                let raised = self.book.raised(&limit.id, scope.unwrap_or(""), at);
                let old = limit.max.saturating_add(raised);
                (old, old.saturating_add(by))
            }
            Amendment::Reset => (self.book.spent(&limit.id, scope, at), 0),
        };
        let amended = Amended { old, new };
        let written = sqlite_rows::write_amendment(&self.file.connection, at, change, amended);
        written.map_err(|error| broken(&self.file.path, &error))?;
        match &change.amendment {
            Amendment::Raise { by, until } => {
                let raise = Raise {
                    scope: change.scope.clone(),
                    by: *by,
                    until: until.map(Timestamp::as_millisecond),
                };
                self.book.raise(&limit.id, raise);
            }
            Amendment::Reset => self.book.reset(&limit.id, scope),
        }
        Ok(amended)
    }

    /// Notes which limits there are. Those that are back are added up anew when they are next asked for.
    fn configure(&mut self) {
        let Some(limits) = self.configured.take() else {
            return;
        };
        match sqlite_rows::configure(&self.file.connection, &limits) {
            Ok(back) => back.iter().for_each(|id| self.book.distrust(id)),
            Err(error) => {
                let error = broken(&self.file.path, &error);
                tracing::warn!(%error, "the ledger could not note which limits there are");
                self.configured = Some(limits);
            }
        }
    }

    /// Once in a while: what is old goes, the log goes into the file, and clocks are compared.
    fn keep(&mut self) {
        if !self.upkeep.is_due() {
            return;
        }
        self.upkeep.compare_clocks();
        if let Err(error) = self.file.is_in_place() {
            self.report(Some(error));
        }
        if let Err(error) = self.upkeep.work(&self.file.connection, &mut self.book) {
            let error = broken(&self.file.path, &error);
            tracing::debug!(%error, "the ledger's upkeep has to wait");
        }
    }

    /// Writes what changed and answers. What cannot be written stays in memory and is tried again; nobody
    /// is told that it was reserved.
    fn commit(&mut self) {
        if self.book.changes.is_empty() {
            return self.answer_all();
        }
        match self.write() {
            Ok(escrow) => {
                escrow.granted(&mut self.book);
                self.book.changes = Default::default();
                self.unwritten = 0;
                self.report(None);
                self.answer_all();
            }
            Err(error) => {
                self.prices = Prices::default();
                self.report(Some(error.clone()));
                self.refuse_all(&error);
            }
        }
    }

    fn write(&mut self) -> Result<Escrow, LedgerError> {
        self.file.is_in_place()?;
        self.write_rows()
            .map_err(|error| broken(&self.file.path, &error))
    }

    fn write_rows(&mut self) -> rusqlite::Result<Escrow> {
        let now = Timestamp::now();
        let escrow = Escrow::wanted(&self.book);
        if !escrow.is_empty() {
            self.file
                .connection
                .pragma_update(None, "synchronous", "FULL")?;
        }
        let outcome = self.transact(&escrow, now);
        if !escrow.is_empty() {
            self.file
                .connection
                .pragma_update(None, "synchronous", "NORMAL")?;
        }
        outcome.map(|()| escrow)
    }

    fn transact(&mut self, escrow: &Escrow, now: Timestamp) -> rusqlite::Result<()> {
        let transaction = Transaction::begin(&self.file.connection)?;
        sqlite_rows::write(&transaction, &self.book, escrow, &mut self.prices, now)?;
        transaction.commit()
    }

    fn answer_all(&mut self) {
        for done in self.done.drain(..) {
            match done {
                Done::Reserved(_, balances, _, reply) => answer(reply, Ok(balances)),
                Done::Extended(_, _, reply) => answer(reply, Ok(())),
                Done::Retried(_, reply) => answer(reply, Ok(())),
                Done::Settled(settled, reply) => answer(reply, Ok(settled)),
                Done::Amended(amended, reply) => answer(reply, Ok(amended)),
            }
        }
    }

    /// Takes back in reverse order what was promised to nobody yet.
    fn refuse_all(&mut self, error: &LedgerError) {
        for done in std::mem::take(&mut self.done).into_iter().rev() {
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

    fn report(&self, error: Option<LedgerError>) {
        let Ok(mut health) = self.health.lock() else {
            return;
        };
        match (&*health, &error) {
            (None, Some(error)) => tracing::error!(%error, "the ledger cannot be written"),
            (Some(_), None) => tracing::info!("the ledger can be written again"),
            _ => {}
        }
        *health = error;
    }

    /// How long to wait for the next order.
    fn patience(&self) -> Duration {
        let mut patience = UPKEEP;
        if !self.line.is_empty() {
            patience = LOOK;
        }
        if let Some(deadline) = self.line.next_deadline() {
            patience = patience.min(deadline.saturating_duration_since(Instant::now()));
        }
        if !self.book.changes.is_empty() {
            patience = patience.min(AGAIN);
        }
        patience
    }

    fn close(self) -> Result<(), LedgerError> {
        self.upkeep.end();
        if !self.book.changes.is_empty() {
            let health = self.health.lock();
            let why = health.ok().and_then(|health| health.clone());
            return Err(
                why.unwrap_or_else(|| LedgerError("the ledger could not be written".into()))
            );
        }
        self.file.close()
    }
}
