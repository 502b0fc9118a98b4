//! Owns the agent's side of a measure: one connection to the origin's name, whichever way it goes.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::origin::SMALL;
use crate::subject::{Subject, Way};

/// How agents speak TLS here. Without resumption, so that every connection costs a full handshake,
/// and with X25519 alone: the OpenSSL that Debian's nginx is built with has no hybrid group.
pub fn tls(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// One open connection.
pub struct Connection {
    sender: SendRequest<BoxBody<Bytes, Infallible>>,
    host: Arc<str>,
    key: &'static str,
}

impl Connection {
    /// Opens one to `host` by way of `subject`.
    pub async fn open(subject: &Subject, host: &str) -> Self {
        let stream = secure(subject, host).await;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        // Squid takes the port to go to from here.
        let named = match subject.way {
            Way::Connect(port) if port != 443 => format!("{host}:{port}").into(),
            _ => host.into(),
        };
        Self {
            sender,
            host: named,
            key: subject.key,
        }
    }

    /// A message of a kibibyte, answered by one.
    pub async fn small(&mut self) {
        let body = Full::new(Bytes::from_static(&[b'x'; SMALL]));
        let answer = self.send(Method::POST, "/v1/messages", body).await;
        assert_eq!(length(answer.into_body()).await, SMALL as u64);
    }

    /// Sends a request and checks that the origin took its credential. The head is as long as an SDK's.
    pub async fn send<B>(&mut self, method: Method, path: &str, body: B) -> Response<Incoming>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
    {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &*self.host)
            .header("accept", "application/json")
            .header("accept-encoding", "gzip, deflate, br, zstd")
            .header("user-agent", "Anthropic/Python 2.3.0")
            .header("content-type", "application/json")
            .header("anthropic-version", "2023-06-01")
            .header("x-stainless-lang", "python")
            .header("x-stainless-package-version", "2.3.0")
            .header("x-stainless-os", "Linux")
            .header("x-stainless-arch", "x64")
            .header("x-stainless-runtime", "CPython")
            .header("x-stainless-runtime-version", "3.13.1")
            .header("x-stainless-retry-count", "0")
            .header("x-api-key", self.key)
            .body(body.boxed())
            .unwrap();
        self.sender.ready().await.unwrap();
        let answer = self.sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.headers());
        answer
    }
}

/// Reads a body to its end.
pub async fn length(mut body: Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame
            .unwrap()
            .data_ref()
            .map_or(0, |data| data.len() as u64);
    }
    bytes
}

/// A TLS session for `host`, and nothing sent in it.
pub async fn secure(subject: &Subject, host: &str) -> TlsStream<TcpStream> {
    let mut stream = TcpStream::connect(subject.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    if let Way::Connect(port) = subject.way {
        let target = format!("{host}:{port}");
        connect(&mut stream, &target, subject.authorization.as_deref()).await;
    }
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let tls = TlsConnector::from(subject.tls.clone());
    tls.connect(name, stream).await.unwrap()
}

async fn connect(stream: &mut TcpStream, target: &str, authorization: Option<&str>) {
    let authorization = authorization.map_or(String::new(), |field| {
        format!("Proxy-Authorization: {field}\r\n")
    });
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "CONNECT was not answered");
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

/// Runs `work` as many times as `count` says, `width` at once.
pub async fn each<F>(count: usize, width: usize, work: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    for index in 0..count {
        if running.len() == width {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(work(index));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}
