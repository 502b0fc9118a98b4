//! Owns TLS ended here: for an allowed host, with a leaf of our authority, and HTTP served inside.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use rustls::server::Acceptor;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::error::cause;
use super::exchange::Exchange;
use super::last_word::{Caller, last_word};
use super::passage::{Agreement, Asked, Connection, Passage};
use super::serve;
use crate::net::calm::{Calm, OnEnd};
use crate::net::client_hello::UNRECOGNIZED_NAME;
use crate::net::frames::Opener;
use crate::net::gate::{AgentLimits, Gate, GateState};
use crate::net::places::Place;
use crate::net::rewind::Rewind;
use crate::telemetry::access_log::Kind;
use crate::tls::error::CaError;
use crate::types::agent::Agent;
use crate::types::host::{Authority, Host};
use crate::types::intent::{Ingress, Scheme};
use crate::types::reached::{Limit, Reached};

/// One connection whose TLS is ended here.
pub struct Interception {
    /// The agent's side, after the CONNECT was answered.
    pub stream: Rewind<TcpStream>,
    /// Who.
    pub agent: Agent,
    /// The one run of it, where that is known.
    pub execution: Option<Arc<str>>,
    /// What was asked for.
    pub authority: Authority,
    /// The agent's address.
    pub peer: SocketAddr,
    /// The place of its connection, which it keeps.
    pub place: Arc<Place>,
    /// How to serve the host, or why it cannot be served.
    pub leaf: Result<Arc<ServerConfig>, CaError>,
}

