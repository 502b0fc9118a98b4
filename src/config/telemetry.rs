//! Owns the telemetry settings as written: where spans go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::Located;
use super::source::SourceSpec;
use super::units::{Number, Span};

/// What the process tells of exchanges, besides its logs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetrySpec {
    /// Spans, over OTLP (http/protobuf). What is not written here is taken from the `OTEL_*` variables.
    #[serde(default)]
    pub otlp: OtlpSpec,
}

/// Where spans go, and what they say of the process. A field that is written wins over its variable.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtlpSpec {
    /// The collector: `http://collector:4318`; `/v1/traces` is added. `OTEL_EXPORTER_OTLP_ENDPOINT` when absent;
    /// without either there are no spans.
    #[serde(default)]
    pub endpoint: Option<Located<String>>,
    /// Fields of each request to it, and where their values come from.
    #[serde(default)]
    pub headers: BTreeMap<String, SourceSpec>,
    /// How long a request to it may take; 10s when absent.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// How requests to it are compressed; not at all when absent.
    #[serde(default)]
    pub compression: Option<CompressionSpec>,
    /// PEM file with certificate authorities trusted for it besides the configured roots.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with a client certificate chain to present.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file with the client certificate's private key.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// What spans say they come from; `tollgate` when absent.
    #[serde(default)]
    pub service_name: Option<String>,
    /// More attributes of where they come from (`deployment.environment.name: prod`).
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// The part of the exchanges that become spans, from 0 to 1, where no agent's `traceparent` says whether; all
    /// when absent.
    #[serde(default)]
    pub sample_ratio: Option<Located<Number>>,
}

/// How requests to a collector are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionSpec {
    /// Not at all.
    #[default]
    None,
    /// gzip: a tenth of the size, for several times the cost of writing a span.
    Gzip,
}
