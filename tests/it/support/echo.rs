//! An origin for the corners of HTTP: mirrors, sinks, streams on command, WebSocket, gRPC.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::origin::{Exchange, Origin};
use super::proxy::{ProxyBuilder, proxy};
use super::recorded::sha256;
use super::reply::{self, Reply};

/// The key that only the proxy may know: `Authorization: Bearer` on every path but those below `/open/`.
pub const REAL_KEY: &str = "echo-REAL-5e1c9a7b3d2f4860-REAL";
pub const HOST: &str = "echo.example.com";

pub struct Echo {
    pub origin: Origin,
    gate: Arc<Semaphore>,
}

impl Echo {
    /// Lets `/gated` send one more event.
    pub fn release(&self) {
        self.gate.add_permits(1);
    }
}

pub async fn echo() -> Echo {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let origin = Origin::tls(&[HOST], move |exchange| answer(exchange, opened.clone())).await;
    Echo { origin, gate }
}

pub async fn echo_http1() -> Echo {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let origin = Origin::tls_http1(&[HOST], move |exchange| answer(exchange, opened.clone())).await;
    Echo { origin, gate }
}

pub async fn echo_plain() -> Echo {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let origin = Origin::plain(&[HOST], move |exchange| answer(exchange, opened.clone())).await;
    Echo { origin, gate }
}

/// What the agent holds instead of the key.
pub const PLACEHOLDER: &str = "echo-placeholder-0001";

/// A proxy that lets agents reach it with a placeholder.
pub fn in_front_of(echo: &Echo) -> ProxyBuilder {
    proxy()
        .origin(&echo.origin)
        .policy(
            "
            - hosts: [echo.example.com]
              ambiguousPaths: Pass
              credentials: [echo]
              route: echo
            ",
        )
        .credential_file(
            "echo",
            REAL_KEY,
            "
            hosts: [echo.example.com]
            ports: [443, 80]
            placements: [{bearer: {}}]
            placeholder: {value: echo-placeholder-0001, env: [ECHO_KEY]}
            ",
        )
}

async fn answer(mut exchange: Exchange, gate: Arc<Semaphore>) -> Reply {
    let path = exchange.head.path().to_owned();
    let right = exchange.head.bearer() == Some(REAL_KEY);
    if !right && !path.starts_with("/open/") {
        return reply::with(
            reply::text(401, "wrong key\n"),
            "www-authenticate",
            "Bearer",
        );
    }
    match path.as_str() {
        "/mirror" => mirror(exchange),
        "/sink" => {
            let body = exchange.body().await;
            let digest: String = sha256(&body).iter().map(|b| format!("{b:02x}")).collect();
            reply::json(200, &json!({"bytes": body.len(), "sha256": digest}))
        }
        "/trailers" => trailers(),
        "/gated" => gated(gate),
        "/no-content" => reply::status(204),
        "/not-modified" => reply::with(reply::status(304), "etag", "\"v1\""),
        "/refuse-upload" => reply::text(413, "too large\n"), // without a look at the body
        "/ws" => websocket(exchange),
        path if path.starts_with("/bytes/") => {
            let count = path["/bytes/".len()..].parse().unwrap();
            reply::with_body(200, "application/octet-stream", pattern(count))
        }
        path if path.starts_with("/echo.Echo/") => grpc(exchange),
        _ => {
            exchange.body().await;
            let head = &exchange.head;
            reply::json(
                200,
                &json!({"method": head.method.as_str(), "target": head.target, "version": format!("{:?}", head.version)}),
            )
        }
    }
}

/// Bytes that tell where they stand.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap())
        .collect()
}

/// Sends each piece of the body back as it comes.
fn mirror(exchange: Exchange) -> Reply {
    let kind = exchange.head.header("content-type").map(ToOwned::to_owned);
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::streamed(frames(exchange, None));
    reply::with(
        reply,
        "content-type",
        kind.as_deref().unwrap_or("application/octet-stream"),
    )
}

/// gRPC over HTTP/2: every message back as it comes, the status in trailers.
fn grpc(exchange: Exchange) -> Reply {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-verdict", HeaderValue::from_static("fine"));
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::streamed(frames(exchange, Some(trailers)));
    reply::with(reply, "content-type", "application/grpc")
}

fn frames(
    mut exchange: Exchange,
    trailers: Option<HeaderMap>,
) -> impl futures_util::Stream<Item = Frame<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(chunk) = exchange.chunk().await {
            if sender.send(Frame::data(chunk)).await.is_err() {
                return; // nobody listens any more
            }
        }
        if let Some(trailers) = trailers {
            sender.send(Frame::trailers(trailers)).await.ok();
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    })
}

fn trailers() -> Reply {
    let mut fields = HeaderMap::new();
    fields.insert("x-checksum", HeaderValue::from_static("abc123"));
    let mut reply = reply::status(200);
    let chunks = vec![Bytes::from("one,"), Bytes::from("two")];
    *reply.body_mut() = reply::with_trailers(chunks, fields);
    reply::with(reply, "trailer", "x-checksum")
}

/// Three events, each only when the test says so.
fn gated(gate: Arc<Semaphore>) -> Reply {
    let events = futures_util::stream::iter(1..=3).then(move |number| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Frame::data(Bytes::from(format!("event: tick\ndata: {number}\n\n")))
        }
    });
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::streamed(events);
    reply::with(reply, "content-type", "text/event-stream")
}

/// RFC 6455 over HTTP/1.1, RFC 8441 over HTTP/2.
fn websocket(exchange: Exchange) -> Reply {
    let key = exchange
        .head
        .header("sec-websocket-key")
        .map(ToOwned::to_owned);
    let extended = exchange.head.method == "CONNECT";
    if key.is_none() && !extended {
        return reply::status(426);
    }
    tokio::spawn(async move {
        let Ok(upgraded) = exchange.upgrade.await else {
            return;
        };
        let mut socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let Some(key) = key else {
        return reply::status(200);
    };
    let reply = reply::with(reply::status(101), "upgrade", "websocket");
    let reply = reply::with(reply, "connection", "upgrade");
    reply::with(
        reply,
        "sec-websocket-accept",
        &derive_accept_key(key.as_bytes()),
    )
}
