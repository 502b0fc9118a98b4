//! An HTTP client of the tests' own, for what no ready client shows: CONNECT, TLS that trusts the
//! door's CA, then HTTP/1.1 or HTTP/2 frame by frame.

use std::sync::Arc;

use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::door::Door;

pub type Outgoing = UnsyncBoxBody<bytes::Bytes, std::convert::Infallible>;

/// Asks the door for a tunnel; returns the stream and the status line.
pub async fn connect(door: &Door, target: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(door.addr).await.unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    (stream, head.lines().next().unwrap_or_default().to_owned())
}

/// A TLS session with a host on port 443, through the door.
pub async fn tls(door: &Door, host: &str, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let (stream, status) = connect(door, &format!("{host}:443")).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    handshake(door, host, protocols, stream).await.unwrap()
}

pub async fn handshake(
    door: &Door,
    host: &str,
    protocols: &[&[u8]],
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&door.ca_file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// An HTTP/1.1 connection with a host, through the door.
pub async fn http1(door: &Door, host: &str) -> http1::SendRequest<Outgoing> {
    let stream = tls(door, host, &[b"http/1.1"]).await;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { connection.with_upgrades().await.ok() });
    sender
}

/// An HTTP/2 connection with a host, through the door.
pub async fn http2(door: &Door, host: &str) -> http2::SendRequest<Outgoing> {
    let stream = tls(door, host, &[b"h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(async move { connection.await.ok() });
    sender
}
