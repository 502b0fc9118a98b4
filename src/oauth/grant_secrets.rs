//! Owns the secrets that asking for a token takes besides the grant: a client's secret and a private
//! key, kept fresh by their own sources so that a rotated one is used at the next request.

use std::sync::Arc;

use super::endpoint_error::EndpointError;
use super::settings::{GrantSettings, OAuthSettings};
use crate::credential::held::{HeldCredential, Need};
use crate::credential::open::{Patience, SourceContext, open, open_document};
use crate::types::secret::Secret;

/// What a grant takes to ask.
#[derive(Debug, Default)]
pub struct GrantSecrets {
    client_secret: Option<Arc<HeldCredential>>,
    key: Option<Arc<HeldCredential>>,
}

impl GrantSecrets {
    /// Opens the sources that `settings` name and keeps them fresh. What is missing shows when it is used.
    pub async fn open(credential: &str, settings: &OAuthSettings, context: &SourceContext) -> Self {
        let (need, patience) = (Need::Required, Patience::Answer);
        let client_secret = match &settings.client_secret {
            None => None,
            Some(source) => {
                let name = format!("{credential}: clientSecret");
                Some(open(&name, source, need, patience, context).await)
            }
        };
        let source = match &settings.grant {
            GrantSettings::JwtBearer(assertion) => Some(&assertion.key),
            GrantSettings::GithubApp(app) => Some(&app.key),
            GrantSettings::RefreshToken | GrantSettings::ClientCredentials => None,
        };
        let key = match source {
            None => None,
            Some(source) => {
                let name = format!("{credential}: key");
                Some(open_document(&name, source, need, patience, context).await)
            }
        };
        Self { client_secret, key }
    }

    /// What is open already.
    #[cfg(test)]
    pub(super) fn of(
        client_secret: Option<Arc<HeldCredential>>,
        key: Option<Arc<HeldCredential>>,
    ) -> Self {
        Self { client_secret, key }
    }

    /// The client's secret, if the client has one.
    pub(super) fn client_secret(&self) -> Result<Option<Arc<Secret>>, EndpointError> {
        self.client_secret.as_deref().map(current).transpose()
    }

    /// The private key's document.
    pub(super) fn key(&self) -> Result<Arc<Secret>, EndpointError> {
        match &self.key {
            Some(key) => current(key),
            None => Err(EndpointError::Incomplete(
                "there is no private key".to_owned(),
            )),
        }
    }
}

fn current(held: &HeldCredential) -> Result<Arc<Secret>, EndpointError> {
    held.current()
        .map_err(|error| EndpointError::Incomplete(error.to_string()))
}
