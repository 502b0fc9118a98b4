//! Owns the credentials that are open: reopened only when their source changes, so that a reload of
//! policy neither forgets a value nor runs a helper again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;

use crate::config::bundle::Bundle;
use crate::config::credential::SourceSpec;
use crate::credential::held::{HeldCredential, Need};
use crate::credential::open::{SourceContext, open};

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

    /// Opens what `bundle` names and is not open yet. Nothing is closed until [`Credentials::keep`].
    pub async fn open(&self, bundle: &Bundle) -> Held {
        let known = self.known();
        let opening = bundle.credentials.iter().filter_map(|document| {
            let source = document.spec.source.as_ref()?.value.clone();
            let need = if document.spec.optional {
                Need::Optional
            } else {
                Need::Required
            };
            Some((document.name.clone(), source, need))
        });
        let opened = join_all(opening.map(|(name, source, need)| {
            let same = known
                .get(&name)
                .filter(|o| o.source == source && o.need == need)
                .cloned();
            async move {
                let opened = match same {
                    Some(opened) => opened,
                    None => {
                        let held = open(&name, &source, need, &self.context).await;
                        Opened { source, need, held }
                    }
                };
                (name, opened)
            }
        }))
        .await;
        let opened: BTreeMap<String, Opened> = opened.into_iter().collect();
        let held = opened
            .iter()
            .map(|(name, o)| (name.clone(), o.held.clone()))
            .collect();
        let mut all = known;
        all.extend(opened);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = all;
        held
    }

    /// Closes everything but `held`: what a new policy no longer names stops being fetched.
    pub fn keep(&self, held: &Held) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|name, opened| held.get(name).is_some_and(|h| Arc::ptr_eq(h, &opened.held)));
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
