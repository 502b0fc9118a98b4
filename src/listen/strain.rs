//! Owns what happens while no connection can be taken: how long is waited, and how often it is told.

use std::io;
use std::time::{Duration, Instant};

/// Out of descriptors, the cause stays until connections end: a tight loop would spin.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about the same trouble.
const TELL: Duration = Duration::from_secs(30);

/// One listener's trouble.
#[derive(Default)]
pub(super) struct Strain {
    told: Option<Instant>,
    /// Since something was told.
    failures: u64,
    is_failing: bool,
}

impl Strain {
    /// Says what is wrong, at most every half minute, and waits before the next try.
    pub(super) async fn failed(&mut self, error: &io::Error) {
        // Gone before it was taken (accept(2)): nothing is wrong with the next one.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        self.failures += 1;
        self.is_failing = true;
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            tracing::warn!(
                %error,
                tries = self.failures,
                "no connection can be accepted; further ones wait until others end"
            );
            self.told = Some(Instant::now());
            self.failures = 0;
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// A connection was taken.
    pub(super) fn over(&mut self) {
        if self.is_failing {
            self.is_failing = false;
            tracing::debug!(tries = self.failures, "connections are accepted again");
        }
    }
}
