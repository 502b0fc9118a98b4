//! Owns the answer to bytes that never become a request: told and accounted for like any refusal.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::account::Ledgers;
use super::error::ProxyError;
use super::refusal::{self, Dialect};
use crate::net::gate::LastWord;
use crate::telemetry::access_log::Kind;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{Ingress, Scheme};
use crate::types::limits::RequestLimits;

/// Whom a connection is with, as far as that is known before its first request.
pub struct Caller {
    /// The door.
    pub ingress: Ingress,
    /// The agent's address.
    pub peer: SocketAddr,
    /// Inside an intercepted connection: who, and for which origin.
    pub tunnel: Option<(Agent, Authority)>,
}

/// The last word on one connection, on which these limits hold.
pub fn last_word(ledgers: Arc<Ledgers>, caller: Caller, limits: RequestLimits) -> LastWord {
    Box::new(move |violation| caller.told(&ledgers, &ProxyError::of(violation, &limits)))
}

impl Caller {
    /// The whole response that ends the connection with `error`, which is on record then.
    pub fn told(&self, ledgers: &Arc<Ledgers>, error: &ProxyError) -> Bytes {
        let mut accounting = ledgers.open(self.ingress, Kind::Request, self.peer);
        let number = (ledgers.connection(), 1);
        accounting.traced(&HeaderMap::new(), number, |_| false);
        let target = self.tunnel.as_ref().map(|(agent, authority)| {
            accounting.identified(agent);
            accounting.aimed(Scheme::Https, authority);
            authority
        });
        accounting.refused(error);
        let dialect = Dialect::of(target, &HeaderMap::new());
        wire(refusal::response(error, dialect, accounting.id()))
    }
}

/// A response as it stands on the wire, the last on its connection.
fn wire(response: http::Response<Bytes>) -> Bytes {
    let (head, body) = response.into_parts();
    let status = head.status;
    let mut text = format!("HTTP/1.1 {} ", status.as_u16()).into_bytes();
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &head.headers {
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
    }
    let length = body.len();
    text.extend_from_slice(
        format!("\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").as_bytes(),
    );
    text.extend_from_slice(&body);
    text.into()
}
