//! Owns the times that an endpoint names in its fields, and how far its clock is from ours.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};
use jiff::fmt::rfc2822::DateTimeParser;

/// Longest pause that an endpoint can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Clocks that differ by less, in seconds, need no correction: assertions are dated back further.
const TOLERANCE: i64 = 30;

/// What an answer's date told of the clock that was used for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// It was right, or nothing was told.
    Nothing,
    /// It was so far off that it explains a refusal.
    WasOff,
}

/// How many seconds the endpoint's clock is ahead of this machine's.
#[derive(Debug, Default)]
pub(super) struct Offset(AtomicI64, AtomicBool);

impl Offset {
    /// As the last `Date` told, if one was seen.
    pub(super) fn learned(&self) -> Option<i64> {
        let seen = self.1.load(Ordering::Acquire);
        seen.then(|| self.seconds())
    }

    /// As the last `Date` told; 0 before one was seen.
    pub(super) fn seconds(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The endpoint's time at `now`, as far as is known.
    pub(super) fn apply(&self, now: SystemTime) -> SystemTime {
        let seconds = self.seconds();
        let by = Duration::from_secs(seconds.unsigned_abs());
        let there = match seconds {
            _ if seconds.abs() <= TOLERANCE => Some(now),
            ..0 => now.checked_sub(by),
            _ => now.checked_add(by),
        };
        there.unwrap_or(now)
    }

    /// Learns from an answer that came at `now` and names its own `date`.
    pub(super) fn learn(&self, date: Option<SystemTime>, now: SystemTime) -> Learned {
        let Some(seconds) = date.map(|date| unix(date).saturating_sub(unix(now))) else {
            return Learned::Nothing;
        };
        let used = self.0.swap(seconds, Ordering::Relaxed);
        self.1.store(true, Ordering::Release);
        match seconds.saturating_sub(used).abs() > TOLERANCE {
            true => Learned::WasOff,
            false => Learned::Nothing,
        }
    }
}

/// Seconds since 1970, also before it.
pub(super) fn unix(time: SystemTime) -> i64 {
    let signed = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => signed(since),
        Err(before) => -signed(before.duration()),
    }
}

/// `Date` (RFC 9110, section 6.6.1).
pub(super) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    http_date(headers.get(header::DATE)?.to_str().ok()?)
}

/// `Retry-After` (RFC 9110, section 10.2.3), seconds or a date by the endpoint's own clock.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let there = date(headers).unwrap_or(now);
            http_date(text)?.duration_since(there).unwrap_or_default()
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// `at`, which the endpoint named by its own clock, by ours. Without its `date` the clocks count as equal.
pub(super) fn local(at: SystemTime, date: Option<SystemTime>, now: SystemTime) -> SystemTime {
    let Some(date) = date else {
        return at;
    };
    let local = match at.duration_since(date) {
        Ok(left) => now.checked_add(left),
        Err(past) => now.checked_sub(past.duration()),
    };
    local.unwrap_or(at)
}

/// A moment moved by a clock's offset in seconds.
pub(super) fn shifted(time: SystemTime, offset: i64) -> SystemTime {
    let by = Duration::from_secs(offset.unsigned_abs());
    let moved = match offset > 0 {
        true => time.checked_add(by),
        false => time.checked_sub(by),
    };
    moved.unwrap_or(time)
}

/// IMF-fixdate, the form that is sent (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(text).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        pairs.collect()
    }

    #[test]
    fn the_time_of_an_answer_is_read() {
        let fields = headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert_eq!(date(&fields), Some(at(784_111_777)));
        assert_eq!(date(&headers(&[("date", "yesterday")])), None);
        assert_eq!(date(&HeaderMap::new()), None);
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_bounded() {
        let now = at(0);
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (after, pause) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("99999999", Some(24 * 3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:40:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let fields = headers(&[date, ("retry-after", after)]);
            let pause = pause.map(Duration::from_secs);
            assert_eq!(retry_after(&fields, now), pause, "{after}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_clock_that_is_off_is_learned_once() {
        let offset = Offset::default();
        let now = at(10_000);
        assert_eq!(offset.learn(None, now), Learned::Nothing);
        assert_eq!(offset.learned(), None);
        assert_eq!(offset.learn(Some(at(10_029)), now), Learned::Nothing);
        assert_eq!((offset.learned(), offset.apply(now)), (Some(29), now));
        assert_eq!(offset.learn(Some(at(9_700)), now), Learned::WasOff);
        assert_eq!((offset.seconds(), offset.apply(now)), (-300, at(9_700)));
        assert_eq!(offset.learn(Some(at(9_701)), now), Learned::Nothing);
        // The machine's clock was set right since.
        assert_eq!(offset.learn(Some(now), now), Learned::WasOff);
        assert_eq!(offset.apply(now), now);
        assert_eq!(offset.learn(Some(at(17_200)), now), Learned::WasOff);
        assert_eq!(offset.apply(now), at(17_200));
    }

    #[test]
    fn a_time_named_by_another_clock_is_told_by_ours() {
        assert_eq!(local(at(5_600), Some(at(2_000)), at(1_000)), at(4_600));
        assert_eq!(local(at(1_500), Some(at(2_000)), at(1_000)), at(500));
        assert_eq!(local(at(5_600), None, at(1_000)), at(5_600));
    }
}
