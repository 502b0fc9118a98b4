//! Tollgate.

pub mod config;
pub mod net;
pub mod rt;
pub mod types;
