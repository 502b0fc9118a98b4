//! Owns a grant together with the way to its endpoint: one question, one answer.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::endpoint_error::EndpointError;
use super::grant::{Grant, Moments};
use super::grant_secrets::GrantSecrets;
use super::requester::TokenRequester;
use super::settings::GrantSettings;
use super::token::TokenSet;
use super::transport::{TokenRequest, TokenTransport};
use crate::types::secret::Secret;

/// Asks one token endpoint.
#[derive(Debug)]
pub struct Asking {
    grant: Grant,
    secrets: GrantSecrets,
    transport: Arc<dyn TokenTransport>,
}

impl Asking {
    /// Asks as `grant` says, over `transport`.
    pub fn new(grant: Grant, secrets: GrantSecrets, transport: Arc<dyn TokenTransport>) -> Self {
        Self {
            grant,
            secrets,
            transport,
        }
    }

    /// What it asks by.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What asking takes besides the grant.
    pub(super) fn secrets(&self) -> &GrantSecrets {
        &self.secrets
    }

    /// The way to its endpoints.
    pub(super) fn transport(&self) -> &dyn TokenTransport {
        &*self.transport
    }

    /// Sends a request to the token endpoint and reads the tokens of its answer. `asked` is the refresh
    /// token that it holds, if it holds one.
    pub async fn exchange(
        &self,
        request: TokenRequest,
        asked: Option<&Secret>,
    ) -> Result<TokenSet, EndpointError> {
        let sent = SystemTime::now();
        let result = self.transport.send(request).await;
        let answered = SystemTime::now();
        self.grant.answer(result, asked, Moments { sent, answered })
    }
}

impl TokenRequester for Asking {
    fn needs_refresh_token(&self) -> bool {
        self.grant.settings().grant == GrantSettings::RefreshToken
    }

    fn request<'a>(
        &'a self,
        refresh: Option<&'a Secret>,
    ) -> BoxFuture<'a, Result<TokenSet, EndpointError>> {
        async move {
            let now = SystemTime::now();
            let request = self.grant.request(refresh, &self.secrets, now)?;
            self.exchange(request, refresh).await
        }
        .boxed()
    }

    fn learned_offset(&self) -> Option<i64> {
        self.grant.learned_offset()
    }
}
