//! What was allowed and is no longer: streams that are open end, others stay.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::client::TlsStream;

use super::support::echo::{self, HOST, PLACEHOLDER};
use super::support::proxy::Proxy;
use super::support::{hello, tunnel, wire};

/// The documents that [`echo::in_front_of`] writes, with other rules.
fn documents(proxy: &Proxy, rules: &str) -> String {
    let now = std::fs::read_to_string(proxy.file("documents.yaml")).unwrap();
    let credential = now
        .split("---\n")
        .find(|d| d.contains("EgressCredential"))
        .unwrap();
    format!(
        "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: policy-0}}\nspec:\n  egress:\n{rules}---\n{credential}"
    )
}

const SAME: &str =
    "    - {hosts: [echo.example.com], credentials: [echo]}\n    - {hosts: [more.example.org]}\n";
const NO_HOST: &str = "    - {hosts: [more.example.com]}\n";
const NO_PATH: &str =
    "    - {hosts: [echo.example.com], credentials: [echo], http: [{paths: [/other/**]}]}\n";
const NO_CREDENTIAL: &str = "    - {hosts: [echo.example.com], tls: Intercept}\n";

async fn websocket(proxy: &Proxy) -> TlsStream<tokio::net::TcpStream> {
    let mut stream = tunnel::tls(&proxy.bare_door(), HOST, &[b"http/1.1"]).await;
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
    );
    assert_eq!(wire::say(&mut stream, head.as_bytes()).await.status, 101);
    stream
}

#[tokio::test]
async fn a_websocket_ends_with_what_allowed_it() {
    for rules in [NO_HOST, NO_PATH, NO_CREDENTIAL] {
        let echo = echo::echo_http1().await;
        let proxy = echo::in_front_of(&echo)
            .setting("ca: {nameConstraints: off}")
            .start()
            .await;
        let mut stream = websocket(&proxy).await;
        proxy.reload(&documents(&proxy, SAME)).await;
        let ping = b"\x81\x84\0\0\0\0ping";
        stream.write_all(ping).await.unwrap();
        let mut echoed = [0; 6];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"\x81\x04ping", "a change that concerns others");
        proxy.reload(&documents(&proxy, rules)).await;
        wire::rest(&mut stream).await;
        let record = proxy.access_log(1).await.remove(0);
        assert_eq!(record["end"], "revoked", "{rules}: {record}");
    }
}

#[tokio::test]
async fn a_tunnel_ends_with_the_rule_that_allowed_it() {
    const TUNNEL: &str = "    - {hosts: [tunnel.example.com, more.example.org]}\n";
    const INTERCEPT: &str = "    - {hosts: [tunnel.example.com], tls: Intercept}\n";
    for rules in [NO_HOST, INTERCEPT] {
        let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let echo = echo::echo().await;
        let proxy = echo::in_front_of(&echo)
            .setting("ca: {nameConstraints: off}")
            .resolve("tunnel.example.com", origin.local_addr().unwrap())
            .policy("- {hosts: [tunnel.example.com]}")
            .start()
            .await;
        let (mut quiet, _) = tunnel::connect(&proxy.bare_door(), "tunnel.example.com:443").await;
        let (mut stream, _) = tunnel::connect(&proxy.bare_door(), "tunnel.example.com:443").await;
        let (mut waiting, _) = origin.accept().await.unwrap();
        let (mut dialled, _) = origin.accept().await.unwrap();
        let hello = hello::naming("tunnel.example.com");
        stream.write_all(&hello).await.unwrap();
        dialled.read_exact(&mut vec![0; hello.len()]).await.unwrap();
        proxy.reload(&documents(&proxy, TUNNEL)).await;
        stream.write_all(b"more").await.unwrap();
        dialled.read_exact(&mut [0; 4]).await.unwrap();
        proxy.reload(&documents(&proxy, rules)).await;
        wire::rest(&mut stream).await;
        assert_eq!(proxy.access_log(1).await[0]["end"], "revoked");
        // One that was opened before and says its name only now is too late.
        quiet.write_all(&hello).await.ok();
        wire::rest(&mut quiet).await;
        assert_eq!(proxy.access_log(2).await[1]["end"], "revoked");
        assert!(wire::rest(&mut waiting).await.is_empty());
    }
}
