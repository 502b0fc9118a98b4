//! Owns every counter and histogram, one method per event. Label sets are bounded: a host that no
//! rule names never becomes a label.
//!
//! On an exchange's way, one counter is found by agent and host without a lock, and one is looked up for
//! each credential that goes in; the rest has no labels.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{
    Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use super::access_log::Verdict;
use super::audit::AuditStatus;
use super::audit_metrics::AuditMetrics;
use super::credential_metrics::{CredentialHealth, CredentialMetrics};
use super::families;
use super::gate;
use super::lanes::Lanes;
use super::sink_metrics::SinkMetrics;
use super::spend_metrics::{BudgetLeft, SpendMetrics};
use crate::types::agent::Agent;
use crate::types::host::HostPattern;
use crate::types::reached::Limit;

/// The process's metrics. Cloning is shallow.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    lanes: Arc<Lanes>,
    refusals: IntCounterVec,
    limits: IntCounterVec,
    seconds: Histogram,
    upstream_seconds: Histogram,
    added_latency: Histogram,
    in_flight: IntGauge,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    scrubbed: IntCounter,
    tunnels: IntCounter,
    open: IntGaugeVec,
    upstream_open: IntGauge,
    upstream_connects: Histogram,
    upstream_failures: IntCounterVec,
    handshake_failures: IntCounterVec,
    leaves: IntCounterVec,
    ca_expiry: IntGauge,
    ca_lifetime: IntGauge,
    reloads: IntCounterVec,
    last_reload_ok: IntGauge,
    policy_since: IntGauge,
    protected: IntGaugeVec,
    ready: IntGauge,
    dropped: IntCounterVec,
    credentials: CredentialMetrics,
    spending: SpendMetrics,
    audit: AuditMetrics,
    sinks: SinkMetrics,
    scraping: Mutex<()>,
}

/// An exchange, or a tunnel, that has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// Who asked; nobody before identification.
    pub agent: Option<&'a Agent>,
    /// How the rules name the host; nothing where none does.
    pub host: Option<&'a HostPattern>,
    /// What was decided.
    pub decision: Verdict,
    /// The status the agent got; 0 for none.
    pub status: u16,
    /// From first to last byte.
    pub took: Duration,
    /// Until the origin's response head.
    pub upstream: Option<Duration>,
    /// What of that, and of passing the head on, was the proxy's own doing.
    pub added: Option<Duration>,
    /// Body bytes from the agent.
    pub request_bytes: u64,
    /// Body bytes to the agent.
    pub response_bytes: u64,
    /// Places in its answer where a secret was taken out.
    pub scrubbed: u64,
}

/// Whether a protection of the process is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protected {
    /// It is, at least in part.
    Yes,
    /// It is not.
    No,
}

/// The access log as a sink, and why it loses records.
const ACCESS_LOG: [&str; 2] = ["access_log", "queue_full"];
/// Where the disk is full, or its file cannot be written for another reason.
const UNWRITTEN: [&str; 2] = ["access_log", "write_failed"];
/// The same of the audit log.
const AUDIT_LOG: [&str; 2] = ["audit_log", "queue_full"];

impl Metrics {
    /// What was sent, lost and taken out of telemetry.
    pub fn sinks(&self) -> &SinkMetrics {
        &self.0.sinks
    }

