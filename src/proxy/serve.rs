//! Owns HTTP spoken with an agent, whichever version: limits, drain, and the hand-over to a service.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::ResponseBody;
use super::taking::{Streams, TakenBody};
use crate::net::calm::Calm;
use crate::net::framing::MOST_HEAD_BYTES;
use crate::net::gate::Gate;
use crate::rt::drain::Drain;

/// The gate says no at its own bounds; the library's come into play only past those.
const SLACK: usize = 4096;

/// Serves HTTP/1.1 until the agent leaves or the process ends; upgrades included.
pub async fn http1<S, F, Fut>(stream: Gate<S>, drain: &Drain, service: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Response<ResponseBody>>,
{
    let state = stream.state();
    let service = service_fn(|request| {
        state.serving();
        // The library keeps room for this future as long as the connection lives: for a pointer to it
        // an idle connection has less to keep.
        let response = Box::pin(service(request));
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        // A limit on the number of fields, even the library's own of 100, would make it clear room for
        // them on the heap at each parse.
        .max_buf_size(MOST_HEAD_BYTES + SLACK)
        // An agent that hangs up ends its exchange: a model that nobody listens to still costs.
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an agent's connection ended early");
    }
}

/// Streams that the library may have to reset for what the agent sends on them. Each may have a request at
/// the origin already (CVE-2025-8671); agents that did not wait for the settings lose up to a hundred honestly.
const MOST_ERRORS: usize = 200;

/// Serves HTTP/2 until the agent leaves or the process ends.
pub async fn http2<S, F, Fut>(stream: Calm<S>, drain: &Drain, service: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    let service = service_fn(|request| {
        let response = service(request);
        async move { Ok::<_, Infallible>(response.await.map(TakenBody::new)) }
    });
    let connection = hyper::server::conn::http2::Builder::new(Streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(MOST_HEAD_BYTES as u32)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(MOST_ERRORS)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an agent's connection ended early");
    }
}
