//! What leaves as log and metric, and the files that describe it. Everything passes `redact` on its way.

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
pub mod init;
pub mod lanes;
pub mod metrics;
pub mod redact;
pub mod reference;
pub mod sinks;
pub mod spend_metrics;
pub mod tap;
pub mod vocabulary;
