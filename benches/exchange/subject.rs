//! Owns what is compared: a way to the origin, and the process that is on it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::report::Column;

/// One of the ways to the origin. Cloning is shallow.
#[derive(Clone)]
pub struct Subject {
    pub column: Column,
    pub address: SocketAddr,
    pub way: Way,
    /// What the agent sends as its credential.
    pub key: &'static str,
    pub tls: Arc<ClientConfig>,
}

/// How a client gets through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TLS at once.
    Tls,
    /// CONNECT, and TLS inside.
    Connect,
}
