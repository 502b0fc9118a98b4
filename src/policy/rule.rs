//! Owns one compiled rule: whom and which requests it matches, and on which terms.

use std::sync::Arc;

use http::Method;

use crate::config::policy::{
    Action, AmbiguousPaths, SniMode, TlsMode, TraceContextMode, UnknownCodings,
};
use crate::types::agent::Agent;
use crate::types::model_api::ModelApi;

use super::decision::{DialProfile, RuleRef};
use super::path::{PathPattern, PathRank};
use super::scope::Scope;

/// The ports of a rule that names none.
pub(super) const DEFAULT_PORTS: [u16; 2] = [443, 80];

/// A rule, ready to be matched. Its hosts are the keys it is filed under.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) place: RuleRef,
    pub(super) scope: Arc<Scope>,
    pub(super) ports: Box<[u16]>,
    /// What it matches; at least one entry.
    pub(super) requests: Box<[RequestMatch]>,
    /// Whether `http` was written.
    pub(super) reads_requests: bool,
    pub(super) action: Action,
    pub(super) tls: TlsMode,
    pub(super) sni: SniMode,
    pub(super) ambiguous_paths: AmbiguousPaths,
    pub(super) unknown_codings: UnknownCodings,
    /// The model API that its hosts speak, if it says so.
    pub(super) api: Option<ModelApi>,
    /// What its origins are told of traces.
    pub(super) trace_context: TraceContextMode,
    pub(super) credentials: Arc<[Arc<str>]>,
    pub(super) dial: Arc<DialProfile>,
}

impl Rule {
    /// Whether it has a say about this agent's connections to this port.
    pub(super) fn concerns(&self, agent: &Agent, port: u16) -> bool {
        self.ports.contains(&port) && self.scope.covers(agent)
    }

    /// Whether it lets pass what it matches.
    pub(super) fn allows(&self) -> bool {
        self.action == Action::Allow
    }

    /// Whether TLS must be ended for it.
    pub(super) fn intercepts(&self) -> bool {
        self.reads_requests || !self.credentials.is_empty() || self.tls == TlsMode::Intercept
    }

    /// Whether it refuses requests one by one, inside TLS, rather than the connection.
    pub(super) fn answers_inside(&self) -> bool {
        !self.allows() && self.tls == TlsMode::Intercept
    }

    /// Whether every request to its hosts is matched.
    pub(super) fn matches_everything(&self) -> bool {
        let everything =
            |request: &RequestMatch| request.methods.is_empty() && request.path.is_any();
        self.requests.iter().any(everything)
    }

    /// Whether it tells paths apart.
    pub(super) fn reads_paths(&self) -> bool {
        self.requests.iter().any(|request| !request.path.is_any())
    }

    /// Whether an ambiguous path could undo it or carry off its credentials.
    pub(super) fn minds_ambiguity(&self) -> bool {
        !self.credentials.is_empty() || self.reads_paths()
    }
}

/// One kind of request that a rule matches.
#[derive(Debug)]
pub(super) struct RequestMatch {
    /// Methods; empty means every method.
    pub(super) methods: Box<[Method]>,
    pub(super) path: PathPattern,
}

/// How narrow a match is: the path weighs more than the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    path: PathRank,
    names_methods: bool,
}

impl RequestMatch {
    /// Every request.
    pub(super) fn any() -> Self {
        Self {
            methods: [].into(),
            path: PathPattern::any(),
        }
    }

    /// Methods are case-sensitive (RFC 9110, section 9.1).
    pub(super) fn admits(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// The same as an origin reads it that takes `purge` for `PURGE`: a rule that refuses one refuses the other.
    pub(super) fn admits_leniently(&self, method: &Method) -> bool {
        let same = |own: &Method| own.as_str().eq_ignore_ascii_case(method.as_str());
        self.methods.is_empty() || self.methods.iter().any(same)
    }

    pub(super) fn rank(&self) -> Rank {
        Rank {
            path: self.path.rank(),
            names_methods: !self.methods.is_empty(),
        }
    }

    /// Whether one request can be matched by both with neither being narrower.
    pub(super) fn rivals(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty() || self.methods.iter().any(|m| other.admits(m));
        self.rank() == other.rank() && methods && self.path.overlaps(&other.path)
    }
}
