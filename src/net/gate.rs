//! Owns the IO under an agent's HTTP/1.1 connection: it follows the framing and keeps the time.
//!
//! The library's own header timer also ends idle kept connections and costs a timer per request;
//! here one timer per connection serves all three waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::{Framing, Violation};

/// How long an agent may take.
#[derive(Clone, Copy, Debug)]
pub struct AgentLimits {
    /// From a request's first byte, or the connection's start, to the end of its head.
    pub head: Duration,
    /// Between two requests on a kept connection.
    pub idle: Duration,
    /// Between two reads of a request body.
    pub body: Duration,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            body: Duration::from_secs(60),
        }
    }
}

/// What the gate and the exchanges on its connection know together.
#[derive(Debug, Default)]
pub struct GateState {
    violation: AtomicU8,
    in_flight: AtomicUsize,
}

impl GateState {
    /// The first ambiguity seen on this connection, if any.
    pub fn violation(&self) -> Option<Violation> {
        Violation::from_code(self.violation.load(Ordering::Acquire))
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

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An agent's connection, watched.
pub struct Gate<S> {
    inner: S,
    framing: Framing,
    state: Arc<GateState>,
    limits: AgentLimits,
    waiting: Waiting,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    FirstHead,
    Head,
    Body,
    Idle,
}

impl<S> Gate<S> {
    /// Watches `inner`, reporting into `state`.
    pub fn new(inner: S, limits: AgentLimits, state: Arc<GateState>) -> Self {
        let deadline = Instant::now() + limits.head;
        Self {
            inner,
            framing: Framing::default(),
            state,
            limits,
            waiting: Waiting::FirstHead,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
        }
    }

    /// The connection again, once HTTP is over on it.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn follow(&mut self, bytes: &[u8]) {
        if let Err(violation) = self.framing.feed(bytes) {
            self.state
                .violation
                .store(violation as u8, Ordering::Release);
        }
        let (waiting, limit) = match (self.framing.within_head(), self.framing.within_body()) {
            (true, _) => (Waiting::Head, self.limits.head),
            (_, true) => (Waiting::Body, self.limits.body),
            _ => (Waiting::Idle, self.limits.idle),
        };
        // A head that trickles in keeps its first deadline.
        if waiting != Waiting::Head || self.waiting != Waiting::Head {
            self.deadline = Instant::now() + limit;
        }
        self.waiting = waiting;
    }

    /// The timer is moved only when it fires, so that a busy connection never touches it.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let busy =
                self.waiting == Waiting::Idle && self.state.in_flight.load(Ordering::Acquire) > 0;
            if busy {
                self.deadline = now + self.limits.idle;
            }
            if self.deadline <= now {
                let what = match self.waiting {
                    Waiting::FirstHead | Waiting::Head => "the request head took too long",
                    Waiting::Body => "the request body stalled",
                    Waiting::Idle => "idle",
                };
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            let deadline = self.deadline;
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                this.follow(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // After an upgrade whoever relays the bytes keeps the time.
            Poll::Pending if this.framing.is_opaque() => Poll::Pending,
            Poll::Pending => this.poll_deadline(cx).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_in_is_cut_at_its_first_deadline() {
        let (mut agent, proxy) = tokio::io::duplex(1024);
        let mut gate = Gate::new(proxy, AgentLimits::default(), Arc::default());
        let trickle = tokio::spawn(async move {
            loop {
                if agent.write_all(b"G").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        let started = Instant::now();
        let mut sink = Vec::new();
        let error = gate.read_to_end(&mut sink).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() <= Duration::from_secs(11));
        drop(gate);
        trickle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_an_exchange_in_flight_is_never_idle() {
        let (mut agent, proxy) = tokio::io::duplex(1024);
        let state = Arc::new(GateState::default());
        let mut gate = Gate::new(proxy, AgentLimits::default(), state.clone());
        agent
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut buffer = [0; 64];
        assert_eq!(gate.read(&mut buffer).await.unwrap(), 27);
        let exchange = state.exchange();
        let waited = tokio::time::timeout(Duration::from_secs(3600), gate.read(&mut buffer)).await;
        assert!(
            waited.is_err(),
            "the read ended although a response was still on its way"
        );
        drop(exchange);
        let error = gate.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.to_string(), "idle");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_may_be_silent() {
        let (mut agent, proxy) = tokio::io::duplex(1024);
        let mut gate = Gate::new(proxy, AgentLimits::default(), Arc::default());
        agent
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let mut buffer = [0; 128];
        assert!(gate.read(&mut buffer).await.unwrap() > 0);
        let waited = tokio::time::timeout(Duration::from_secs(3600), gate.read(&mut buffer)).await;
        assert!(waited.is_err(), "the gate ended an upgraded connection");
    }
}
