//! Owns `TollgateConfig` as written: the process's own settings. A file only, never a cluster resource.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::audit::AuditSpec;
use super::hardening::HardeningSpec;
use super::limits::LimitsSpec;
use super::located::Located;
use super::source::SourceSpec;
use super::telemetry::TelemetrySpec;
use super::units::Span;

/// The `spec` of a `TollgateConfig`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TollgateConfigSpec {
    /// Where agents connect: CONNECT, absolute-form and base URL on one port; `127.0.0.1:8888` when absent.
    #[serde(default)]
    pub listen: Option<Located<SocketAddr>>,
    /// The operators' port.
    #[serde(default)]
    pub admin: AdminSpec,
    /// Who calls.
    #[serde(default)]
    pub identity: IdentitySpec,
    /// Built-in presets whose rules and credentials are loaded besides the documents.
    #[serde(default)]
    pub presets: Vec<Located<String>>,
    /// Files and directories with `EgressPolicy`, `EgressCredential` and `EgressBudget` documents, relative
    /// to this file.
    #[serde(default)]
    pub documents: Vec<Located<PathBuf>>,
    /// The certificate authority that agents trust.
    #[serde(default)]
    pub ca: CaSpec,
    /// How derived placeholders are keyed.
    #[serde(default)]
    pub placeholders: PlaceholdersSpec,
    /// What models cost.
    #[serde(default)]
    pub prices: PricesSpec,
    /// How origins are reached.
    #[serde(default)]
    pub upstream: UpstreamDefaultsSpec,
    /// Where exchanges are logged.
    #[serde(default)]
    pub access_log: AccessLogSpec,
    /// The audit log.
    #[serde(default)]
    pub audit: AuditSpec,
    /// Where spans go.
    #[serde(default)]
    pub telemetry: TelemetrySpec,
    /// Where the books of budgets are kept.
    #[serde(default)]
    pub ledger: LedgerSpec,
    /// What agents may take of the process.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// How the process ends.
    #[serde(default)]
    pub shutdown: ShutdownSpec,
    /// What the process gives up before it serves.
    #[serde(default)]
    pub hardening: HardeningSpec,
    /// Where the CA, the placeholder key, the admin token and the ledger live; `$XDG_STATE_HOME/tollgate` when absent.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
}

/// The operators' port.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminSpec {
    /// Address; `127.0.0.1:9090` when absent.
    #[serde(default)]
    pub listen: Option<Located<SocketAddr>>,
    /// Where its bearer token comes from; made and kept in `stateDir/admin.token` when absent.
    #[serde(default)]
    pub token: Option<SourceSpec>,
}

/// Who calls: either one agent, or several told apart by a token.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySpec {
    /// The one agent behind this proxy (sidecar, laptop); `agent` when absent and no `agents` are named.
    #[serde(default)]
    pub fixed: Option<Located<String>>,
    /// What tells one run of that one agent from the next, for budgets that count by `execution`. A
    /// `tollgate run` is one by itself.
    #[serde(default)]
    pub execution: Option<Located<ExecutionSpec>>,
    /// Agents that name themselves with `Proxy-Authorization`; without it they get 407.
    #[serde(default)]
    pub agents: Vec<AgentTokenSpec>,
}

/// What tells one run of an agent from the next.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ExecutionSpec {
    /// An environment variable of this process, read once: `{env: POD_UID}`, set from the downward API's
    /// `metadata.uid`.
    Env(Located<String>),
    /// One that the program made: a `tollgate run`.
    #[serde(skip)]
    #[schemars(skip)]
    Made(String),
}

/// One agent and its token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentTokenSpec {
    /// The agent's name; also its user name in `http://NAME:TOKEN@proxy`.
    pub name: Located<String>,
    /// Where its token comes from.
    pub token: SourceSpec,
}

/// The certificate authority.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaSpec {
    /// PEM certificate; made in `stateDir/ca.crt` on first start when absent.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// PEM private key, mode 0600; `stateDir/ca.key` when absent.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Whether a new authority may sign only the names its policy intercepts.
    #[serde(default)]
    pub name_constraints: NameConstraintsMode,
    /// Keep the key in memory only and write `ca.crt` and `bundle.crt` to this directory (sidecars).
    #[serde(default)]
    pub ephemeral_dir: Option<PathBuf>,
}

/// What a new authority may sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NameConstraintsMode {
    /// Only names that the policy intercepts, and names below them (RFC 5280, section 4.2.1.10).
    #[default]
    Policy,
    /// Any name.
    Off,
}

/// How derived placeholders are keyed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaceholdersSpec {
    /// Where the key comes from (32 bytes or more); made and kept in `stateDir/placeholder.key` when absent.
    #[serde(default)]
    pub key: Option<SourceSpec>,
}

/// What models cost. A table is built in; `policies/prices.yaml` is its text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PricesSpec {
    /// A file written like the built-in table; a model in it takes the place of the built-in one of that name.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// How origins are reached.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamDefaultsSpec {
    /// Whose certificates are believed. `SSL_CERT_FILE` of the environment never counts.
    #[serde(default)]
    pub roots: RootsSpec,
    /// Fixed addresses instead of DNS, by `host` or `host:port`; the address guard lets exactly these through.
    #[serde(default)]
    pub resolve: BTreeMap<String, Vec<ResolveTarget>>,
    /// Who is asked for all other addresses.
    #[serde(default)]
    pub dns: DnsSpec,
}

/// Who is asked for addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSpec {
    /// Resolvers that know the same names, on port 53 where none is written: `10.0.0.53`, `10.0.0.53:5353`.
    /// The first answer counts. The machine's own (`/etc/resolv.conf`) when absent. The machine's hosts file
    /// counts in either case.
    #[serde(default)]
    pub servers: Vec<ResolveTarget>,
}

/// An address that stands in for a DNS answer, with its own port if need be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct ResolveTarget {
    /// The address.
    pub ip: IpAddr,
    /// The port to dial instead of the one asked for.
    pub port: Option<u16>,
}

impl<'de> Deserialize<'de> for ResolveTarget {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is not an address; write `10.0.0.1`, `10.0.0.1:8443` or `[fd00::1]:8443`"
            ))
        })?;
        Ok(Self {
            ip: address.ip(),
            port: Some(address.port()),
        })
    }
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RootsSpec {
    /// Mozilla's roots, compiled in.
    #[default]
    Bundled,
    /// The machine's trust store.
    System,
    /// A PEM file, and nothing else.
    File(PathBuf),
}

/// Where exchanges are logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum AccessLogSpec {
    /// Standard output, one JSON object a line.
    #[default]
    Stdout,
    /// Nowhere.
    Off,
    /// A file, appended to, made with mode 0600.
    File(PathBuf),
}

/// Where the books of budgets are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerSpec {
    /// SQLite database, made with mode 0600, on storage that lasts; `stateDir/ledger.db` when absent.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShutdownSpec {
    /// How long streams in flight may go on after SIGTERM; 25s when absent.
    #[serde(default)]
    pub grace: Option<Span>,
}
