//! Owns the audit log's settings as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::source::SourceSpec;
use super::units::{Size, Span};

/// The audit log: a chain of records of what matters to security.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditSpec {
    /// Whether it is kept; `true` when absent. A `tollgate run` keeps one only where `file` names it.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// The file that is appended to, made with mode 0600; `stateDir/audit/audit.jsonl` when absent. Rotated
    /// files lie beside it.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Which exchanges are recorded, besides all that receive a credential.
    #[serde(default)]
    pub exchanges: AuditExchanges,
    /// What becomes of requests while it cannot be written.
    #[serde(default)]
    pub on_failure: OnAuditFailure,
    /// When the file is rotated, and how many are kept.
    #[serde(default)]
    pub rotate: AuditRotateSpec,
    /// Where the key comes from that signs heads: an Ed25519 private key in PEM, as
    /// `openssl genpkey -algorithm ed25519` writes it. Nothing is signed when absent.
    #[serde(default)]
    pub signing_key: Option<SourceSpec>,
    /// How often a head is signed.
    #[serde(default)]
    pub heads: AuditHeadsSpec,
}

/// Which exchanges are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditExchanges {
    /// Those that are refused, or would be in `enforce` mode.
    #[default]
    Denied,
    /// Those that pass as well.
    All,
}

/// What becomes of requests while the audit log cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnAuditFailure {
    /// They go on. Events are kept in memory, within bounds, until the log can be written; what is lost is
    /// counted, and the log says so.
    #[default]
    Continue,
    /// Those that would receive a credential are refused with 503. Each waits until its record is in the
    /// file, so none goes out unrecorded.
    Refuse,
}

/// When the file is rotated.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRotateSpec {
    /// Once it has grown to this; 32MiB when absent.
    #[serde(default)]
    pub size: Option<Size>,
    /// Once its first record is older than this; 24h when absent.
    #[serde(default)]
    pub age: Option<Span>,
    /// How many rotated files are kept; 60 when absent. The oldest are removed.
    #[serde(default)]
    pub keep: Option<u32>,
}

/// How often a head is signed. One is signed at the end of the process, too.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditHeadsSpec {
    /// After this many records; 1000 when absent.
    #[serde(default)]
    pub records: Option<u32>,
    /// Once a record is unsigned for this long; 60s when absent.
    #[serde(default)]
    pub every: Option<Span>,
}
