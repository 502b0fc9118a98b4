//! Owns the answer to CONNECT: refuse, tunnel or intercept, decided before any name is looked up.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::doors::Doors;
use crate::net::gate::{Gate, GateState};
use crate::net::rewind::Rewind;
use crate::policy::decision::{Permit, Treatment};
use crate::proxy::account::Accounting;
use crate::proxy::body::ResponseBody;
use crate::proxy::error::ProxyError;
use crate::proxy::intercept::Interception;
use crate::proxy::passage::Connection;
use crate::proxy::refusal::{self, Dialect};
use crate::proxy::tunnel::Tunnel;
use crate::telemetry::access_log::Kind;
use crate::tls::error::CaError;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, Ingress, Scheme};

/// Answers a CONNECT and starts what follows it.
pub async fn answer(
    doors: Arc<Doors>,
    agent: Result<Agent, ProxyError>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    (gate, connection): (&Arc<GateState>, &Arc<Connection>),
) -> Response<ResponseBody> {
    let ledgers = doors.exchange.ledgers.clone();
    let mut accounting = ledgers.open(Ingress::Connect, Kind::Connect, peer);
    let number = (connection.number, connection.request());
    accounting.traced(request.headers(), number, |text| {
        let snapshot = doors.exchange.snapshots.load();
        snapshot.injectors.holds_secret(text)
    });
    let opened = open(&doors, agent, &request, connection, &mut accounting).await;
    let upgrade = hyper::upgrade::on(&mut request);
    let exchange = doors.exchange.clone();
    if opened.is_ok() {
        gate.leaves();
    }
    match opened {
        Err(error) => refuse(&error, accounting),
        Ok(Opened {
            asked,
            way: Way::Intercept(leaf),
        }) => {
            // Each exchange inside has an account of its own.
            accounting.discard();
            let place = connection.place.clone();
            exchange.clone().drain.spawn(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let Some(stream) = raw(upgraded) else { return };
                let Connect { agent, authority } = asked;
                let interception = Interception {
                    stream,
                    agent,
                    execution: doors.identifier.execution(),
                    authority,
                    peer,
                    place,
                    leaf,
                };
                Box::pin(interception.serve(exchange)).await;
            });
            Response::new(ResponseBody::Nothing)
        }
        Ok(Opened {
            asked,
            way: Way::Tunnel(origin, permit),
        }) => {
            ledgers.metrics().tunnel();
            accounting.tunnelled();
            let place = connection.place.clone();
            exchange.clone().drain.spawn(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let Some(agent) = raw(upgraded) else { return };
                let _open = exchange.ledgers.metrics().connection("tunnel");
                let Treatment::Tunnel(sni) = permit.treatment() else {
                    return;
                };
                let authority = asked.authority.clone();
                let dial = permit.dial().clone();
                let idle = dial.timeouts.idle;
                let tunnel = Tunnel {
                    place,
                    start: exchange.limits.connections.tunnel_start,
                    agent,
                    origin,
                    authority,
                    sni,
                    idle,
                    accounting,
                };
                let snapshots = exchange.snapshots.clone();
                let allowed = move || {
                    let permit = snapshots.load().policy.authorize(&asked.intent());
                    // Other addresses, another tunnel: this one was dialled under the old ones.
                    permit.is_ok_and(|p| {
                        matches!(p.treatment(), Treatment::Tunnel(_)) && **p.dial() == *dial
                    })
                };
                Box::pin(tunnel.carry(exchange.snapshots.clone(), allowed)).await;
            });
            Response::new(ResponseBody::Nothing)
        }
    }
}

struct Connect {
    agent: Agent,
    authority: Authority,
}

impl Connect {
    fn intent(&self) -> EgressIntent<'_> {
        EgressIntent {
            agent: &self.agent,
            authority: &self.authority,
            scheme: Scheme::Https,
            request: None,
        }
    }
}

struct Opened {
    asked: Connect,
    way: Way,
}

