//! Owns what a token endpoint gave: an access token, perhaps a refresh token, and until when.

use std::time::SystemTime;

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
