//! Owns what a stream that outlives its request was allowed by, so that it can be asked again.

use std::sync::Arc;

use http::{Method, Uri};

use super::snapshot::Snapshot;
use crate::policy::decision::DialProfile;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, RequestLine, Scheme};

/// A request that was let through, as policy judged it.
pub struct Lease {
    /// Who.
    pub agent: Agent,
    /// Where to.
    pub authority: Authority,
    /// Cleartext or TLS.
    pub scheme: Scheme,
    /// How.
    pub method: Method,
    /// The target before any secret went into it.
    pub uri: Uri,
    /// What went into it.
    pub credentials: Vec<Arc<str>>,
    /// How its origin was reached: which addresses, and what was believed.
    pub dial: Arc<DialProfile>,
}

impl Lease {
    /// Whether the same request would be let through now, with the same credentials.
    pub fn holds(&self, now: &Snapshot) -> bool {
        let intent = EgressIntent {
            agent: &self.agent,
            authority: &self.authority,
            scheme: self.scheme,
            request: Some(RequestLine {
                method: &self.method,
                path: self.uri.path(),
            }),
        };
        let granted = |permit: &[Arc<str>]| self.credentials.iter().all(|c| permit.contains(c));
        let permit = now.policy.authorize(&intent);
        permit.is_ok_and(|permit| granted(permit.credentials()) && **permit.dial() == *self.dial)
    }
}
