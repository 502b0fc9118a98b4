//! Owns one request from top to bottom: agree, authorize, inject, forward, account.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use super::account::{Accounting, Ledgers};
use super::body::{self, Continuation, RequestBody, ResponseBody, StreamLimits};
use super::error::ProxyError;
use super::headers::{self, UpgradeWish};
use super::lease::Lease;
use super::refusal::{self, Dialect};
use super::snapshot::SnapshotStore;
use super::upgrade::Upgrade;
use super::upstream::{Protocols, Upstream};
use crate::inject::body::BodySwap;
use crate::inject::set::Target;
use crate::net::gate::GateState;
use crate::rt::drain::Drain;
use crate::telemetry::access_log::Kind;
use crate::telemetry::redact::SafeTarget;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, Ingress, RequestLine, Scheme};

/// What every exchange works with.
pub struct Exchange {
    /// Policy and injectors, one view at a time.
    pub snapshots: Arc<SnapshotStore>,
    /// Connections to origins.
    pub upstream: Upstream,
    /// Where accounts are settled.
    pub ledgers: Arc<Ledgers>,
    /// The process's open connections.
    pub drain: Drain,
}

/// The connection a request came on.
pub struct Passage {
    /// The door.
    pub ingress: Ingress,
    /// The agent's address.
    pub peer: SocketAddr,
    /// What watches an HTTP/1.1 connection.
    pub gate: Option<Arc<GateState>>,
}

/// Who asks for which origin, as the door established it.
#[derive(Clone)]
pub struct Asked {
    /// Who.
    pub agent: Agent,
    /// Cleartext or TLS towards the origin.
    pub scheme: Scheme,
    /// Which origin.
    pub authority: Authority,
    /// Whether the request's own head must name that origin. On the base-URL door it names the proxy.
    pub agreement: Agreement,
}

/// Whether a request's head names its origin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// `Host` and URI must name the origin.
    Required,
    /// They name the proxy; the route named the origin.
    ByRoute,
}

impl Exchange {
    /// Serves one request.
    ///
    /// Whatever happens, the [`Accounting`] guard logs and counts exactly once: when the response
    /// body ends, when the agent hangs up, or when an error is answered here.
    pub async fn serve(
        &self,
        passage: &Passage,
        asked: Result<Asked, ProxyError>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let mut accounting = self
            .ledgers
            .open(passage.ingress, Kind::Request, passage.peer);
        let injectors = &self.snapshots.load_full().injectors;
        let target = SafeTarget::of(request.uri().path_and_query(), |text| {
            injectors.holds_secret(text.as_bytes())
        });
        accounting.asked(request.method(), target, request.version());
        let told = match *request.method() {
            Method::HEAD => Told::InHead,
            _ => Told::InBody,
        };
        let dialect = Dialect::of(asked.as_ref().ok().map(|a| &a.authority), request.headers());
        let http1 = request.version() != Version::HTTP_2;
        let asks_to_leave =
            request.headers().contains_key(header::UPGRADE) || request.method() == Method::CONNECT;
        let (head, body) = request.into_parts();
        let expects = head.headers.contains_key(header::EXPECT);
        let mut body = Some(body);
        let result = match asked {
            Ok(asked) => {
                let request = (head, &mut body);
                self.relay(passage, asked, request, &mut accounting).await
            }
            Err(error) => Err(error),
        };
        if let (Err(_), Some(body), false) = (&result, body, expects) {
            body::read_away(body).await;
        }
        let mut response = match result {
            Ok(Answer::Relayed(response, lease, idle)) => {
                let in_flight = passage.gate.as_ref().map(GateState::exchange);
                let limits = StreamLimits {
                    idle,
                    lease,
                    snapshots: self.snapshots.clone(),
                };
                response.map(|body| ResponseBody::stream(body, limits, accounting, in_flight))
            }
            Ok(Answer::Upgraded(response, upgrade)) => self.switch(response, *upgrade, accounting),
            Err(error) => refuse(&error, dialect, told, accounting),
        };
        // After a refused upgrade the agent's next bytes are not followed any more.
        let stays = asks_to_leave && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if http1 && (stays || self.drain.is_draining()) {
            close_after(&mut response);
        }
        response
    }

