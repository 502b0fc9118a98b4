//! Owns one whole question to a token endpoint: the request a grant makes, the way there, and what the
//! answer means.

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
pub struct Asker {
    /// What is asked.
    pub grant: Grant,
    /// What it takes besides.
    pub secrets: GrantSecrets,
    /// The way there.
    pub transport: Arc<dyn TokenTransport>,
}

impl Asker {
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

impl TokenRequester for Asker {
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

    fn clock_offset(&self) -> i64 {
        self.grant.clock_offset()
    }
}
