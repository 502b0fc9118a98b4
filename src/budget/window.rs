//! Owns which window a moment lies in. Windows of a kind follow each other without gap or overlap, so
//! that a new one begins by itself: nothing has to reset anything.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::limit::{Period, WindowKind};

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment after it; none where it never ends.
    pub end: Option<Timestamp>,
}

/// A rolling window is kept in so many buckets.
pub const BUCKETS: u32 = 60;

const HOUR: Duration = Duration::from_secs(3600);

impl WindowKind {
    /// The window that a moment lies in; of a rolling one, the bucket.
    pub fn window(&self, at: Timestamp) -> Window {
        match self {
            Self::Total | Self::Execution => Window {
                start: Timestamp::MIN,
                end: None,
            },
            Self::Fixed(length) => stretch(*length, at),
            Self::Rolling(length) => stretch(bucket(*length), at),
            Self::Calendar(Period::Hour, _) => stretch(HOUR, at),
            Self::Calendar(period, zone) => calendar(*period, zone, at),
        }
    }

    /// How far back windows count beside the one of the moment: nothing but for rolling ones. The bucket
    /// that far back is counted whole, so that no stretch of the limit's length ever holds more than the
    /// limit, and what is spent counts a sixtieth too long at most.
    pub fn reach(&self) -> Duration {
        match self {
            Self::Rolling(length) => bucket(*length).saturating_mul(BUCKETS),
            _ => Duration::ZERO,
        }
    }
}

/// The length of a rolling window's bucket, in whole milliseconds.
fn bucket(length: Duration) -> Duration {
    let millis = length.as_millis().div_ceil(u128::from(BUCKETS));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Stretches of one length, counted from the Unix epoch.
fn stretch(length: Duration, at: Timestamp) -> Window {
    let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
    let moment = |millis| Timestamp::from_millisecond(millis).ok();
    // Moments before the epoch round towards it otherwise.
    let millis = at.as_nanosecond().div_euclid(1_000_000);
    let millis = i64::try_from(millis).unwrap_or(0);
    let start = millis.div_euclid(length).saturating_mul(length);
    Window {
        start: moment(start).unwrap_or(Timestamp::MIN),
        end: moment(start.saturating_add(length)),
    }
}

fn calendar(period: Period, zone: &TimeZone, at: Timestamp) -> Window {
    let date = at.to_zoned(zone.clone()).date();
    let mut first = match period {
        Period::Hour | Period::Day => date,
        Period::Week => {
            let since_monday = i64::from(date.weekday().to_monday_zero_offset());
            date.saturating_sub(since_monday.days())
        }
        Period::Month => date.first_of_month(),
    };
    loop {
        let next = match period {
            Period::Hour | Period::Day => first.saturating_add(1.days()),
            Period::Week => first.saturating_add(7.days()),
            Period::Month => first.saturating_add(1.months()),
        };
        let end = midnight(next, zone).filter(|_| next > first);
        // Where clocks are set back across midnight, the old day's last hour comes once more after the
        // new one has begun. It belongs to the new one: a window that has ended does not come back.
        if end.is_some_and(|end| end <= at) {
            first = next;
            continue;
        }
        return Window {
            start: midnight(first, zone).unwrap_or(Timestamp::MIN),
            end,
        };
    }
}

/// The first moment of a day: of a midnight that comes twice the first, of one that does not come the
/// moment that follows it.
fn midnight(date: Date, zone: &TimeZone) -> Option<Timestamp> {
    let start = date.to_zoned(zone.clone()).ok()?;
    Some(start.timestamp())
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
