//! Owns one request from top to bottom: agree, authorize, inject, forward, account.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::account::{Accounting, Ledgers};
use super::attempt::{Attempt, Sent};
use super::body::{Broken, ResponseBody, StreamedResponse};
use super::error::{OriginFault, ProxyError};
use super::headers::{self, UpgradeWish};
use super::lease::Lease;
use super::metered::Meter;
use super::observe::{Observer, Watched};
use super::origin_body::{OriginBody, Scrubbing};
use super::passage::{Agreement, Asked, Passage};
use super::refusal::{self, Dialect};
use super::replay;
use super::scrubbing::{self, Scrubbers};
use super::snapshot::{Snapshot, SnapshotStore};
use super::spend::Asking;
use super::spending::Spending;
use super::token_call::{self, CallForm, Caller};
use super::under_way::Counted;
use super::upgrade::Upgrade;
use super::upload::Upload;
use super::upstream::{Protocols, Upstream};
use super::whole::Whole;
use crate::inject::error::InjectError;
use crate::meter::reader::Memory;
use crate::net::places::Place;
use crate::net::room::Rooms;
use crate::net::violation::Violation;
use crate::oauth::local_endpoint::LocalEndpoint;
use crate::policy::decision::Permit;
use crate::rt::drain::Drain;
use crate::scrub::needles::Needles;
use crate::telemetry::access_log::Kind;
use crate::telemetry::redact::SafeTarget;
use crate::telemetry::traces::Position;
use crate::types::agent::Agent;
use crate::types::intent::Scheme;
use crate::types::limits::Limits;
use crate::types::reached::Reached;

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
    /// What agents may take of the process.
    pub limits: Limits,
    /// Memory for bodies.
    pub rooms: Rooms,
    /// The searches for secrets in answers.
    pub scrubbers: Scrubbers,
    /// What requests that cost money share.
    pub spending: Arc<Spending>,
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
        let snapshot = self.snapshots.load_full();
        let target = SafeTarget::of(request.uri().path_and_query(), |text| {
            snapshot.injectors.holds_secret(text.as_bytes())
        });
        accounting.asked(request.method(), target, request.version());
        let connection = &passage.connection;
        let number = (connection.number, connection.request());
        let position = accounting.traced(request.headers(), number, |text| {
            snapshot.injectors.holds_secret(text)
        });
        let told = match *request.method() {
            Method::HEAD => Told::InHead,
            _ => Told::InBody,
        };
        let authority = asked.as_ref().ok().map(|asked| &asked.authority);
        let token_call = authority.is_some_and(|a| snapshot.endpoints.has(a, request.uri().path()));
        let dialect = match token_call {
            true => Dialect::OAuth,
            false => Dialect::of(authority, request.headers()),
        };
        let http1 = request.version() != Version::HTTP_2;
        let asks_to_leave =
            request.headers().contains_key(header::UPGRADE) || request.method() == Method::CONNECT;
        let (head, body) = request.into_parts();
        let mut upload = Upload::new(&head, body, self.whole(&passage.connection.place));
        let result = match asked {
            Ok(asked) => {
                let request = Ask {
                    head,
                    upload: &mut upload,
                    position,
                };
                self.relay(passage, asked, request, &snapshot, &mut accounting)
                    .await
            }
            Err(error) => Err(error),
        };
        accounting.handed_on();
        let result = result.map_err(|error| self.broken(passage, &accounting, error));
        let mut response = match result {
            Ok(Answer::Relayed(response, relayed)) => {
                let timeouts = relayed.permit.dial().timeouts;
                let gate = passage.gate.clone();
                if let Some(gate) = &gate {
                    gate.answering(timeouts.agent_idle);
                }
                let Relayed {
                    permit,
                    counted,
                    meter,
                    observer,
                    scrubbing,
                } = relayed;
                let readers = (meter, observer);
                let (head, body) = response.into_parts();
                let body = OriginBody::new(body, counted, scrubbing);
                let begun =
                    StreamedResponse::begin(body, &timeouts, accounting, gate, readers).await;
                match begun {
                    Ok(body) => Response::from_parts(head, ResponseBody::Stream(body)),
                    Err(Broken { fault, accounting }) => {
                        let authority = permit.authority().clone();
                        let error = ProxyError::Origin { authority, fault };
                        refuse(&error, dialect, told, accounting)
                    }
                }
            }
            Ok(Answer::Upgraded(response, upgrade)) => {
                let place = passage.connection.place.clone();
                if let Some(gate) = &passage.gate {
                    gate.leaves();
                }
                self.switch(response, *upgrade, place, accounting)
            }
            Ok(Answer::Local(response)) => response.map(|body| ResponseBody::own(body, accounting)),
            Err(error) => {
                upload.discard().await;
                refuse(&error, dialect, told, accounting)
            }
        };
        // After a refused upgrade the agent's next bytes are not followed any more.
        let stays = asks_to_leave && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if http1 && (stays || self.drain.is_draining()) {
            close_after(&mut response);
        }
        response
    }

    fn whole<'r>(&'r self, place: &'r Place) -> Whole<'r> {
        Whole {
            shared: &self.rooms.read,
            place,
            limits: &self.limits.requests,
        }
    }

    fn memory(&self) -> Memory<'_> {
        Memory {
            pieces: &self.rooms.answers,
            windows: &self.rooms.windows,
        }
    }

    /// A body that broke off did so for what is wrong with it, or since nothing came of it any more.
    fn broken(&self, passage: &Passage, accounting: &Accounting, error: ProxyError) -> ProxyError {
        let violation = passage.gate.as_ref().and_then(|gate| gate.violation());
        let is_slow = violation == Some(Violation::SlowBody) || accounting.upload_was_slow();
        match (error, violation) {
            (ProxyError::AgentBody, Some(violation)) => {
                ProxyError::of(violation, &self.limits.requests)
            }
            // An origin that is spoken to in HTTP/2 is told by a reset, and what comes of that is its error.
            (ProxyError::AgentBody | ProxyError::Origin { .. }, _) if is_slow => {
                ProxyError::of(Violation::SlowBody, &self.limits.requests)
            }
            (error, _) => error,
        }
    }

    async fn relay(
        &self,
        passage: &Passage,
        asked: Asked,
        Ask {
            mut head,
            upload,
            position,
        }: Ask<'_, '_>,
        snapshot: &Snapshot,
        accounting: &mut Accounting,
    ) -> Result<Answer, ProxyError> {
        accounting.identified(&asked.agent);
        accounting.executing(asked.execution.as_ref());
        accounting.aimed(asked.scheme, &asked.authority);
        accounting.named(snapshot.policy.name_of(&asked.authority.host), |text| {
            snapshot.injectors.holds_secret(text)
        });
        if let Some(violation) = passage.gate.as_ref().and_then(|gate| gate.violation()) {
            return Err(ProxyError::of(violation, &self.limits.requests));
        }
        connection_has_room(passage, &asked)?;

        headers::method(&head.method)?;
        headers::bounds(&head, &self.limits.requests)?;
        headers::join_crumbs(&mut head);
        headers::expectation(&head.headers)?;
        if asked.agreement == Agreement::Required {
            headers::agree(&head, asked.scheme, &asked.authority)?;
        }
        let permit = snapshot
            .policy
            .authorize(&asked.intent(&head.method, &head.uri))?;
        accounting.permitted(&permit);
        headers::has_path(&head.uri)?;
        let overriding = headers::overriding_method(&head)?;
        if let Some(method) = &overriding {
            let other = snapshot
                .policy
                .authorize(&asked.intent(method, &head.uri))?;
            if other.rule() != permit.rule() {
                return Err(ProxyError::Malformed(
                    "a header names another method, which another rule is for",
                ));
            }
        }

        if asked.scheme == Scheme::Http
            && let Some(credential) = snapshot.endpoints.on_host(&asked.authority.host)
        {
            let credential = credential.clone();
            return Err(InjectError::Cleartext { credential }.into());
        }
        let path = head.uri.path();
        let called = snapshot
            .endpoints
            .find(&asked.authority, path, permit.credentials());
        if !called.is_empty() {
            let post = [Some(&head.method), overriding.as_ref()].contains(&Some(&Method::POST));
            let caller = Caller {
                form: match post {
                    true => CallForm::Post,
                    false => CallForm::Other,
                },
                agent: &asked.agent,
                injectors: &snapshot.injectors,
                drain: &self.drain,
            };
            let mut answer = token_call::serve(&caller, &called, &head, upload, accounting).await?;
            if let Some(needles) = self.needles_of(&called, &asked.agent, snapshot) {
                scrubbing::clean(&needles, &mut answer, accounting);
            }
            return Ok(Answer::Local(answer));
        }

        let watched = match accounting.has_span() {
            true => Watched::of(&permit, &head),
            false => None,
        };
        if let Some(watched) = &watched {
            accounting.model(|| watched.notes());
        }
        let asked_by = head.method.clone();
        let wish = headers::end_hop(&mut head)?;
        headers::trace(&mut head.headers, permit.trace_context(), position.as_ref());
        let asked_for =
            (wish == UpgradeWish::WebSocket).then(|| (head.method.clone(), head.uri.clone()));
        let agent_side = (wish == UpgradeWish::WebSocket)
            .then(|| head.extensions.remove::<OnUpgrade>())
            .flatten();
        let attempt = Attempt {
            asked: &asked,
            permit: &permit,
            snapshot,
            upstream: &self.upstream,
            windows: &self.rooms.windows,
            protocols: match agent_side {
                Some(_) => Protocols::Http1,
                None => Protocols::Any,
            },
        };
        let is_current = || self.snapshots.load().version == snapshot.version;
        let asking = Asking {
            spending: &self.spending,
            snapshot,
            snapshots: &self.snapshots,
            asked: &asked,
            permit: &permit,
            wish,
        };
        let mut admission = asking.admit(&mut head, upload, accounting).await?;
        let sending = replay::send(
            &attempt,
            head,
            upload,
            &self.rooms.kept,
            is_current,
            &mut admission,
            accounting,
        );
        let Sent {
            mut response,
            counted,
            credentials,
            shown,
            windows,
        } = sending.await?;
        let needles = self.scrubbers.of(&shown);

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(agent), Some((method, uri))) = (agent_side, asked_for) else {
                return Err(ProxyError::Origin {
                    authority: asked.authority,
                    fault: OriginFault::Head,
                });
            };
            if let Some(needles) = &needles {
                scrubbing::begin_upgraded(needles, &mut response, &permit, accounting)
                    .inspect_err(|error| admission.failed(error))?;
            }
            headers::end_upgrade_hop(response.headers_mut());
            // What it carries is not counted; that it was asked for is.
            let memory = self.memory();
            admission.answered(&mut response, memory, accounting).await;
            let origin = hyper::upgrade::on(&mut response);
            let lease = Lease {
                agent: asked.agent,
                authority: asked.authority,
                scheme: asked.scheme,
                method,
                uri,
                credentials: credentials.into_iter().map(|c| c.name).collect(),
                dial: permit.dial().clone(),
            };
            return Ok(Answer::Upgraded(
                response,
                Box::new(Switch {
                    agent,
                    origin,
                    counted,
                    needles,
                    lease,
                    idle: permit.dial().timeouts.idle,
                }),
            ));
        }
        let scrubbing = match needles {
            Some(needles) => Some(
                scrubbing::begin(needles, &mut response, &asked_by, &permit, accounting)
                    .and_then(|begun| begun.with_windows(windows, &self.rooms.windows))
                    .inspect_err(|error| admission.failed(error))?,
            ),
            None => None,
        };
        let status = response.status();
        headers::end_response_hop(response.headers_mut());
        headers::settle_length(status, response.headers_mut());
        if response.status() == StatusCode::UNAUTHORIZED && !credentials.is_empty() {
            let held = |name: &Arc<str>| snapshot.injectors.held(name);
            for held in credentials.iter().filter_map(|c| held(&c.name)) {
                held.rejected();
            }
            // The hint is for people who debug; the origin's own answer stays as it is.
            response.headers_mut().insert(
                "x-tollgate-credential",
                http::HeaderValue::from_static("rejected"),
            );
        }
        let memory = self.memory();
        let meter = admission.answered(&mut response, memory, accounting).await;
        // What a budget counts is read already.
        let observer = watched.filter(|_| meter.is_none());
        let observer = observer.and_then(|watched| watched.observer(&response, self.memory()));
        let relayed = Relayed {
            permit,
            counted,
            meter,
            observer,
            scrubbing,
        };
        Ok(Answer::Relayed(response, relayed))
    }

    /// What must not stand in the answer of a token endpoint: what requests with these grants have now.
    fn needles_of(
        &self,
        called: &[&LocalEndpoint],
        agent: &Agent,
        snapshot: &Snapshot,
    ) -> Option<Arc<Needles>> {
        let pairs = called.iter().filter_map(|endpoint| {
            let credential = endpoint.grant.owner.credential();
            let held = snapshot.injectors.held(credential)?;
            let current = held.current_versioned().ok()?;
            let placeholder = snapshot.injectors.placeholder(agent, credential)?;
            let secrets = std::iter::once(current.secret).chain(current.beside);
            Some(secrets.map(move |secret| (secret, placeholder.clone())))
        });
        self.scrubbers.of(&pairs.flatten().collect())
    }

    /// Passes the 101 on and relays both ways from then on.
    fn switch(
        &self,
        response: Response<Incoming>,
        switch: Switch,
        place: Arc<Place>,
        accounting: Accounting,
    ) -> Response<ResponseBody> {
        let Switch {
            agent,
            origin,
            counted,
            needles,
            lease,
            idle,
        } = switch;
        let snapshots = self.snapshots.clone();
        let upgrade = Upgrade {
            agent,
            origin,
            counted,
            needles,
            idle,
            longest_frame: self.limits.answers.web_socket_frame,
            place,
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

/// The connection counts for its agent from its first request on; a stream has come with its place, or none.
fn connection_has_room(passage: &Passage, asked: &Asked) -> Result<(), Reached> {
    passage.connection.place.belongs_to(&asked.agent)?;
    asked.full.map_or(Ok(()), Err)
}

/// Where a refusal can be told: the answer to HEAD has no body, whatever its head says
/// (RFC 9110, section 9.3.2). The library keeps to that on HTTP/1.1 only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    InBody,
    InHead,
}

/// A request on its way in.
struct Ask<'a, 'r> {
    head: Parts,
    upload: &'a mut Upload<'r>,
    /// Where it stands in a trace.
    position: Option<Position>,
}

enum Answer {
    Relayed(Response<Incoming>, Relayed),
    Upgraded(Response<Incoming>, Box<Switch>),
    Local(Response<Bytes>),
}

/// What an answer that is passed on goes with.
struct Relayed {
    permit: Permit,
    counted: Counted,
    meter: Option<Box<Meter>>,
    observer: Option<Box<Observer>>,
    scrubbing: Option<Scrubbing>,
}

struct Switch {
    agent: OnUpgrade,
    origin: OnUpgrade,
    counted: Counted,
    needles: Option<Arc<Needles>>,
    lease: Lease,
    idle: Duration,
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
    if error.ends_connection() {
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
