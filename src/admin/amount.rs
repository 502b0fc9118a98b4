//! Owns amounts as operators write and read them: `5usd`, `100000tokens`, `20requests`. They are exact.

use std::fmt;

use serde_json::Value;

use crate::budget::limit::Unit;
use crate::config::units::Number;
use crate::types::money::NanoUsd;

/// What an amount is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// US dollars.
    Usd,
    /// Tokens.
    Tokens,
    /// Requests.
    Requests,
}

impl Measure {
    /// What a limit counts.
    pub fn of(unit: &Unit) -> Self {
        match unit {
            Unit::Usd => Self::Usd,
            Unit::Tokens(_) => Self::Tokens,
            Unit::Requests => Self::Requests,
        }
    }

    /// The word in documents, and behind an amount.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usd => "usd",
            Self::Tokens => "tokens",
            Self::Requests => "requests",
        }
    }

    /// What the ledger keeps, for programs: dollars as a decimal number in a string, since JSON's numbers
    /// are floats to most readers; whole tokens and requests as numbers.
    pub fn json(self, value: u64, rounding: Rounding) -> Value {
        match self {
            Self::Usd => dollars(NanoUsd(value)).into(),
            Self::Tokens => rounding.thousandths(value).into(),
            Self::Requests => value.into(),
        }
    }

    /// What the ledger keeps, for people: `$5.00`, `1200 tokens`, `3 requests`.
    pub fn show(self, value: u64) -> String {
        match self {
            Self::Usd => NanoUsd(value).to_string(),
            Self::Tokens => plural(value / 1000, "token"),
            Self::Requests => plural(value, "request"),
        }
    }
}

/// Which way a part of a token goes. Weights make such parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// What was taken is at least that.
    Up,
    /// What is left is at most that.
    Down,
}

impl Rounding {
    fn thousandths(self, value: u64) -> u64 {
        match self {
            Self::Up => value.div_ceil(1000),
            Self::Down => value / 1000,
        }
    }
}

/// An amount and what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// What it is of.
    pub measure: Measure,
    /// How much, in the ledger's unit: nano-dollars, thousandths of a token, requests.
    pub value: u64,
}

/// Amounts are added up in SQLite's integers, which have a sign.
const MOST: u64 = i64::MAX as u64 / 4;

impl Amount {
    /// Parses a number with its unit behind it: `5usd`, `0.25usd`, `100000tokens`, `20requests`; also `$5`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(40).collect();
            format!("`{shown}` {why}; write for example 5usd, 0.25usd, 100000tokens or 20requests")
        };
        if text.starts_with(['-', '+']) {
            return Err(wrong("has a sign, and amounts are positive"));
        }
        let (number, unit) = match text.strip_prefix('$') {
            Some(number) => (number, "usd"),
            None => {
                let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
                let (number, unit) = text.split_at(end.unwrap_or(text.len()));
                (number, unit.trim_start())
            }
        };
        let number = Number(number.to_owned());
        let (measure, value) = match unit {
            "usd" | "USD" => (Measure::Usd, number.scaled(9)),
            "token" | "tokens" => (
                Measure::Tokens,
                number.scaled(0).and_then(|n| n.checked_mul(1000)),
            ),
            "request" | "requests" => (Measure::Requests, number.scaled(0)),
            "" => return Err(wrong("has no unit")),
            _ => return Err(wrong("is not an amount")),
        };
        match value {
            Some(0) => Err(wrong("is nothing")),
            Some(value) if value <= MOST => Ok(Self { measure, value }),
            _ => Err(wrong("is not an amount")),
        }
    }
}

impl fmt::Display for Amount {
    /// As [`Amount::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.measure.as_str();
        match self.measure {
            Measure::Usd => write!(f, "{}{unit}", dollars(NanoUsd(self.value))),
            Measure::Tokens => write!(f, "{}{unit}", self.value / 1000),
            Measure::Requests => write!(f, "{}{unit}", self.value),
        }
    }
}

/// `5.00`: an amount of money as a plain decimal number.
pub fn dollars(amount: NanoUsd) -> String {
    amount.to_string().trim_start_matches('$').to_owned()
}

fn plural(count: u64, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units_and_are_exact() {
        for (text, measure, value, written) in [
            ("5usd", Measure::Usd, 5_000_000_000, "5.00usd"),
            ("$5", Measure::Usd, 5_000_000_000, "5.00usd"),
            ("0.000000001usd", Measure::Usd, 1, "0.000000001usd"),
            ("100000tokens", Measure::Tokens, 100_000_000, "100000tokens"),
            ("20 requests", Measure::Requests, 20, "20requests"),
            ("1request", Measure::Requests, 1, "1requests"),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!(amount, Amount { measure, value }, "{text}");
            assert_eq!(amount.to_string(), written);
            assert_eq!(Amount::parse(written), Ok(amount));
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_an_example() {
        for (text, why) in [
            ("5", "has no unit"),
            ("usd", "is not an amount"),
            ("0usd", "is nothing"),
            ("-5usd", "amounts are positive"),
            ("+5usd", "amounts are positive"),
            ("5eur", "is not an amount"),
            ("1e3tokens", "is not an amount"),
            ("1.5requests", "is not an amount"),
            ("0.0000000001usd", "is not an amount"),
            ("99999999999999999999usd", "is not an amount"),
            ("9223372036854775807requests", "is not an amount"),
            ("$-5", "is not an amount"),
            ("", "has no unit"),
        ] {
            let error = Amount::parse(text).unwrap_err();
            assert!(
                error.contains(why) && error.contains("5usd"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn parts_of_a_token_never_make_room() {
        assert_eq!(Measure::Tokens.json(1001, Rounding::Up), 2);
        assert_eq!(Measure::Tokens.json(1999, Rounding::Down), 1);
        assert_eq!(
            Measure::Usd.json(4_120_000_000, Rounding::Up),
            Value::from("4.12")
        );
        assert_eq!(Measure::Requests.show(1), "1 request");
    }
}
