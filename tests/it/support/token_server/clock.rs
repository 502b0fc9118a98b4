//! Owns the provider's wall clock, which may be wrong by minutes.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::super::reply::{Reply, with};

#[derive(Default)]
pub struct Clock {
    /// Seconds ahead of true time.
    skew: AtomicI64,
}

impl Clock {
    pub fn skew(&self, minutes: i64) {
        self.skew.store(minutes * 60, Ordering::SeqCst);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.skew.load(Ordering::SeqCst))
    }

    /// An answer that tells this clock's time (RFC 9110, section 6.6.1).
    pub fn date(&self, reply: Reply) -> Reply {
        let date = self.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        with(reply, "date", &date)
    }
}
