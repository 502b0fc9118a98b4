//! Owns connections that leave HTTP after injection: WebSocket over HTTP/1.1 (RFC 6455).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::account::Accounting;
use super::scrubbed_socket::ScrubbedSocket;
use super::snapshot::SnapshotStore;
use super::under_way::Counted;
use crate::net::places::Place;
use crate::net::relay::{RelayEnd, relay};
use crate::rt::drain::Drain;
use crate::scrub::needles::Needles;
use crate::types::reached::Limit;

/// Both halves of an accepted upgrade, and what ends it.
pub struct Upgrade {
    /// The agent's half; ready once the 101 has gone out.
    pub agent: OnUpgrade,
    /// The origin's half.
    pub origin: OnUpgrade,
    /// Counts it for as long as it lasts.
    pub counted: Counted,
    /// The secrets that the request had, if any.
    pub needles: Option<Arc<Needles>>,
    /// Longest silence.
    pub idle: Duration,
    /// The longest frame of the origin, where it is searched.
    pub longest_frame: u64,
    /// The place of the agent's connection, which it keeps.
    pub place: Arc<Place>,
    /// The account, settled when the stream ends.
    pub accounting: Accounting,
}

impl Upgrade {
    /// Relays until a side closes, it is silent too long, or `allowed` no longer holds.
    pub fn start(
        self,
        drain: &Drain,
        snapshots: Arc<SnapshotStore>,
        allowed: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        drain.spawn(async move {
            let Self {
                agent,
                origin,
                counted: _counted,
                needles,
                idle,
                longest_frame,
                place: _place,
                mut accounting,
            } = self;
            let (Ok(agent), Ok(origin)) = tokio::join!(agent, origin) else {
                return accounting.ended("upgrade_failed");
            };
            let revoked = revoked(&snapshots, allowed);
            let agent = TokioIo::new(agent);
            let origin = ScrubbedSocket::new(TokioIo::new(origin), needles, longest_frame);
            let seen = origin.seen();
            let (relayed, end) = relay(agent, origin, idle, revoked).await;
            accounting.relayed(relayed.sent, relayed.received);
            accounting.scrubbed(seen.hits.load(Ordering::Relaxed));
            if seen.too_long.load(Ordering::Relaxed) {
                accounting.reached(Limit::WebSocketFrame);
                return accounting.ended(Limit::WebSocketFrame.reason());
            }
            if let Some(word) = end_word(end) {
                accounting.ended(word);
            }
        });
    }
}

/// Ends once a newer snapshot no longer allows what an older one did. It may be there already: dialling
/// takes time.
pub async fn revoked(snapshots: &SnapshotStore, allowed: impl Fn() -> bool) {
    let mut changes = snapshots.subscribe();
    while allowed() {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
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
