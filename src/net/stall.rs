//! Owns the clock for one who is written to and takes nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long nothing has been taken. Without a wait it costs nothing: the timer is made at the first one,
/// and moved only when it fires.
#[derive(Debug, Default)]
pub struct Stall {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Something was taken.
    pub fn moved(&mut self) {
        self.since = None;
    }

    /// Nothing can be written just now. Ready once that has been so for `limit`.
    pub fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let deadline = since + limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn only_a_wait_without_a_break_is_a_stall() {
        let mut stall = Stall::default();
        let started = Instant::now();
        for _ in 0..5 {
            let wait = poll_fn(|cx| stall.poll(LIMIT, cx));
            let wait = tokio::time::timeout(LIMIT * 9 / 10, wait).await;
            assert!(wait.is_err(), "it has not been ten seconds");
            stall.moved();
        }
        poll_fn(|cx| stall.poll(LIMIT, cx)).await;
        assert!(started.elapsed() >= LIMIT * 9 / 10 * 5 + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_limit_counts_at_once() {
        let mut stall = Stall::default();
        let wait = poll_fn(|cx| stall.poll(LIMIT, cx));
        assert!(tokio::time::timeout(LIMIT / 2, wait).await.is_err());
        stall.moved();
        let started = Instant::now();
        poll_fn(|cx| stall.poll(LIMIT / 10, cx)).await;
        assert!(started.elapsed() < LIMIT / 5);
    }
}
