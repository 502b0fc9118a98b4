//! Owns the IO under an agent's HTTP/1.1 connection: it follows the framing and keeps the time.
//!
//! The library is handed one request at a time, its head whole, and of its body what has one reading. What it would
//! refuse with a bare status, or repair, it is never shown: that is answered here. What comes behind a request waits
//! until its answer is out, and is not even looked at; an agent that hangs up meanwhile is heard.
//!
//! The library's own header timer also ends idle kept connections and costs a timer per request;
//! here one timer per connection serves all four waits for bytes, and one more, made when it is first
//! needed, the wait for an agent that takes nothing.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::closing::Closing;
use super::framing::Framing;
use super::stall::Stall;
use super::violation::Violation;
use crate::types::limits::{Limits, RequestLimits};
use crate::types::reached::Limit;

/// How much an agent may send, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct AgentLimits {
    /// Requests as they come in.
    pub requests: RequestLimits,
    /// Between two requests on a kept connection.
    pub idle: Duration,
}

/// How long nothing of an answer may be taken, where no exchange says otherwise.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(120);

impl Default for AgentLimits {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

impl From<&Limits> for AgentLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            requests: limits.requests,
            idle: limits.connections.idle,
        }
    }
}

const FIRST_HEAD: u8 = 1;
const IDLE: u8 = 2;

/// What the gate and the exchanges on its connection know together.
#[derive(Debug, Default)]
pub struct GateState {
    /// In the body of the request that is being answered.
    violation: AtomicU8,
    in_flight: AtomicUsize,
    served: AtomicUsize,
    /// Milliseconds in which nothing of the answer under way may be taken; none said yet: 0.
    patience: AtomicU64,
    stalled: AtomicBool,
    /// Which wait for bytes ended the connection; none: 0.
    waited: AtomicU8,
    /// It was granted to go on as something else than HTTP.
    left: AtomicBool,
}

impl GateState {
    /// What is wrong with the body of the request that is being answered, if anything.
    pub fn violation(&self) -> Option<Violation> {
        Violation::from_code(self.violation.load(Ordering::Acquire))
    }

