//! Vocabulary without I/O: what every floor above talks about.

pub mod agent;
pub mod host;
pub mod intent;
pub mod secret;
