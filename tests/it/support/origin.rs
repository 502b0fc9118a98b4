//! Owns a local server that stands in for a provider: TLS or plain, HTTP/1.1 or HTTP/2 by ALPN,
//! remembering every request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ca::{Leaf, TestCa};
use super::recorded::{Recorded, RequestLog};
use super::reply::{self, Reply};

/// Decides an answer.
type Handler = dyn Fn(Exchange) -> BoxFuture<'static, Reply> + Send + Sync;

/// One request on its way through a handler. What the handler reads of the body is recorded.
pub struct Exchange {
    pub head: Recorded,
    pub upgrade: OnUpgrade,
    incoming: Incoming,
    trailers: Option<HeaderMap>,
    entry: Arc<Mutex<Recorded>>,
    log: Arc<RequestLog>,
    hangup: Hangup,
}

/// Cuts the connection below an exchange.
#[derive(Clone, Default)]
pub struct Hangup(Arc<Notify>);

impl Hangup {
    /// Closes the socket at once, with every exchange on it: no answer, no goodbye of TLS.
    pub async fn now(self) -> Reply {
        self.0.notify_one();
        std::future::pending().await
    }
}

tokio::task_local! {
    static STREAM: Arc<Notify>;
}

/// Resets the HTTP/2 stream of an exchange; others on its connection go on.
#[derive(Clone, Default)]
pub struct Reset(Option<Arc<Notify>>);

impl Reset {
    /// Ends the stream at once: no answer, or no more of it.
    pub async fn now(self) -> Reply {
        self.0.expect("HTTP/2").notify_one();
        std::future::pending().await
    }
}

/// Runs streams of HTTP/2, each until it is reset.
#[derive(Clone, Copy)]
struct Streams;

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let reset = Arc::new(Notify::new());
        let run = STREAM.scope(reset.clone(), async move {
            tokio::select! {
                () = stream => {}
                () = reset.notified() => {}
            }
        });
        tokio::spawn(run);
    }
}

impl Exchange {
    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            match self.incoming.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.log.append(&self.entry, &data);
                        return Some(data);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(_)) => {
                    self.log.cut(&self.entry);
                    return None;
                }
                None => {
                    self.log.close(&self.entry, self.trailers.as_ref());
                    return None;
                }
            }
        }
    }

    /// The whole body.
    pub async fn body(&mut self) -> Bytes {
        while self.chunk().await.is_some() {}
        self.entry.lock().unwrap().body.clone().into()
    }

    /// The whole body; `None` if the other side went away before its end.
    pub async fn complete_body(&mut self) -> Option<Bytes> {
        let body = self.body().await;
        self.entry.lock().unwrap().complete.then_some(body)
    }

    pub fn hangup(&self) -> Hangup {
        self.hangup.clone()
    }

    /// What resets its stream, from here on.
    pub fn reset(&self) -> Reset {
        Reset(STREAM.try_with(Arc::clone).ok())
    }

    /// The whole body as JSON; `Null` if it is none.
    pub async fn json(&mut self) -> serde_json::Value {
        serde_json::from_slice(&self.body().await).unwrap_or_default()
    }
}