    /// Registers everything once.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let of = &registry;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        families::BUILD
            .int_gauges(of)?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let lanes = Arc::new(Lanes::new(families::REQUESTS.int_counters(of)?));
        let dropped = families::DROPPED.int_counters(of)?;
        let inner = Inner {
            sinks: SinkMetrics::new(of, dropped.clone())?,
            refusals: families::REFUSALS.int_counters(of)?,
            limits: families::LIMITS.int_counters(of)?,
            seconds: families::REQUEST_SECONDS.histogram(of)?,
            upstream_seconds: families::UPSTREAM_SECONDS.histogram(of)?,
            added_latency: families::ADDED_LATENCY.histogram(of)?,
            in_flight: families::IN_FLIGHT.int_gauge(of)?,
            request_bytes: families::REQUEST_BYTES.int_counter(of)?,
            response_bytes: families::RESPONSE_BYTES.int_counter(of)?,
            scrubbed: families::SCRUBBED.int_counter(of)?,
            tunnels: families::TUNNELS.int_counter(of)?,
            open: families::CONNECTIONS.int_gauges(of)?,
            upstream_open: families::UPSTREAM_OPEN.int_gauge(of)?,
            upstream_connects: families::UPSTREAM_CONNECT_SECONDS.histogram(of)?,
            upstream_failures: families::UPSTREAM_FAILURES.int_counters(of)?,
            handshake_failures: families::HANDSHAKE_FAILURES.int_counters(of)?,
            leaves: families::LEAF_CACHE.int_counters(of)?,
            ca_expiry: families::CA_EXPIRY.int_gauge(of)?,
            ca_lifetime: families::CA_LIFETIME.int_gauge(of)?,
            reloads: families::RELOADS.int_counters(of)?,
            last_reload_ok: families::LAST_RELOAD_OK.int_gauge(of)?,
            policy_since: families::POLICY_SINCE.int_gauge(of)?,
            protected: families::PROTECTED.int_gauges(of)?,
            ready: families::READY.int_gauge(of)?,
            dropped,
            credentials: CredentialMetrics::new(of)?,
            spending: SpendMetrics::new(of, lanes.clone())?,
            audit: AuditMetrics::new(of)?,
            scraping: Mutex::new(()),
            lanes,
            registry,
        };
        inner.begin();
        Ok(Self(Arc::new(inner)))
    }

    /// What calls of models used and cost.
    pub fn spending(&self) -> &SpendMetrics {
        &self.0.spending
    }

    /// An exchange or a tunnel began; the guard counts it out again.
    pub fn begun(&self) -> Open {
        Open::of(&self.0.in_flight)
    }

    /// An exchange ended.
    pub fn ended(&self, ended: &Ended<'_>) {
        let inner = &self.0;
        inner
            .lanes
            .count(ended.agent, ended.host, ended.decision, ended.status);
        inner.seconds.observe(ended.took.as_secs_f64());
        if let Some(upstream) = ended.upstream {
            inner.upstream_seconds.observe(upstream.as_secs_f64());
        }
        if let Some(added) = ended.added {
            inner.added_latency.observe(added.as_secs_f64());
        }
        inner.request_bytes.inc_by(ended.request_bytes);
        inner.response_bytes.inc_by(ended.response_bytes);
        inner.scrubbed.inc_by(ended.scrubbed);
    }

    /// A request was refused here, for this reason.
    pub fn refused(&self, agent: &str, reason: &str) {
        let agent = self.0.lanes.agent(agent);
        self.0.refusals.with_label_values(&[agent, reason]).inc();
    }

    /// A limit was reached: something was refused, closed or left aside for it.
    pub fn limit_reached(&self, limit: Limit) {
        let limits = &self.0.limits;
        limits.with_label_values(&[limit.setting()]).inc();
    }

    /// A tunnel was opened.
    pub fn tunnel(&self) {
        self.0.tunnels.inc();
    }

    /// A connection of this kind opened; the guard counts it out again.
    pub fn connection(&self, kind: &str) -> Open {
        Open::of(&self.0.open.with_label_values(&[kind]))
    }

    /// A pooled connection to an origin was opened and took so long; the guard counts it out again.
    pub fn upstream_connection(&self, took: Duration) -> Open {
        self.0.upstream_connects.observe(took.as_secs_f64());
        Open::of(&self.0.upstream_open)
    }

    /// A request got no answer from its origin: this stage failed.
    pub fn upstream_failed(&self, host: Option<&HostPattern>, stage: &str) {
        let host = self.0.lanes.host(host);
        let failures = &self.0.upstream_failures;
        failures.with_label_values(&[&host, stage]).inc();
    }

    /// A TLS handshake with an `agent` or an `origin` failed, for this reason.
    pub fn handshake_failed(&self, side: &str, cause: &str) {
        let failures = &self.0.handshake_failures;
        failures.with_label_values(&[side, cause]).inc();
    }

    /// A credential was put into a request.
    pub fn injected(&self, credential: &str) {
        self.0.credentials.injected(credential);
    }

    /// An origin refused a credential that can be renewed; `result` is what came of a second try.
    pub fn replay(&self, credential: &str, result: &str) {
        self.0.credentials.replay(credential, result);
    }

    /// An agent called a token endpoint of this credential; `kind` is what became of it.
    pub fn token_call(&self, credential: &str, kind: &str) {
        self.0.credentials.token_call(credential, kind);
    }

    /// A token of this grant was asked to be renewed, with this result.
    pub fn credential_refresh(&self, credential: &str, result: &str) {
        self.0.credentials.refresh(credential, result);
    }

    /// An origin answered 401 to this credential.
    pub fn credential_rejected(&self, credential: &str) {
        self.0.credentials.error(credential, "rejected");
    }

    /// A request was refused because there is no value of this credential to send.
    pub fn credential_unavailable(&self, credential: &str) {
        self.0.credentials.error(credential, "unavailable");
    }

    /// Whether a protection of the process is in force.
    pub fn protected(&self, name: &str, state: Protected) {
        let value = i64::from(state == Protected::Yes);
        self.0.protected.with_label_values(&[name]).set(value);
    }

    /// Documents were read again and are in force (`ok`), or are refused (`error`).
    pub fn reloaded(&self, result: &str) {
        let inner = &self.0;
        inner.reloads.with_label_values(&[result]).inc();
        inner.last_reload_ok.set(i64::from(result == "ok"));
        if result == "ok" {
            inner.policy_since.set(now());
        }
    }

    /// A sink lost so many records, for this reason.
    pub fn telemetry_dropped(&self, sink: &'static str, reason: &'static str, records: u64) {
        let dropped = self.0.dropped.with_label_values(&[sink, reason]);
        dropped.inc_by(records);
    }

    /// Everything, in the Prometheus text format, after what is only looked at when somebody asks has
    /// been taken over. Two who ask at once do not see each other's halves.
    pub fn scrape(&self, observed: &Observed) -> Vec<u8> {
        let inner = &self.0;
        let scraping = inner.scraping.lock();
        let _scraping = scraping.unwrap_or_else(PoisonError::into_inner);
        for (counter, total) in [
            (
                &inner.leaves.with_label_values(&["minted"]),
                observed.minted,
            ),
            (&inner.leaves.with_label_values(&["hit"]), observed.hits),
            (
                &inner.dropped.with_label_values(&ACCESS_LOG),
                observed.log_dropped,
            ),
            (
                &inner.dropped.with_label_values(&UNWRITTEN),
                observed.log_unwritten,
            ),
            (
                &inner.dropped.with_label_values(&AUDIT_LOG),
                observed.audit.as_ref().map_or(0, |audit| audit.lost),
            ),
        ] {
            // Counted elsewhere, since the start as well.
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        inner.audit.observe(observed.audit.as_ref());
        inner.sinks.log_withheld(gate::withheld());
        inner.ca_expiry.set(observed.ca_ends_at - now());
        inner.ca_lifetime.set(observed.ca_lifetime);
        inner.ready.set(i64::from(observed.ready));
        inner.credentials.observe(&observed.credentials, now());
        inner.spending.observe(observed.ledger, &observed.budgets);
        self.render()
    }

    /// What has been counted so far, in the Prometheus text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n").into_bytes(),
        }
    }
}