    async fn relay(
        &self,
        passage: &Passage,
        asked: Asked,
        (mut head, body): (Parts, &mut Option<Incoming>),
        accounting: &mut Accounting,
    ) -> Result<Answer, ProxyError> {
        accounting.identified(&asked.agent);
        accounting.aimed(asked.scheme, &asked.authority);
        if let Some(violation) = passage.gate.as_ref().and_then(|gate| gate.violation()) {
            return Err(ProxyError::Ambiguous(violation));
        }
        let _in_flight = passage.gate.as_ref().map(GateState::exchange);
        let snapshot = self.snapshots.load_full();

        headers::method(&head.method)?;
        headers::expectation(&head.headers)?;
        if asked.agreement == Agreement::Required {
            headers::agree(&head, asked.scheme, &asked.authority)?;
        }
        let permit = snapshot
            .policy
            .authorize(&asked.intent(&head.method, &head.uri))?;
        accounting.permitted(&permit);
        if let Some(method) = headers::overriding_method(&head)? {
            let other = snapshot
                .policy
                .authorize(&asked.intent(&method, &head.uri))?;
            if other.rule() != permit.rule() {
                return Err(ProxyError::Malformed(
                    "a header names another method, which another rule is for",
                ));
            }
        }

        let wish = headers::end_hop(&mut head)?;
        let line = (head.method.clone(), head.uri.clone());
        let target = Target {
            authority: &asked.authority,
            scheme: asked.scheme,
        };
        let mut injected =
            snapshot
                .injectors
                .apply(&asked.agent, &target, permit.credentials(), &mut head)?;
        accounting.injected(&injected.credentials);

        let agent_side = (wish == UpgradeWish::WebSocket)
            .then(|| head.extensions.remove::<OnUpgrade>())
            .flatten();
        let (body, expected) =
            outgoing_body(&mut head, body.take(), injected.body.take(), accounting).await?;
        let mut request = outgoing(&asked, head, body)?;
        if let Some(expected) = expected.clone() {
            hyper::ext::on_informational(&mut request, move |said| {
                if said.status() == StatusCode::CONTINUE {
                    expected.go_on();
                }
            });
        }
        let protocols = if agent_side.is_some() {
            Protocols::Http1
        } else {
            Protocols::Any
        };
        let mut response = self.upstream.send(&permit, protocols, request).await?;
        accounting.answered(response.status());
        if let Some(expected) = expected {
            expected.answered();
        }

        let idle = permit.dial().timeouts.idle;
        let hinted =
            response.status() == StatusCode::UNAUTHORIZED && !injected.credentials.is_empty();
        let lease = Lease {
            agent: asked.agent,
            authority: asked.authority,
            scheme: asked.scheme,
            method: line.0,
            uri: line.1,
            credentials: injected.credentials.into_iter().map(|c| c.name).collect(),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(agent) = agent_side else {
                return Err(ProxyError::Origin {
                    authority: lease.authority,
                });
            };
            let origin = hyper::upgrade::on(&mut response);
            headers::end_upgrade_hop(response.headers_mut());
            let switch = Switch {
                agent,
                origin,
                lease,
                idle,
            };
            return Ok(Answer::Upgraded(response, Box::new(switch)));
        }
        headers::end_response_hop(response.headers_mut());
        if hinted {
            // The hint is for people who debug; the origin's own answer stays as it is.
            response.headers_mut().insert(
                "x-tollgate-credential",
                http::HeaderValue::from_static("rejected"),
            );
        }
        Ok(Answer::Relayed(response, lease, idle))
    }

    /// Passes the 101 on and relays both ways from then on.
    fn switch(
        &self,
        response: Response<Incoming>,
        switch: Switch,
        accounting: Accounting,
    ) -> Response<ResponseBody> {
        let Switch {
            agent,
            origin,
            lease,
            idle,
        } = switch;
        let snapshots = self.snapshots.clone();
        let upgrade = Upgrade {
            agent,
            origin,
            idle,
            accounting,
        };
        upgrade.start(&self.drain, self.snapshots.clone(), move || {
            lease.holds(&snapshots.load())
        });
        let (head, _) = response.into_parts();
        // The stream has the account; the empty body of a 101 has none to settle.
        Response::from_parts(head, ResponseBody::Nothing)
    }
}

