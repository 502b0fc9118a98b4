//! Owns connections that are allowed by host alone: checked by the server name they ask for, then
//! passed on unread.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::account::Accounting;
use super::snapshot::SnapshotStore;
use super::upgrade::{end_word, revoked};
use crate::config::policy::SniMode;
use crate::net::client_hello::{ClientHello, LONGEST, Peeked, UNRECOGNIZED_NAME, peek};
use crate::net::places::Place;
use crate::net::relay::relay;
use crate::net::rewind::Rewind;
use crate::types::host::{Authority, Host};
use crate::types::reached::Limit;

/// One tunnel: both ends, and what it may carry.
pub struct Tunnel {
    /// The agent's side, after the CONNECT was answered.
    pub agent: Rewind<TcpStream>,
    /// The origin's side, dialled already.
    pub origin: TcpStream,
    /// What was asked for.
    pub authority: Authority,
    /// What is asked of the ClientHello.
    pub sni: SniMode,
    /// The place of the agent's connection, which it keeps.
    pub place: Arc<Place>,
    /// How long it may stay without a first byte, or a ClientHello that is not whole.
    pub start: Duration,
    /// Longest silence.
    pub idle: Duration,
    /// The account.
    pub accounting: Accounting,
}

/// Why a tunnel is closed before a byte reaches the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    NotTls,
    NoServerName,
    HiddenServerName,
    OtherServerName,
    Silent,
}

impl Refused {
    fn word(self) -> &'static str {
        match self {
            Self::NotTls => "tunnel_not_tls",
            Self::NoServerName => "tunnel_no_server_name",
            Self::HiddenServerName => "tunnel_encrypted_client_hello",
            Self::OtherServerName => "tunnel_server_name_mismatch",
            Self::Silent => "tunnel_no_client_hello",
        }
    }
}

impl Tunnel {
    /// Carries it until a side closes, it is silent too long, or `allowed` no longer holds.
    pub async fn carry(mut self, snapshots: Arc<SnapshotStore>, allowed: impl Fn() -> bool) {
        let admitted = tokio::select! {
            biased;
            () = revoked(&snapshots, &allowed) => None,
            admitted = self.admit() => Some(admitted),
        };
        let first = match admitted {
            None => return self.accounting.closed("revoked"),
            Some(Ok(first)) => first,
            Some(Err(refused)) => {
                tracing::warn!(authority = %self.authority, reason = refused.word(), "tunnel closed");
                self.accounting.closed(refused.word());
                return self.say_why(refused).await;
            }
        };
        let agent = Rewind::new(first, self.agent);
        let (relayed, end) =
            relay(agent, self.origin, self.idle, revoked(&snapshots, allowed)).await;
        self.accounting.relayed(relayed.sent, relayed.received);
        if let Some(word) = end_word(end) {
            self.accounting.ended(word);
        }
    }

    /// TLS has a word for a server name that is not served; the rest is told by closing.
    async fn say_why(&mut self, refused: Refused) {
        if matches!(refused, Refused::OtherServerName | Refused::NoServerName) {
            self.agent.write_all(&UNRECOGNIZED_NAME).await.ok();
            self.agent.shutdown().await.ok();
        }
    }

    /// What comes first, if it comes in time and may pass.
    async fn admit(&mut self) -> Result<Bytes, Refused> {
        let first = timeout(self.start, self.first()).await;
        first.unwrap_or_else(|_| {
            self.accounting.reached(Limit::TunnelStart);
            Err(Refused::Silent)
        })
    }

    /// Reads the agent's first bytes and checks them; they are returned to be passed on. There are none where
    /// the origin speaks first.
    async fn first(&mut self) -> Result<Bytes, Refused> {
        let mut first = BytesMut::new();
        if self.sni == SniMode::Optional && self.origin_speaks_first().await {
            return Ok(first.freeze());
        }
        loop {
            match peek(&first) {
                Peeked::Incomplete if first.len() < LONGEST => {
                    let read = self.agent.read_buf(&mut first).await;
                    if matches!(read, Ok(0) | Err(_)) {
                        return Err(Refused::Silent);
                    }
                }
                Peeked::Incomplete | Peeked::NotTls => {
                    self.judge(None)?;
                    return Ok(first.freeze());
                }
                Peeked::Hello(hello) => {
                    self.judge(Some(&hello))?;
                    return Ok(first.freeze());
                }
            }
        }
    }

    fn judge(&self, hello: Option<&ClientHello>) -> Result<(), Refused> {
        let optional = self.sni == SniMode::Optional;
        let Some(hello) = hello else {
            return if optional {
                Ok(())
            } else {
                Err(Refused::NotTls)
            };
        };
        match &hello.server_name {
            Some(name) if Host::parse(name).as_ref() != Ok(&self.authority.host) => {
                Err(Refused::OtherServerName)
            }
            // Addresses have no server name (RFC 6066, section 3).
            None if !optional && self.authority.host.ip().is_none() => Err(Refused::NoServerName),
            _ if hello.encrypted && !optional => Err(Refused::HiddenServerName),
            _ => Ok(()),
        }
    }

    /// Protocols such as SSH begin with the server; waiting for the agent would hang them.
    async fn origin_speaks_first(&self) -> bool {
        let mut byte = [0; 1];
        tokio::select! {
            biased;
            ready = readable(&self.agent) => !ready,
            read = self.origin.peek(&mut byte) => read.is_ok(),
        }
    }
}

/// Whether the agent's first byte can be read, waited for without taking it.
async fn readable(agent: &Rewind<TcpStream>) -> bool {
    agent.has_prefix() || agent.inner().readable().await.is_ok()
}
