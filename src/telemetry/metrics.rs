//! Owns every counter and histogram, one method per event. Label sets are bounded: a host that no
//! rule names never becomes a label.

use std::sync::Arc;
use std::time::Duration;

use super::gate;
use super::sink_metrics::SinkMetrics;
use super::spend_metrics::SpendMetrics;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: Histogram,
    upstream_seconds: Histogram,
    tunnels: IntCounter,
    open: IntGaugeVec,
    injected: IntCounterVec,
    replays: IntCounterVec,
    token_calls: IntCounterVec,
    canaries: IntCounterVec,
    credential_ok: IntGaugeVec,
    credential_failing: IntGaugeVec,
    credential_state: IntGaugeVec,
    credential_expiry: IntGaugeVec,
    credential_renewal: IntGaugeVec,
    refreshes: IntCounterVec,
    handshake_failures: IntCounterVec,
    reloads: IntCounterVec,
    leaves: IntGaugeVec,
    log_dropped: IntGauge,
    ready: Gauge,
    spending: Arc<SpendMetrics>,
    sinks: SinkMetrics,
}

/// How a credential is doing, as metrics tell it.
#[derive(Clone, Copy, Debug)]
pub struct CredentialHealth {
    /// There is a value to use.
    pub usable: bool,
    /// Its source fails; the last good value may still be in use.
    pub failing: bool,
    /// Every state there is, and whether it is in it.
    pub states: &'static [&'static str],
    /// The one it is in.
    pub state: &'static str,
    /// When the value held ends, in Unix seconds.
    pub expires_at: Option<i64>,
    /// When its source last gave it, in Unix seconds.
    pub renewed_at: Option<i64>,
}

/// Bounds in seconds, from a refusal to a model that thinks for minutes.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

impl Metrics {
    /// What calls of models used and cost.
    pub fn spending(&self) -> &SpendMetrics {
        &self.spending
    }

    /// What was sent, lost and taken out of telemetry.
    pub fn sinks(&self) -> &SinkMetrics {
        &self.sinks
    }

