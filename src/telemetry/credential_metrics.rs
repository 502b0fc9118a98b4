//! Owns what is counted of credentials: names from documents, never a value.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::families;

/// How a credential is doing, as metrics tell it.
#[derive(Clone, Debug)]
pub struct CredentialHealth {
    /// Its name.
    pub name: Arc<str>,
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
    /// Tells this opening of its source from earlier ones under the same name.
    pub opening: u64,
    /// How often its source has failed since it was opened.
    pub failures: u64,
}

pub(super) struct CredentialMetrics {
    injections: IntCounterVec,
    replays: IntCounterVec,
    token_calls: IntCounterVec,
    ok: IntGaugeVec,
    failing: IntGaugeVec,
    state: IntGaugeVec,
    expiry: IntGaugeVec,
    expiry_at: IntGaugeVec,
    refreshed_at: IntGaugeVec,
    refreshes: IntCounterVec,
    errors: IntCounterVec,
    /// Failures of each source that have been counted, and of which opening.
    counted: Mutex<HashMap<Arc<str>, (u64, u64)>>,
}

impl CredentialMetrics {
    /// Registers everything once.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            injections: families::INJECTIONS.int_counters(registry)?,
            replays: families::REPLAYS.int_counters(registry)?,
            token_calls: families::TOKEN_CALLS.int_counters(registry)?,
            ok: families::CREDENTIAL_OK.int_gauges(registry)?,
            failing: families::CREDENTIAL_FAILING.int_gauges(registry)?,
            state: families::CREDENTIAL_STATE.int_gauges(registry)?,
            expiry: families::CREDENTIAL_EXPIRY.int_gauges(registry)?,
            expiry_at: families::CREDENTIAL_EXPIRY_AT.int_gauges(registry)?,
            refreshed_at: families::CREDENTIAL_REFRESHED_AT.int_gauges(registry)?,
            refreshes: families::REFRESHES.int_counters(registry)?,
            errors: families::CREDENTIAL_ERRORS.int_counters(registry)?,
            counted: Mutex::default(),
        })
    }

    pub(super) fn injected(&self, credential: &str) {
        self.injections.with_label_values(&[credential]).inc();
    }

    pub(super) fn replay(&self, credential: &str, result: &str) {
        self.replays.with_label_values(&[credential, result]).inc();
    }

    pub(super) fn token_call(&self, credential: &str, kind: &str) {
        let calls = &self.token_calls;
        calls.with_label_values(&[credential, kind]).inc();
    }

    pub(super) fn refresh(&self, credential: &str, result: &str) {
        let refreshes = &self.refreshes;
        refreshes.with_label_values(&[credential, result]).inc();
    }

    pub(super) fn error(&self, credential: &str, kind: &str) {
        self.errors.with_label_values(&[credential, kind]).inc();
    }

    /// Says of each what holds now, and nothing any more of those that are gone.
    pub(super) fn observe(&self, credentials: &[CredentialHealth], now: i64) {
        for gauge in [
            &self.ok,
            &self.failing,
            &self.state,
            &self.expiry,
            &self.expiry_at,
            &self.refreshed_at,
        ] {
            gauge.reset();
        }
        for health in credentials {
            self.observe_one(health, now);
        }
    }

    fn observe_one(&self, health: &CredentialHealth, now: i64) {
        let name = [&*health.name];
        let say = |gauge: &IntGaugeVec, value: i64| gauge.with_label_values(&name).set(value);
        say(&self.ok, i64::from(health.usable));
        say(&self.failing, i64::from(health.failing));
        for state in health.states {
            let labels = [&*health.name, *state];
            let gauge = self.state.with_label_values(&labels);
            gauge.set(i64::from(*state == health.state));
        }
        if let Some(at) = health.expires_at {
            say(&self.expiry, at.saturating_sub(now));
            say(&self.expiry_at, at);
        }
        if let Some(at) = health.renewed_at {
            say(&self.refreshed_at, at);
        }
        for kind in ["rejected", "unavailable"] {
            // Known from the start, so that the first one shows as an increase.
            self.errors.with_label_values(&[name[0], kind]);
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let last = counted.insert(health.name.clone(), (health.opening, health.failures));
        let before = match last {
            Some((opening, failures)) if opening == health.opening => failures,
            _ => 0,
        };
        let failed = self.errors.with_label_values(&[name[0], "source_failed"]);
        failed.inc_by(health.failures.saturating_sub(before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder as _, TextEncoder};

    fn health(name: &str, opening: u64, failures: u64) -> CredentialHealth {
        CredentialHealth {
            name: name.into(),
            usable: true,
            failing: false,
            states: &["ok", "failing"],
            state: "ok",
            expires_at: Some(1_000),
            renewed_at: None,
            opening,
            failures,
        }
    }

    fn text(registry: &Registry) -> String {
        let mut text = Vec::new();
        let families = registry.gather();
        TextEncoder::new().encode(&families, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_is_gone_is_told_no_more_and_what_it_counted_stays() {
        let registry = Registry::new();
        let metrics = CredentialMetrics::new(&registry).unwrap();
        metrics.observe(&[health("a", 1, 2), health("b", 2, 0)], 900);
        let both = text(&registry);
        assert!(both.contains(r#"tollgate_credential_expiry_seconds{credential="a"} 100"#));
        assert!(both.contains(r#"tollgate_credential_ok{credential="b"} 1"#));
        metrics.observe(&[health("a", 1, 2)], 1_100);
        let one = text(&registry);
        assert!(one.contains(r#"tollgate_credential_expiry_seconds{credential="a"} -100"#));
        assert!(!one.contains(r#"tollgate_credential_ok{credential="b"}"#));
        let failed = r#"tollgate_credential_errors_total{credential="a",kind="source_failed"} "#;
        assert!(one.contains(&format!("{failed}2")), "{one}");
        // Its source was opened anew: what the first one counted is not counted again, nor lost.
        metrics.observe(&[health("a", 3, 1)], 1_100);
        assert!(text(&registry).contains(&format!("{failed}3")));
    }
}
