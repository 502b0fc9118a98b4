//! Owns what a token endpoint gave: an access token, perhaps a refresh token, and until when.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::types::secret::Secret;

/// The tokens of one grant (RFC 6749, section 5.1).
#[derive(Debug)]
pub struct TokenSet {
    /// What requests carry.
    pub access: Secret,
    /// What the next access token is asked for with; none for grants that do without.
    pub refresh: Option<Secret>,
    /// The user's identity as a signed JWT (OpenID Connect Core, section 2); kept since it may be asked for.
    pub id: Option<Secret>,
    /// When the access token ends; nothing when the endpoint did not say. Fresh from an endpoint it is on
    /// this machine's clock, in a record on the endpoint's.
    pub expires_at: Option<SystemTime>,
    /// When it was given out; with `expires_at` it tells how long such tokens live.
    pub issued_at: SystemTime,
    /// What it may be used for, if the endpoint said so.
    pub scopes: Vec<String>,
    /// What else came with it that is no secret: account, organization, subscription.
    pub profile: Map<String, Value>,
}

/// Smaller differences are the seconds that `Date` leaves out, and the time an answer travels.
const NEGLIGIBLE: u64 = 3;

impl TokenSet {
    /// When the access token of a record ends on this machine's clock, which the endpoint's is ahead of by
    /// `offset` seconds.
    pub fn ends_here(&self, offset: i64) -> Option<SystemTime> {
        self.expires_at.map(|end| shifted(end, -offset))
    }
}

/// A moment moved by a clock's offset in seconds.
pub(super) fn shifted(time: SystemTime, offset: i64) -> SystemTime {
    let by = Duration::from_secs(offset.unsigned_abs());
    if offset.unsigned_abs() < NEGLIGIBLE {
        return time;
    }
    let moved = match offset > 0 {
        true => time.checked_add(by),
        false => time.checked_sub(by),
    };
    moved.unwrap_or(time)
}
