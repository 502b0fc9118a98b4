//! Owns `Expect: 100-continue`: the origin decides whether it wants a body before the agent sends it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Sleep;

use super::body::BodyError;

/// The wait for an origin's `100 Continue` (RFC 9110, section 10.1.1). The agent is told to continue
/// when its body is first asked for, so holding back the asking leaves the decision to the origin.
pub struct Continuation {
    shared: Arc<Wanted>,
    patience: Pin<Box<Sleep>>,
}

/// What the origin said about the body.
#[derive(Default)]
pub struct Wanted {
    verdict: AtomicU8,
    waker: AtomicWaker,
}

/// An origin that never says 100 (HTTP/1.0, HTTP/2 here) gets the body after this long.
const PATIENCE: Duration = Duration::from_secs(1);
const CONTINUE: u8 = 1;
const ANSWERED: u8 = 2;

impl Wanted {
    /// The origin wants the body.
    pub fn go_on(&self) {
        self.say(CONTINUE);
    }

    /// The origin has answered already; a body that was not asked for by then is not sent.
    pub fn answered(&self) {
        self.say(ANSWERED);
    }

    fn say(&self, verdict: u8) {
        self.verdict
            .compare_exchange(0, verdict, Ordering::AcqRel, Ordering::Acquire)
            .ok();
        self.waker.wake();
    }
}

impl Continuation {
    /// Waits for what `shared` hears.
    pub fn new(shared: Arc<Wanted>) -> Self {
        Self {
            shared,
            patience: Box::pin(tokio::time::sleep(PATIENCE)),
        }
    }

    /// Ready once the body may be asked for; an error once it is not wanted.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.shared.waker.register(cx.waker());
        match self.shared.verdict.load(Ordering::Acquire) {
            CONTINUE => Poll::Ready(Ok(())),
            ANSWERED => Poll::Ready(Err(BodyError::NotWanted)),
            _ => self.patience.as_mut().poll(cx).map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::spawn_blocking;
    use tokio::time::Instant;

    use super::*;

    /// The clock of the test stands still while a thread runs, and jumps to the end of the patience if nobody is
    /// woken.
    #[tokio::test(start_paused = true)]
    async fn threads_that_say_what_the_origin_wants_wake_whoever_waits() {
        for _ in 0..3 {
            let wanted = Arc::new(Wanted::default());
            let mut wait = Continuation::new(wanted.clone());
            let (one, other) = (wanted.clone(), wanted);
            let begun = Instant::now();
            let said = [
                spawn_blocking(move || one.go_on()),
                spawn_blocking(move || other.answered()),
            ];
            let first = poll_fn(|cx| wait.poll(cx)).await;
            assert_eq!(begun.elapsed(), Duration::ZERO, "nobody was woken");
            for said in said {
                said.await.unwrap();
            }
            let again = poll_fn(|cx| wait.poll(cx)).await;
            assert_eq!(first.is_ok(), again.is_ok(), "what was said first counts");
        }
    }
}
