//! What leaves as log and metric. Everything passes `redact` on its way.

pub mod access_log;
pub mod families;
pub mod family;
pub mod init;
pub mod metrics;
pub mod redact;
pub mod spend_metrics;
pub mod vocabulary;

pub mod credential_metrics;
pub mod lanes;