impl Interception {
    /// Ends TLS and serves every request inside.
    pub async fn serve(self, exchange: Arc<Exchange>) {
        let Self {
            stream,
            agent,
            execution,
            authority,
            peer,
            place,
            leaf,
        } = self;
        let limits = exchange.limits.connections;
        // On the heap: the handshake is gone afterwards, and the session is moved several times.
        let handshake = Box::pin(async {
            begun(&stream, limits.tunnel_start).await?;
            let whole = handshake(stream, &authority.host, leaf);
            let slow = |_| HandshakeError::Limit(Limit::Handshake.time(limits.handshake));
            timeout(limits.handshake, whole).await.map_err(slow)?
        });
        let stream = match handshake.await {
            Ok(stream) => Box::new(stream),
            Err(error) => {
                return failed_handshake(&exchange, &error, &agent, &authority, peer);
            }
        };
        let _open = exchange.ledgers.metrics().connection("intercepted");
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let gate = (!http2).then(|| Arc::new(GateState::default()));
        let caller = Caller {
            ingress: Ingress::Connect,
            peer,
            tunnel: Some((agent.clone(), authority.clone())),
        };
        let last_word = last_word(exchange.ledgers.clone(), caller, exchange.limits.requests);
        let number = exchange.ledgers.connection();
        let connection = Arc::new(Connection::new(number, place));
        let passage = Arc::new(Passage {
            ingress: Ingress::Connect,
            peer,
            gate: gate.clone(),
            connection: connection.clone(),
        });
        let on_flood = flooded(&exchange, &agent, &authority, peer);
        let serving = exchange.clone();
        let service = move |request, full: Option<Reached>| {
            let (exchange, passage) = (serving.clone(), passage.clone());
            let asked = Asked {
                agent: agent.clone(),
                execution: execution.clone(),
                scheme: Scheme::Https,
                authority: authority.clone(),
                agreement: Agreement::Required,
                full,
            };
            async move { exchange.serve(&passage, Ok(asked), request).await }
        };
        match gate {
            Some(state) => {
                let limits = AgentLimits::from(&exchange.limits);
                let gate = Gate::new(stream, limits, state, last_word);
                serve::http1(gate, &exchange, |request| service(request, None)).await
            }
            None => {
                let calm = Calm::new(stream, Opener::Other, on_flood);
                serve::http2(calm, &exchange, &connection, service).await
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the connection does not begin with TLS: {0}")]
    NotTls(io::Error),
    #[error("the client asked for another server name than the connection is for")]
    OtherServerName,
    #[error("no leaf certificate: {0}")]
    Leaf(String),
    #[error("{0}")]
    Failed(io::Error),
    #[error("{0}")]
    Limit(Reached),
}

/// Waits for the first byte: some clients open a connection before they need it.
async fn begun(stream: &Rewind<TcpStream>, limit: Duration) -> Result<(), HandshakeError> {
    if stream.has_prefix() {
        return Ok(());
    }
    match timeout(limit, stream.inner().readable()).await {
        Ok(readable) => readable.map_err(HandshakeError::Failed),
        Err(_) => Err(HandshakeError::Limit(Limit::TunnelStart.time(limit))),
    }
}

async fn handshake(
    stream: Rewind<TcpStream>,
    host: &Host,
    leaf: Result<Arc<ServerConfig>, CaError>,
) -> Result<TlsStream<Rewind<TcpStream>>, HandshakeError> {
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream)
        .await
        .map_err(HandshakeError::NotTls)?;
    let named = start.client_hello().server_name().map(Host::parse);
    if named.is_some_and(|named| named.as_ref() != Ok(host)) {
        start.io.write_all(&UNRECOGNIZED_NAME).await.ok();
        start.io.shutdown().await.ok();
        return Err(HandshakeError::OtherServerName);
    }
    let config = leaf.map_err(|error| HandshakeError::Leaf(error.to_string()))?;
    start
        .into_stream(config)
        .await
        .map_err(HandshakeError::Failed)
}

/// Says what it means for the one who set the agent up, and accounts for it.
fn failed_handshake(
    exchange: &Exchange,
    error: &HandshakeError,
    agent: &Agent,
    authority: &Authority,
    peer: SocketAddr,
) {
    let (reason, hint) = match error {
        HandshakeError::OtherServerName => (
            "server_name_mismatch",
            "the client connects to one host and asks for another",
        ),
        HandshakeError::NotTls(_) => (
            "not_tls",
            "only TLS is spoken inside a CONNECT to an intercepted host",
        ),
        HandshakeError::Leaf(_) => ("no_leaf", "the authority may not sign this name"),
        HandshakeError::Limit(reached) => {
            exchange.ledgers.metrics().limit_reached(reached.limit);
            (reached.limit.reason(), "the client sent no whole handshake")
        }
        HandshakeError::Failed(error) => match alert(error) {
            Some(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown,
            ) => (
                "untrusted_ca",
                "the client does not trust this proxy's CA; `tollgate env` prints the variables it needs",
            ),
            _ => (
                "handshake_failed",
                "the client gave up; if this happens for one host only it may pin certificates",
            ),
        },
    };
    exchange.ledgers.metrics().handshake_failed("agent", reason);
    tracing::warn!(%authority, %agent, reason, %error, hint, "TLS with the agent failed");
    record(exchange, agent, authority, peer, reason);
}

/// What is said of an agent whose HTTP/2 frames ask for work and bring nothing.
fn flooded(
    exchange: &Arc<Exchange>,
    agent: &Agent,
    authority: &Authority,
    peer: SocketAddr,
) -> OnEnd {
    let (exchange, agent, authority) = (exchange.clone(), agent.clone(), authority.clone());
    Box::new(move || {
        tracing::warn!(%authority, %agent, "an agent floods its connection with HTTP/2 frames");
        record(&exchange, &agent, &authority, peer, "http2_flood");
    })
}

/// Accounts for a connection that was ended.
fn record(
    exchange: &Exchange,
    agent: &Agent,
    authority: &Authority,
    peer: SocketAddr,
    reason: &'static str,
) {
    let mut accounting = exchange.ledgers.open(Ingress::Connect, Kind::Connect, peer);
    let number = (exchange.ledgers.connection(), 1);
    accounting.traced(&HeaderMap::new(), number, |_| false);
    accounting.identified(agent);
    accounting.aimed(Scheme::Https, authority);
    let snapshot = exchange.snapshots.load();
    accounting.named(snapshot.policy.name_of(&authority.host), |text| {
        snapshot.injectors.holds_secret(text)
    });
    accounting.closed(reason);
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match cause::<rustls::Error>(error) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}
