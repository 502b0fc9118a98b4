//! Owns moments and windows as the ledger files them: in milliseconds since the epoch.

use jiff::{SignedDuration, Timestamp};

use super::limit::WindowKind;
use super::window;

/// A rolling window is kept in so many buckets.
pub const BUCKETS: i64 = window::BUCKETS as i64;

/// A window or a bucket of one: from `start` to before `end`, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub start: i64,
    /// The first moment after it; none where it never ends.
    pub end: Option<i64>,
}

/// The window of a kind that `at` lies in; of a rolling one, the bucket. One that never ends begins at 0.
pub fn span(kind: &WindowKind, at: i64) -> Span {
    let window = kind.window(moment(at));
    let end = window.end.map(|end| end.as_millisecond());
    Span {
        start: end.map_or(0, |_| window.start.as_millisecond()),
        end,
    }
}

/// How far back buckets count beside the one of the moment: nothing but for rolling windows. The oldest
/// bucket counts whole, so that no real stretch of the window's length holds more than the limit.
pub fn reach(kind: &WindowKind) -> i64 {
    i64::try_from(kind.reach().as_millis()).unwrap_or(i64::MAX)
}

/// A moment for people, from the ledger's milliseconds.
pub fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// `at` later by `by`.
pub fn later(at: Timestamp, by: std::time::Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_began_at_the_epoch() {
        let total = span(&WindowKind::Total, 61_000);
        assert_eq!((total.start, total.end), (0, None));
    }

    #[test]
    fn a_rolling_window_has_sixty_buckets_and_counts_the_oldest_whole() {
        let kind = WindowKind::Rolling(std::time::Duration::from_secs(3600));
        assert_eq!(reach(&kind), 3_600_000);
        let own = span(&kind, 61_000);
        assert_eq!((own.start, own.end), (60_000, Some(120_000)));
    }
}