/// A running origin; ends when dropped.
pub struct Origin {
    pub addr: SocketAddr,
    pub names: Vec<String>,
    /// The authority its certificate comes from; empty without TLS.
    pub ca_pem: String,
    log: Arc<RequestLog>,
    connections: Arc<AtomicUsize>,
    accept: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Origin {
    /// An HTTPS origin that speaks HTTP/2 and HTTP/1.1.
    pub async fn tls<F, Fut>(names: &[&str], handler: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::open(names, &[b"h2", b"http/1.1"], handler).await
    }

    /// An HTTPS origin that speaks HTTP/1.1 only.
    pub async fn tls_http1<F, Fut>(names: &[&str], handler: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::open(names, &[b"http/1.1"], handler).await
    }

    /// An HTTPS origin of either protocol, whose certificate lasts for years. It drops an answer as soon
    /// as the one who asked has closed the connection, even half of it.
    pub async fn attentive<F, Fut>(names: &[&str], protocols: &[&[u8]], handler: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let handler: Arc<Handler> = Arc::new(move |exchange| handler(exchange).boxed());
        let ca = TestCa::new();
        let tls = Some(acceptor(ca.lasting_leaf(names), protocols));
        Self::start(names, tls, ca.pem().to_owned(), handler, Close::Whole).await
    }

    /// An HTTP/1.1 origin without TLS.
    pub async fn plain<F, Fut>(names: &[&str], handler: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::open(names, &[], handler).await
    }

    /// An HTTPS origin that does with a connection whatever it likes.
    pub async fn rude<F, Fut>(names: &[&str], conduct: F) -> Self
    where
        F: Fn(TlsStream<TcpStream>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::raw(names, &[b"http/1.1"], conduct).await
    }

    /// The same, of any protocol.
    pub async fn raw<F, Fut>(names: &[&str], protocols: &[&[u8]], conduct: F) -> Self
    where
        F: Fn(TlsStream<TcpStream>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let ca = TestCa::new();
        let tls = acceptor(ca.leaf(names), protocols);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let accept = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                if let Ok(stream) = tls.accept(stream).await {
                    running.spawn(conduct(stream));
                }
            }
        });
        Self {
            addr,
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            ca_pem: ca.pem().to_owned(),
            log: Arc::default(),
            connections,
            accept,
        }
    }

    async fn open<F, Fut>(names: &[&str], protocols: &[&[u8]], handler: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let handler: Arc<Handler> = Arc::new(move |exchange| handler(exchange).boxed());
        let (tls, ca_pem) = match protocols {
            [] => (None, String::new()),
            _ => {
                let ca = TestCa::new();
                let mut all = names.to_vec();
                all.push("localhost");
                (
                    Some(acceptor(ca.leaf(&all), protocols)),
                    ca.pem().to_owned(),
                )
            }
        };
        Self::start(names, tls, ca_pem, handler, Close::Half).await
    }

    async fn start(
        names: &[&str],
        tls: Option<TlsAcceptor>,
        ca_pem: String,
        handler: Arc<Handler>,
        close: Close,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let log = Arc::new(RequestLog::default());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let accept = tokio::spawn(accept(listener, tls, handler, log.clone(), counted, close));
        Self {
            addr,
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            ca_pem,
            log,
            connections,
            accept,
        }
    }

    /// How often it was dialled.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.log.all()
    }

    /// The same, of requests that were read to their end; they are not remembered any more.
    #[allow(dead_code)] // wanted by the soak alone
    pub fn forget(&self) -> Vec<Recorded> {
        self.log.take()
    }

    /// The requests for one path.
    pub fn requests_for(&self, path: &str) -> Vec<Recorded> {
        let mut all = self.requests();
        all.retain(|r| r.path() == path);
        all
    }

    /// The one request for a path.
    #[track_caller]
    pub fn only(&self, path: &str) -> Recorded {
        let mut found = self.requests_for(path);
        assert_eq!(
            found.len(),
            1,
            "requests for {path}: {:#?}",
            self.requests()
        );
        found.remove(0)
    }

    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Recorded) -> bool) -> Recorded {
        self.log.wait_for(what, wanted).await
    }

    /// No request carried the text in its target or in any header.
    #[track_caller]
    pub fn assert_no_head_mentions(&self, text: &str) {
        for request in self.requests() {
            assert!(
                !request.head_mentions(text),
                "{text:?} reached the origin: {request:#?}"
            );
        }
    }
}

pub fn acceptor((certificate, key): Leaf, protocols: &[&[u8]]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handler: Arc<Handler>,
    log: Arc<RequestLog>,
    count: Arc<AtomicUsize>,
    close: Close,
) {
    let mut connections = JoinSet::new(); // ends them all with the origin
    while let Ok((stream, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        let (tls, handler, log) = (tls.clone(), handler.clone(), log.clone());
        connections.spawn(async move {
            stream.set_nodelay(true).unwrap();
            let Some(tls) = tls else {
                return serve(stream, Protocol::Http1, close, None, handler, log).await;
            };
            let Ok(stream) = tls.accept(stream).await else {
                return; // a client that does not trust us: its own test notices
            };
            let (_, session) = stream.get_ref();
            let protocol = match session.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            let sni = session.server_name().map(ToOwned::to_owned);
            serve(stream, protocol, close, sni, handler, log).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// What it takes to end an HTTP/1.1 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// Either side may stop sending first.
    Half,
    /// Who stops sending has gone.
    Whole,
}

async fn serve<S>(
    stream: S,
    protocol: Protocol,
    close: Close,
    sni: Option<String>,
    handler: Arc<Handler>,
    log: Arc<RequestLog>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hangup = Hangup::default();
    let cut = hangup.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, log, sni) = (handler.clone(), log.clone(), sni.clone());
        let hangup = hangup.clone();
        async move { Ok::<_, Infallible>(exchange(request, sni, &*handler, log, hangup).await) }
    });
    let io = TokioIo::new(stream);
    // A connection that the other side cuts is no failure of the origin.
    if protocol == Protocol::Http2 {
        let mut server = hyper::server::conn::http2::Builder::new(Streams);
        server.timer(TokioTimer::new()).enable_connect_protocol();
        tokio::select! {
            _ = server.serve_connection(io, service) => {}
            () = cut.0.notified() => {}
        }
    } else {
        let mut server = hyper::server::conn::http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .half_close(close == Close::Half);
        tokio::select! {
            _ = server.serve_connection(io, service).with_upgrades() => {}
            () = cut.0.notified() => {}
        }
    }
}

async fn exchange(
    mut request: Request<Incoming>,
    sni: Option<String>,
    handler: &Handler,
    log: Arc<RequestLog>,
    hangup: Hangup,
) -> Reply {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, incoming) = request.into_parts();
    let head = Recorded::new(&head, sni);
    let entry = log.open(head.clone());
    let is_head = head.method == "HEAD";
    let reply = handler(Exchange {
        head,
        upgrade,
        incoming,
        trailers: None,
        entry,
        log,
        hangup,
    });
    match is_head {
        true => reply::without_body(reply.await),
        false => reply.await,
    }
}
