//! Owns the port that every placement implements, and the one way a secret gets out to it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use super::error::{InjectError, Position};
use super::table::AgentTable;
use crate::credential::held::HeldCredential;
use crate::types::secret::Secret;

/// A place in a request head where a placeholder may stand.
pub trait Injector: fmt::Debug + Send + Sync {
    /// The place, as errors and records name it.
    fn position(&self) -> Position;

    /// What stands there now, decoded; nothing if it is empty. Two of it are an error.
    fn standing<'h>(&self, head: &'h Parts) -> Result<Option<Cow<'h, [u8]>>, InjectError>;

    /// Puts the secret where the placeholder stands; says whether it stood there.
    fn swap(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<bool, InjectError>;

    /// Puts the secret there, over whatever stands there.
    fn put(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<(), InjectError>;

    /// Removes what stands there.
    fn strip(&self, head: &mut Parts) -> Result<(), InjectError>;
}

/// A credential that went out with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectedCredential {
    /// Its name.
    pub name: Arc<str>,
    /// The version of its value.
    pub version: u64,
    /// The kind of place it went to: `header`, `bearer`, `basic`, `query`, `path`, `cookie`, `body`.
    pub placement: &'static str,
}

/// What went out: for records, and for scrubbing the response.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Each credential, once per kind of place.
    pub credentials: Vec<InjectedCredential>,
    /// Each secret, once, with the placeholder the agent knows it by.
    pub needles: Vec<(Arc<Secret>, String)>,
}

/// Gives out one credential's secret and keeps the book of it.
#[derive(Debug)]
pub struct Reveal<'a> {
    credential: &'a Arc<str>,
    held: &'a HeldCredential,
    placeholder: &'a str,
    table: &'a AgentTable,
    outgoing: &'a mut Outgoing,
}

impl<'a> Reveal<'a> {
    /// A way to the secret of `credential`, whose placeholder is `placeholder`.
    pub fn new(
        credential: &'a Arc<str>,
        held: &'a HeldCredential,
        placeholder: &'a str,
        table: &'a AgentTable,
        outgoing: &'a mut Outgoing,
    ) -> Self {
        Self {
            credential,
            held,
            placeholder,
            table,
            outgoing,
        }
    }

    /// The placeholder to look for.
    pub fn placeholder(&self) -> &'a [u8] {
        self.placeholder.as_bytes()
    }

    /// The secret, for a place of this kind.
    pub fn secret(&mut self, placement: &'static str) -> Result<Arc<Secret>, InjectError> {
        let current = match self.held.current_versioned() {
            Ok(current) => current,
            Err(unavailable) => return Err(self.unavailable(unavailable.reason)),
        };
        // A proxy started with an agent's environment would read the placeholder as the secret.
        if self.table.find(current.secret.expose()).is_some() {
            return Err(self.unavailable(
                "its source gives a placeholder instead of a secret; is Tollgate started with an agent's environment?",
            ));
        }
        let injected = InjectedCredential {
            name: self.credential.clone(),
            version: current.version,
            placement,
        };
        let outgoing = &mut self.outgoing;
        if !outgoing.credentials.contains(&injected) {
            outgoing.credentials.push(injected);
        }
        if !outgoing
            .needles
            .iter()
            .any(|(known, _)| Arc::ptr_eq(known, &current.secret))
        {
            let placeholder = || self.placeholder.to_owned();
            let beside = current.beside.map(|beside| (beside, placeholder()));
            let secret = (current.secret.clone(), placeholder());
            outgoing.needles.extend([secret].into_iter().chain(beside));
        }
        Ok(current.secret)
    }

    /// The error of a secret that cannot be used, or not in this place.
    pub fn unavailable(&self, reason: impl Into<String>) -> InjectError {
        InjectError::Unavailable {
            credential: self.credential.clone(),
            reason: reason.into(),
        }
    }
}
