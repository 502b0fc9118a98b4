//! Owns what a door says of a request: the connection it came on, who asks, and for which origin.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Uri};

use crate::net::gate::GateState;
use crate::net::places::Place;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, Ingress, RequestLine, Scheme};
use crate::types::reached::Reached;

/// The connection a request came on.
pub struct Passage {
    /// The door.
    pub ingress: Ingress,
    /// The agent's address.
    pub peer: SocketAddr,
    /// What watches an HTTP/1.1 connection.
    pub gate: Option<Arc<GateState>>,
    /// The connection, for what joins the requests on it.
    pub connection: Arc<Connection>,
}

/// A connection that requests come on.
pub struct Connection {
    /// Its number.
    pub number: u64,
    /// Its place among all.
    pub place: Arc<Place>,
    requests: AtomicU64,
}

impl Connection {
    /// One with this number, in this place.
    pub fn new(number: u64, place: Arc<Place>) -> Self {
        Self {
            number,
            place,
            requests: AtomicU64::new(0),
        }
    }

    /// How many requests have come.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The number of the request that comes now, from 1.
    pub fn request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Who asks for which origin, as the door established it.
#[derive(Clone)]
pub struct Asked {
    /// Who.
    pub agent: Agent,
    /// The one run of it, where that is known.
    pub execution: Option<Arc<str>>,
    /// Cleartext or TLS towards the origin.
    pub scheme: Scheme,
    /// Which origin.
    pub authority: Authority,
    /// Whether the request's own head must name that origin. On the base-URL door it names the proxy.
    pub agreement: Agreement,
    /// The limit that leaves no room for it, if one does.
    pub full: Option<Reached>,
}

/// Whether a request's head names its origin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// `Host` and URI must name the origin.
    Required,
    /// They name the proxy; the route named the origin.
    ByRoute,
}

impl Asked {
    /// What is asked of the policy when the request has this method and this URI.
    pub fn intent<'a>(&'a self, method: &'a Method, uri: &'a Uri) -> EgressIntent<'a> {
        EgressIntent {
            agent: &self.agent,
            authority: &self.authority,
            scheme: self.scheme,
            request: Some(RequestLine {
                method,
                path: uri.path(),
            }),
        }
    }
}
