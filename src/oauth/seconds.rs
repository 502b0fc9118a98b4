//! Owns a number of seconds as token endpoints write it: as a number, and some as text.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What stands where a number of seconds should.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Seconds {
    Number(f64),
    Text(String),
    Other(IgnoredAny),
}

impl Seconds {
    /// The number, whatever it is; nothing if there is none.
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Other(_) => None,
        }
    }
}
