//! Owns the way to token endpoints: one verified TLS connection per request, HTTP/1.1, a bounded
//! answer, and an exact word on whether the endpoint may have seen the request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use crate::oauth::endpoint::Endpoint;
use crate::oauth::transport::{
    MAX_ANSWER, TokenRequest, TokenResponse, TokenTransport, TransportError,
};
use crate::policy::decision::DialProfile;
use crate::proxy::dial::Dialer;
use crate::tls::upstream::{Alpn, OriginTrust};

/// Sends token requests through the same dialler, address guard and roots as everything else.
pub struct HttpsTransport {
    dialer: Dialer,
    trust: OriginTrust,
    profile: DialProfile,
    limit: Duration,
}

const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

impl HttpsTransport {
    /// Dials with `dialer` on the terms of `profile`; one request takes at most `limit`, everything included.
    pub fn new(dialer: Dialer, trust: OriginTrust, profile: DialProfile, limit: Duration) -> Self {
        Self {
            dialer,
            trust,
            profile,
            limit,
        }
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: TokenRequest,
        sent: &Arc<AtomicBool>,
    ) -> Result<TokenResponse, TransportError> {
        let not_sent = |error: &dyn fmt::Display| TransportError::NotSent(error.to_string());
        let request = written(endpoint, request)?;
        // Read anew each time: authorities in a file rotate, and token requests are rare.
        let config = self
            .trust
            .client_config(&self.profile.upstream, Alpn::Http1)
            .map_err(|error| not_sent(&error))?;
        let stream = self
            .dialer
            .tls(endpoint.authority(), &self.profile, config)
            .await
            .map_err(|error| not_sent(&error))?;
        let io = TokioIo::new(Watched {
            inner: stream,
            sent: sent.clone(),
        });
        let broken = |error: hyper::Error| failure(endpoint, sent, &reason(&error));
        let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(broken)?;
        read(endpoint, response, sent).await
    }
}

impl TokenTransport for HttpsTransport {
    fn send(&self, request: TokenRequest) -> BoxFuture<'_, Result<TokenResponse, TransportError>> {
        async move {
            let endpoint = Endpoint::parse(&request.url).map_err(|error| {
                TransportError::NotSent(format!("the endpoint's address is wrong: {error}"))
            })?;
            let sent = Arc::new(AtomicBool::new(false));
            match timeout(self.limit, self.exchange(&endpoint, request, &sent)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let why = format!("no answer within {:?}", self.limit);
                    Err(failure(&endpoint, &sent, &why))
                }
            }
        }
        .boxed()
    }
}

/// The request as it goes out: `Host` and `Content-Length` follow from it.
fn written(
    endpoint: &Endpoint,
    request: TokenRequest,
) -> Result<Request<Full<Bytes>>, TransportError> {
    let wrong = |_| TransportError::NotSent("the request cannot be written".to_owned());
    let host = HeaderValue::try_from(endpoint.host_field()).map_err(|e| wrong(e.into()))?;
    let length = request.body.len();
    let mut out = Request::post(endpoint.target().as_str())
        .body(Full::new(Bytes::from_owner(Cleared(request.body))))
        .map_err(wrong)?;
    let headers = out.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.extend(request.headers);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(out)
}

/// A body that is cleared when the last reader has let go of it.
struct Cleared(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Cleared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The answer, whole and within its bound. What hyper read it into is out of reach and not cleared.
async fn read(
    endpoint: &Endpoint,
    response: Response<Incoming>,
    sent: &AtomicBool,
) -> Result<TokenResponse, TransportError> {
    let (head, mut incoming) = response.into_parts();
    // One allocation of the full size: growing would leave copies of tokens behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| failure(endpoint, sent, &reason(&error)))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if body.len() + data.len() > MAX_ANSWER {
            let why = format!("its answer is larger than {} KiB", MAX_ANSWER >> 10);
            return Err(failure(endpoint, sent, &why));
        }
        body.extend_from_slice(data);
    }
    Ok(TokenResponse {
        status: head.status,
        headers: head.headers,
        body,
    })
}

fn failure(endpoint: &Endpoint, sent: &AtomicBool, why: &str) -> TransportError {
    let authority = endpoint.authority();
    match sent.load(Ordering::Acquire) {
        false => TransportError::NotSent(format!("nothing was sent to {authority}: {why}")),
        true => TransportError::Unanswered(format!(
            "the request was sent to {authority}, and no whole answer came: {why}"
        )),
    }
}

/// What hyper says, without its causes: those may quote what the endpoint sent.
fn reason(error: &hyper::Error) -> String {
    match error {
        error if error.is_incomplete_message() => "the connection was cut".to_owned(),
        error if error.is_parse() => "its answer is not HTTP".to_owned(),
        error if error.is_canceled() => "the connection was closed".to_owned(),
        _ => "the connection failed".to_owned(),
    }
}

/// A stream that remembers whether anything was written to it.
struct Watched<S> {
    inner: S,
    sent: Arc<AtomicBool>,
}

impl<S> Watched<S> {
    /// A write that failed may have passed on a part of what it was given.
    fn note(&self, outcome: &Poll<io::Result<usize>>) {
        if outcome.is_ready() {
            self.sent.store(true, Ordering::Release);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl fmt::Debug for HttpsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsTransport")
            .field("profile", &self.profile)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
