//! Owns amounts of money: whole nano-dollars, never a float.

use std::fmt;

/// An amount in nano-USD (10⁻⁹ US dollars); at most about 18 billion dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub u64);

/// Why a text is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an amount in US dollars; write for example \"5.00\" or \"0.25\", with at most 9 decimals"
)]
pub struct MoneyError(String);

impl NanoUsd {
    /// One dollar.
    pub const DOLLAR: u64 = 1_000_000_000;

    /// Parses a decimal number of dollars: `5`, `5.00`, `0.000000001`.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let wrong = || MoneyError(text.chars().take(40).collect());
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 {
            return Err(wrong());
        }
        if text.ends_with('.') {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let part: u64 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
        let nano = whole
            .checked_mul(Self::DOLLAR)
            .and_then(|n| n.checked_add(part));
        nano.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for NanoUsd {
    /// `$5.00`, `$0.0168`: at least two decimals, and as many as it takes to be exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut part, mut decimals) = (self.0 % Self::DOLLAR, 9);
        while decimals > 2 && part % 10 == 0 {
            (part, decimals) = (part / 10, decimals - 1);
        }
        write!(f, "${}.{part:0decimals$}", self.0 / Self::DOLLAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_and_written_exactly() {
        for (text, nano, shown) in [
            ("5", 5_000_000_000, "$5.00"),
            ("5.00", 5_000_000_000, "$5.00"),
            ("0.0168", 16_800_000, "$0.0168"),
            ("0.000000001", 1, "$0.000000001"),
            ("0", 0, "$0.00"),
            ("12.3", 12_300_000_000, "$12.30"),
        ] {
            assert_eq!(NanoUsd::parse(text), Ok(NanoUsd(nano)), "{text}");
            assert_eq!(NanoUsd(nano).to_string(), shown);
        }
        for bad in [
            "",
            ".",
            "5.",
            ".5",
            "-1",
            "1e3",
            "5,00",
            "$5",
            "0.0000000001",
            "99999999999999999999",
        ] {
            assert!(NanoUsd::parse(bad).is_err(), "{bad}");
        }
    }
}