enum Way {
    /// With a certificate, or why there is none.
    Intercept(Result<Arc<ServerConfig>, CaError>),
    Tunnel(TcpStream, Permit),
}

async fn open(
    doors: &Doors,
    agent: Result<Agent, ProxyError>,
    request: &Request<Incoming>,
    connection: &Connection,
    accounting: &mut Accounting,
) -> Result<Opened, ProxyError> {
    let agent = agent?;
    accounting.identified(&agent);
    connection.place.belongs_to(&agent)?;
    let uri = request.uri();
    let Some(target) = uri.authority().filter(|_| uri.scheme().is_none()) else {
        return Err(ProxyError::Malformed(
            "CONNECT wants `host:port` and nothing else",
        ));
    };
    let authority = Authority::parse(target.as_str(), None)?;
    accounting.aimed(Scheme::Https, &authority);
    let snapshot = doors.exchange.snapshots.load_full();
    accounting.named(snapshot.policy.name_of(&authority.host), |text| {
        snapshot.injectors.holds_secret(text)
    });
    host_agrees(request, &authority)?;
    let asked = Connect { agent, authority };
    let permit = snapshot.policy.authorize(&asked.intent())?;
    drop(snapshot);
    accounting.permitted(&permit);
    let way = match permit.treatment() {
        Treatment::Intercept => Way::Intercept(leaf(doors, &asked).await?),
        Treatment::Tunnel(_) => {
            let origin = doors
                .exchange
                .upstream
                .dialer()
                .tcp(&asked.authority, permit.dial())
                .await?;
            Way::Tunnel(origin, permit)
        }
    };
    Ok(Opened { asked, way })
}

/// The certificate for what was asked. It is had before the CONNECT is answered, since a limit can be told in
/// HTTP only; what else keeps it from being made is told in TLS.
async fn leaf(
    doors: &Doors,
    asked: &Connect,
) -> Result<Result<Arc<ServerConfig>, CaError>, ProxyError> {
    let Connect { agent, authority } = asked;
    let leaf = doors.leaves.server_config_for(agent, &authority.host);
    match leaf.await {
        Err(CaError::Limit(reached)) => Err(reached.into()),
        leaf => Ok(leaf),
    }
}

/// `Host` of a CONNECT is its target (RFC 9112, section 3.2.3); some clients leave out the port.
fn host_agrees(request: &Request<Incoming>, authority: &Authority) -> Result<(), ProxyError> {
    for host in request.headers().get_all(header::HOST) {
        let named = host
            .to_str()
            .ok()
            .and_then(|host| Authority::parse(host, Some(authority.port)).ok());
        if named.as_ref() != Some(authority) {
            return Err(ProxyError::Misdirected {
                target: authority.clone(),
            });
        }
    }
    Ok(())
}

/// The TCP stream under a finished HTTP exchange, with what was read too early put back.
fn raw(upgraded: hyper::upgrade::Upgraded) -> Option<Rewind<TcpStream>> {
    let parts = upgraded.downcast::<TokioIo<Gate<TcpStream>>>().ok()?;
    let (stream, held) = parts.io.into_inner().into_inner();
    let early = match held.is_empty() {
        true => parts.read_buf,
        false => [parts.read_buf, held.into()].concat().into(),
    };
    Some(Rewind::new(early, stream))
}

/// Clients show the reason phrase of a refused CONNECT and never its body.
fn refuse(error: &ProxyError, mut accounting: Accounting) -> Response<ResponseBody> {
    accounting.refused(error);
    tracing::debug!(
        id = accounting.id(),
        reason = error.reason(),
        "CONNECT refused"
    );
    let refusal = refusal::response(error, Dialect::Text, accounting.id());
    let mut response = refusal.map(|body: Bytes| ResponseBody::own(body, accounting));
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
        .headers_mut()
        .insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    if let Ok(phrase) = ReasonPhrase::try_from(refusal::reason_phrase(error).into_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    response
}
