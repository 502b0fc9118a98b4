//! Owns which stretch of time a moment belongs to.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use super::limit::{Period, WindowKind};

/// A rolling window is kept in so many buckets.
pub const BUCKETS: i64 = 60;

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
    match kind {
        WindowKind::Total | WindowKind::Execution => Span {
            start: 0,
            end: None,
        },
        WindowKind::Fixed(length) => stretch(millis(length.as_millis()), at),
        WindowKind::Rolling(_) => stretch(bucket(kind), at),
        WindowKind::Calendar(Period::Hour, _) => stretch(3_600_000, at),
        WindowKind::Calendar(period, zone) => calendar(*period, zone, at),
    }
}

/// How far back buckets count beside the one of the moment: nothing but for rolling windows. The oldest
/// bucket counts whole, so that no real stretch of the window's length holds more than the limit.
pub fn reach(kind: &WindowKind) -> i64 {
    match kind {
        WindowKind::Rolling(_) => bucket(kind).saturating_mul(BUCKETS),
        _ => 0,
    }
}

/// The length of a rolling window's bucket.
fn bucket(kind: &WindowKind) -> i64 {
    match kind {
        WindowKind::Rolling(length) => {
            millis(length.as_millis().div_ceil(BUCKETS.unsigned_abs().into()))
        }
        _ => 0,
    }
}

fn millis(millis: u128) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX).max(1)
}

fn stretch(length: i64, at: i64) -> Span {
    let start = at.div_euclid(length).saturating_mul(length);
    Span {
        start,
        end: Some(start.saturating_add(length)),
    }
}

fn calendar(period: Period, zone: &TimeZone, at: i64) -> Span {
    let moment = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = moment.to_zoned(zone.clone());
    let first = match period {
        Period::Hour | Period::Day => local.date(),
        Period::Week => {
            let since_monday = i64::from(local.weekday().to_monday_zero_offset());
            local.date().saturating_sub(since_monday.days())
        }
        Period::Month => local.date().first_of_month(),
    };
    let next = match period {
        Period::Hour | Period::Day => first.saturating_add(1.days()),
        Period::Week => first.saturating_add(7.days()),
        Period::Month => first.saturating_add(1.months()),
    };
    let midnight = |date: jiff::civil::Date| date.to_zoned(zone.clone()).ok();
    let millisecond = |zoned: Zoned| zoned.timestamp().as_millisecond();
    Span {
        start: midnight(first).map_or(0, millisecond),
        end: midnight(next).map(millisecond),
    }
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

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn calendar_windows_begin_at_local_midnight_also_when_the_clocks_change() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (period, moment, start, end) in [
            (
                Period::Day,
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                Period::Day,
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                Period::Week,
                "2026-11-22T22:59:59Z",
                "2026-11-15T23:00:00Z",
                "2026-11-22T23:00:00Z",
            ),
            (
                Period::Month,
                "2026-02-28T23:30:00Z",
                "2026-02-28T23:00:00Z",
                "2026-03-31T22:00:00Z",
            ),
        ] {
            let kind = WindowKind::Calendar(period, berlin.clone());
            let expected = Span {
                start: at(start),
                end: Some(at(end)),
            };
            assert_eq!(span(&kind, at(moment)), expected, "{period:?} {moment}");
        }
    }

    #[test]
    fn a_rolling_window_has_sixty_buckets_and_counts_the_oldest_whole() {
        let kind = WindowKind::Rolling(std::time::Duration::from_secs(3600));
        assert_eq!(reach(&kind), 3_600_000);
        let own = span(&kind, 61_000);
        assert_eq!((own.start, own.end), (60_000, Some(120_000)));
    }
}
