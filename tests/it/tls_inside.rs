//! TLS that the proxy ends: no early data, no session of another host, no name but the one the connection is for,
//! however the hello is cut.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::frames::{self, Fate, Peer};
use super::support::scene::{BARE, HOST, Scene};
use super::support::{tunnel, wire};

/// Gives every host the sessions of all.
#[derive(Debug)]
struct OneForAll(ClientSessionMemoryCache);

fn anyone() -> ServerName<'static> {
    ServerName::try_from("anyone").unwrap()
}

impl ClientSessionStore for OneForAll {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(anyone(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&anyone())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(anyone(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&anyone())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&anyone());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anyone(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anyone())
    }
}

fn config(scene: &Scene, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&scene.door.ca_file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn open(
    scene: &Scene,
    host: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let (stream, _) = tunnel::connect(&scene.door, &format!("{host}:443")).await;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
}

/// One request and its answer: tickets come with it.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, host: &str) {
    let head = format!("GET /v1/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert_eq!(wire::say(stream, head.as_bytes()).await.text(), "reached");
}

/// Early data can be sent again by whoever saw it (RFC 8446, section 8): no ticket allows it.
#[tokio::test]
async fn no_early_data_is_taken() {
    let scene = Scene::new().await;
    let mut config = config(&scene, &[&rustls::version::TLS13]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for round in 0..3 {
        let mut stream = open(&scene, HOST, &config).await.unwrap();
        let head = format!("GET /v1/early HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = wire::say(&mut stream, head.as_bytes()).await;
        assert_eq!(answer.status, 200);
        let session = stream.get_ref().1;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        assert_eq!(resumed, round > 0, "{round}");
        // The next connection has a ticket to begin with.
        let name = ServerName::try_from(HOST).unwrap();
        let mut next = ClientConnection::new(config.clone(), name).unwrap();
        assert!(next.early_data().is_none(), "{round}");
    }
    assert_eq!(scene.origin.requests_for("/v1/early").len(), 3);
}

#[tokio::test]
async fn a_session_of_one_host_is_none_of_another() {
    let scene = Scene::new().await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut config = config(&scene, &[version]);
        let store = OneForAll(ClientSessionMemoryCache::new(8));
        config.resumption = Resumption::store(Arc::new(store));
        let config = Arc::new(config);
        for (host, kind) in [
            (HOST, HandshakeKind::Full),
            (HOST, HandshakeKind::Resumed),
            (BARE, HandshakeKind::Full),
            (HOST, HandshakeKind::Full),
        ] {
            let mut stream = open(&scene, host, &config).await.unwrap();
            ask(&mut stream, host).await;
            let session = stream.get_ref().1;
            assert_eq!(
                session.handshake_kind(),
                Some(kind),
                "{host} by {version:?}"
            );
        }
    }
    let hosts: Vec<String> = scene
        .origin
        .requests()
        .into_iter()
        .map(|r| r.authority)
        .collect();
    let each = [HOST, HOST, BARE, HOST].map(ToOwned::to_owned);
    assert_eq!(hosts, [each.clone(), each].concat());
}

/// The hello of a real client, with another name in the place of one that is as long.
fn naming(scene: &Scene, name: &str) -> Vec<u8> {
    let long = "x".repeat(name.len());
    let server = ServerName::try_from(long.clone()).unwrap();
    let config = Arc::new(config(scene, rustls::ALL_VERSIONS));
    let mut hello = Vec::new();
    ClientConnection::new(config, server)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let at = memchr::memmem::find(&hello, long.as_bytes()).unwrap();
    hello[at..at + name.len()].copy_from_slice(name.as_bytes());
    hello
}

#[tokio::test]
async fn the_name_may_be_spelled_otherwise_and_must_not_be_another() {
    let scene = Scene::new().await;
    let target = format!("{HOST}:443");
    for (name, fits) in [
        (HOST, true),
        ("ECHO.Example.COM", true),
        ("echo.example.com.", true),
        (BARE, false),
        ("example.com", false),
        ("x.echo.example.com", false),
        ("echo.example.com:443", false),
        ("echo.example.com..", false),
        (".echo.example.com", false),
        (" echo.example.com", false),
        // No name at all: an address must not stand there (RFC 6066, section 3).
        ("127.0.0.1", true),
        ("echo.example.com\0.evil.example.org", false),
        ("echo.example.com/", false),
        ("*.example.com", false),
    ] {
        let (mut stream, _) = tunnel::connect(&scene.door, &target).await;
        stream.write_all(&naming(&scene, name)).await.unwrap();
        stream.shutdown().await.unwrap();
        let told = wire::rest(&mut stream).await;
        let (handshake, alert) = (22, 21);
        let expected = if fits { handshake } else { alert };
        assert_eq!(told.first(), Some(&expected), "{name:?}");
        scene.nothing_sent(name);
    }
}

/// Protocols that are not spoken end the handshake (RFC 7301, section 3.2); those that are must be the ones spoken.
#[tokio::test]
async fn the_protocol_that_was_agreed_on_is_the_one_that_is_spoken() {
    let scene = Scene::new().await;
    for offered in [
        &[&b"h3"[..]][..],
        &[b"h2c"],
        &[b"H2"],
        &[b"http/1.0", b"spdy/3"],
        &[b"x\0y"],
    ] {
        let mut config = config(&scene, &[&rustls::version::TLS13]);
        config.alpn_protocols = offered.iter().map(|p| p.to_vec()).collect();
        let refused = open(&scene, HOST, &Arc::new(config)).await;
        assert!(refused.is_err(), "{offered:?}");
    }
    let mut stream = tunnel::tls(&scene.door, HOST, &[]).await;
    ask(&mut stream, HOST).await;
    let mut stream = tunnel::tls(&scene.door, HOST, &[b"nonsense", b"http/1.1"]).await;
    ask(&mut stream, HOST).await;
    scene.settle().await;
    let before = scene.origin.requests().len();

    let mut stream = tunnel::tls(&scene.door, HOST, &[b"h2"]).await;
    let head = format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let told = wire::rest(&mut stream).await;
    assert!(!told.windows(5).any(|w| w == b"HTTP/"), "{told:?}");
    let mut stream = tunnel::tls(&scene.door, HOST, &[b"http/1.1"]).await;
    let preface = [frames::PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[])].concat();
    let answer = wire::say(&mut stream, &preface).await;
    assert_eq!(answer.status, 400);
    assert_eq!(scene.origin.requests().len(), before);
    let mut agent = Peer::agent(&scene.door, HOST).await;
    agent.send(&frames::get(1, HOST, "/v1/x")).await;
    assert_eq!(agent.fate(1).await, Fate::Fine);
}

/// Sends every byte in a write, and with that in a packet, of its own.
struct ByteByByte(TcpStream);

impl AsyncRead for ByteByByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ByteByByte {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(1)])
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_hello_in_pieces_is_read_like_any_other() {
    let scene = Scene::new().await;
    for fragment in [None, Some(32)] {
        for (name, fits) in [(HOST, true), (BARE, false)] {
            let mut config = config(&scene, rustls::ALL_VERSIONS);
            config.max_fragment_size = fragment;
            let (stream, _) = tunnel::connect(&scene.door, &format!("{HOST}:443")).await;
            stream.set_nodelay(true).unwrap();
            let server = ServerName::try_from(name).unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            match connector.connect(server, ByteByByte(stream)).await {
                Ok(mut stream) => {
                    assert!(fits, "{name} in {fragment:?}");
                    ask(&mut stream, HOST).await;
                    scene.settle().await;
                }
                Err(error) => {
                    assert!(!fits, "{name} in {fragment:?}: {error}");
                    scene.record(name, "server_name_mismatch").await;
                }
            }
        }
    }
}
