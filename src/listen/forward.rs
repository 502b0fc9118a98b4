//! Owns the agents' port: CONNECT, absolute-form and base-URL requests, told apart by the form of
//! their target (RFC 9112, section 3.2).

use std::net::SocketAddr;
use std::sync::Arc;

use http::header;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::connect;
use super::doors::Doors;
use super::turned_away;
use crate::net::gate::{AgentLimits, Gate, GateState};
use crate::proxy::body::ResponseBody;
use crate::proxy::error::ProxyError;
use crate::proxy::last_word::{Caller, last_word};
use crate::proxy::passage::{Agreement, Asked, Connection, Passage};
use crate::proxy::serve;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{Ingress, Scheme};

/// Serves one connection of an agent.
pub async fn serve(doors: Arc<Doors>, stream: TcpStream, peer: SocketAddr) {
    let exchange = doors.exchange.clone();
    let caller = Caller {
        ingress: Ingress::Unread,
        peer,
        tunnel: None,
    };
    let place = match doors.places.take(peer.ip(), doors.identifier.only()) {
        Ok(place) => place,
        Err(reached) => return turned_away::tell(&doors, stream, &caller, reached).await,
    };
    let _open = exchange.ledgers.metrics().connection("agent");
    let state = Arc::new(GateState::default());
    let last_word = last_word(exchange.ledgers.clone(), caller, exchange.limits.requests);
    let limits = AgentLimits::from(&exchange.limits);
    let gate = Gate::new(stream, limits, state.clone(), last_word);
    let number = exchange.ledgers.connection();
    let connection = Arc::new(Connection::new(number, Arc::new(place)));
    let service = move |received: Request<Incoming>| {
        let (doors, state, connection) = (doors.clone(), state.clone(), connection.clone());
        async move { request(doors, received, peer, state, connection).await }
    };
    serve::http1(gate, &exchange, service).await;
}

async fn request(
    doors: Arc<Doors>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    gate: Arc<GateState>,
    connection: Arc<Connection>,
) -> Response<ResponseBody> {
    let mut shown = request
        .headers()
        .get_all(header::PROXY_AUTHORIZATION)
        .iter();
    let agent = match (shown.next(), shown.next()) {
        (_, Some(_)) => Err(ProxyError::Malformed(
            "the request has two Proxy-Authorization fields",
        )),
        (shown, None) => doors.identifier.identify(shown).map_err(ProxyError::from),
    };
    if request.method() == Method::CONNECT {
        return connect::answer(doors, agent, request, peer, (&gate, &connection)).await;
    }
    let absolute = request.uri().scheme().is_some();
    let ingress = if absolute {
        Ingress::AbsoluteForm
    } else {
        Ingress::BaseUrl
    };
    let asked = agent.and_then(|agent| match ingress {
        Ingress::AbsoluteForm => absolute_form(agent, request.uri()),
        _ => base_url(&doors, agent, &mut request),
    });
    let asked = asked.map(|asked| Asked {
        execution: doors.identifier.execution(),
        ..asked
    });
    let passage = Passage {
        ingress,
        peer,
        gate: Some(gate),
        connection,
    };
    doors.exchange.serve(&passage, asked, request).await
}

/// `/anthropic/v1/messages` becomes `/v1/messages` of the host that the route names.
fn base_url(
    doors: &Doors,
    agent: Agent,
    request: &mut Request<Incoming>,
) -> Result<Asked, ProxyError> {
    own_host(request)?;
    let snapshot = doors.exchange.snapshots.load();
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    let (name, rest) = split_route(target);
    let Some(authority) = snapshot.policy.route(&agent, name).cloned() else {
        let known: Vec<String> = snapshot
            .policy
            .routes()
            .map(|(name, _)| format!("/{name}"))
            .collect();
        let known = if known.is_empty() {
            "none; no rule has a `route`".to_owned()
        } else {
            known.join(", ")
        };
        return Err(ProxyError::Route { known });
    };
    let rest: PathAndQuery = rest
        .parse()
        .map_err(|_| ProxyError::Malformed("the path behind the route is not valid"))?;
    *request.uri_mut() = Uri::from(rest);
    Ok(Asked {
        agent,
        execution: None,
        scheme: Scheme::Https,
        authority,
        agreement: Agreement::ByRoute,
        full: None,
    })
}

fn absolute_form(agent: Agent, uri: &Uri) -> Result<Asked, ProxyError> {
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => {
            return Err(ProxyError::Malformed(
                "only http and https targets are carried",
            ));
        }
    };
    let text = uri.authority().map_or("", |authority| authority.as_str());
    if text.contains('@') {
        return Err(ProxyError::Malformed(
            "the target has user information before its host",
        ));
    }
    let authority = Authority::parse(text, Some(scheme.default_port()))?;
    Ok(Asked {
        agent,
        execution: None,
        scheme,
        authority,
        agreement: Agreement::Required,
        full: None,
    })
}

/// The first path segment, and what follows it as a target of its own.
fn split_route(target: &str) -> (&str, String) {
    let target = target.strip_prefix('/').unwrap_or(target);
    let end = target.find(['/', '?']).unwrap_or(target.len());
    let (name, rest) = target.split_at(end);
    match rest.starts_with('/') {
        true => (name, rest.to_owned()),
        false => (name, format!("/{rest}")),
    }
}

/// A web page can point a name of its own at this port (DNS rebinding); the browser then sends that
/// name. Agents send an address, `localhost`, or a name of the cluster.
fn own_host(request: &Request<Incoming>) -> Result<(), ProxyError> {
    let named = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(named) = named else { return Ok(()) };
    match Authority::parse(named, Some(80))?.host.is_public_name() {
        true => Err(ProxyError::ForeignHost),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_the_first_segment_and_the_rest_stays_byte_exact() {
        for (target, name, rest) in [
            (
                "/anthropic/v1/messages?beta=true",
                "anthropic",
                "/v1/messages?beta=true",
            ),
            ("/anthropic", "anthropic", "/"),
            ("/anthropic?x=1", "anthropic", "/?x=1"),
            ("/npm/@a%2fb", "npm", "/@a%2fb"),
            ("/a//b/../c", "a", "//b/../c"),
            ("/", "", "/"),
        ] {
            assert_eq!(split_route(target), (name, rest.to_owned()), "{target}");
        }
    }

    #[test]
    fn absolute_targets_are_parsed_strictly() {
        let parse = |uri: &str| {
            let agent = Agent::parse("a").unwrap();
            absolute_form(agent, &uri.parse().unwrap()).map(|asked| asked.authority.to_string())
        };
        assert_eq!(parse("http://a.com/x").unwrap(), "a.com:80");
        assert_eq!(parse("https://A.com:8443/x").unwrap(), "a.com:8443");
        for bad in [
            "ftp://a.com/",
            "http://user@a.com/",
            "http://0x7f.1/",
            "http://a.com:0/",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
