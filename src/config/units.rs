//! Owns values with units as users write them: `10s`, `15m`, `1MiB`, `60/min`, and exact numbers: `5.00`.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

/// A length of time, written with its unit: `500ms`, `10s`, `15m`, `24h`. At most 100 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl Span {
    /// Longer than anything lasts here, and short enough that every clock can add it to now.
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

    /// Parses a number with its unit; several may follow each other (`1h30m`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a length of time; write for example `500ms`, `10s`, `15m` or `168h`"
            )
        };
        let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        let span = Duration::try_from(span).map_err(|_| wrong())?;
        match span <= Self::LONGEST {
            true => Ok(Self(span)),
            false => Err(format!("`{text}` is longer than 100 years")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A number of bytes, written with its unit: `64KiB`, `1MiB`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct Size(pub u64);

impl Size {
    /// Parses a whole number, alone or followed by `KiB`, `MiB` or `GiB`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => 0,
        };
        match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
            Some(bytes) if unit > 0 => Ok(Self(bytes)),
            _ => Err(format!(
                "`{text}` is not a size; write for example `64KiB` or `1MiB`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// A number as it is written, quoted or not: `"5.00"`, `20000000`. It is never a float on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend("type" = ["string", "number"]))]
pub struct Number(pub String);

impl Number {
    /// The value in units of 10^-`decimals`, if it is a plain decimal number with no more decimals than that.
    pub fn scaled(&self, decimals: u32) -> Option<u64> {
        let (whole, part) = self.0.split_once('.').unwrap_or((&self.0, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let width = decimals as usize;
        let exact = part.trim_end_matches('0');
        if !digits(whole) || !digits(part) || exact.len() > width {
            return None;
        }
        let part: u64 = format!("0{exact:0<width$}").parse().ok()?;
        let whole: u64 = whole.parse().ok()?;
        whole
            .checked_mul(10_u64.checked_pow(decimals)?)?
            .checked_add(part)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So many in a stretch of time: `5/s`, `60/min`, `1000/h`, `5000/day`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(with = "String")]
pub struct Pace {
    /// How many; at least 1.
    pub count: u32,
    /// In which time.
    pub period: Duration,
}

impl Pace {
    /// Parses a whole number, a slash, and `s`, `min`, `h` or `day`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a pace; write for example `5/s`, `60/min` or `1000/h`");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "day" => 86400,
            _ => return Err(wrong()),
        };
        match count.parse() {
            Ok(count @ 1..=1_000_000) if text.as_bytes()[0].is_ascii_digit() => Ok(Self {
                count,
                period: Duration::from_secs(seconds),
            }),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Pace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_carry_units() {
        assert_eq!(Span::parse("1h30m").unwrap().0, Duration::from_secs(5400));
        assert_eq!(Span::parse("500ms").unwrap().0, Duration::from_millis(500));
        assert!(Span::parse("10").is_err() && Span::parse("-1s").is_err());
        assert!(Span::parse("876000h").is_ok() && Span::parse("900000h").is_err());
        assert!(
            Span::parse("9223372036854775807s").is_err(),
            "no clock goes so far"
        );
        assert_eq!(Size::parse("1MiB").unwrap().0, 1 << 20);
        assert_eq!(Size::parse("17").unwrap().0, 17);
        assert!(Size::parse("MiB").is_err() && Size::parse("1 mb").is_err());
    }

    #[test]
    fn numbers_are_exact() {
        let scaled = |text: &str, decimals| Number(text.to_owned()).scaled(decimals);
        for (text, decimals, value) in [
            ("5.00", 9, 5_000_000_000),
            ("0.1", 3, 100),
            ("0.0010", 3, 1),
            ("20000000", 0, 20_000_000),
            ("7.0", 0, 7),
        ] {
            assert_eq!(scaled(text, decimals), Some(value), "{text}");
        }
        for bad in [
            "", "1e3", "-1", "+1", ".5", "5.", "0.0001", "1_000", " 1", "0x10", ".inf",
        ] {
            assert_eq!(scaled(bad, 3), None, "{bad}");
        }
        assert_eq!(scaled("99999999999999999999", 0), None);
        assert_eq!(scaled("18446744073709551615", 9), None);
    }

    #[test]
    fn a_pace_has_a_number_and_a_time() {
        let minute = Duration::from_secs(60);
        assert_eq!(
            Pace::parse("60/min"),
            Ok(Pace {
                count: 60,
                period: minute
            })
        );
        for bad in [
            "60",
            "0/s",
            "60/m",
            "1.5/s",
            "+5/s",
            "/s",
            "60/min ",
            "9999999/s",
        ] {
            assert!(Pace::parse(bad).is_err(), "{bad}");
        }
    }
}
