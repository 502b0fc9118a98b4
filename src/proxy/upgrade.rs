//! Owns connections that leave HTTP after injection: WebSocket over HTTP/1.1 (RFC 6455).

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::account::Accounting;
use super::snapshot::SnapshotStore;
use crate::net::relay::{RelayEnd, relay};
use crate::rt::drain::Drain;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, RequestLine, Scheme};

/// Both halves of an accepted upgrade, and what ends it.
pub struct Upgrade {
    /// The agent's half; ready once the 101 has gone out.
    pub agent: OnUpgrade,
    /// The origin's half.
    pub origin: OnUpgrade,
    /// Longest silence.
    pub idle: Duration,
    /// The account, settled when the stream ends.
    pub accounting: Accounting,
}

impl Upgrade {
    /// Relays until a side closes, it is silent too long, or `standing` no longer holds.
    pub fn start(self, drain: &Drain, snapshots: Arc<SnapshotStore>, standing: Standing) {
        drain.spawn(async move {
            let Self {
                agent,
                origin,
                idle,
                mut accounting,
            } = self;
            let (Ok(agent), Ok(origin)) = tokio::join!(agent, origin) else {
                return accounting.ended("upgrade_failed");
            };
            let revoked = revoked(&snapshots, || standing.holds(&snapshots));
            let (relayed, end) =
                relay(TokioIo::new(agent), TokioIo::new(origin), idle, revoked).await;
            accounting.relayed(relayed.sent, relayed.received);
            if let Some(word) = end_word(end) {
                accounting.ended(word);
            }
        });
    }
}

/// What an upgraded stream was allowed for. It outlives the policy that allowed it, and is asked
/// about again whenever that changes.
pub struct Standing {
    /// Who.
    pub agent: Agent,
    /// Cleartext or TLS.
    pub scheme: Scheme,
    /// Which origin.
    pub authority: Authority,
    /// The method of the request that was upgraded.
    pub method: Method,
    /// Its path and query, as the agent sent them.
    pub target: Option<PathAndQuery>,
    /// The credentials that went into it.
    pub credentials: Vec<Arc<str>>,
}

impl Standing {
    /// Whether the policy in force still allows the request, with every credential it got.
    fn holds(&self, snapshots: &SnapshotStore) -> bool {
        let path = self.target.as_ref().map_or("/", PathAndQuery::path);
        let intent = EgressIntent {
            agent: &self.agent,
            authority: &self.authority,
            scheme: self.scheme,
            request: Some(RequestLine {
                method: &self.method,
                path,
            }),
        };
        let granted = snapshots.load().policy.authorize(&intent);
        granted.is_ok_and(|permit| {
            self.credentials
                .iter()
                .all(|name| permit.credentials().contains(name))
        })
    }
}

/// Ends once a newer snapshot no longer allows what an older one did.
pub async fn revoked(snapshots: &SnapshotStore, allowed: impl Fn() -> bool) {
    let mut changes = snapshots.subscribe();
    // Asked once before waiting: the view may have changed since the stream was allowed.
    while allowed() {
        if changes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// How a relay's end is logged; an orderly one is not.
pub fn end_word(end: RelayEnd) -> Option<&'static str> {
    match end {
        RelayEnd::Closed => None,
        RelayEnd::Broken => Some("broken"),
        RelayEnd::Idle => Some("idle"),
        RelayEnd::Revoked => Some("revoked"),
    }
}
