//! Tollgate.

pub mod config;
pub mod tls;
pub mod types;
