//! Owns the credentials that are open: reopened only when their source changes, so that a reload of
//! policy neither forgets a value nor runs a helper again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;

use crate::config::bundle::Bundle;
use crate::config::source::SourceSpec;
use crate::credential::held::{HeldCredential, Need};
use crate::credential::open::{Patience, SourceContext, open};

/// Credentials by name.
pub type Held = BTreeMap<String, Arc<HeldCredential>>;

/// The open credentials.
pub struct Credentials {
    context: SourceContext,
    open: Mutex<BTreeMap<String, Opened>>,
}

#[derive(Clone)]
struct Opened {
    source: SourceSpec,
    need: Need,
    held: Arc<HeldCredential>,
}

impl Credentials {
    /// None yet.
    pub fn new(context: SourceContext) -> Self {
        Self {
            context,
            open: Mutex::default(),
        }
    }

    /// Opens what `bundle` names, or takes what is open already. Nothing else knows of it until
    /// [`Credentials::keep`]: documents may still turn out to be wrong.
    pub async fn open(&self, bundle: &Bundle, patience: Patience) -> Held {
        let known = self.known();
        let opening = wanted(bundle).map(|(name, source, need)| {
            let same = known
                .get(name)
                .filter(|o| o.source == *source && o.need == need)
                .map(|o| o.held.clone());
            async move {
                let held = match same {
                    Some(held) => held,
                    None => open(name, source, need, patience, &self.context).await,
                };
                (name.to_owned(), held)
            }
        });
        join_all(opening).await.into_iter().collect()
    }

    /// Makes `held`, opened for `bundle`, the open credentials: what the new policy no longer names
    /// stops being fetched.
    pub fn keep(&self, bundle: &Bundle, held: &Held) {
        let kept = wanted(bundle).filter_map(|(name, source, need)| {
            let opened = Opened {
                source: source.clone(),
                need,
                held: held.get(name)?.clone(),
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
