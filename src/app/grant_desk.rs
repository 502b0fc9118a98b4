//! Owns what commands do to a grant themselves: look at it, take over a login, renew it. Each step is
//! taken under the store's lock, so that a proxy that runs meanwhile finds the outcome.

use std::sync::Arc;

use super::error::StartError;
use super::grants::{open_asking, open_store, this_process};
use super::outbound::{dialer, origin_trust};
use super::settings::Settings;
use crate::config::bundle::Bundle;
use crate::config::source::{OAuthSpec, SourceSpec};
use crate::credential::open::SourceContext;
use crate::oauth::asking::Asking;
use crate::oauth::endpoint_error::EndpointError;
use crate::oauth::record::GrantRecord;
use crate::oauth::redeem::{Doubt, Progress, Redeem, RedeemError, Renewal, log_in};
use crate::oauth::requester::TokenRequester;
use crate::oauth::settings::OAuthSettings;
use crate::oauth::sightings::Sightings;
use crate::oauth::store::{StoreError, TokenStore};
use crate::oauth::token::TokenSet;

/// One grant, for one command.
pub struct GrantDesk {
    asking: Arc<Asking>,
    store: Arc<dyn TokenStore>,
}

/// What becomes of a grant that is held already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// It stays, and nothing is taken over.
    Keep,
    /// The new login takes its place.
    Replace,
}

/// Why a login was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// A login that can be used is there.
    #[error("a login is held already")]
    Held(Box<GrantRecord>),
    /// The store refused.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The OAuth source of a credential.
///
/// Errors: there is no such credential, or its secret comes from elsewhere.
pub fn oauth_source<'a>(bundle: &'a Bundle, name: &str) -> Result<&'a OAuthSpec, StartError> {
    let Some(credential) = bundle.credentials.iter().find(|c| c.name == name) else {
        let known: Vec<&str> = bundle.credentials.iter().map(|c| &*c.name).collect();
        return Err(StartError::setting(
            format!("there is no credential `{name}`"),
            format!("the credentials are: {}", known.join(", ")),
        ));
    };
    match credential.spec.source.as_ref().map(|source| &source.value) {
        Some(SourceSpec::Oauth(oauth)) => Ok(oauth),
        _ => Err(StartError::setting(
            format!("the credential `{name}` has no OAuth source"),
            format!(
                "its secret is read anew where it comes from; {}",
                known_logins(bundle)
            ),
        )),
    }
}

fn known_logins(bundle: &Bundle) -> String {
    let names: Vec<&str> = logins(bundle).map(|(name, _)| name).collect();
    match names.is_empty() {
        true => "no credential has one: `presets: [claude-login]` adds one".to_owned(),
        false => format!("those with one are: {}", names.join(", ")),
    }
}

/// The credentials with an OAuth source.
pub fn logins(bundle: &Bundle) -> impl Iterator<Item = (&str, &OAuthSpec)> {
    bundle.credentials.iter().filter_map(|credential| {
        match credential.spec.source.as_ref().map(|source| &source.value) {
            Some(SourceSpec::Oauth(oauth)) => Some((credential.name.as_str(), &**oauth)),
            _ => None,
        }
    })
}

impl GrantDesk {
    /// Opens the grant of this credential.
    pub async fn open(
        name: &str,
        oauth: &OAuthSpec,
        settings: &Settings,
        sources: &SourceContext,
    ) -> Result<Self, StartError> {
        let resolved = OAuthSettings::resolve(oauth)
            .map_err(|error| StartError::setting(&error, error.help.clone()))?;
        let store = open_store(name, &resolved, &settings.grants)
            .await
            .map_err(|why| StartError::setting(why, ""))?;
        let (dialer, trust) = (dialer(settings, Vec::new())?, origin_trust(settings)?);
        let (asking, _) = open_asking(name, resolved, sources, &dialer, &trust).await;
        Ok(Self { asking, store })
    }

    /// Who asks for its tokens.
    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    /// Where it is kept.
    pub fn store(&self) -> &dyn TokenStore {
        &*self.store
    }

    /// Whether it is begun by a login of a person.
    pub fn has_logins(&self) -> bool {
        self.asking.needs_refresh_token()
    }

    /// What is kept of it.
    pub async fn record(&self) -> Result<GrantRecord, StoreError> {
        Ok(self.store.read().await?.unwrap_or_default())
    }

    /// Asks for a token that is used by nobody. Only for grants that can be asked at any time.
    pub async fn try_out(&self) -> Result<TokenSet, EndpointError> {
        self.asking.request(None).await
    }

    /// Renews it now.
    pub async fn refresh(&self) -> Result<GrantRecord, RedeemError> {
        let seen = self.record().await?.generation;
        let redeem = Redeem {
            store: &*self.store,
            requester: &*self.asking,
            me: &this_process(),
            seen,
            login: None,
            doubt: Doubt::Ask,
            sightings: &Sightings::default(),
            tell: &|_| {},
        };
        redeem.run().await.map(Renewal::into_record)
    }

    /// Stores a login that was made elsewhere, unless one that can be used is there.
    pub async fn take_over(
        &self,
        tokens: TokenSet,
        present: Present,
    ) -> Result<GrantRecord, NotTaken> {
        let mut locked = self.store.lock().await?;
        let mut record = locked.read().await?.unwrap_or_default();
        let usable = record.tokens.is_some() && record.needs_login.is_none();
        if usable && present == Present::Keep {
            locked.release().await;
            return Err(NotTaken::Held(Box::new(record)));
        }
        record.log_in(tokens, 0);
        let written = locked.write(&record).await;
        locked.release().await;
        written?;
        Ok(record)
    }

    /// Stores the tokens of a login that was just made, however long that takes: nobody else has them.
    pub async fn log_in(
        &self,
        tokens: TokenSet,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<GrantRecord, StoreError> {
        let offset = self.asking.clock_offset();
        log_in(&*self.store, tokens, offset, None, tell).await
    }
}
