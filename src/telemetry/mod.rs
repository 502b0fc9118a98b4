//! What leaves as log and metric, and the files that describe it. Everything passes `redact` on its way.

pub mod access_log;
pub mod alerts;
pub mod credential_metrics;
pub mod dashboard;
pub mod dashboard_panels;
pub mod families;
pub mod family;
pub mod init;
pub mod lanes;
pub mod metrics;
pub mod redact;
pub mod reference;
pub mod spend_metrics;
pub mod vocabulary;
