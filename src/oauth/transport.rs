//! Owns the port to a token endpoint: one request, one bounded answer, over verified TLS.

use std::fmt;

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use zeroize::Zeroizing;

/// A POST to a token endpoint.
pub struct TokenRequest {
    /// Absolute `https` URL.
    pub url: String,
    /// Fields besides `Host` and `Content-Length`; those with a secret are marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// What came back, whole.
pub struct TokenResponse {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body, at most [`MAX_ANSWER`] octets.
    pub body: Zeroizing<Vec<u8>>,
}

/// Largest answer that is read.
pub const MAX_ANSWER: usize = 256 << 10;

/// Why there is no answer. The texts hold no part of the request's or the answer's body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing of the request reached the endpoint: no name, no connection, no believed certificate.
    #[error("{0}")]
    NotSent(String),
    /// The request, or part of it, was sent, and no whole answer came: the endpoint may have acted on it.
    #[error("{0}")]
    Unanswered(String),
}

/// The way to token endpoints.
pub trait TokenTransport: fmt::Debug + Send + Sync {
    /// Sends one request and reads the answer within the time limit of the credential.
    fn send(&self, request: TokenRequest) -> BoxFuture<'_, Result<TokenResponse, TransportError>>;
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
