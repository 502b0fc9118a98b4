//! Owns what is known of an agent's body while it passes: how much has come, whether it broke off, and why,
//! and whose turn it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Shared by whoever passes the body on and whoever writes the record.
#[derive(Debug)]
pub struct Uploaded {
    octets: AtomicU64,
    broken: AtomicBool,
    slow: AtomicBool,
    begun: Instant,
    /// When a piece, or the end, was handed on last, in milliseconds since it began.
    handed_on: AtomicU64,
    /// The agent has the next piece to send, and its time for that is kept.
    awaited: AtomicBool,
}

impl Default for Uploaded {
    fn default() -> Self {
        Self {
            octets: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            begun: Instant::now(),
            handed_on: AtomicU64::new(0),
            awaited: AtomicBool::new(false),
        }
    }
}

impl Uploaded {
    /// So many more have come.
    pub fn add(&self, octets: usize) {
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// How many have come.
    pub fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }

    /// The agent ended it in the middle.
    pub fn broke_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// It was given up here, since nothing of it came any more.
    pub fn was_slow(&self) {
        self.slow.store(true, Ordering::Relaxed);
        self.broke_off();
    }

    /// Whether it was given up here, since nothing of it came any more.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether the agent ended it in the middle: what the origin then says is not the origin's fault.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// A piece goes on to the origin, or the end does: it is the origin's turn.
    pub fn handed_on(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.handed_on.store(millis, Ordering::Relaxed);
        self.awaited.store(false, Ordering::Release);
    }

    /// Nothing is there to be handed on, and somebody else ends the wait for more.
    pub fn awaits_agent(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// Until when an origin that may take `limit` for its turn is to be waited for, as far as is known now.
    pub fn deadline(&self, limit: Duration) -> Instant {
        match self.awaited.load(Ordering::Acquire) {
            true => Instant::now() + limit,
            false => {
                let since = Duration::from_millis(self.handed_on.load(Ordering::Relaxed));
                self.begun + since + limit
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn the_time_of_an_origin_begins_with_the_last_piece_and_stands_while_the_agent_is_awaited()
     {
        let uploaded = Uploaded::default();
        let begun = Instant::now();
        assert_eq!(uploaded.deadline(LIMIT), begun + LIMIT);
        sleep(LIMIT).await;
        uploaded.awaits_agent();
        assert_eq!(uploaded.deadline(LIMIT), begun + 2 * LIMIT);
        sleep(LIMIT).await;
        uploaded.handed_on();
        sleep(LIMIT / 2).await;
        assert_eq!(uploaded.deadline(LIMIT), begun + 3 * LIMIT);
    }
}
