//! Owns the port to whatever asks for tokens: a grant together with the way to its endpoint.

use std::fmt;

use futures_util::future::BoxFuture;

use super::endpoint_error::EndpointError;
use super::token::TokenSet;
use crate::types::secret::Secret;

/// Asks a token endpoint for tokens, once.
pub trait TokenRequester: fmt::Debug + Send + Sync {
    /// Whether it takes a refresh token, which the answer may replace. Others can be asked at any time.
    fn needs_refresh_token(&self) -> bool;

    /// Asks. The answer's expiry is on this machine's clock.
    fn request<'a>(
        &'a self,
        refresh: Option<&'a Secret>,
    ) -> BoxFuture<'a, Result<TokenSet, EndpointError>>;

    /// How many seconds the endpoint's clock is ahead of this machine's, as its last `Date` told; nothing
    /// before one was seen.
    fn learned_offset(&self) -> Option<i64>;

    /// The same; 0 before one was seen.
    fn clock_offset(&self) -> i64 {
        self.learned_offset().unwrap_or(0)
    }
}
