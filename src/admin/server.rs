//! Owns the operators' port: probes and metrics for everyone who reaches it, the JSON API for who
//! holds the token. A page in a browser reaches neither (`Host` is checked).

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::api::{self, Admin};
use super::problem::problem;
use super::{amend, denials, scrape, spend, tap, witness};
use crate::types::host::Authority;

/// Serves until `stop` ends.
pub async fn run(
    listener: TcpListener,
    admin: Arc<Admin>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    if let Err(error) = axum::serve(listener, router(admin))
        .with_graceful_shutdown(stop)
        .await
    {
        tracing::error!(%error, "the admin port failed");
    }
}

fn router(admin: Arc<Admin>) -> Router {
    let protected = Router::new()
        .route("/v1/credentials", get(api::credentials))
        .route("/v1/credentials/{name}/refresh", post(api::refresh))
        .route("/v1/why", get(api::why))
        .route("/v1/policy", get(api::policy))
        .route("/v1/environment", get(api::environment))
        .route("/v1/ca", get(api::ca))
        .route("/v1/hardening", get(api::hardening))
        .route("/v1/spend", get(spend::spend))
        .route("/v1/budgets", get(spend::budgets))
        .route("/v1/budgets/{name}/raise", post(amend::raise))
        .route("/v1/budgets/{name}/reset", post(amend::reset))
        .route("/v1/denials", get(denials::denials))
        .route("/v1/tap", get(tap::tap))
        .route("/v1/audit", get(witness::audit))
        .route("/v1/reload", post(api::reload))
        .route("/quitquitquit", post(api::quit))
        .route_layer(middleware::from_fn_with_state(admin.clone(), token))
        .route_layer(middleware::from_fn_with_state(
            admin.clone(),
            witness::witness,
        ));
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(api::readyz))
        .route("/metrics", get(scrape::metrics))
        .merge(protected)
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "no such path on the admin port") })
        .layer(middleware::from_fn(own_host))
        .with_state(admin)
}

/// `Authorization: Bearer` with the admin token, compared in constant time.
async fn token(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match shown {
        Some(shown) if bool::from(shown.ct_eq(admin.token.expose())) => next.run(request).await,
        _ => {
            let mut response = problem(
                StatusCode::UNAUTHORIZED,
                "the admin API needs `Authorization: Bearer TOKEN`; the token is in stateDir/admin.token",
            );
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer realm=\"tollgate\""),
            );
            response
        }
    }
}

/// DNS rebinding gives a page of the public web this port's address, but not its name (CVE-2025-23217).
async fn own_host(request: Request, next: Next) -> Response {
    let named = request
        .headers()
        .get(header::HOST)
        .and_then(|h| h.to_str().ok());
    let ours = named.is_none_or(|named| {
        Authority::parse(named, Some(80)).is_ok_and(|named| !named.host.is_public_name())
    });
    match ours {
        true => next.run(request).await,
        false => problem(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host field names a public host",
        ),
    }
}
