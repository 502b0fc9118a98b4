//! Tollgate.

pub mod config;
pub mod credential;
pub mod inject;
pub mod types;