impl Inner {
    /// Series that are known from the start begin at 0: of one that appears with its first event, no
    /// increase is seen.
    fn begin(&self) {
        for result in ["ok", "error"] {
            self.reloads.with_label_values(&[result]);
        }
        for result in ["hit", "minted"] {
            self.leaves.with_label_values(&[result]);
        }
        for kind in ["agent", "intercepted", "tunnel"] {
            self.open.with_label_values(&[kind]);
        }
        for limit in Limit::ALL {
            self.limits.with_label_values(&[limit.setting()]);
        }
        for sink in [ACCESS_LOG, UNWRITTEN, AUDIT_LOG] {
            self.dropped.with_label_values(&sink);
        }
        self.last_reload_ok.set(1);
        self.policy_since.set(now());
    }
}

/// Unix time in seconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// What is read off elsewhere when somebody asks.
#[derive(Debug)]
pub struct Observed {
    /// Leaves minted since the start.
    pub minted: u64,
    /// Leaves taken from the cache.
    pub hits: u64,
    /// Access log records lost.
    pub log_dropped: u64,
    /// Records of the access log that could not be written.
    pub log_unwritten: u64,
    /// How the audit log is doing; nothing where it is off.
    pub audit: Option<AuditStatus>,
    /// When the certificate authority ends, in Unix seconds.
    pub ca_ends_at: i64,
    /// From its beginning to its end, in seconds.
    pub ca_lifetime: i64,
    /// Whether the process is ready.
    pub ready: bool,
    /// Every open credential.
    pub credentials: Vec<CredentialHealth>,
    /// Whether the ledger can be written, if there is one.
    pub ledger: Option<Result<(), ()>>,
    /// Where budgets stand.
    pub budgets: Vec<BudgetLeft>,
}

/// Counts something open out when it is dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Open {
    fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