/// Where a refusal can be told: the answer to HEAD has no body, whatever its head says
/// (RFC 9110, section 9.3.2). The library keeps to that on HTTP/1.1 only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    InBody,
    InHead,
}

enum Answer {
    Relayed(Response<Incoming>, Lease, Duration),
    Upgraded(Response<Incoming>, Box<Switch>),
}

struct Switch {
    agent: OnUpgrade,
    origin: OnUpgrade,
    lease: Lease,
    idle: Duration,
}

impl Asked {
    fn intent<'a>(&'a self, method: &'a Method, uri: &'a Uri) -> EgressIntent<'a> {
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

/// Streams the body on, or reads it whole when a credential goes into it.
async fn outgoing_body(
    head: &mut Parts,
    body: Option<Incoming>,
    swap: Option<BodySwap>,
    accounting: &mut Accounting,
) -> Result<(RequestBody, Option<Arc<body::Asked>>), ProxyError> {
    let Some(body) = body.filter(|body| !body.is_end_stream()) else {
        return Ok((RequestBody::Empty, None));
    };
    let uploads = accounting.uploads();
    let Some(swap) = swap else {
        headers::announce(head, body.size_hint().exact());
        if !head.headers.contains_key(header::EXPECT) {
            return Ok((RequestBody::Stream(body, uploads), None));
        }
        let expected = Arc::new(body::Asked::default());
        let wait = Continuation::new(expected.clone());
        return Ok((RequestBody::Expecting(body, uploads, wait), Some(expected)));
    };
    // A body that is read whole here has been asked for here.
    head.headers.remove(header::EXPECT);
    let whole = spool(RequestBody::Stream(body, uploads), swap.limit()).await?;
    let whole = match swap.apply(&whole)? {
        Some(swapped) => {
            accounting.injected(&swapped.credentials);
            swapped.bytes
        }
        None => whole,
    };
    head.headers
        .insert(header::CONTENT_LENGTH, whole.len().into());
    Ok((RequestBody::Whole(Some(whole)), None))
}

async fn spool(mut body: RequestBody, limit: u64) -> Result<Bytes, ProxyError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ProxyError::AgentBody)?;
        let Ok(data) = frame.into_data() else {
            return Err(ProxyError::Malformed(
                "a body that a credential goes into cannot have trailers",
            ));
        };
        if (whole.len() + data.len()) as u64 > limit {
            body::read_away(body).await;
            return Err(ProxyError::BodyTooLarge { limit });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The request as the origin gets it; `Host` or `:authority` follows from the URI.
fn outgoing(
    asked: &Asked,
    mut head: Parts,
    body: RequestBody,
) -> Result<Request<RequestBody>, ProxyError> {
    let path = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    head.uri = headers::outgoing_uri(asked.scheme, &asked.authority, &path)?;
    head.headers.remove(header::HOST);
    Ok(Request::from_parts(head, body))
}

fn refuse(
    error: &ProxyError,
    dialect: Dialect,
    told: Told,
    mut accounting: Accounting,
) -> Response<ResponseBody> {
    accounting.refused(error);
    // The error's text repeats the path, which may hold what no log should.
    tracing::debug!(id = accounting.id(), reason = error.reason(), "refused");
    let mut response = refusal::response(error, dialect, accounting.id());
    if told == Told::InHead {
        let length = response.body().len();
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
        response.body_mut().clear();
    }
    let mut response = response.map(|body| ResponseBody::own(body, accounting));
    if matches!(error, ProxyError::Ambiguous(_)) {
        close_after(&mut response);
    }
    response
}

/// HTTP/2 has no such field; the library drops it there.
fn close_after(response: &mut Response<ResponseBody>) {
    response
        .headers_mut()
        .insert(header::CONNECTION, http::HeaderValue::from_static("close"));
}
