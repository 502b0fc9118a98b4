//! Owns `EgressPolicy` as written: where an agent may go, and which credentials apply there.

use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::located::Located;
use super::units::Span;
use crate::types::model_api::ModelApi;

/// The `spec` of an `EgressPolicy`. What no rule names is refused.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressPolicySpec {
    /// What happens to a request that no rule allows.
    #[serde(default)]
    pub mode: Mode,
    /// Which agents the policy is for; every agent when absent.
    #[serde(default)]
    pub agents: AgentSelector,
    /// The rules. The most specific one that matches a request decides.
    pub egress: Vec<Located<EgressRuleSpec>>,
}

/// How strictly a policy is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything passes. Credentials are still injected only for hosts that a rule allows.
    Open,
    /// Everything passes, and what `enforce` would refuse is logged as such.
    Report,
    /// What no rule allows is refused.
    #[default]
    Enforce,
}

/// Selects agents by name; `*` at the end of a name stands for any rest (`team-a/*`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSelector {
    /// Agent names. Empty means every agent.
    #[serde(default)]
    pub names: Vec<Located<String>>,
}

/// One rule: either a preset's rules by name, or hosts with what may be asked of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressRuleSpec {
    /// Stands for all rules of this built-in preset (`tollgate gen presets` lists them).
    #[serde(default)]
    pub preset: Option<Located<String>>,
    /// Hosts: exact (`api.github.com`), below a name (`*.githubusercontent.com`), or an IP address.
    #[serde(default)]
    pub hosts: Vec<Located<String>>,
    /// Ports; 443 and 80 when absent.
    #[serde(default)]
    pub ports: Vec<Located<u16>>,
    /// Whether a request that matches is allowed or refused.
    #[serde(default)]
    pub action: Action,
    /// Whether TLS is ended here. `Auto` ends it only if the rule, or a budget, needs to read requests.
    #[serde(default)]
    pub tls: TlsMode,
    /// What may be asked; anything when absent.
    #[serde(default)]
    pub http: Vec<Located<HttpMatchSpec>>,
    /// What happens to a path that servers read in more than one way (`%2F`, `//`, `..`, `%25xx`, `\`).
    #[serde(default)]
    pub ambiguous_paths: AmbiguousPaths,
    /// What happens to an answer that comes in a coding which cannot be undone, so that it cannot be searched
    /// for the secret that its request had.
    #[serde(default)]
    pub unknown_codings: UnknownCodings,
    /// Names of the `EgressCredential`s that apply.
    #[serde(default)]
    pub credentials: Vec<Located<String>>,
    /// The name of this host on the base-URL door: `http://127.0.0.1:PORT/<route>/…`. Wants one exact host.
    #[serde(default)]
    pub route: Option<Located<String>>,
    /// Address ranges the address guard lets through for these hosts (`10.0.0.0/8`); public addresses always pass.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub allow_addresses: Vec<IpNet>,
    /// Tunnels only: accept a TLS connection that names no server, or hides it (ECH).
    #[serde(default)]
    pub sni: SniMode,
    /// The model API that these hosts speak, where that is not known by their names: gateways, servers
    /// of your own. Budgets count their calls by it.
    #[serde(default)]
    pub api: Option<ModelApi>,
    /// Whether the origin is told which trace a request is part of.
    #[serde(default)]
    pub trace_context: TraceContextMode,
    /// How the origin is reached and verified.
    #[serde(default)]
    pub upstream: Option<UpstreamSpec>,
    /// Time limits; none of the defaults cuts a thinking model.
    #[serde(default)]
    pub timeouts: Option<TimeoutsSpec>,
}

/// Allow or refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Action {
    /// Let it pass.
    #[default]
    Allow,
    /// Refuse it, although a wider rule might allow it.
    Deny,
}

/// What happens to TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Intercept if the rule has credentials or `http`, or a budget counts the host's calls; else tunnel.
    #[default]
    Auto,
    /// End TLS here with a certificate of our authority.
    Intercept,
    /// Pass the bytes unread; forbids `http` and `credentials`.
    Passthrough,
}

/// What happens to an ambiguous path on a host with credentials or path rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AmbiguousPaths {
    /// The request is refused: origin and rule might not mean the same resource.
    #[default]
    Refuse,
    /// It is matched and sent byte for byte (`/@scope%2fname` of npm, `group%2Fproject` of GitLab).
    /// Dot segments stay refused on hosts with path rules, which they would undo.
    Pass,
}

/// What an origin is told of the trace that a request is part of (W3C Trace Context): ids that join what it
/// sees with what others see, and in `tracestate` and `baggage` whatever an agent's programs put there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum TraceContextMode {
    /// Nothing: `traceparent`, `tracestate` and `baggage` are taken out.
    #[default]
    Drop,
    /// `traceparent` and `tracestate`; where spans are made, it goes on from ours. For origins of your own.
    Propagate,
    /// The same, and the agent's `baggage` as it is.
    PropagateWithBaggage,
}

/// What happens to an answer that cannot be searched for the secret that its request had: it is compressed
/// in another way than `gzip`, `deflate`, `br` and `zstd`, or its messages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum UnknownCodings {
    /// The agent gets a 502 instead.
    #[default]
    Refuse,
    /// It is passed on. An origin that repeats the secret within it shows it to the agent.
    Pass,
}

/// What a tunnel asks of the ClientHello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SniMode {
    /// The server name must be there, in the clear, and equal the target.
    #[default]
    Required,
    /// A hello without a server name, or with an encrypted one, passes; a different one never does.
    Optional,
}

/// What may be asked of a host.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatchSpec {
    /// Methods, in capitals; every method when absent.
    #[serde(default)]
    pub methods: Vec<Located<String>>,
    /// Paths: exact (`/v1/messages`), `*` for within one segment, `**` for any number of segments
    /// (`/repos/acme/**`); every path when absent.
    #[serde(default)]
    pub paths: Vec<Located<String>>,
}

/// How an origin is reached and verified. Verification itself is always on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamSpec {
    /// PEM file with certificate authorities trusted for these hosts besides the configured roots.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with a client certificate chain to present.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file with the client certificate's private key.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
}

/// Time limits of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeoutsSpec {
    /// Until the TCP connection stands; 10s when absent.
    #[serde(default)]
    pub connect: Option<Span>,
    /// Until the TLS handshake is done; 10s when absent.
    #[serde(default)]
    pub tls: Option<Span>,
    /// From the last of a request that was handed on until the response head arrives; 10m when absent. While more
    /// of its body is awaited from the agent, `requests.bodyIdle` ends the wait.
    #[serde(default)]
    pub response_headers: Option<Span>,
    /// Longest silence within a body, an upgraded stream or a tunnel; 15m when absent.
    #[serde(default)]
    pub idle: Option<Span>,
    /// Longest time in which the agent takes nothing of an answer that is there for it; 2m when absent.
    #[serde(default)]
    pub agent_idle: Option<Span>,
}
