//! Owns a grant together with the way to its endpoint: one question, one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::clock::{date, unix};
use super::endpoint_error::EndpointError;
use super::grant::Grant;
use super::grant_secrets::GrantSecrets;
use super::requester::TokenRequester;
use super::settings::GrantSettings;
use super::token::TokenSet;
use super::transport::TokenTransport;
use crate::types::secret::Secret;

/// Asks one token endpoint.
#[derive(Debug)]
pub struct Asking {
    grant: Grant,
    secrets: GrantSecrets,
    transport: Arc<dyn TokenTransport>,
    offset: AtomicI64,
}

impl Asking {
    /// Asks as `grant` says, over `transport`.
    pub fn new(grant: Grant, secrets: GrantSecrets, transport: Arc<dyn TokenTransport>) -> Self {
        Self {
            grant,
            secrets,
            transport,
            offset: AtomicI64::new(0),
        }
    }

    /// What it asks by.
    pub fn grant(&self) -> &Grant {
        &self.grant
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
            let answer = self.transport.send(request).await;
            if let Ok(answer) = &answer
                && let Some(date) = date(&answer.headers)
            {
                let offset = unix(date) - unix(SystemTime::now());
                self.offset.store(offset, Ordering::Relaxed);
            }
            self.grant.answer(answer, refresh, now)
        }
        .boxed()
    }

    fn clock_offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }
}
