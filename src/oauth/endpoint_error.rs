//! Owns the ways in which asking for a token fails, told apart by what to do next.

use std::time::Duration;

/// Why there is no new token. The texts never hold any part of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The endpoint never saw the request; trying again is harmless.
    #[error("{0}")]
    Unreachable(String),
    /// It may have acted on the request, but its answer was lost: a cut, a time limit, half an answer.
    #[error("{0}")]
    Unanswered(String),
    /// It answered that it failed (5xx, an error page): most likely it did not act.
    #[error("{0}")]
    Failed(String),
    /// It did not act and asks to come back (429).
    #[error("{why}")]
    Later {
        /// What it said.
        why: String,
        /// `Retry-After`, if it said when.
        after: Option<Duration>,
    },
    /// The grant is gone: expired, revoked, or redeemed elsewhere (RFC 6749, section 5.2, `invalid_grant`).
    #[error("{0}")]
    InvalidGrant(String),
    /// It refuses the client or the form of the request; an operator must change something.
    #[error("{0}")]
    Refused(String),
    /// What it takes to ask is not there: a client secret, a private key.
    #[error("{0}")]
    Incomplete(String),
}
