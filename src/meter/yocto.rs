//! Owns exact sums of money while a cost is worked out; a ledger only ever sees what they are rounded
//! up to.

use crate::types::money::NanoUsd;

/// An amount in yocto-USD (10⁻²⁴ US dollars): whole pico-dollars a token, times three factors of four
/// decimals each, leave nothing over. It ends at 3.4 · 10¹⁴ dollars, where it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct YoctoUsd(pub u128);

impl YoctoUsd {
    const PER_NANO: u128 = 1_000_000_000_000_000;

    /// `nano` as exactly.
    pub fn from_nano(nano: NanoUsd) -> Self {
        Self(u128::from(nano.0) * Self::PER_NANO)
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left, or nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This often.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(count)))
    }

    /// The amount in whole nano-dollars, a part of one counted as one.
    pub fn ceil(self) -> NanoUsd {
        NanoUsd(u64::try_from(self.0.div_ceil(Self::PER_NANO)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_once_and_never_wrap() {
        assert_eq!(YoctoUsd(0).ceil(), NanoUsd(0));
        assert_eq!(YoctoUsd(1).ceil(), NanoUsd(1));
        assert_eq!(YoctoUsd(YoctoUsd::PER_NANO + 1).ceil(), NanoUsd(2));
        assert_eq!(YoctoUsd::from_nano(NanoUsd(7)).ceil(), NanoUsd(7));
        let most = YoctoUsd(u128::MAX);
        assert_eq!(most.plus(YoctoUsd(1)).times(3).ceil(), NanoUsd(u64::MAX));
        assert_eq!(YoctoUsd(1).minus(most), YoctoUsd(0));
    }
}
