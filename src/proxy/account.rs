//! Owns the guard that every exchange holds: it is logged and counted exactly once, on every way out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, Response, StatusCode, Version, header};

use super::error::ProxyError;
use super::hold::Cost;
use super::observe::{Observer, budget_notes};
use super::own_time::OwnTime;
use super::uploaded::Uploaded;
use crate::budget::rate::RateGuard;
use crate::inject::error::InjectError;
use crate::inject::injector::InjectedCredential;
use crate::policy::decision::Permit;
use crate::telemetry::access_log::{
    AccessLog, CanaryRecord, CostRecord, Kind, Record, UsedCredential, Verdict,
};
use crate::telemetry::metrics::{Ended, Metrics, Open};
use crate::telemetry::redact::{SafeTarget, safe_method};
use crate::telemetry::sinks::Sinks;
use crate::telemetry::span_notes::{Invocation, ModelNotes, Pieces, SpanNotes};
use crate::telemetry::traces::{Position, Traces};
use crate::types::agent::Agent;
use crate::types::host::{Authority, HostPattern};
use crate::types::intent::{Ingress, Scheme};
use crate::types::reached::Limit;
use crate::types::usage::TokenClass;

/// Stands for a host whose name holds a secret. No such name is ever given out (RFC 2606, section 2).
const REDACTED_HOST: &str = "redacted.invalid";

/// Where accounts are settled.
pub struct Ledgers {
    sinks: Sinks,
    metrics: Metrics,
    /// Makes request ids differ between processes and starts.
    boot: u64,
    next: AtomicU64,
}

impl Ledgers {
    /// Settles into these logs and metrics.
    pub fn new(sinks: Sinks, metrics: Metrics) -> Self {
        let boot = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as u64);
        Self {
            sinks,
            metrics,
            boot,
            next: AtomicU64::new(1),
        }
    }

    /// The access log.
    pub fn log(&self) -> &AccessLog {
        &self.sinks.log
    }

    /// Everything that records go to.
    pub fn sinks(&self) -> &Sinks {
        &self.sinks
    }

    /// The spans.
    pub fn traces(&self) -> &Traces {
        &self.sinks.traces
    }

    /// A number for a connection that requests come on.
    pub fn connection(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Opens an account.
    pub fn open(self: &Arc<Self>, ingress: Ingress, kind: Kind, peer: SocketAddr) -> Accounting {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let record = Record {
            time: SystemTime::now(),
            id: format!("{:x}-{number:x}", self.boot & 0xff_ffff_ffff),
            peer,
            agent: None,
            ingress: ingress.as_str(),
            kind,
            method: None,
            scheme: Scheme::Https.as_str(),
            authority: None,
            target: None,
            protocol: None,
            decision: Verdict::Deny,
            reason: None,
            rule: None,
            credentials: Vec::new(),
            credential_versions: Vec::new(),
            budget: None,
            canary: None,
            cost: None,
            replayed: false,
            token_call: None,
            scrubbed: 0,
            status: None,
            request_bytes: 0,
            response_bytes: 0,
            upstream: None,
            first_byte: None,
            added: None,
            duration: None,
            end: None,
            trace_id: None,
            span: None,
        };
        let started = Instant::now();
        Accounting {
            record: Some(Box::new(record)),
            uploaded: None,
            host: None,
            started,
            own_time: OwnTime::from(started),
            complete: false,
            in_flight: Some(self.metrics.begun()),
            pace: None,
            ledgers: self.clone(),
        }
    }
}

/// What came of a second try after an origin refused a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// The new value was not refused.
    Accepted,
    /// The new value was refused as well.
    Rejected,
    /// The second request got no answer.
    Failed,
    /// There was no second request: the credential could not be renewed in time.
    NotRenewed,
    /// There was no second request: the first was too large to be kept, or is not allowed any more.
    NotKept,
}

impl Replay {
    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::NotRenewed => "not_renewed",
            Self::NotKept => "not_kept",
        }
    }

    fn was_sent(self) -> bool {
        matches!(self, Self::Accepted | Self::Rejected | Self::Failed)
    }
}

