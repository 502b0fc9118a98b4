//! Owns from when on something is looked at: so long ago, from a day, or from a moment.

use std::fmt;

use jiff::Timestamp;

use crate::admin::moment::Edge;
use crate::config::units::Span;

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(pub Timestamp);

impl Since {
    /// Parses `24h`, `2026-11-01` or `2026-11-01T18:00:00Z`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(span) = Span::parse(text) {
            return Ok(Self(Timestamp::now() - span.0));
        }
        let edge = Edge::parse(text).map_err(|_| {
            format!("`{text}` is no time; write `24h`, `2026-11-01` or `2026-11-01T18:00:00Z`")
        })?;
        Ok(Self(edge.start()))
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
