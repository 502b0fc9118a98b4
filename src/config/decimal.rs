//! Owns decimal numbers as users write them, read exactly: no price or factor is ever a float.

use serde::{Deserialize, Deserializer, de};

/// A decimal number of at least 0 with at most `DECIMALS` digits behind the point, kept as a whole
/// number of units of 10⁻`DECIMALS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal<const DECIMALS: u32>(u64);

/// Far above any price or factor, far below what would overflow where they are multiplied.
const MOST: u64 = 1_000_000;

impl<const DECIMALS: u32> Decimal<DECIMALS> {
    /// Parses digits with at most one point among them: `3`, `0.075`, `18.750`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a decimal number; write digits and at most one point, for example \"3.75\""
            )
        };
        let (whole, part) = match text.split_once('.') {
            Some((_, "")) => return Err(wrong()),
            Some((whole, part)) => (whole, part.trim_end_matches('0')),
            None => (text, ""),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        let spare = DECIMALS.checked_sub(u32::try_from(part.len()).unwrap_or(u32::MAX));
        let Some(spare) = spare else {
            return Err(format!(
                "`{text}` has more than {DECIMALS} decimals, more than can be counted exactly"
            ));
        };
        let number = format!("{whole}{part}").parse::<u64>().ok();
        let units = number.and_then(|n| n.checked_mul(10_u64.checked_pow(spare)?));
        match units {
            Some(units) if units / 10_u64.pow(DECIMALS) < MOST => Ok(Self(units)),
            _ => Err(format!(
                "`{text}` is too large; less than {MOST} is possible"
            )),
        }
    }

    /// The number in units of 10⁻`DECIMALS`.
    pub fn units(self) -> u64 {
        self.0
    }
}

impl<'de, const DECIMALS: u32> Deserialize<'de> for Decimal<DECIMALS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly_or_refused() {
        let units = |text| Decimal::<6>::parse(text).map(Decimal::units);
        assert_eq!(units("3"), Ok(3_000_000));
        assert_eq!(units("0.075"), Ok(75_000));
        assert_eq!(units("0.000001"), Ok(1));
        assert_eq!(units("18.7500000000"), Ok(18_750_000));
        assert_eq!(units("0"), Ok(0));
        for bad in [
            "", ".", ".5", "5.", "-1", "+1", "1e3", "1,5", "$3", " 3", "1.2.3",
        ] {
            assert!(units(bad).is_err(), "{bad}");
        }
        assert!(units("0.0000001").unwrap_err().contains("decimals"));
        for large in ["1000000", "99999999999999999999"] {
            assert!(units(large).unwrap_err().contains("too large"), "{large}");
        }
    }
}