/// What became of an agent's own call to a token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenCall {
    /// It asked for fresh tokens and got placeholders.
    Refresh,
    /// It logged in and got placeholders.
    Login,
    /// It logged in, its tokens are kept here, and it got placeholders.
    Captured,
    /// The real endpoint answered with an error, which was passed on.
    Declined,
    /// It gave its tokens up, which changes nothing here.
    Revocation,
    /// It was refused; the reason says why.
    Refused,
}

impl TokenCall {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Login => "login",
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Revocation => "revocation",
            Self::Refused => "refused",
        }
    }
}

/// One open account. Dropping it settles it.
pub struct Accounting {
    record: Option<Box<Record>>,
    uploaded: Option<Arc<Uploaded>>,
    /// How the rules name the host, for metrics: what agents write makes no label.
    host: Option<HostPattern>,
    started: Instant,
    own_time: OwnTime,
    complete: bool,
    in_flight: Option<Open>,
    /// Its place among the requests at once of a budget that does not read its answer.
    pace: Option<Box<RateGuard>>,
    ledgers: Arc<Ledgers>,
}

impl Accounting {
    fn edit(&mut self, edit: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            edit(record);
        }
    }

    /// The id that agent and log share.
    pub fn id(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.id)
    }

    /// Begins its span, if one is made: where it stands in its trace, which an origin may go on from.
    ///
    /// `connection` and `request` number the connection it came on, and the requests on that. No id that
    /// `holds_secret` finds one in is taken from the head.
    pub fn traced(
        &mut self,
        headers: &HeaderMap,
        (connection, request): (u64, u64),
        holds_secret: impl Fn(&[u8]) -> bool,
    ) -> Option<Position> {
        let traces = &self.ledgers.sinks.traces;
        let position = traces.begin(headers, holds_secret)?;
        let unnamed = Invocation::Connection {
            boot: self.ledgers.boot & 0xff_ffff_ffff,
            connection,
            request,
        };
        let notes = position.clone().notes(headers, unnamed);
        self.edit(|r| {
            r.trace_id = notes.as_ref().map(|notes| notes.trace);
            r.span = notes;
        });
        Some(position)
    }

    fn note(&mut self, note: impl FnOnce(&mut SpanNotes)) {
        if let Some(notes) = self.record.as_mut().and_then(|r| r.span.as_mut()) {
            note(notes);
        }
    }

    /// The one run of the agent that it is part of.
    pub fn executing(&mut self, execution: Option<&Arc<str>>) {
        self.note(|notes| notes.execution = execution.cloned());
    }

    /// What is asked of a model.
    pub fn model(&mut self, model: impl FnOnce() -> ModelNotes) {
        self.note(|notes| notes.model = Some(Box::new(model())));
    }

    /// An answer of a model was read to its end for its span alone.
    pub fn observed(&mut self, observer: Observer) {
        self.note(|notes| {
            if let Some(model) = &mut notes.model {
                observer.finish(model);
            }
        });
    }

    /// Whether a span is made of it.
    pub fn has_span(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.span.is_some())
    }

    /// Who asks.
    pub fn identified(&mut self, agent: &Agent) {
        self.edit(|r| r.agent = Some(agent.clone()));
    }

    /// What is asked, as the agent sent it.
    pub fn asked(&mut self, method: &Method, target: Option<SafeTarget>, version: Version) {
        self.edit(|r| {
            r.method = Some(safe_method(method));
            r.target = target;
            r.protocol = Some(match version {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            });
        });
    }

    /// Where to.
    pub fn aimed(&mut self, scheme: Scheme, authority: &Authority) {
        self.edit(|r| {
            r.scheme = scheme.as_str();
            r.authority = Some(authority.clone());
        });
    }

    /// How the rules name the host, if one does.
    ///
    /// A host that no rule names whole is what the agent made of it: a name under a wildcard, or one that is
    /// refused, may be a secret on its way out, and no sink repeats one that is known.
    pub fn named(&mut self, host: Option<&HostPattern>, holds_secret: impl Fn(&[u8]) -> bool) {
        self.host = host.cloned();
        if matches!(host, Some(HostPattern::Exact(_))) {
            return;
        }
        self.edit(|r| {
            let aimed = r.authority.as_ref();
            let known = aimed.filter(|aimed| holds_secret(aimed.host.to_string().as_bytes()));
            if let Some(port) = known.map(|aimed| aimed.port) {
                r.authority = Authority::parse(REDACTED_HOST, Some(port)).ok();
            }
        });
    }

    /// Policy allows it.
    pub fn permitted(&mut self, permit: &Permit) {
        self.edit(|r| {
            r.rule = permit.rule().cloned();
            r.decision = Verdict::Allow;
            if let Some(denial) = permit.would_deny() {
                r.decision = Verdict::Report;
                r.reason = Some(denial.reason.as_str());
                r.rule = denial.nearest.clone();
            }
        });
    }

    /// Credentials went in, and the request is about to leave. Each is counted once a request, in however
    /// many places and tries it goes in.
    ///
    /// Errors: the audit log cannot be written, and the operator wants nothing to leave unrecorded.
    pub async fn injected(&mut self, credentials: &[InjectedCredential]) -> Result<(), ProxyError> {
        if credentials.is_empty() {
            return Ok(());
        }
        let ledgers = self.ledgers.clone();
        self.edit(|r| {
            for InjectedCredential { name, version, .. } in credentials {
                match r.credentials.iter().position(|known| known == name) {
                    Some(at) => r.credential_versions[at] = *version,
                    None => {
                        r.credentials.push(name.clone());
                        r.credential_versions.push(*version);
                        if let Some(notes) = &mut r.span {
                            notes.versions.push(*version);
                        }
                        ledgers.metrics.injected(name);
                    }
                }
            }
        });
        let Some(record) = &self.record else {
            return Ok(());
        };
        let used = credentials.iter().map(|credential| UsedCredential {
            name: credential.name.clone(),
            version: credential.version,
            placement: credential.placement,
        });
        let witnessed = ledgers.sinks.uses(record, used.collect()).await;
        witnessed.map_err(|_| ProxyError::Unrecorded)
    }

    /// An origin refused these credentials, and this came of a second try.
    pub fn replay<'a>(&mut self, credentials: impl Iterator<Item = &'a str>, outcome: Replay) {
        for credential in credentials {
            let metrics = &self.ledgers.metrics;
            metrics.replay(credential, outcome.as_str());
        }
        self.edit(|r| r.replayed = outcome.was_sent());
    }

    /// Body bytes from the agent are counted here.
    pub fn uploads(&mut self) -> Arc<Uploaded> {
        self.uploaded.get_or_insert_default().clone()
    }

    /// How far its body has passed, if it has one.
    pub fn uploaded(&self) -> Option<Arc<Uploaded>> {
        self.uploaded.clone()
    }

    /// Whether the agent ended its body in the middle.
    pub fn upload_broke_off(&self) -> bool {
        self.uploaded
            .as_ref()
            .is_some_and(|uploaded| uploaded.is_broken())
    }

    /// Whether nothing of the agent's body came for too long.
    pub fn upload_was_slow(&self) -> bool {
        self.uploaded
            .as_ref()
            .is_some_and(|uploaded| uploaded.is_slow())
    }

    /// It goes to the origin: from here on the time is the origin's.
    pub fn sending(&mut self) {
        self.own_time.stop(Instant::now());
    }

    /// The origin's head arrived. A 401 to a request with these credentials speaks against them.
    pub fn answered<B>(&mut self, head: &Response<B>, credentials: &[InjectedCredential]) {
        let now = Instant::now();
        self.own_time.go_on(now);
        let upstream = now.duration_since(self.started);
        self.edit(|r| {
            r.status = Some(head.status().as_u16());
            r.upstream = Some(upstream);
            if let Some(notes) = &mut r.span {
                notes.protocol = Some(match head.version() {
                    Version::HTTP_2 => "2",
                    Version::HTTP_10 => "1.0",
                    _ => "1.1",
                });
                notes.pieces = pieces(head.headers());
            }
        });
        if head.status() == StatusCode::UNAUTHORIZED {
            for credential in credentials {
                self.ledgers.metrics.credential_rejected(&credential.name);
            }
        }
    }

    /// The head goes on to the agent.
    pub fn handed_on(&mut self) {
        self.own_time.stop(Instant::now());
    }

    /// It is a call to a token endpoint of this credential, and this became of it.
    pub fn token_call(&mut self, credential: &Arc<str>, outcome: TokenCall) {
        let metrics = &self.ledgers.metrics;
        metrics.token_call(credential, outcome.as_str());
        self.edit(|r| {
            r.token_call = Some(outcome.as_str());
            r.credentials = vec![credential.clone()];
            if let Some(notes) = &mut r.span {
                notes.versions.clear();
            }
        });
    }

    /// The answer had secrets in it, which were taken out.
    pub fn scrubbed(&mut self, hits: u64) {
        self.edit(|r| r.scrubbed += hits);
    }

    /// It came to this.
    pub fn billed(&mut self, cost: &Cost) {
        self.edit(|r| {
            r.cost = Some(Box::new(CostRecord {
                model: cost.model.clone(),
                input_tokens: cost.usage.total_input(),
                cached_tokens: cost.usage[TokenClass::CacheRead],
                output_tokens: cost.usage.total_output(),
                cost_usd: cost.cost,
                estimated: cost.estimated,
            }));
            if let Some(notes) = &mut r.span {
                notes.model = cost.notes.clone();
            }
        });
    }

    /// It is answered here, whole.
    pub fn told(&mut self, status: StatusCode) {
        self.edit(|r| r.status = Some(status.as_u16()));
        self.complete = true;
    }

    /// It is refused, or failed, here.
    pub fn refused(&mut self, error: &ProxyError) {
        let reached = matches!(
            error,
            ProxyError::Silent { .. } | ProxyError::Origin { .. } | ProxyError::Dial(_)
        ) && error.status() != StatusCode::FORBIDDEN;
        self.edit(|r| {
            if !reached {
                r.decision = Verdict::Deny;
                r.rule = error.rule().cloned().or(r.rule.take());
            }
            r.reason = Some(error.reason());
            r.status = Some(error.status().as_u16());
            r.budget = error.budget().map(Into::into);
            r.canary = canary(error);
            if let Some(model) = r.span.as_mut().and_then(|notes| notes.model.as_mut()) {
                model.budget = error.balance().map(budget_notes);
            }
        });
        // An origin that fails refuses nothing: the status says it.
        match reached {
            true => self.origin_failed(error),
            false => self.count_refusal(error.reason()),
        }
        if let ProxyError::Limit(reached) = error {
            self.ledgers.metrics.limit_reached(reached.limit);
        }
        if let ProxyError::Injection(error) = error
            && let InjectError::Unavailable { credential, .. } = &**error
        {
            self.ledgers.metrics.credential_unavailable(credential);
        }
        self.complete = true;
    }

    fn origin_failed(&self, error: &ProxyError) {
        let metrics = &self.ledgers.metrics;
        metrics.upstream_failed(self.host.as_ref(), error.reason());
        if let ProxyError::Dial(error) = error
            && let Some(cause) = error.handshake()
        {
            metrics.handshake_failed("origin", cause);
        }
    }

    fn count_refusal(&self, reason: &'static str) {
        let agent = self.record.as_ref().and_then(|r| r.agent.as_ref());
        let agent = agent.map_or("", Agent::name);
        self.ledgers.metrics.refused(agent, reason);
    }

    /// It is closed here before it was one, for this reason; there is nobody to tell by HTTP.
    pub fn closed(&mut self, reason: &'static str) {
        self.edit(|r| {
            r.decision = Verdict::Deny;
            r.reason = Some(reason);
            r.end = Some(reason);
        });
        self.count_refusal(reason);
        self.complete = true;
    }

    /// Something ended at a limit that has no answer of its own.
    pub fn reached(&self, limit: Limit) {
        self.ledgers.metrics.limit_reached(limit);
    }

    /// Body bytes to the agent.
    pub fn sent(&mut self, bytes: u64) {
        let started = self.started;
        self.edit(|r| {
            r.response_bytes += bytes;
            if bytes > 0 && r.upstream.is_some() && r.first_byte.is_none() {
                r.first_byte = Some(started.elapsed());
            }
            if let Some(notes) = &mut r.span
                && notes.pieces == Pieces::Many
            {
                notes.first_chunk.get_or_insert_with(|| started.elapsed());
            }
        });
    }

    /// Bytes of a tunnel or an upgraded connection, both ways.
    pub fn relayed(&mut self, sent: u64, received: u64) {
        self.edit(|r| {
            r.request_bytes = sent;
            r.response_bytes = received;
        });
        self.complete = true;
    }

    /// It goes on as a tunnel.
    pub fn tunnelled(&mut self) {
        self.edit(|r| {
            r.kind = Kind::Tunnel;
            r.status = Some(StatusCode::OK.as_u16());
        });
    }

    /// Nothing to account for: what follows has accounts of its own.
    pub fn discard(mut self) {
        self.record = None;
    }

    /// Goes on elsewhere; nothing is left here to settle.
    pub fn hand_over(&mut self) -> Self {
        Self {
            record: self.record.take(),
            uploaded: self.uploaded.take(),
            host: self.host.take(),
            started: self.started,
            own_time: self.own_time,
            complete: self.complete,
            in_flight: self.in_flight.take(),
            pace: self.pace.take(),
            ledgers: self.ledgers.clone(),
        }
    }

    /// It counts among the requests at once until its last byte.
    pub fn running(&mut self, pace: Option<RateGuard>) {
        self.pace = pace.map(Box::new);
    }

    /// The last byte is handed on. An agent that has it may ask again at once: over HTTP/2 the connection's own task
    /// writes it, and may be quicker than the stream's is in dropping this account.
    pub fn complete(&mut self) {
        self.complete = true;
        self.pace = None;
    }

    /// It ended early, for this reason.
    pub fn ended(&mut self, how: &'static str) {
        self.edit(|r| r.end = Some(how));
        self.complete = true;
    }

    /// The agent took nothing of it for too long, unless it is over already.
    pub fn stalled(&mut self) {
        if !self.complete {
            self.ended("agent_stalled");
        }
    }

    fn settle(&mut self, mut record: Box<Record>) {
        let took: Duration = self.started.elapsed();
        record.duration = Some(took);
        record.added = self.own_time.around_an_answer();
        if let Some(uploaded) = &self.uploaded {
            record.request_bytes = uploaded.octets();
        }
        if !self.complete {
            record.end = Some("agent_left");
        }
        self.ledgers.metrics.ended(&Ended {
            agent: record.agent.as_ref(),
            host: self.host.as_ref(),
            decision: record.decision,
            status: record.status.unwrap_or(0),
            took,
            upstream: record.upstream,
            added: record.added,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            scrubbed: record.scrubbed,
        });
        self.ledgers.sinks.settle(record);
    }
}

/// The placeholder that an exchange was refused for.
fn canary(error: &ProxyError) -> Option<CanaryRecord> {
    let ProxyError::Injection(error) = error else {
        return None;
    };
    let InjectError::Canary {
        credential,
        position,
        misuse,
    } = &**error
    else {
        return None;
    };
    Some(CanaryRecord {
        credential: credential.clone(),
        place: position.kind(),
        misuse: misuse.as_str(),
    })
}

/// A stream of events comes in pieces; so does what AWS frames.
fn pieces(headers: &HeaderMap) -> Pieces {
    const STREAMS: [&[u8]; 3] = [
        b"text/event-stream",
        b"application/vnd.amazon.eventstream",
        b"application/x-ndjson",
    ];
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(|kind| kind.as_bytes());
    match kind.is_some_and(|kind| STREAMS.iter().any(|stream| kind.starts_with(stream))) {
        true => Pieces::Many,
        false => Pieces::One,
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.settle(record);
        }
    }
}
