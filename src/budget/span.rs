//! Owns windows as the ledger's file has them: in milliseconds since the epoch.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::limit::WindowKind;
use super::window::BUCKETS;

/// A window or a bucket of one: from `start` to before `end`, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub start: i64,
    /// The first moment after it; none where it never ends.
    pub end: Option<i64>,
}

/// The window of a kind that `at` lies in; of a rolling one, the bucket.
pub fn span(kind: &WindowKind, at: i64) -> Span {
    let window = kind.window(moment(at));
    Span {
        start: window.start.as_millisecond(),
        end: window.end.map(Timestamp::as_millisecond),
    }
}

/// How far back buckets count beside the one of the moment: nothing but for rolling windows. The oldest
/// bucket counts whole, so that no real stretch of the window's length holds more than the limit.
pub fn reach(kind: &WindowKind) -> i64 {
    match kind {
        WindowKind::Rolling(_) => {
            let bucket = span(kind, 0);
            let length = bucket.end.unwrap_or(i64::MAX) - bucket.start;
            length.saturating_mul(BUCKETS.into())
        }
        _ => 0,
    }
}

/// A moment for people, from the ledger's milliseconds.
pub fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// `at` later by `by`.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolling_window_has_sixty_buckets_beside_the_present_one() {
        let kind = WindowKind::Rolling(Duration::from_secs(3600));
        assert_eq!(reach(&kind), 3_600_000);
        let own = span(&kind, 61_000);
        assert_eq!((own.start, own.end), (60_000, Some(120_000)));
    }
}