    fn note(&self, violation: Violation) {
        self.violation.store(violation as u8, Ordering::Release);
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Acquire)
    }

    fn is_answering(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// The limit at which the connection ended since nothing happened on it, if it did.
    pub fn waited_for(&self) -> Option<Limit> {
        match self.waited.load(Ordering::Relaxed) {
            FIRST_HEAD => Some(Limit::HeadTime),
            IDLE => Some(Limit::IdleConnection),
            _ => None,
        }
    }

    /// The agent may leave the answer that goes out next untaken for so long.
    pub fn answering(&self, patience: Duration) {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.patience.store(millis.max(1), Ordering::Relaxed);
    }

    /// What follows is not HTTP, and whoever relays it keeps the time. To ask for that is not enough: who asks
    /// for an upgrade and gets an answer has to take it like any other.
    pub fn leaves(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// A request was handed over to be answered. The guard lives until all of the answer was handed back; meanwhile
    /// the connection is not idle, however silent.
    pub fn serving(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.served.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
    }

    /// Whether the connection ended since its agent took nothing.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }
}

/// An exchange that has begun and not ended.
#[derive(Debug)]
pub struct InFlight(Arc<GateState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The whole response to bytes that are no request, in the words of whoever serves the connection.
pub type LastWord = Box<dyn FnOnce(Violation) -> Bytes + Send>;

/// An agent's connection, watched.
pub struct Gate<S> {
    inner: S,
    last_word: Option<LastWord>,
    closing: Option<Closing>,
    framing: Framing,
    /// Octets that came and were not handed over: a head that is not whole, what found no room, or what waits for its
    /// turn.
    held: Vec<u8>,
    /// Octets that were handed over.
    given: u64,
    /// What came behind those that may be.
    refused: Option<Violation>,
    /// Requests whose answers are out.
    answered: usize,
    state: Arc<GateState>,
    limits: AgentLimits,
    waiting: Waiting,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    stall: Stall,
}

/// How much is read at once behind what is held.
const PIECE: usize = 8 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    FirstHead,
    Head,
    Body,
    Idle,
}

impl<S> Gate<S> {
    /// Watches `inner`, reporting into `state`. Bytes that are no request get `last_word`.
    pub fn new(inner: S, limits: AgentLimits, state: Arc<GateState>, last_word: LastWord) -> Self {
        let deadline = Instant::now() + limits.requests.head_time;
        Self {
            inner,
            last_word: Some(last_word),
            closing: None,
            framing: Framing::new(limits.requests),
            held: Vec::new(),
            given: 0,
            refused: None,
            answered: 0,
            state,
            limits,
            waiting: Waiting::FirstHead,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            stall: Stall::default(),
        }
    }

    /// The connection again, once HTTP is over on it, and what came of it that was not handed over.
    pub fn into_inner(self) -> (S, Vec<u8>) {
        (self.inner, self.held)
    }

    /// What watches it, shared.
    pub fn state(&self) -> Arc<GateState> {
        self.state.clone()
    }

    /// Reads `bytes`, but for what is behind the end of a request.
    fn follow(&mut self, bytes: &[u8]) {
        let heads = self.framing.heads();
        if let Err(violation) = self.framing.feed(bytes) {
            if self.framing.within_body() {
                self.state.note(violation);
            }
            self.refused = Some(violation);
        }
        let waiting = match (self.framing.within_head(), self.framing.within_body()) {
            (true, _) => Waiting::Head,
            (_, true) => Waiting::Body,
            // Empty lines are no progress.
            _ if self.framing.heads() == heads && self.waiting != Waiting::Body => return,
            _ => Waiting::Idle,
        };
        // A head that trickles in keeps its first deadline.
        if waiting != Waiting::Head || self.waiting != Waiting::Head {
            self.deadline = Instant::now() + self.limit(waiting);
        }
        self.waiting = waiting;
    }

    fn limit(&self, waiting: Waiting) -> Duration {
        match waiting {
            Waiting::FirstHead | Waiting::Head => self.limits.requests.head_time,
            Waiting::Body => self.limits.requests.body_idle,
            Waiting::Idle => self.limits.idle,
        }
    }

    /// How many of the octets that are held, and of those that came just now, may be handed over.
    fn ready(&self) -> usize {
        usize::try_from(self.framing.sound() - self.given).unwrap_or(usize::MAX)
    }

    /// Hands over what is ready of what is held. Whether there was anything.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let given = self.ready().min(self.held.len()).min(buf.remaining());
        buf.put_slice(&self.held[..given]);
        self.given += given as u64;
        match given == self.held.len() {
            // An idle connection has no use for the room.
            true => self.held = Vec::new(),
            false => drop(self.held.drain(..given)),
        }
        given > 0
    }

    /// Keeps of what came just now, behind `before`, only what is ready; the rest is held. Whether anything is left.
    fn hold(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let came = &buf.filled()[before..];
        let given = self.ready().min(came.len());
        if self.refused.is_none() {
            self.held.extend_from_slice(&came[given..]);
        }
        buf.set_filled(before + given);
        self.given += given as u64;
        given > 0
    }

    /// Reads on in what is held, if nobody has yet. Whether there was anything.
    fn follow_held(&mut self) -> bool {
        let followed = usize::try_from(self.framing.fed() - self.given).unwrap_or(usize::MAX);
        if followed >= self.held.len() {
            return false;
        }
        let held = std::mem::take(&mut self.held);
        self.follow(&held[followed..]);
        self.held = held;
        true
    }

    /// Whether what comes next is another request's, and the answer to the last is not out.
    fn is_ahead(&self) -> bool {
        self.framing.is_between() && self.answered < self.framing.heads()
    }

    /// What came of writing, unless the agent has taken nothing for too long.
    fn written<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall.moved();
            return polled;
        }
        if self.state.has_left() {
            return Poll::Pending;
        }
        let limit = match self.state.patience.load(Ordering::Relaxed) {
            0 => ANSWER_PATIENCE,
            millis => Duration::from_millis(millis),
        };
        ready!(self.stall.poll(limit, cx));
        self.state.stalled.store(true, Ordering::Relaxed);
        let what = "the agent took nothing of its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }

    /// The timer is moved when it fires, or when somebody waits for less than it would: a busy connection hardly ever
    /// touches it.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if self.deadline < self.timer.deadline() {
                let deadline = self.deadline;
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.waiting == Waiting::Idle && self.state.is_answering() {
                self.deadline = now + self.limits.idle;
            }
            if self.deadline <= now {
                let what = match self.waiting {
                    Waiting::FirstHead => {
                        self.state.waited.store(FIRST_HEAD, Ordering::Relaxed);
                        Violation::SlowHead.message()
                    }
                    Waiting::Head => Violation::SlowHead.message(),
                    Waiting::Body => {
                        self.state.note(Violation::SlowBody);
                        Violation::SlowBody.message()
                    }
                    Waiting::Idle => {
                        self.state.waited.store(IDLE, Ordering::Relaxed);
                        "idle"
                    }
                };
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            let deadline = self.deadline;
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// What becomes of the connection after a violation: the body that it is in breaks off; what is wrong with a head
    /// is told.
    fn refuse(&mut self, violation: Violation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held = Vec::new();
        if self.framing.within_body() {
            let error = io::Error::new(io::ErrorKind::InvalidData, violation.message());
            return Poll::Ready(Err(error));
        }
        self.close(violation, cx)
    }

    /// Ends the connection with the last word about `violation`.
    fn close(&mut self, violation: Violation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let word = self.last_word.take().map(|word| word(violation));
        let closing = self.closing.insert(Closing::new(word.unwrap_or_default()));
        closing.poll(&mut self.inner, cx)
    }

    /// Reads what comes next, into `buf` if nothing is held that comes before it. Whether anything came.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let ahead = self.is_ahead();
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
            let came = &buf.filled()[before..];
            if !ahead {
                self.follow(came);
            }
            return Poll::Ready(Ok(!came.is_empty()));
        }
        let before = self.held.len();
        if ahead && before >= self.limits.requests.head_size {
            return Poll::Pending;
        }
        if self.held.capacity() == before {
            // Not twice as much each time: many connections may have a large head under way.
            self.held.reserve_exact(PIECE);
        }
        ready!(pin!(self.inner.read_buf(&mut self.held)).poll(cx))?;
        Poll::Ready(Ok(self.held.len() > before))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(closing) = &mut this.closing {
            return closing.poll(&mut this.inner, cx);
        }
        loop {
            if this.give(buf) {
                return Poll::Ready(Ok(()));
            }
            if let Some(violation) = this.refused {
                return this.refuse(violation, cx);
            }
            if !this.is_ahead() && this.follow_held() {
                continue;
            }
            let before = buf.filled().len();
            match this.poll_more(cx, buf) {
                Poll::Ready(Ok(true)) if this.hold(buf, before) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(ended) => return Poll::Ready(ended.map(drop)),
                Poll::Pending if this.state.has_left() => return Poll::Pending,
                Poll::Pending => {
                    let error = ready!(this.poll_deadline(cx));
                    match this.waiting {
                        Waiting::Head => this.refused = Some(Violation::SlowHead),
                        _ => return Poll::Ready(Err(error)),
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(polled, cx)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        let served = self.state.served();
        if polled.is_ready() && self.answered < served && !self.state.is_answering() {
            self.answered = served;
            if self.waiting == Waiting::Idle {
                self.deadline = Instant::now() + self.limits.idle;
            }
            // Nobody reads again for what was read ahead.
            if !self.held.is_empty() {
                cx.waker().wake_by_ref();
            }
        }
        self.written(polled, cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.written(polled, cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(polled, cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
