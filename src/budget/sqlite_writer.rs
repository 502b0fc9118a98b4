//! Owns the one thread that changes the books: everything that waits for it goes into one transaction,
//! and nobody gets an answer before that is committed.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::book::{Book, nothing_open};
use super::entry::Entry;
use super::hold::{Misfit, Place, Raise};
use super::ledger::{
    Amended, Amendment, Ask, Balance, Change, HoldId, LedgerError, NotReserved, Patience, Settled,
    Settlement,
};
use super::limit::{Labels, Limit};
use super::line::{Left, Line, Rank, Ticket};
use super::series::SeriesId;
use super::span::later;
use super::sqlite_file::{LedgerFile, Transaction, broken};
use super::sqlite_report::Standing;
use super::sqlite_rows::{self, Escrow, Prices};
use super::sqlite_upkeep::{UPKEEP, Upkeep};
use crate::types::charge::Need;

/// So many orders go into one transaction at most: it stays short.
const BATCH: usize = 512;

/// While orders come in crowds, so long is waited for more of them: many calls then share one
/// transaction, which costs more than all its rows. One who is alone never waits.
const GATHERING: Duration = Duration::from_micros(100);

/// Those who wait are looked at so often even if nobody gave anything back: windows end by themselves.
const LOOK: Duration = Duration::from_millis(250);

/// A file that could not be written is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);

/// What the thread is asked to do: the methods of the port, and a few of the ledger's own.
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
    /// Write everything and end.
    Close(Reply<(), LedgerError>),
}

/// Where an answer goes.
pub type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// Whether the file can be written, for anyone to read.
pub type Health = Arc<Mutex<Option<LedgerError>>>;

/// An answer that has to wait for the disk.
enum Done {
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
}

/// What a reservation may do while the file cannot be written.
#[derive(Clone, Copy)]
struct Unwritten {
    cost: u64,
    allowed: u64,
}

/// Somebody who waits for others to settle.
struct Waiting {
    want: Want,
    shortage: NotReserved,
    since: Instant,
    at: Timestamp,
}

enum Want {
    Reserve(Box<Ask>, Reply<Vec<Balance>, NotReserved>),
    Extend(HoldId, Need, Reply<(), NotReserved>),
}

impl Want {
    fn id(&self) -> &HoldId {
        match self {
            Self::Reserve(ask, _) => &ask.id,
            Self::Extend(id, ..) => id,
        }
    }

    fn is_unheard(&self) -> bool {
        match self {
            Self::Reserve(_, reply) => reply.is_closed(),
            Self::Extend(_, _, reply) => reply.is_closed(),
        }
    }

    fn refuse(self, why: NotReserved) {
        match self {
            Self::Reserve(_, reply) => answer(reply, Err(why)),
            Self::Extend(_, _, reply) => answer(reply, Err(why)),
        }
    }
}

