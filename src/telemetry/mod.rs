//! What leaves as log, metric and span, and the files that describe it. Everything passes `redact` on its way.

pub mod access_log;
pub mod alerts;
pub mod audit;
pub mod audit_event;
pub mod audit_file;
pub mod audit_key;
pub mod audit_line;
pub mod audit_metrics;
pub mod audit_read;
pub mod audit_verify;
pub mod credential_metrics;
pub mod dashboard;
pub mod dashboard_panels;
pub mod denials;
pub mod families;
pub mod family;
pub mod gate;
pub mod hand_over;
pub mod init;
pub mod lanes;
pub mod metrics;
pub mod otlp;
#[cfg(test)]
mod otlp_tests;
pub mod redact;
pub mod reference;
pub mod sampler;
pub mod semconv;
pub mod sink_metrics;
pub mod sinks;
pub mod span;
pub mod span_notes;
#[cfg(test)]
mod span_tests;
pub mod spend_metrics;
pub mod tap;
pub mod trace_context;
pub mod traces;
pub mod vocabulary;
pub mod wire;
