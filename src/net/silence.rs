//! Owns the clock for one who may be gone without a word: it has said nothing, not even in answer to a PING, and takes
//! nothing either.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// When the other side was last there.
#[derive(Debug)]
pub struct Silence {
    ping: Duration,
    /// An answer to a PING, or to take what is written, since it was heard last.
    owes: bool,
    heard: Instant,
    taken: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    /// One who is asked with a PING after so long without a word, and has as long again for its answer. A PING waits
    /// behind what is on its way already: as long as more of that is taken, it is there.
    pub fn new(ping: Duration) -> Self {
        let now = Instant::now();
        Self {
            ping,
            owes: false,
            heard: now,
            taken: now,
            timer: Box::pin(sleep_until(now + 2 * ping)),
        }
    }

    /// It has said something.
    pub fn heard(&mut self) {
        self.heard = Instant::now();
        self.owes = false;
    }

    /// A PING went out, or something would that is not taken.
    pub fn waits(&mut self) {
        self.owes = true;
    }

    /// Whether anything is waited for. One that nobody needs is not asked.
    pub fn owes(&self) -> bool {
        self.owes
    }

    /// It, or the system on the way to it, has taken something.
    pub fn taken(&mut self) {
        self.taken = Instant::now();
    }

    /// Ready once it is taken for gone.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let end = (self.heard + 2 * self.ping).max(self.taken + self.ping);
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::sleep;

    use super::*;

    const PING: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn only_who_says_nothing_and_takes_nothing_is_gone() {
        let started = Instant::now();
        let mut mute = Silence::new(PING);
        poll_fn(|cx| mute.poll(cx)).await;
        assert_eq!(started.elapsed(), 2 * PING);

        let mut slow = Silence::new(PING);
        for _ in 0..10 {
            let gone = tokio::time::timeout(PING * 9 / 10, poll_fn(|cx| slow.poll(cx)));
            assert!(gone.await.is_err(), "it takes what there is");
            slow.taken();
        }
        let mut talks = Silence::new(PING);
        for _ in 0..10 {
            let gone = tokio::time::timeout(PING * 19 / 10, poll_fn(|cx| talks.poll(cx)));
            assert!(gone.await.is_err(), "it answers");
            talks.heard();
        }
        sleep(PING).await;
        let last = Instant::now();
        poll_fn(|cx| talks.poll(cx)).await;
        assert_eq!(last.elapsed(), PING);
    }
}
