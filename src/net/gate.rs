//! Owns the IO under an agent's HTTP/1.1 connection: it follows the framing and keeps the time.
//!
//! The library's own header timer also ends idle kept connections and costs a timer per request;
//! here one timer per connection serves all four waits for bytes, and one more, made when it is first
//! needed, the wait for an agent that takes nothing. What the library would refuse with a bare
//! status, or repair, is answered here, and never shown to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::{Framing, Violation};
use super::stall::Stall;
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
    /// The first ambiguity seen on this connection, if any.
    pub fn violation(&self) -> Option<Violation> {
        Violation::from_code(self.violation.load(Ordering::Acquire))
    }

    fn note(&self, violation: Violation) {
        self.violation.store(violation as u8, Ordering::Release);
    }

    /// The limit at which the connection ended since nothing happened on it, if it did.
    pub fn waited_for(&self) -> Option<Limit> {
        match self.waited.load(Ordering::Relaxed) {
            FIRST_HEAD => Some(Limit::HeadTime),
            IDLE => Some(Limit::IdleConnection),
            _ => None,
        }
    }

    /// A request was handed over to be answered.
    pub fn serving(&self) {
        self.served.fetch_add(1, Ordering::AcqRel);
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

    /// While the guard lives the connection is not idle, however silent.
    pub fn exchange(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
    }
}

/// An exchange that has begun and not ended.
#[derive(Debug)]
pub struct InFlight(Arc<GateState>);

impl InFlight {
    /// Whether the connection ended since its agent took nothing.
    pub fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }
}

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
    state: Arc<GateState>,
    limits: AgentLimits,
    waiting: Waiting,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    stall: Stall,
}

enum Consequence {
    /// Nobody is being answered: it is answered here.
    Answer,
    /// The violation is in the body of a request that is served already: that body breaks off.
    Break,
    /// A response is on its way: the next request is refused where it is served.
    Later,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    FirstHead,
    Head,
    Body,
    Idle,
}

/// A connection that ends with a last word. What still comes is read away for a moment: a socket
/// closed over unread bytes is reset, and the word may be lost with it.
pub(super) struct Closing {
    word: Bytes,
    shut: bool,
    patience: Pin<Box<Sleep>>,
    /// Bytes that are read away yet.
    room: usize,
}

/// How long the one who is told goodbye has for reading it.
const GOODBYE: Duration = Duration::from_secs(1);
/// How much is read away meanwhile: who sends more does not listen.
const MOST_UNREAD: usize = 1 << 20;

impl Closing {
    pub(super) fn new(word: Bytes) -> Self {
        Self {
            word,
            shut: false,
            patience: Box::pin(tokio::time::sleep(GOODBYE)),
            room: MOST_UNREAD,
        }
    }

    pub(super) fn poll<S>(&mut self, inner: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ended = || Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData)));
        if self.patience.as_mut().poll(cx).is_ready() {
            return ended();
        }
        while !self.word.is_empty() {
            match ready!(Pin::new(&mut *inner).poll_write(cx, &self.word)) {
                Ok(written @ 1..) => self.word.advance(written),
                _ => return ended(),
            }
        }
        if !self.shut {
            ready!(Pin::new(&mut *inner).poll_shutdown(cx))?;
            self.shut = true;
        }
        let mut sink = [0; 4096];
        loop {
            let mut unread = ReadBuf::new(&mut sink);
            match ready!(Pin::new(&mut *inner).poll_read(cx, &mut unread)) {
                Ok(()) if (1..self.room).contains(&unread.filled().len()) => {
                    self.room -= unread.filled().len();
                }
                _ => return ended(),
            }
        }
    }
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
            state,
            limits,
            waiting: Waiting::FirstHead,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            stall: Stall::default(),
        }
    }

    /// The connection again, once HTTP is over on it.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// What watches it, shared.
    pub fn state(&self) -> Arc<GateState> {
        self.state.clone()
    }

    fn follow(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.state.violation().is_some() {
            return Ok(()); // said already
        }
        let heads = self.framing.heads();
        let read = self.framing.feed(bytes);
        if let Err(violation) = read {
            self.state.note(violation);
        }
        let (waiting, limit) = match (self.framing.within_head(), self.framing.within_body()) {
            (true, _) => (Waiting::Head, self.limits.requests.head_time),
            (_, true) => (Waiting::Body, self.limits.requests.body_idle),
            // Empty lines are no progress.
            _ if self.framing.heads() == heads && self.waiting != Waiting::Body => return read,
            _ => (Waiting::Idle, self.limits.idle),
        };
        // A head that trickles in keeps its first deadline.
        if waiting != Waiting::Head || self.waiting != Waiting::Head {
            self.deadline = Instant::now() + limit;
        }
        self.waiting = waiting;
        read
    }

    /// What becomes of the connection after a violation.
    fn consequence(&self) -> Consequence {
        let all_served = self.state.served.load(Ordering::Acquire) >= self.framing.heads();
        let answering = self.state.in_flight.load(Ordering::Acquire) > 0;
        match self.framing.within_body() && all_served {
            true => Consequence::Break,
            false if answering => Consequence::Later,
            false => Consequence::Answer,
        }
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
            let busy =
                self.waiting == Waiting::Idle && self.state.in_flight.load(Ordering::Acquire) > 0;
            if busy {
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
    /// Ends the connection with the last word about `violation`.
    fn close(&mut self, violation: Violation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let word = self.last_word.take().map(|word| word(violation));
        let closing = self.closing.insert(Closing::new(word.unwrap_or_default()));
        closing.poll(&mut self.inner, cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        if let Some(closing) = &mut this.closing {
            return closing.poll(&mut this.inner, cx);
        }
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let Err(violation) = this.follow(&buf.filled()[before..]) else {
                    return Poll::Ready(Ok(()));
                };
                match this.consequence() {
                    Consequence::Later => return Poll::Ready(Ok(())),
                    Consequence::Break => buf.set_filled(before),
                    Consequence::Answer => {
                        buf.set_filled(before);
                        return this.close(violation, cx);
                    }
                }
                let error = io::Error::new(io::ErrorKind::InvalidData, violation.message());
                Poll::Ready(Err(error))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if this.state.has_left() => Poll::Pending,
            Poll::Pending => {
                let error = ready!(this.poll_deadline(cx));
                match this.waiting {
                    Waiting::Head => this.close(Violation::SlowHead, cx),
                    _ => Poll::Ready(Err(error)),
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