/// The thread's state.
pub struct Writer {
    file: LedgerFile,
    book: Book,
    line: Line<Waiting>,
    prices: Prices,
    done: Vec<Done>,
    audits: Vec<(Timestamp, Change, Amended)>,
    /// What was reserved since the file could last be written, and let pass all the same.
    unwritten: u64,
    /// Limits that were read from documents and are not noted yet.
    configured: Option<Vec<Arc<Limit>>>,
    /// The transaction before had several orders.
    crowd: bool,
    looked: Instant,
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
            audits: Vec::new(),
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
            Order::Amend(change, reply) => {
                let amended = self.amend(*change);
                self.done.push(Done::Amended(amended, reply));
            }
            Order::Close(_) => {}
        }
    }

    fn reserve(&mut self, ask: Box<Ask>, reply: Reply<Vec<Balance>, NotReserved>) {
        if reply.is_closed() {
            return;
        }
        if self.book.is_open(&ask.id) || self.book.is_closed(&ask.id) {
            let id = &ask.id;
            let why = format!("try {} of {} was reserved before", id.attempt, id.request);
            return answer(reply, Err(LedgerError(why).into()));
        }
        let ticket = self.line.ticket(Rank::New);
        let at = ask.at;
        let patience = ask.patience;
        let want = Want::Reserve(ask, reply);
        self.serve(ticket, want, at, move |limits| {
            let own = limits.iter().map(|limit| limit.queue).min();
            let own = own.unwrap_or(Duration::ZERO);
            match patience {
                Patience::Queue => own,
                Patience::UpTo(most) => own.min(most),
            }
        });
    }

    fn extend(
        &mut self,
        id: HoldId,
        more: Need,
        patience: Duration,
        reply: Reply<(), NotReserved>,
    ) {
        if !self.book.is_open(&id) {
            return answer(reply, Err(nothing_open(&id).into()));
        }
        let ticket = self.line.ticket(Rank::UnderWay);
        let want = Want::Extend(id, more, reply);
        self.serve(ticket, want, Timestamp::UNIX_EPOCH, |_| patience);
    }

    /// Serves a new order, or lets it wait.
    fn serve(
        &mut self,
        ticket: Ticket,
        want: Want,
        at: Timestamp,
        patience: impl FnOnce(&[Arc<Limit>]) -> Duration,
    ) {
        let (full, shortage) = match self.attempt(ticket, &want, at) {
            Attempt::Fits => return self.grant(want),
            Attempt::Refused(why) => return want.refuse(why),
            Attempt::Full(full, shortage) => (full, shortage),
        };
        let limits: Vec<Arc<Limit>> = full.iter().map(|place| place.limit.clone()).collect();
        let patience = patience(&limits);
        let queues: Vec<SeriesId> = full.iter().map(|place| place.series).collect();
        let is_new = matches!(want, Want::Reserve(..));
        let crowded = |place: &Place| {
            let waiting = self.line.waiting(place.series);
            waiting >= usize::try_from(place.limit.waiters).unwrap_or(usize::MAX)
        };
        if patience.is_zero() || (is_new && full.iter().any(crowded)) {
            return want.refuse(shortage);
        }
        let since = Instant::now();
        let waiting = Waiting {
            want,
            shortage,
            since,
            at,
        };
        let deadline = since + patience;
        self.line.join(ticket, waiting, &queues, deadline);
    }

    /// Tries to reserve. It takes nothing where it does not fit or others came first.
    fn attempt(&mut self, ticket: Ticket, want: &Want, at: Timestamp) -> Attempt {
        match want {
            Want::Reserve(ask, _) => self.attempt_new(ticket, ask, at),
            Want::Extend(id, more, _) => match self.book.extend(id, more) {
                Ok(()) => Attempt::Fits,
                Err(misfit) => Attempt::of(misfit, Vec::new()),
            },
        }
    }

    fn attempt_new(&mut self, ticket: Ticket, ask: &Ask, at: Timestamp) -> Attempt {
        let places = match self.places(&ask.labels, &ask.limits, at) {
            Ok(places) => places,
            Err(error) => return Attempt::Refused(error.into()),
        };
        let blocked = self.blocked(ticket, &places);
        if let Err(misfit) = self.book.check(&ask.need, &places) {
            return Attempt::of(misfit, blocked);
        }
        let shortage = blocked
            .first()
            .and_then(|place| self.book.shortage(&ask.need, place));
        if let Some(shortage) = shortage {
            return Attempt::Full(blocked, NotReserved::Contended(Box::new(shortage)));
        }
        self.book.admit(ask, at, &places);
        Attempt::Fits
    }

    /// The limits for which somebody waits who came earlier.
    fn blocked(&self, ticket: Ticket, places: &[Place]) -> Vec<Place> {
        let hard = places.iter().filter(|place| place.is_hard());
        let behind = self
            .line
            .behind(ticket, hard.clone().map(|place| place.series));
        let blocked = hard.filter(|place| behind.contains(&place.series));
        blocked.cloned().collect()
    }

    fn grant(&mut self, want: Want) {
        match want {
            Want::Reserve(ask, reply) => {
                let balances = self.book.balances_of(&ask.id);
                let unwritten = Unwritten {
                    cost: ask.need.cost.0,
                    allowed: ask.unwritten.0,
                };
                self.done
                    .push(Done::Reserved(ask.id, balances, unwritten, reply));
            }
            Want::Extend(id, more, reply) => self.done.push(Done::Extended(id, more, reply)),
        }
    }

    /// Serves those who wait, as far as there is room now.
    fn wake(&mut self) {
        let freed = std::mem::take(&mut self.book.freed);
        if self.line.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut next = self.line.heads_of(&freed);
        if now.duration_since(self.looked) >= LOOK {
            self.looked = now;
            next = self.line.heads();
        }
        while let Some(ticket) = self.line.expired(now) {
            let Some(left) = self.line.leave(ticket) else {
                break;
            };
            next.extend(self.line.heads_of(&left.queues));
            left.what.want.refuse(left.what.shortage);
        }
        while let Some(ticket) = next.pop_first() {
            let queues = self.look_at(ticket);
            next.extend(self.line.heads_of(&queues));
        }
    }

    /// Serves one who waits if it is their turn. The queues they leave are returned.
    fn look_at(&mut self, ticket: Ticket) -> Vec<SeriesId> {
        if !self.line.is_first(ticket) {
            return Vec::new();
        }
        let Some(left) = self.line.leave(ticket) else {
            return Vec::new();
        };
        let Left {
            what,
            mut queues,
            deadline,
        } = left;
        if what.want.is_unheard() {
            return queues;
        }
        let at = later(what.at, what.since.elapsed());
        match self.attempt(ticket, &what.want, at) {
            Attempt::Fits => self.grant(what.want),
            Attempt::Refused(why) => what.want.refuse(why),
            Attempt::Full(full, shortage) => {
                queues.extend(full.iter().map(|place| place.series));
                let what = Waiting { shortage, ..what };
                self.line.join(ticket, what, &queues, deadline);
                return Vec::new();
            }
        }
        queues
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
        let outcome = match sqlite_rows::is_settled(&self.file.connection, id) {
            Ok(true) => Ok(Settled::default()),
            Ok(false) => Err(nothing_open(id)),
            Err(error) => Err(broken(&self.file.path, &error)),
        };
        answer(reply, outcome);
    }

    /// Where a call counts. What was spent before is read for limits that never counted such a call.
    fn places(
        &mut self,
        labels: &Labels,
        limits: &[Arc<Limit>],
        at: Timestamp,
    ) -> Result<Vec<Place>, LedgerError> {
        for (limit, scope) in self.book.unknown(labels, limits) {
            let connection = &self.file.connection;
            let past =
                sqlite_rows::history(connection, &limit, &scope, labels, at.as_millisecond());
            let past: Vec<Entry> = past.map_err(|error| broken(&self.file.path, &error))?;
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

    fn amend(&mut self, change: Change) -> Amended {
        let at = Timestamp::now();
        let old = self.amount(&change, at);
        match &change.amendment {
            Amendment::Raise { by, until } => {
                let raise = Raise {
                    scope: change.scope.clone(),
                    by: *by,
                    until: until.map(Timestamp::as_millisecond),
                };
                self.book.raise(&change.limit.id, raise);
            }
            Amendment::Reset => self.book.reset(&change.limit.id, change.scope.as_deref()),
        }
        let new = self.amount(&change, at);
        let amended = Amended { old, new };
        self.audits.push((at, change, amended));
        amended
    }

    /// What a change is about: the most that may be spent, or what was.
    fn amount(&self, change: &Change, at: Timestamp) -> u64 {
        let (limit, scope) = (&change.limit, change.scope.as_deref());
        match change.amendment {
            Amendment::Raise { .. } => {
                let raised = self.book.raised(&limit.id, scope.unwrap_or(""), at);
                limit.max.saturating_add(raised)
            }
            Amendment::Reset => self.book.spent(&limit.id, scope, at),
        }
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
        if self.book.changes.is_empty() && self.audits.is_empty() {
            return self.answer_all();
        }
        match self.write() {
            Ok(escrow) => {
                escrow.granted(&mut self.book);
                self.book.changes = Default::default();
                self.audits.clear();
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
        for (at, change, amended) in &self.audits {
            sqlite_rows::write_amendment(&transaction, *at, change, *amended)?;
        }
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
        if !self.book.changes.is_empty() || !self.audits.is_empty() {
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

/// What became of a try to reserve.
enum Attempt {
    Fits,
    Refused(NotReserved),
    /// These limits have no room now, or somebody else comes first there.
    Full(Vec<Place>, NotReserved),
}

impl Attempt {
    fn of(misfit: Misfit, blocked: Vec<Place>) -> Self {
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
fn answer<T, E>(reply: Reply<T, E>, outcome: Result<T, E>) {
    reply.send(outcome).ok();
}
