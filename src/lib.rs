//! Tollgate.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod credential;
pub mod identity;
pub mod inject;
pub mod listen;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod rt;
pub mod telemetry;
pub mod tls;
pub mod types;