    /// Registers everything once.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let gauges =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
                let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let histogram = |name: &str, help: &str| -> Result<Histogram, prometheus::Error> {
            let metric =
                Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let requests = counters(
            "tollgate_requests_total",
            "Exchanges by agent, decision and status class",
            &["agent", "decision", "code"],
        )?;
        let seconds = histogram(
            "tollgate_request_seconds",
            "Time from a request's head to its answer's last byte",
        )?;
        let upstream_seconds = histogram(
            "tollgate_upstream_seconds",
            "Time until an origin's response head",
        )?;
        let open = gauges(
            "tollgate_open_connections",
            "Connections of agents that are open",
            &["kind"],
        )?;
        let injected = counters(
            "tollgate_injections_total",
            "Requests a credential was put into",
            &["credential"],
        )?;
        let replays = counters(
            "tollgate_replays_total",
            "Requests whose credential an origin refused, by what came of a second try",
            &["credential", "result"],
        )?;
        let token_calls = counters(
            "tollgate_token_calls_total",
            "Agents' own calls to token endpoints, by what became of them",
            &["credential", "kind"],
        )?;
        let canaries = counters(
            "tollgate_refusals_total",
            "Requests refused here, by reason; canary means a placeholder where it does not belong",
            &["agent", "reason"],
        )?;
        let credential_ok = gauges(
            "tollgate_credential_ok",
            "1 while a credential has a usable value",
            &["credential"],
        )?;
        let credential_failing = gauges(
            "tollgate_credential_source_failing",
            "1 while a credential's source fails; its last good value may still be in use",
            &["credential"],
        )?;
        let credential_state = gauges(
            "tollgate_credential_state",
            "1 for the state a credential is in, 0 for every other",
            &["credential", "state"],
        )?;
        let credential_expiry = gauges(
            "tollgate_credential_expiry_timestamp_seconds",
            "When the value held ends; absent where that is not known",
            &["credential"],
        )?;
        let credential_renewal = gauges(
            "tollgate_credential_last_refresh_timestamp_seconds",
            "When a credential's source last gave its value",
            &["credential"],
        )?;
        let refreshes = counters(
            "tollgate_credential_refreshes_total",
            "Renewals of OAuth tokens by outcome",
            &["credential", "result"],
        )?;
        let handshake_failures = counters(
            "tollgate_tls_handshake_failures_total",
            "TLS handshakes that failed, by side",
            &["side"],
        )?;
        let reloads = counters(
            "tollgate_policy_reloads_total",
            "Policy reloads by result",
            &["result"],
        )?;
        let leaves = gauges(
            "tollgate_leaf_certificates",
            "Leaf certificates minted and served from the cache",
            &["result"],
        )?;
        let tunnels = IntCounter::new("tollgate_tunnels_total", "Connections passed on unread")?;
        let log_dropped = IntGauge::new(
            "tollgate_access_log_dropped",
            "Access log records lost since the start",
        )?;
        let ready = Gauge::new("tollgate_ready", "1 while the process is ready")?;
        registry.register(Box::new(tunnels.clone()))?;
        registry.register(Box::new(log_dropped.clone()))?;
        registry.register(Box::new(ready.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let spending = Arc::new(SpendMetrics::new(&registry)?);
        let sinks = SinkMetrics::new(&registry)?;
        Ok(Self {
            sinks,
            spending,
            registry,
            requests,
            seconds,
            upstream_seconds,
            tunnels,
            open,
            injected,
            replays,
            token_calls,
            canaries,
            credential_ok,
            credential_failing,
            credential_state,
            credential_expiry,
            credential_renewal,
            refreshes,
            handshake_failures,
            reloads,
            leaves,
            log_dropped,
            ready,
        })
    }

    /// An exchange ended.
    pub fn exchange(
        &self,
        agent: &str,
        decision: &str,
        status: u16,
        took: Duration,
        upstream: Option<Duration>,
    ) {
        let code = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "none",
        };
        self.requests
            .with_label_values(&[agent, decision, code])
            .inc();
        self.seconds.observe(took.as_secs_f64());
        if let Some(upstream) = upstream {
            self.upstream_seconds.observe(upstream.as_secs_f64());
        }
    }

    /// A request was refused here.
    pub fn refused(&self, agent: &str, reason: &str) {
        self.canaries.with_label_values(&[agent, reason]).inc();
    }

    /// A grant was asked to be renewed, with this result.
    pub fn credential_refresh(&self, credential: &str, result: &str) {
        self.refreshes
            .with_label_values(&[credential, result])
            .inc();
    }

    /// A tunnel was opened.
    pub fn tunnel(&self) {
        self.tunnels.inc();
    }

    /// A connection of this kind opened; the guard counts it out again.
    pub fn connection(&self, kind: &str) -> OpenConnection {
        let gauge = self.open.with_label_values(&[kind]);
        gauge.inc();
        OpenConnection(gauge)
    }

    /// A credential was put into a request.
    pub fn injected(&self, credential: &str) {
        self.injected.with_label_values(&[credential]).inc();
    }

    /// An origin refused a credential that can be renewed; `result` is what came of a second try.
    pub fn replay(&self, credential: &str, result: &str) {
        self.replays.with_label_values(&[credential, result]).inc();
    }

    /// An agent called a token endpoint of this credential; `kind` is what became of it.
    pub fn token_call(&self, credential: &str, kind: &str) {
        self.token_calls
            .with_label_values(&[credential, kind])
            .inc();
    }

    /// How a credential and its source are doing.
    pub fn credential(&self, credential: &str, health: &CredentialHealth) {
        for (gauge, value) in [
            (&self.credential_ok, health.usable),
            (&self.credential_failing, health.failing),
        ] {
            gauge.with_label_values(&[credential]).set(i64::from(value));
        }
        for state in health.states {
            self.credential_state
                .with_label_values(&[credential, *state])
                .set(i64::from(*state == health.state));
        }
        for (gauge, at) in [
            (&self.credential_expiry, health.expires_at),
            (&self.credential_renewal, health.renewed_at),
        ] {
            if let Some(at) = at {
                gauge.with_label_values(&[credential]).set(at);
            }
        }
    }

    /// Takes out what was said of credentials, before it is said anew: some may be gone.
    pub fn forget_credentials(&self) {
        self.credential_ok.reset();
        self.credential_failing.reset();
        self.credential_state.reset();
        self.credential_expiry.reset();
        self.credential_renewal.reset();
    }

    /// A TLS handshake with an agent or an origin failed.
    pub fn handshake_failed(&self, side: &str) {
        self.handshake_failures.with_label_values(&[side]).inc();
    }

    /// Policy was reloaded, or kept because the new one is bad.
    pub fn reloaded(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }

    /// Values that are read off rather than counted, taken before each scrape.
    pub fn observe(&self, observed: &Observed) {
        let saturating = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.leaves
            .with_label_values(&["minted"])
            .set(saturating(observed.minted));
        self.leaves
            .with_label_values(&["hit"])
            .set(saturating(observed.hits));
        self.log_dropped.set(saturating(observed.log_dropped));
        self.sinks.log_withheld(gate::withheld());
        self.ready.set(if observed.ready { 1.0 } else { 0.0 });
    }

    /// Everything, in the Prometheus text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n").into_bytes(),
        }
    }
}

/// Values that are read off elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// Leaves minted since the start.
    pub minted: u64,
    /// Leaves taken from the cache.
    pub hits: u64,
    /// Access log records lost.
    pub log_dropped: u64,
    /// Whether the process is ready.
    pub ready: bool,
}

/// Counts a connection out when it is dropped.
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
