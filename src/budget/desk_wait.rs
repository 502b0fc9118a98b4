//! Owns who is served when: an order to reserve is tried, waits in line, and is tried again when others
//! gave something back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::book::nothing_open;
use super::desk::Desk;
use super::hold::Place;
use super::ledger::{Ask, Balance, HoldId, LedgerError, NotReserved, Patience};
use super::limit::{GroupBy, Limit};
use super::line::{Left, Rank, Ticket};
use super::series::SeriesId;
use super::span::later;
use super::sqlite_order::{Attempt, Done, Order, Reply, Unwritten, Waiting, Want, answer};
use crate::types::charge::Need;

/// Those who wait are looked at so often even if nobody gave anything back: windows end by themselves.
pub(super) const LOOK: Duration = Duration::from_millis(250);

impl Desk {
    pub(super) fn reserve(&mut self, ask: Box<Ask>, reply: Reply<Vec<Balance>, NotReserved>) {
        if reply.is_closed() {
            return;
        }
        if self.book.is_open(&ask.id) || self.book.is_closed(&ask.id) {
            let id = &ask.id;
            let why = format!("try {} of {} was reserved before", id.attempt, id.request);
            return answer(reply, Err(LedgerError::new(why).into()));
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

    pub(super) fn extend(
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
            let most = usize::try_from(place.limit.waiters).unwrap_or(usize::MAX);
            // A quarter of a shared queue is left to others than the one who fills it.
            let share = most - most / 4;
            let is_shared = !place.limit.group_by.contains(&GroupBy::Agent);
            let same = |other: &Waiting| other.want.caller() == want.caller();
            self.line.waiting(place.series) >= most
                || is_shared && self.line.waiting_for(place.series, same) >= share
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
        // The thread wakes when somebody's time is up, and must hear of a new one.
        self.bell.send(Order::Look).ok();
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
        let places = self.book.places(&ask.labels, &ask.limits, at);
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
                let done = Done::Reserved(ask.id, balances, unwritten, reply);
                self.done.push(done);
            }
            Want::Extend(id, more, reply) => self.done.push(Done::Extended(id, more, reply)),
        }
    }

    /// Serves those who wait, as far as there is room now.
    pub(super) fn wake(&mut self) {
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
}
