//! Owns moments as operators write them: the end of a raise, and the edges of a report. What could mean
//! two moments is refused.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use crate::config::units::Span;

/// The end of a raise, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A time of the present day.
    Clock(Time),
    /// A moment.
    Moment(Timestamp),
    /// So much later than now.
    After(Duration),
    /// It has none.
    Never,
}

/// A raise that is longer ago than this was not meant: edit the document instead.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

impl Until {
    /// Parses `18:00`, `2026-11-22T18:00:00Z` (RFC 3339), `2h` or `never`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        if is_clock(text)
            && let Ok(time) = text.parse()
        {
            return Ok(Self::Clock(time));
        }
        if let Ok(moment) = text.parse() {
            return Ok(Self::Moment(moment));
        }
        match Span::parse(text) {
            Ok(Span(length)) if !length.is_zero() => Ok(Self::After(length)),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(format!(
                    "`{shown}` is not a time; write 18:00, 2026-11-22T18:00:00Z, 2h or never"
                ))
            }
        }
    }

    /// The moment that it means now; nothing for `never`. What lies in the past is an error, a time of the
    /// present day that is over among it: tomorrow's is longer than who asked may have meant.
    pub fn resolve(self, now: Timestamp, zone: &TimeZone) -> Result<Option<Timestamp>, String> {
        let moment = match self {
            Self::Never => return Ok(None),
            Self::Moment(moment) => moment,
            Self::After(length) => length
                .try_into()
                .ok()
                .and_then(|length: jiff::SignedDuration| now.checked_add(length).ok())
                .ok_or_else(too_far)?,
            Self::Clock(time) => {
                let today = now.to_zoned(zone.clone()).date();
                let moment = today
                    .to_datetime(time)
                    .to_zoned(zone.clone())
                    .map_err(|error| error.to_string())?
                    .timestamp();
                if moment <= now {
                    let tomorrow = today.tomorrow().unwrap_or(today);
                    let zone = zone_name(zone);
                    return Err(format!(
                        "{time:.0} ({zone}) is over for today; for tomorrow's, write the whole moment, such as \
                         {tomorrow}T{time:.0} with its offset from UTC"
                    ));
                }
                moment
            }
        };
        if moment <= now {
            return Err(format!("{} lies in the past", rfc3339(moment)));
        }
        match moment.duration_since(now).unsigned_abs() > LONGEST {
            true => Err(too_far()),
            false => Ok(Some(moment)),
        }
    }
}

fn too_far() -> String {
    "that is more than ten years away; raise `max` in the document instead".to_owned()
}

/// `9:30` would be read by nothing else; `18:00:30` is fine, `18` could be anything.
fn is_clock(text: &str) -> bool {
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    matches!(text.split(':').count(), 2 | 3) && text.split(':').all(digits)
}

impl fmt::Display for Until {
    /// As [`Until::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock(time) => write!(f, "{time}"),
            Self::Moment(moment) => write!(f, "{moment}"),
            Self::After(length) => write!(f, "{}ms", length.as_millis().max(1)),
            Self::Never => f.write_str("never"),
        }
    }
}

/// An edge of a report: a day or a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// A day of UTC.
    Day(Date),
    /// A moment.
    Moment(Timestamp),
}

impl Edge {
    /// Parses `2026-11-01` or `2026-11-01T18:00:00Z`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let day = || text.parse().map(Self::Day);
        let moment = || text.parse().map(Self::Moment);
        let parsed = match text.contains(['T', 't', ' ']) {
            true => moment(),
            false => day(),
        };
        parsed.map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            format!(
                "`{shown}` is not a date; write 2026-11-01, or 2026-11-01T18:00:00Z for a moment"
            )
        })
    }

    /// The first moment of it.
    pub fn start(self) -> Timestamp {
        match self {
            Self::Day(day) => midnight(day),
            Self::Moment(moment) => moment,
        }
    }

    /// The first moment after it: a day counts whole, a moment ends before itself.
    pub fn end(self) -> Timestamp {
        match self {
            Self::Day(day) => day.tomorrow().map_or(Timestamp::MAX, midnight),
            Self::Moment(moment) => moment,
        }
    }
}

fn midnight(day: Date) -> Timestamp {
    let zoned = day.to_zoned(TimeZone::UTC);
    zoned.map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => write!(f, "{day}"),
            Self::Moment(moment) => write!(f, "{moment}"),
        }
    }
}

/// To the second, as refusals and headers have it.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// `UTC`, `Europe/Berlin`.
pub fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_end_of_a_raise_is_written_in_four_ways() {
        let now = at("2026-11-21T12:00:00Z");
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, zone, end) in [
            ("18:00", &TimeZone::UTC, Some("2026-11-21T18:00:00Z")),
            ("18:00", &berlin, Some("2026-11-21T17:00:00Z")),
            ("18:00:30", &berlin, Some("2026-11-21T17:00:30Z")),
            (
                "2026-11-22T18:00:00+01:00",
                &berlin,
                Some("2026-11-22T17:00:00Z"),
            ),
            ("2h", &berlin, Some("2026-11-21T14:00:00Z")),
            ("1h30m", &TimeZone::UTC, Some("2026-11-21T13:30:00Z")),
            ("never", &TimeZone::UTC, None),
        ] {
            let until = Until::parse(text).unwrap();
            assert_eq!(until.resolve(now, zone), Ok(end.map(at)), "{text}");
            assert_eq!(Until::parse(&until.to_string()), Ok(until), "{until}");
        }
    }

    #[test]
    fn a_raise_that_would_end_before_it_begins_is_refused() {
        let now = at("2026-11-21T19:00:00Z");
        for (text, why) in [
            ("18:00", "18:00:00 (UTC) is over for today"),
            ("19:00", "is over for today"),
            (
                "2026-11-21T18:59:59Z",
                "2026-11-21T18:59:59Z lies in the past",
            ),
            ("2099-01-01T00:00:00Z", "more than ten years"),
            ("99999h", "more than ten years"),
        ] {
            let error = Until::parse(text).unwrap().resolve(now, &TimeZone::UTC);
            let error = error.unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        for bad in [
            "", "18", "25:00", "6pm", "tomorrow", "0s", "-2h", "9:5", "999999h",
        ] {
            assert!(Until::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_day_is_of_utc_and_counts_whole() {
        let day = Edge::parse("2026-11-30").unwrap();
        assert_eq!(day.start(), at("2026-11-30T00:00:00Z"));
        assert_eq!(day.end(), at("2026-12-01T00:00:00Z"));
        let moment = Edge::parse("2026-11-30T18:00:00+01:00").unwrap();
        assert_eq!(moment.start(), at("2026-11-30T17:00:00Z"));
        assert_eq!(moment.end(), moment.start());
        for bad in ["", "yesterday", "2026-13-01", "2026-11-31", "20261"] {
            assert!(Edge::parse(bad).is_err(), "{bad}");
        }
        for edge in [day, moment] {
            assert_eq!(Edge::parse(&edge.to_string()), Ok(edge));
        }
    }
}
