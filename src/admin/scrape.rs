//! Owns `/metrics`: what is counted as it happens, and what is only looked at when somebody asks.

use std::sync::Arc;

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
    let about = admin.authority.describe();
    let ca_ends_at = seconds(&about.not_after).unwrap_or_default();
    let observed = Observed {
        minted: leaves.minted,
        hits: leaves.hits,
        log_dropped: admin.ledgers.log().dropped(),
        log_unwritten: admin.ledgers.log().unwritten(),
        audit: admin.ledgers.sinks().audit.status(),
        ca_ends_at,
        ca_lifetime: seconds(&about.not_before).map_or(0, |begin| ca_ends_at - begin),
        ready: admin.blocked().is_empty(),
        credentials: (admin.credentials)().iter().map(|c| health(c)).collect(),
        ledger,
        budgets,
    };
    let text = admin.ledgers.metrics().scrape(&observed);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// A moment as status tells it (RFC 3339), in Unix seconds.
fn seconds(moment: &str) -> Option<i64> {
    let at: jiff::Timestamp = moment.parse().ok()?;
    Some(at.as_second())
}

fn health(credential: &HeldCredential) -> CredentialHealth {
    let status = credential.status();
    CredentialHealth {
        name: credential.name().into(),
        usable: credential.current().is_ok(),
        // One that may be missing, and was never there, is not failing.
        failing: status.last_error.is_some() && (status.version > 0 || !status.optional),
        states: CredentialState::WORDS,
        state: status.state.as_str(),
        expires_at: status.expires_at.as_deref().and_then(seconds),
        renewed_at: status.last_renewal.as_deref().and_then(seconds),
        opening: credential.opening(),
        failures: credential.failures(),
    }
}
