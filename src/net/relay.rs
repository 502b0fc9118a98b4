//! Owns bytes passed on unread, both ways, until both sides are done, one is silent too long, or
//! someone ends it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::Instant;

/// What passed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the agent.
    pub sent: u64,
    /// Bytes from the origin.
    pub received: u64,
}

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both sides closed.
    Closed,
    /// One side broke off.
    Broken,
    /// Nothing passed for the idle time.
    Idle,
    /// `until` came first: shutdown, or a policy that no longer allows it.
    Revoked,
}

const BUFFER: usize = 16 * 1024;

/// Copies both ways. Each direction is closed when its source is, so half-closed streams work.
pub async fn relay<A, B>(
    agent: A,
    origin: B,
    idle: Duration,
    until: impl Future<Output = ()>,
) -> (Relayed, RelayEnd)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let counters = Counters::default();
    let mut agent = Counted {
        inner: agent,
        count: &counters.sent,
    };
    let mut origin = Counted {
        inner: origin,
        count: &counters.received,
    };
    let end = tokio::select! {
        // First, so that nothing passes what has ended already.
        biased;
        () = until => RelayEnd::Revoked,
        done = copy_bidirectional_with_sizes(&mut agent, &mut origin, BUFFER, BUFFER) => match done {
            Ok(_) => RelayEnd::Closed,
            Err(_) => RelayEnd::Broken,
        },
        () = counters.silence(idle) => RelayEnd::Idle,
    };
    (counters.total(), end)
}

/// An IO whose reads are counted. The idle watch looks at the counts, so the bytes need no clock.
struct Counted<'a, S> {
    inner: S,
    count: &'a AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.count
            .fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
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
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counters {
    fn total(&self) -> Relayed {
        Relayed {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }

    /// Ends when no read happened for at least `idle`, and at most a quarter more.
    async fn silence(&self, idle: Duration) {
        let step = (idle / 4).max(Duration::from_millis(10));
        let (mut seen, mut since) = (self.total(), Instant::now());
        loop {
            tokio::time::sleep(step).await;
            let now = self.total();
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= idle {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_halves_close_alone() {
        let (mut agent, agent_side) = tokio::io::duplex(64);
        let (mut origin, origin_side) = tokio::io::duplex(64);
        let relayed = tokio::spawn(relay(
            agent_side,
            origin_side,
            Duration::from_secs(60),
            std::future::pending(),
        ));
        agent.write_all(b"ping").await.unwrap();
        agent.shutdown().await.unwrap();
        let mut got = Vec::new();
        origin.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"ping");
        origin.write_all(b"pong!").await.unwrap();
        origin.shutdown().await.unwrap();
        got.clear();
        agent.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"pong!");
        assert_eq!(
            relayed.await.unwrap(),
            (
                Relayed {
                    sent: 4,
                    received: 5
                },
                RelayEnd::Closed
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_after_the_idle_time() {
        let (_agent, agent_side) = tokio::io::duplex(64);
        let (_origin, origin_side) = tokio::io::duplex(64);
        let started = Instant::now();
        let (_, end) = relay(
            agent_side,
            origin_side,
            Duration::from_secs(60),
            std::future::pending(),
        )
        .await;
        assert_eq!(end, RelayEnd::Idle);
        assert!(
            started.elapsed() >= Duration::from_secs(60)
                && started.elapsed() <= Duration::from_secs(76)
        );
    }
}
