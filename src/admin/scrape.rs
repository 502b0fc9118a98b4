//! Owns `/metrics`: what is counted as it happens, and what is only looked at when somebody asks.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::api::Admin;
use super::spend;
use crate::credential::held::{CredentialState, HeldCredential};
use crate::telemetry::metrics::{CredentialHealth, Observed};

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let metrics = admin.ledgers.metrics();
    metrics.forget_credentials();
    for credential in (admin.credentials)() {
        metrics.credential(credential.name(), &health(&credential));
    }
    spend::observe(&admin, metrics).await;
    metrics
        .audit()
        .observe(admin.ledgers.sinks().audit.status().as_ref());
    let leaves = admin.leaves.stats();
    metrics.observe(&Observed {
        minted: leaves.minted,
        hits: leaves.hits,
        log_dropped: admin.ledgers.log().dropped(),
        ready: admin.blocked().is_empty(),
    });
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics.render(),
    )
        .into_response()
}

fn health(credential: &HeldCredential) -> CredentialHealth {
    let status = credential.status();
    let seconds = |at: Option<String>| {
        let at: jiff::Timestamp = at?.parse().ok()?;
        Some(at.as_second())
    };
    CredentialHealth {
        usable: credential.current().is_ok(),
        // One that may be missing, and was never there, is not failing.
        failing: status.last_error.is_some() && (status.version > 0 || !status.optional),
        states: CredentialState::WORDS,
        state: status.state.as_str(),
        expires_at: seconds(status.expires_at),
        renewed_at: seconds(status.last_renewal),
    }
}
