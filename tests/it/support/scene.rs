//! Owns the place of an attack: one origin under several names, a proxy before it, and the questions
//! every refusal must answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::door::Door;
use super::origin::Origin;
use super::proxy::{Proxy, ProxyBuilder, proxy};
use super::wire::{self, Answer};
use super::{reply, tunnel};

pub const REAL_KEY: &str = "scene-REAL-9c1d77aa-REAL";
pub const PLACEHOLDER: &str = "scene-placeholder-0001";
/// Has a credential, in every kind of place.
pub const HOST: &str = "echo.example.com";
/// Has a credential and rules for methods and paths.
pub const PATHS: &str = "paths.example.com";
/// Is allowed, intercepted, and has no credential.
pub const BARE: &str = "bare.example.com";
/// Is allowed by host alone.
pub const TUNNEL: &str = "tunnel.example.com";

pub struct Scene {
    pub origin: Origin,
    pub proxy: Proxy,
    pub door: Door,
    records: AtomicUsize,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

/// The origin that tells nothing but that it was reached.
pub async fn origin() -> Origin {
    Origin::tls(&[HOST, PATHS, BARE, TUNNEL], |mut exchange| async move {
        exchange.body().await;
        reply::text(200, "reached")
    })
    .await
}

pub fn in_front_of(origin: &Origin) -> ProxyBuilder {
    proxy()
        .origin(origin)
        .policy(
            "
            - {hosts: [echo.example.com], credentials: [scene], route: echo}
            - hosts: [paths.example.com]
              credentials: [scene]
              http:
                - {methods: [GET, POST], paths: [/v1/**]}
            - {hosts: [paths.example.com], action: Deny, http: [{paths: [/v1/admin/**]}]}
            - {hosts: [bare.example.com], tls: Intercept}
            - {hosts: [tunnel.example.com]}
            ",
        )
        .credential_file(
            "scene",
            REAL_KEY,
            "
            hosts: [echo.example.com, paths.example.com]
            placements:
              - bearer: {}
              - basic: {}
              - header: {name: x-api-key}
              - query: {name: key}
              - path: {template: '/bot{}/'}
              - cookie: {name: session}
            placeholder: {value: scene-placeholder-0001}
            ",
        )
}

impl Scene {
    pub async fn new() -> Self {
        let origin = origin().await;
        let proxy = in_front_of(&origin).start().await;
        Self::with(origin, proxy).await
    }

    pub async fn with(origin: Origin, proxy: Proxy) -> Self {
        Self {
            door: proxy.door().await,
            origin,
            proxy,
            records: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    /// A connection to the agents' port.
    pub async fn outside(&self) -> TcpStream {
        TcpStream::connect(self.proxy.addr).await.unwrap()
    }

    /// HTTP/1.1 within TLS that the proxy ends.
    pub async fn inside(&self, host: &str) -> TlsStream<TcpStream> {
        tunnel::tls(&self.door, host, &[b"http/1.1"]).await
    }

    /// One request within TLS, on a connection of its own.
    pub async fn ask(&self, host: &str, head: &str) -> Answer {
        wire::say(&mut self.inside(host).await, head.as_bytes()).await
    }

    /// The answer is a refusal with a reason and a way out, on record, and the origin knows nothing of it.
    #[track_caller]
    pub fn refused(
        &self,
        case: &str,
        answer: &Answer,
        status: u16,
        reason: &str,
        says: &str,
    ) -> impl Future<Output = Value> {
        assert_eq!(answer.status, status, "{case}: {answer:?}");
        let proxy_status = answer.header("proxy-status").unwrap_or_default();
        assert!(
            proxy_status.starts_with("tollgate; error=") && proxy_status.contains(reason),
            "{case}: {proxy_status}"
        );
        assert!(answer.header("x-tollgate-request-id").is_some(), "{case}");
        let told = match answer.header("content-type") {
            Some("application/json") => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(body["type"], "error", "{case}: {body}");
                body["error"]["message"].as_str().unwrap().to_owned()
            }
            _ => answer.text(),
        };
        assert!(told.contains(says), "{case}: {told}");
        assert!(told.trim_end().ends_with('.'), "{case}: {told}");
        assert!(told.matches(". ").count() >= 1, "no way out in {told}");
        assert!(!told.contains(REAL_KEY), "{case}: {told}");
        let case = case.to_owned();
        let reason = reason.to_owned();
        async move {
            let record = self.record(&case, &reason).await;
            assert_eq!(record["decision"], "deny", "{case}: {record}");
            assert_eq!(record["status"], status, "{case}: {record}");
            self.nothing_sent(&case);
            record
        }
    }

    /// A new record with this reason.
    pub async fn record(&self, case: &str, reason: &str) -> Value {
        let seen = self.records.load(Ordering::SeqCst);
        let mut count = seen;
        loop {
            let records = self.proxy.access_log(count + 1).await;
            count = records.len();
            if let Some(record) = records[seen..].iter().find(|r| r["reason"] == reason) {
                self.records.store(count, Ordering::SeqCst);
                return record.clone();
            }
            eprintln!(
                "{case}: no record says {reason} yet: {:?}",
                &records[seen..]
            );
        }
    }

    /// The origin got no request and no connection since the last honest one.
    #[track_caller]
    pub fn nothing_sent(&self, case: &str) {
        let (requests, connections) = (self.origin.requests(), self.origin.connections());
        let honest = self.requests.load(Ordering::SeqCst);
        assert_eq!(
            requests.len(),
            honest,
            "{case} reached the origin: {requests:#?}"
        );
        assert_eq!(
            connections,
            self.connections.load(Ordering::SeqCst),
            "{case}"
        );
    }

    /// An honest request passes, with the real key.
    pub async fn still_serves(&self) {
        let request = format!(
            "GET /v1/honest HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
        );
        let answer = self.ask(HOST, &request).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "reached"));
        let last = self.origin.requests_for("/v1/honest").pop().unwrap();
        assert_eq!(last.bearer(), Some(REAL_KEY));
        self.settle().await;
    }

    /// What the origin has by now is taken for honest.
    pub async fn settle(&self) {
        let seen = self.records.load(Ordering::SeqCst);
        let records = self.proxy.access_log(seen + 1).await;
        self.records.store(records.len(), Ordering::SeqCst);
        self.honest();
    }

    /// The same, where what comes on record next is asked for.
    pub fn honest(&self) {
        let count = self.origin.requests().len();
        self.requests.store(count, Ordering::SeqCst);
        let connections = self.origin.connections();
        self.connections.store(connections, Ordering::SeqCst);
    }
}
