//! Owns the pooled connections to origins. Nothing is sent without a [`Permit`]; connections are
//! shared only among requests that reach and verify origins the same way.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::dial::{DialError, Dialer};
use super::error::{ProxyError, cause};
use super::headers::has_two_readings;
use super::upload::RequestBody;
use crate::net::calm::Calm;
use crate::net::frames::Opener;
use crate::policy::decision::{DialProfile, Permit};
use crate::telemetry::metrics::{Metrics, Open};
use crate::tls::upstream::{Alpn, OriginTrust};
use crate::tls::verdict::Verdict;
use crate::types::host::{Authority, Host};
use crate::types::intent::Scheme;

/// Which protocols a request can live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// Whatever the origin prefers.
    Any,
    /// HTTP/1.1 only: upgrades do not exist in HTTP/2.
    Http1,
}

/// Sends requests to origins.
pub struct Upstream {
    dialer: Dialer,
    trust: OriginTrust,
    metrics: Metrics,
    pools: ArcSwap<Vec<Pool>>,
    opening: Mutex<()>,
}

/// The connections of one way to reach origins.
#[derive(Clone)]
struct Pool {
    profile: Arc<DialProfile>,
    any: Client<Connector, RequestBody>,
    http1: Client<Connector, RequestBody>,
}

/// Read ahead of an answer over HTTP/1.1, and the largest head of one.
const MOST_READ_AHEAD: usize = 128 * 1024;
/// Of an answer over HTTP/2 that its agent does not take.
const MOST_UNTAKEN: u32 = 512 * 1024;
/// The largest window there is (RFC 9113, section 6.9.1).
const MOST_WINDOW: u32 = (1 << 31) - 1;
/// Ways to reach origins that are kept open; a reload brings new ones, and the oldest go.
const MOST_POOLS: usize = 64;

impl Upstream {
    /// Dials with `dialer`, believes `trust`, counts connections in `metrics`.
    pub fn new(dialer: Dialer, trust: OriginTrust, metrics: Metrics) -> Self {
        Self {
            dialer,
            trust,
            metrics,
            pools: ArcSwap::default(),
            opening: Mutex::new(()),
        }
    }

