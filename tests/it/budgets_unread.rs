//! Requests that a budget counts and whose answers it does not read: under way until the last octet.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::client::TlsStream;

use super::support::echo::{self, HOST, PLACEHOLDER};
use super::support::operator::{PATIENCE, until};
use super::support::origin::Origin;
use super::support::proxy::{Proxy, proxy};
use super::support::wire::{self, Answer};
use super::support::{reply, tunnel};

/// Answers begin at once and end when the gate says so, those below `/failed` with an error.
async fn origin(gate: &Arc<Semaphore>) -> Origin {
    let gate = gate.clone();
    Origin::tls_http1(&[HOST], move |exchange| {
        let gate = gate.clone();
        async move {
            let failed = exchange.head.path().starts_with("/failed");
            let mut reply = reply::status(if failed { 500 } else { 200 });
            let begun = stream::iter([Frame::data(Bytes::from_static(b"begun"))]);
            let ended = stream::once(async move {
                gate.acquire().await.unwrap().forget();
                Frame::data(Bytes::from_static(b"ended"))
            });
            *reply.body_mut() = reply::streamed(begun.chain(ended));
            reply
        }
    })
    .await
}

/// Sends a request and reads the answer's head.
async fn begin(proxy: &Proxy, path: &str, fields: &str) -> (TlsStream<TcpStream>, Answer) {
    let mut stream = tunnel::tls(&proxy.bare_door(), HOST, &[b"http/1.1"]).await;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n{fields}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = wire::hear(&mut stream).await;
    (stream, answer)
}

#[tokio::test]
async fn a_download_counts_among_the_requests_at_once_until_it_ends() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = origin(&gate).await;
    let proxy = proxy()
        .origin(&origin)
        .policy(&format!("- {{hosts: [{HOST}], tls: Intercept}}"))
        .document(
            "EgressBudget",
            "few",
            &format!("match: {{hosts: [{HOST}]}}\nconcurrency: 2\n"),
        )
        .start()
        .await;
    for (path, status) in [("/held", 200), ("/failed", 500)] {
        let close = "Connection: close\r\n";
        let mut held = Vec::new();
        for _ in 0..2 {
            let (stream, answer) = begin(&proxy, path, close).await;
            assert_eq!(answer.status, status);
            held.push(stream);
        }
        for _ in 0..3 {
            let (_, refused) = begin(&proxy, path, close).await;
            assert_eq!(refused.status, 429, "{path}: {refused:?}");
        }
        gate.add_permits(2);
        for mut stream in held {
            let rest = wire::rest(&mut stream).await;
            assert!(String::from_utf8_lossy(&rest).contains("ended"), "{path}");
        }
        // Whoever has all of an answer may ask again at once.
        gate.add_permits(1);
        let (mut stream, answer) = begin(&proxy, path, close).await;
        assert_eq!(answer.status, status);
        wire::rest(&mut stream).await;
    }
    assert_eq!(origin.requests().len(), 6);
}

/// What it carries is not counted: that it was asked for is, and that it is there.
#[tokio::test]
async fn a_websocket_is_one_request_that_is_under_way_until_it_ends() {
    let echo = echo::echo_http1().await;
    let budget = format!(
        "match: {{hosts: [{HOST}]}}\nconcurrency: 1\nlimits: [{{unit: requests, max: 10, window: total}}]\n"
    );
    let proxy = echo::in_front_of(&echo)
        .document("EgressBudget", "few", &budget)
        .start()
        .await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (socket, answer) = begin(&proxy, "/ws", upgrade).await;
    assert_eq!(answer.status, 101);
    assert!(
        answer.header("x-tollgate-budget-remaining").is_some(),
        "{answer:?}"
    );
    let books = proxy.books_of(1).await;
    assert_eq!(books.entries[0].ending(), "complete");
    let (_, refused) = begin(&proxy, "/bytes/1", "").await;
    assert_eq!(refused.status, 429, "{refused:?}");
    drop(socket);
    until("there is room again", PATIENCE, async || {
        begin(&proxy, "/bytes/1", "").await.1.status == 200
    })
    .await;
}
