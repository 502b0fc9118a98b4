//! Owns `/metrics`: what is counted as it happens, and what is only looked at when somebody asks.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::api::Admin;
use super::spend;
use crate::credential::held::{CredentialState, HeldCredential};
use crate::telemetry::credential_metrics::CredentialHealth;
use crate::telemetry::metrics::Observed;

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let (ledger, budgets) = spend::observe(&admin).await;
    let leaves = admin.leaves.stats();
    let observed = Observed {
        minted: leaves.minted,
        hits: leaves.hits,
        log_dropped: admin.ledgers.log().dropped(),
        ca_ends_at: unix(admin.authority.not_after()),
        ready: admin.blocked().is_empty(),
        credentials: (admin.credentials)().iter().map(|c| health(c)).collect(),
        ledger,
        budgets,
    };
    let text = admin.ledgers.metrics().scrape(&observed);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

fn health(credential: &HeldCredential) -> CredentialHealth {
    let status = credential.status();
    let seconds = |at: Option<String>| {
        let at: jiff::Timestamp = at?.parse().ok()?;
        Some(at.as_second())
    };
    CredentialHealth {
        name: credential.name().into(),
        usable: credential.current().is_ok(),
        // One that may be missing, and was never there, is not failing.
        failing: status.last_error.is_some() && (status.version > 0 || !status.optional),
        states: CredentialState::WORDS,
        state: status.state.as_str(),
        expires_at: seconds(status.expires_at),
        renewed_at: seconds(status.last_renewal),
        opening: credential.opening(),
        failures: credential.failures(),
    }
}