    /// The dialer, for tunnels.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends a request whose URI is absolute and returns the response head; its body follows.
    ///
    /// Errors: the origin cannot be reached, or sends no head within the permit's limit.
    pub async fn send(
        &self,
        permit: &Permit,
        protocols: Protocols,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, ProxyError> {
        let pool = self.pool(permit)?;
        let client = match protocols {
            Protocols::Any => &pool.any,
            Protocols::Http1 => &pool.http1,
        };
        // The pool chooses by ALPN; a version set here would only forbid the other.
        *request.version_mut() = Version::HTTP_11;
        let authority = permit.authority();
        let limit = permit.dial().timeouts.response_headers;
        match tokio::time::timeout(limit, client.request(request)).await {
            Ok(Ok(response)) if has_two_readings(response.headers()) => {
                self.forget(permit);
                Err(ProxyError::Origin {
                    authority: authority.clone(),
                })
            }
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(explain(&error, authority)),
            Err(_) => Err(ProxyError::Silent {
                authority: authority.clone(),
            }),
        }
    }

    fn pool(&self, permit: &Permit) -> Result<Pool, ProxyError> {
        let profile = permit.dial();
        let find = |pools: &[Pool]| {
            pools
                .iter()
                .find(|p| Arc::ptr_eq(&p.profile, profile))
                .cloned()
        };
        if let Some(pool) = find(&self.pools.load()) {
            return Ok(pool);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = self.pools.load_full();
        if let Some(pool) = find(&pools) {
            return Ok(pool);
        }
        // A reload makes new profiles that often say the same: their connections stay of use.
        let pool = match pools.iter().find(|p| *p.profile == **profile) {
            Some(same) => Pool {
                profile: profile.clone(),
                ..same.clone()
            },
            None => self.open(permit)?,
        };
        let mut next: Vec<Pool> = pools
            .iter()
            .skip(pools.len().saturating_sub(MOST_POOLS - 1))
            .cloned()
            .collect();
        next.push(pool.clone());
        self.pools.store(Arc::new(next));
        Ok(pool)
    }

    /// Uses no connection again that is open on this way to origins: one of them is in doubt, and which one the
    /// library does not tell.
    fn forget(&self, permit: &Permit) {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pools = Vec::clone(&self.pools.load());
        pools.retain(|pool| *pool.profile != **permit.dial());
        self.pools.store(Arc::new(pools));
    }

    fn open(&self, permit: &Permit) -> Result<Pool, ProxyError> {
        let profile = permit.dial();
        let config = |alpn| {
            self.trust
                .client_config(&profile.upstream, alpn)
                .map_err(|error| DialError::Settings {
                    authority: permit.authority().clone(),
                    cause: error.to_string(),
                })
        };
        let connector = |tls| Connector {
            dialer: self.dialer.clone(),
            profile: profile.clone(),
            tls,
            metrics: self.metrics.clone(),
        };
        Ok(Pool {
            profile: profile.clone(),
            any: client(connector(config(Alpn::H2AndHttp1)?)),
            http1: client(connector(config(Alpn::Http1)?)),
        })
    }
}

fn client(connector: Connector) -> Client<Connector, RequestBody> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        // Of an answer that its agent does not take no more than this is read ahead.
        .http1_max_buf_size(MOST_READ_AHEAD)
        // Long answers at full speed: the window holds a round trip of a fast path.
        .http2_initial_stream_window_size(MOST_UNTAKEN)
        // A connection is shared by all agents: those who take nothing of their answers must not use up a
        // window that the answers of others need as well.
        .http2_initial_connection_window_size(MOST_WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(20))
        .build(connector)
}

/// Finds what our own connector said within the library's error.
fn explain(error: &hyper_util::client::legacy::Error, authority: &Authority) -> ProxyError {
    if let Some(failed) = cause::<DialFailure>(error)
        && let Some(error) = failed.take()
    {
        return error.into();
    }
    if cause::<super::body::BodyError>(error).is_some() {
        return ProxyError::AgentBody;
    }
    // With TLS 1.3 an origin that misses a client's certificate says so after the handshake.
    if let Some(said) = cause::<rustls::Error>(error)
        && Verdict::of_tls(said) == Verdict::ClientCertificate
    {
        return ProxyError::Dial(DialError::Tls {
            authority: authority.clone(),
            cause: Verdict::ClientCertificate,
        });
    }
    tracing::debug!(%authority, error = %chain(error), "the origin failed");
    ProxyError::Origin {
        authority: authority.clone(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Carries a [`DialError`] out through an error that is only lent.
#[derive(Debug)]
struct DialFailure(Mutex<Option<DialError>>);

impl DialFailure {
    fn take(&self) -> Option<DialError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Display for DialFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dialling failed")
    }
}

impl std::error::Error for DialFailure {}

#[derive(Clone)]
struct Connector {
    dialer: Dialer,
    profile: Arc<DialProfile>,
    tls: Arc<ClientConfig>,
    metrics: Metrics,
}

impl Service<Uri> for Connector {
    type Response = OriginStream;
    type Error = DialFailure;
    type Future = Pin<Box<dyn Future<Output = Result<OriginStream, DialFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            connector
                .connect(&uri)
                .await
                .map_err(|error| DialFailure(Mutex::new(Some(error))))
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<OriginStream, DialError> {
        let scheme = if uri.scheme() == Some(&http::uri::Scheme::HTTPS) {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let host =
            Host::parse(uri.host().unwrap_or_default()).map_err(|error| DialError::Settings {
                authority: Authority::new(Host::Name("invalid".into()), 0),
                cause: error.to_string(),
            })?;
        let authority = Authority::new(host, uri.port_u16().unwrap_or(scheme.default_port()));
        let began = Instant::now();
        let io = match scheme {
            Scheme::Http => OriginIo::Plain(TokioIo::new(
                self.dialer.tcp(&authority, &self.profile).await?,
            )),
            Scheme::Https => {
                let stream = self
                    .dialer
                    .tls(&authority, &self.profile, self.tls.clone())
                    .await?;
                OriginIo::over(stream, &authority)
            }
        };
        Ok(OriginStream {
            io,
            _open: self.metrics.upstream_connection(began.elapsed()),
        })
    }
}

/// A connection to an origin, counted while it is open.
pub struct OriginStream {
    io: OriginIo,
    _open: Open,
}

enum OriginIo {
    /// Cleartext.
    Plain(TokioIo<TcpStream>),
    /// HTTP/1.1 in verified TLS.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    /// HTTP/2 in verified TLS.
    Http2(Box<TokioIo<Calm<TlsStream<TcpStream>>>>),
}

impl OriginIo {
    fn over(stream: TlsStream<TcpStream>, authority: &Authority) -> Self {
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Self::Tls(Box::new(TokioIo::new(stream)));
        }
        let authority = authority.clone();
        let on_flood = Box::new(move || {
            tracing::warn!(%authority, "an origin floods its connection with HTTP/2 frames");
        });
        let calm = Calm::new(stream, Opener::Own, on_flood);
        Self::Http2(Box::new(TokioIo::new(calm)))
    }
}

impl Connection for OriginStream {
    fn connected(&self) -> Connected {
        match &self.io {
            OriginIo::Http2(_) => Connected::new().negotiated_h2(),
            _ => Connected::new(),
        }
    }
}

impl hyper::rt::Read for OriginStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            OriginIo::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            OriginIo::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            OriginIo::Http2(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl hyper::rt::Write for OriginStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            OriginIo::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            OriginIo::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            OriginIo::Http2(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            OriginIo::Plain(stream) => Pin::new(stream).poll_flush(cx),
            OriginIo::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            OriginIo::Http2(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            OriginIo::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            OriginIo::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            OriginIo::Http2(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            OriginIo::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            OriginIo::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
            OriginIo::Http2(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }
    fn is_write_vectored(&self) -> bool {
        match &self.io {
            OriginIo::Plain(stream) => stream.is_write_vectored(),
            OriginIo::Tls(stream) => stream.is_write_vectored(),
            OriginIo::Http2(stream) => stream.is_write_vectored(),
        }
    }
}
