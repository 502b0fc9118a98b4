//! Owns how the library's client gets a connection to an origin: dialled and verified by a way's own settings,
//! counted while it is open, watched if it is HTTP/2.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::dial::{DialError, Dialer};
use super::lanes::Stated;
use super::under_way::{OpenConnection, UnderWay};
use crate::net::calm::Calm;
use crate::net::frames::Opener;
use crate::net::greeting::Greeting;
use crate::policy::decision::DialProfile;
use crate::telemetry::metrics::{Metrics, Open};
use crate::types::host::{Authority, Host};
use crate::types::intent::Scheme;
use crate::types::reached::Limit;

/// Carries a [`DialError`] out through an error that is only lent.
#[derive(Debug)]
pub struct DialFailure(Mutex<Option<DialError>>);

impl DialFailure {
    /// The error, the first time.
    pub fn take(&self) -> Option<DialError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Display for DialFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dialling failed")
    }
}

impl std::error::Error for DialFailure {}

/// Opens connections of one way to reach origins.
#[derive(Clone)]
pub struct Connector {
    /// What dials.
    pub dialer: Dialer,
    /// How.
    pub profile: Arc<DialProfile>,
    /// What is believed, and which protocols are offered.
    pub tls: Arc<ClientConfig>,
    /// Where connections are counted for the operator,
    pub metrics: Metrics,
    /// and for their limit.
    pub under_way: UnderWay,
    /// Who hears how many streams an origin takes.
    pub stated: Stated,
    /// Silence after which one on HTTP/2 is asked whether it is there.
    pub ping: Duration,
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
            Scheme::Http => {
                let stream = self.dialer.tcp(&authority, &self.profile).await?;
                self.stated.tell(&authority, u32::MAX);
                OriginIo::Plain(TokioIo::new(stream))
            }
            Scheme::Https => {
                let stream = self
                    .dialer
                    .tls(&authority, &self.profile, self.tls.clone())
                    .await?;
                OriginIo::over(stream, &authority, self)
            }
        };
        Ok(OriginStream {
            io,
            _shown: self.metrics.upstream_connection(began.elapsed()),
            _open: self.under_way.connection(),
        })
    }
}

/// A connection to an origin, counted while it is open.
pub struct OriginStream {
    io: OriginIo,
    _shown: Open,
    _open: OpenConnection,
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
    fn over(stream: TlsStream<TcpStream>, authority: &Authority, by: &Connector) -> Self {
        let stated = &by.stated;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            stated.tell(authority, u32::MAX);
            return Self::Tls(Box::new(TokioIo::new(stream)));
        }
        let flooded = authority.clone();
        let on_flood = Box::new(move || {
            tracing::warn!(authority = %flooded, "an origin floods its connection with HTTP/2 frames");
        });
        let (stated, told) = (stated.clone(), authority.clone());
        let greeting = Greeting::new(Box::new(move |streams| stated.tell(&told, streams)));
        let metrics = by.metrics.clone();
        let on_silence = move || metrics.limit_reached(Limit::OriginPing);
        let calm = Calm::new(stream, Opener::Own, on_flood)
            .with_greeting(greeting)
            .asked_after(by.ping, Box::new(on_silence));
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
