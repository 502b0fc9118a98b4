//! What leaves as log, metric and span. Everything passes `redact` on its way.

pub mod access_log;
pub mod gate;
pub mod init;
pub mod metrics;
pub mod otlp;
#[cfg(test)]
mod otlp_tests;
pub mod redact;
pub mod sampler;
pub mod semconv;
pub mod sink_metrics;
pub mod span;
pub mod span_notes;
#[cfg(test)]
mod span_tests;
pub mod spend_metrics;
pub mod trace_context;
pub mod traces;
pub mod vocabulary;
pub mod wire;
