//! Owns the answer: a `Permit`, which is proof and cannot be built elsewhere, or a `Denial` in plain words.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::config::policy::{SniMode, TraceContextMode, UnknownCodings, UpstreamSpec};
use crate::types::host::Authority;
use crate::types::intent::Scheme;
use crate::types::model_api::ModelApi;

/// The place of the rule that decided, as a person finds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RuleRef {
    /// `metadata.name` of its policy.
    #[serde(serialize_with = "as_str")]
    pub policy: Arc<str>,
    /// The file it stands in, by its last name: agents see this, and a path says where things are.
    #[serde(serialize_with = "as_str")]
    pub file: Arc<str>,
    /// The line it begins on; 0 when nobody wrote it down.
    pub line: u32,
}

// `serde` serializes an `Arc` only behind a feature that nothing else here needs.
fn as_str<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl fmt::Display for RuleRef {
    /// `scan.yaml:14`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// What happens to TLS towards a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is ended here, and every request meets policy again.
    Intercept,
    /// Its bytes pass unread once the ClientHello satisfies the mode.
    Tunnel(SniMode),
}

/// Time limits of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// Until the TCP connection stands.
    pub connect: Duration,
    /// Until the TLS handshake is done.
    pub tls: Duration,
    /// From the last of a request that was handed on until the response head arrives.
    pub response_headers: Duration,
    /// Longest silence within a body, an upgraded stream or a tunnel.
    pub idle: Duration,
    /// Longest time in which the agent takes nothing of an answer that is there for it.
    pub agent_idle: Duration,
}

impl Default for Timeouts {
    /// None of them cuts a thinking model: ten minutes to the first byte, fifteen between two.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            tls: Duration::from_secs(10),
            response_headers: Duration::from_secs(600),
            idle: Duration::from_secs(900),
            agent_idle: Duration::from_secs(120),
        }
    }
}

/// How an origin is dialled. Connections are shared only between requests of one profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DialProfile {
    /// Address ranges that the address guard lets through besides public addresses.
    pub allow_addresses: Vec<IpNet>,
    /// How the origin is verified.
    pub upstream: UpstreamSpec,
    /// Time limits.
    pub timeouts: Timeouts,
}

/// Proof that policy lets a connection or a request go out, and on which terms.
#[derive(Clone, Debug)]
pub struct Permit {
    pub(super) authority: Authority,
    pub(super) scheme: Scheme,
    pub(super) rule: Option<RuleRef>,
    pub(super) treatment: Treatment,
    pub(super) credentials: Arc<[Arc<str>]>,
    pub(super) guarding: Arc<[Arc<str>]>,
    pub(super) dial: Arc<DialProfile>,
    pub(super) unknown_codings: UnknownCodings,
    pub(super) api: Option<ModelApi>,
    pub(super) trace_context: TraceContextMode,
    pub(super) would_deny: Option<Box<Denial>>,
}

impl Permit {
    /// Where to, and nowhere else.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Cleartext or TLS towards the origin, as it was asked for.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The rule that allows it; none when only an `open` or `report` mode lets it pass.
    pub fn rule(&self) -> Option<&RuleRef> {
        self.rule.as_ref()
    }

    /// What happens to TLS towards this host. It says the same for a connection and for the requests on it.
    pub fn treatment(&self) -> Treatment {
        self.treatment
    }

    /// Names of the credentials that apply to this request. Empty for a bare connection.
    ///
    /// They are named for cleartext requests too, so that placeholders are recognized there; who
    /// injects refuses to do so on cleartext.
    pub fn credentials(&self) -> &[Arc<str>] {
        &self.credentials
    }

    /// Names of every credential that a rule for this host has for this agent: a key of the agent's
    /// own is judged on the whole host, not only where a credential applies.
    pub fn guarding(&self) -> &[Arc<str>] {
        &self.guarding
    }

    /// How the origin is dialled.
    pub fn dial(&self) -> &Arc<DialProfile> {
        &self.dial
    }

    /// What happens to an answer that cannot be searched for a secret.
    pub fn unknown_codings(&self) -> UnknownCodings {
        self.unknown_codings
    }

    /// The model API that the origin speaks: what a rule says of the host, or else what is known of its
    /// name.
    pub fn api(&self) -> Option<ModelApi> {
        self.api
    }

    /// What the origin is told of the trace that a request is part of.
    pub fn trace_context(&self) -> TraceContextMode {
        self.trace_context
    }

    /// In `report` mode: what `enforce` would have answered, if not yes.
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_deref()
    }
}

/// A refusal, written for a person and for the model that reads it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} {remedy}")]
pub struct Denial {
    /// The reason in one word.
    pub reason: DenialReason,
    /// The rule that refused, or the one that came nearest to allowing.
    pub nearest: Option<RuleRef>,
    /// What is refused and why, as a sentence.
    pub message: String,
    /// What to do instead, as a sentence.
    pub remedy: String,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenialReason {
    /// No rule allows anything of the host.
    HostNotAllowed,
    /// Rules name the host, but not this port.
    PortNotAllowed,
    /// A rule names the path, but not for this method.
    MethodNotAllowed,
    /// No rule names the path.
    PathNotAllowed,
    /// The path means two things to two servers.
    AmbiguousPath,
    /// The most specific rule refuses.
    DeniedByRule,
    /// The host is an address that no rule names.
    IpLiteral,
    /// No policy is for this agent.
    NoPolicyForAgent,
    /// A budget counts the calls of a host whose bytes could only pass unread.
    UncountedTunnel,
}

impl DenialReason {
    /// The stable word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostNotAllowed => "host_not_allowed",
            Self::PortNotAllowed => "port_not_allowed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PathNotAllowed => "path_not_allowed",
            Self::AmbiguousPath => "ambiguous_path",
            Self::DeniedByRule => "denied_by_rule",
            Self::IpLiteral => "ip_literal",
            Self::NoPolicyForAgent => "no_policy_for_agent",
            Self::UncountedTunnel => "uncounted_tunnel",
        }
    }

    /// Whether `report` and `open` refuse it as well: a path that cannot be judged, an address
    /// nobody named, an agent nobody knows, calls nobody could count.
    pub(super) fn holds_in_every_mode(self) -> bool {
        matches!(
            self,
            Self::AmbiguousPath | Self::IpLiteral | Self::NoPolicyForAgent | Self::UncountedTunnel
        )
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for DenialReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
