//! Owns a moment on both clocks: the wall clock may be set back, the other stands still while the
//! machine sleeps. Whichever comes first counts.

use std::time::{Duration, Instant, SystemTime};

/// A moment that has come when either clock says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: SystemTime,
    monotonic: Option<Instant>,
}

/// Longest time slept at once: a wall clock that was set forward is noticed after it.
const STEP: Duration = Duration::from_secs(30);

impl Deadline {
    /// The moment `at`, seen from `now` on the wall clock.
    pub fn new(at: SystemTime, now: SystemTime) -> Self {
        let left = at.duration_since(now).unwrap_or_default();
        Self {
            at,
            monotonic: Instant::now().checked_add(left),
        }
    }

    /// The moment after this much time.
    pub fn after(time: Duration) -> Self {
        let now = SystemTime::now();
        Self::new(now + time, now)
    }

    /// The moment on the wall clock.
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// Whether it has come, `now` being the wall clock's time.
    pub fn passed(&self, now: SystemTime) -> bool {
        self.left(now).is_zero()
    }

    /// How long it still is.
    pub fn left(&self, now: SystemTime) -> Duration {
        let wall = self.at.duration_since(now).unwrap_or_default();
        match self.monotonic {
            Some(end) => wall.min(end.saturating_duration_since(Instant::now())),
            None => wall,
        }
    }

    /// Waits for it.
    pub async fn wait(&self) {
        loop {
            let left = self.left(SystemTime::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(STEP)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_in_either_direction_does_not_put_it_off() {
        let now = SystemTime::now();
        let deadline = Deadline::new(now + Duration::from_secs(60), now);
        assert!(!deadline.passed(now));
        assert!(deadline.passed(now + Duration::from_secs(60)));
        let back = now - Duration::from_secs(3600);
        assert!(deadline.left(back) <= Duration::from_secs(60));
        assert!(Deadline::new(back, now).passed(now));
    }
}
