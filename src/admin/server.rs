//! Owns the operators' port: probes and metrics for everyone who reaches it, the JSON API for who
//! holds the token. A page in a browser reaches neither (`Host` is checked).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{self, Admin};
use super::guests::{Guest, Guests, Seat};
use super::problem::problem;
use super::{amend, denials, scrape, spend, tap, witness};
use crate::types::host::Authority;
use crate::types::limits::ADMIN_CONNECTIONS;

/// From a connection's beginning, or its last answer, to the end of a head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// The longest head, in octets.
const HEAD_SIZE: usize = 16 << 10;

/// Serves until `stop` ends, and what was asked until then to its end.
pub async fn run(
    listener: TcpListener,
    admin: Arc<Admin>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let service = TowerToHyperService::new(router(admin));
    let guests = Guests::new(ADMIN_CONNECTIONS);
    let (ending, under_way) = (CancellationToken::new(), TaskTracker::new());
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = stop.as_mut() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin port took no connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Some(seat) = guests.seat().await else {
            continue;
        };
        under_way.spawn(serve(stream, service.clone(), seat, ending.clone()));
    }
    drop(listener);
    ending.cancel();
    under_way.close();
    under_way.wait().await;
}

async fn serve(
    stream: TcpStream,
    router: TowerToHyperService<Router>,
    seat: Seat,
    ending: CancellationToken,
) {
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(seat.guest().clone());
        router.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.taken() => return,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin port broke off");
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
        Some(shown) if bool::from(shown.ct_eq(admin.token.expose())) => {
            if let Some(guest) = request.extensions().get::<Guest>() {
                guest.let_in();
            }
            next.run(request).await
        }
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
