//! Owns HTTP spoken with an agent, whichever version: limits, drain, and the hand-over to a service.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::body::{BodyError, ResponseBody};
use super::exchange::Exchange;
use super::passage::Connection;
use super::taking::{Streams, TakenBody};
use crate::net::calm::Calm;
use crate::net::gate::{Gate, InFlight};
use crate::types::limits::NO_CLOCK;
use crate::types::reached::{Limit, Reached};

/// The gate says no at its own bounds; the library's come into play only past those.
const SLACK: usize = 4096;
/// More fields than that cost the library room on the heap at each parse.
const FREE_FIELDS: usize = 100;
/// Most of an answer that waits in memory for one HTTP/2 stream's agent to take it. An agent may open its
/// windows wide and read nothing. The library's own bound, 400 KiB, would do for the bound on memory as well, but
/// leave little of it for what else an exchange has (`types/limits`).
const MOST_UNTAKEN: usize = 64 * 1024;
/// How long the farewell to an idle HTTP/2 connection may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves HTTP/1.1 until the agent leaves or the process ends; upgrades included.
pub async fn http1<S, F, Fut>(stream: Gate<S>, exchange: &Exchange, service: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Response<ResponseBody>>,
{
    let state = stream.state();
    let limits = &exchange.limits.requests;
    let service = service_fn(|request| {
        // The library keeps room for this future as long as the connection lives: for a pointer to it
        // an idle connection has less to keep. It is made before the guard, so that it can be made in its place.
        let response = Box::pin(service(request));
        let serving = state.serving();
        async move {
            let response = response.await;
            Ok::<_, Infallible>(response.map(|body| Answering {
                body,
                _serving: serving,
            }))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        // The library's own bound for a head, behind the gate's, would be 400 KiB.
        .max_buf_size(limits.head_size + SLACK)
        // An agent that hangs up ends its exchange: a model that nobody listens to still costs.
        .half_close(false);
    if limits.head_fields > FREE_FIELDS {
        builder.max_headers(limits.head_fields);
    }
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = exchange.drain.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an agent's connection ended early");
    }
    if let Some(limit) = state.waited_for() {
        exchange.ledgers.metrics().limit_reached(limit);
    }
}

/// An answer's body, and the sign that there is one until the library has all of it.
struct Answering {
    body: ResponseBody,
    _serving: InFlight,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Streams that the library may have to reset for what the agent sends on them. Each may have a request at
/// the origin already (CVE-2025-8671); agents that did not wait for the settings lose up to a hundred honestly.
const MOST_ERRORS: usize = 200;

/// Serves HTTP/2 until the agent leaves or the process ends. The service is told of each request whether a
/// limit leaves no room for it.
pub async fn http2<S, F, Fut>(
    stream: Calm<S>,
    exchange: &Exchange,
    connected: &Connection,
    service: F,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, Option<Reached>) -> Fut,
    Fut: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    let limits = &exchange.limits;
    let open = Arc::new(());
    let service = service_fn(|request| {
        let place = connected.place.stream();
        // The library's tasks hold it twice, before and while it runs.
        let response = Box::pin(service(request, place.as_ref().err().copied()));
        let held = (place.ok(), open.clone());
        async move {
            let response = response.await;
            Ok::<_, Infallible>(response.map(|body| TakenBody::new(body, held)))
        }
    });
    let metrics = exchange.ledgers.metrics().clone();
    let on_silence = move || metrics.limit_reached(Limit::Ping);
    let stream = stream.asked_after(limits.connections.ping, Box::new(on_silence));
    let connection = hyper::server::conn::http2::Builder::new(Streams)
        .timer(TokioTimer::new())
        // Asks; `net/calm` keeps the time for the answer.
        .keep_alive_interval(limits.connections.ping)
        .keep_alive_timeout(NO_CLOCK)
        .max_concurrent_streams(limits.streams.per_connection)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(MOST_UNTAKEN)
        .max_header_list_size(u32::try_from(limits.requests.head_size).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(MOST_ERRORS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = exchange.drain.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = idle(connected, &open, limits.connections.idle) => {
            exchange.ledgers.metrics().limit_reached(Limit::IdleConnection);
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an agent's connection ended early");
    }
}

/// Ends once there was no request for `limit`, and at most twice as long. Each request under way has a
/// clone of `open`.
async fn idle(connected: &Connection, open: &Arc<()>, limit: Duration) {
    let mut seen = connected.requests();
    loop {
        sleep(limit).await;
        let now = connected.requests();
        if now == seen && Arc::strong_count(open) == 1 {
            return;
        }
        seen = now;
    }
}
