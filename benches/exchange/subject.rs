//! Owns what is compared: a way to the origin, and the process that is on it.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;

use crate::report::Column;
use crate::tollgate;

/// One of the ways to the origin. Cloning is shallow.
#[derive(Clone)]
pub struct Subject {
    pub column: Column,
    pub address: SocketAddr,
    pub way: Way,
    /// What the agent sends as its credential.
    pub key: &'static str,
    pub tls: Arc<ClientConfig>,
    /// `Proxy-Authorization`, where agents are told apart.
    pub authorization: Option<Arc<str>>,
}

impl Subject {
    /// The same way, taken by the agent with this number.
    pub fn agent(&self, index: usize) -> Self {
        let pair = format!(
            "{}:{}",
            tollgate::agent_name(index),
            tollgate::agent_token(index)
        );
        let field = format!("Basic {}", STANDARD.encode(pair));
        Self {
            authorization: Some(field.into()),
            ..self.clone()
        }
    }
}

/// How a client gets through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TLS at once.
    Tls,
    /// CONNECT to this port of the host, and TLS inside.
    Connect(u16),
}
