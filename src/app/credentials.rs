//! Owns the credentials that are open: reopened only when their source changes, so that a reload of
//! policy neither forgets a value nor runs a helper or asks a token endpoint again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;

use super::error::StartError;
use super::grants::{GrantContext, GrantState, OwnedGrant, look_at_grant, open_grant};
use crate::config::bundle::Bundle;
use crate::config::source::SourceSpec;
use crate::credential::held::{HeldCredential, Need};
use crate::credential::open::{Patience, SourceContext, open};
use crate::oauth::local_endpoint::{LocalEndpoints, LocalGrant};
use crate::oauth::store::StoreError;

/// Credentials by name.
pub type Held = BTreeMap<String, Arc<HeldCredential>>;
/// Grants that are owned here, by the name of their credential.
pub type Grants = BTreeMap<String, OwnedGrant>;

/// What was opened for one bundle.
#[derive(Default)]
pub struct Open {
    /// Every credential.
    pub held: Held,
    /// Those of them that are grants.
    pub grants: Grants,
    /// Stores that could never keep one, of credentials that are needed.
    pub unfit: Vec<StoreError>,
}

impl Open {
    /// Whether every grant that is needed can be kept. One that cannot is found now, and not when its first
    /// token is renewed.
    pub fn fit(&self) -> Result<(), StartError> {
        match self.unfit.first() {
            Some(error) => Err(StartError::setting(
                error,
                "`optional: true` on the credential starts without it",
            )),
            None => Ok(()),
        }
    }

    /// The token endpoints that are answered here, for agents that ask them themselves.
    pub fn endpoints(&self) -> LocalEndpoints {
        let grants = self.grants.values().map(|grant| {
            Arc::new(LocalGrant {
                owner: grant.owner.clone(),
                asking: grant.asking.clone(),
                transport: grant.transport.clone(),
                capture: grant.capture.clone(),
            })
        });
        let endpoints = grants.map(|grant| grant.endpoints().collect::<Vec<_>>());
        endpoints.flatten().collect()
    }
}

/// What becomes of grants.
pub enum Ownership {
    /// They are renewed here.
    Owned(GrantContext),
    /// They are only looked at, as commands do beside a running proxy. This is where they are kept that
    /// name no store.
    Seen(PathBuf),
}

/// The open credentials.
pub struct Credentials {
    context: SourceContext,
    ownership: Ownership,
    open: Mutex<BTreeMap<String, Opened>>,
}

#[derive(Clone)]
struct Opened {
    source: SourceSpec,
    need: Need,
    held: Arc<HeldCredential>,
    grant: Option<OwnedGrant>,
}

impl Credentials {
    /// None yet.
    pub fn new(context: SourceContext, ownership: Ownership) -> Self {
        Self {
            context,
            ownership,
            open: Mutex::default(),
        }
    }

    /// Opens what `bundle` names, or takes what is open already. Nothing else knows of it until
    /// [`Credentials::keep`]: documents may still turn out to be wrong.
    pub async fn open(&self, bundle: &Bundle, patience: Patience) -> Open {
        let known = self.known();
        let opening = wanted(bundle).map(|(name, source, need)| {
            let same = known
                .get(name)
                .filter(|o| o.source == *source && o.need == need)
                .map(|o| {
                    (
                        o.held.clone(),
                        o.grant.clone().map_or(GrantState::None, GrantState::Owned),
                    )
                });
            async move {
                let opened = match same {
                    Some(same) => same,
                    None => self.open_one(name, source, need, patience).await,
                };
                (name, need, opened)
            }
        });
        let mut open = Open::default();
        for (name, need, (held, grant)) in join_all(opening).await {
            open.held.insert(name.to_owned(), held);
            match grant {
                GrantState::None => {}
                GrantState::Owned(grant) => {
                    open.grants.insert(name.to_owned(), grant);
                }
                GrantState::Unfit(error) if need == Need::Required => open.unfit.push(error),
                GrantState::Unfit(_) => {}
            }
        }
        open
    }

    async fn open_one(
        &self,
        name: &str,
        source: &SourceSpec,
        need: Need,
        patience: Patience,
    ) -> (Arc<HeldCredential>, GrantState) {
        let sources = &self.context;
        match (source, &self.ownership) {
            (SourceSpec::Oauth(oauth), Ownership::Owned(context)) => {
                open_grant(name, oauth, need, patience, sources, context).await
            }
            (SourceSpec::Oauth(oauth), Ownership::Seen(directory)) => (
                look_at_grant(name, oauth, need, directory).await,
                GrantState::None,
            ),
            _ => (
                open(name, source, need, patience, sources).await,
                GrantState::None,
            ),
        }
    }

    /// Makes what was opened for `bundle` the open credentials: what the new policy no longer names
    /// stops being fetched.
    pub fn keep(&self, bundle: &Bundle, open: &Open) {
        let kept = wanted(bundle).filter_map(|(name, source, need)| {
            let opened = Opened {
                source: source.clone(),
                need,
                held: open.held.get(name)?.clone(),
                grant: open.grants.get(name).cloned(),
            };
            Some((name.to_owned(), opened))
        });
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = kept.collect();
    }

    /// Every open credential.
    pub fn all(&self) -> Vec<Arc<HeldCredential>> {
        self.known()
            .into_values()
            .map(|opened| opened.held)
            .collect()
    }

    /// The grant of this credential, if it is one that is owned here.
    pub fn grant(&self, credential: &str) -> Option<OwnedGrant> {
        self.known().remove(credential)?.grant
    }

    fn known(&self) -> BTreeMap<String, Opened> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The credentials of documents that have a source of their own.
fn wanted(bundle: &Bundle) -> impl Iterator<Item = (&str, &SourceSpec, Need)> {
    bundle.credentials.iter().filter_map(|document| {
        let source = &document.spec.source.as_ref()?.value;
        let need = if document.spec.optional {
            Need::Optional
        } else {
            Need::Required
        };
        Some((document.name.as_str(), source, need))
    })
}
