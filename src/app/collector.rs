//! Owns the way to an OTLP collector: one kept connection, HTTP/1.1, cleartext or verified TLS, a bounded
//! answer. Its address is the operator's word, so no guard stands before it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::net::socket;
use crate::telemetry::otlp::{Answer, Coding, Collector};

/// A collector that is spoken to over HTTP.
pub struct HttpCollector {
    place: Place,
    tls: Option<Arc<ClientConfig>>,
    headers: HeaderMap,
    limit: Duration,
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whether it is spoken to over TLS.
    pub security: Security,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What is asked for there.
    pub path: PathAndQuery,
    /// `Host`.
    field: HeaderValue,
}

/// Whether a connection is in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// `http`
    Cleartext,
    /// `https`
    Tls,
}

/// Why a text is no place of a collector, as the end of a sentence about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It is no absolute URL with `http` or `https`.
    #[error("is no http or https URL")]
    Url,
    /// `user:password@`
    #[error("holds a user name or a password")]
    UserInfo,
}

impl Place {
    /// Reads an absolute URL.
    pub fn parse(url: &str) -> Result<Self, PlaceError> {
        let uri: Uri = url.parse().map_err(|_| PlaceError::Url)?;
        let authority = uri.authority().ok_or(PlaceError::Url)?;
        if authority.as_str().contains('@') {
            return Err(PlaceError::UserInfo);
        }
        let (security, port) = match uri.scheme_str() {
            Some("http") => (Security::Cleartext, 80),
            Some("https") => (Security::Tls, 443),
            _ => return Err(PlaceError::Url),
        };
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(PlaceError::Url);
        }
        Ok(Self {
            security,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            path: uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
            field: HeaderValue::try_from(authority.as_str()).map_err(|_| PlaceError::Url)?,
        })
    }
}

/// Longest answer that is read: it says how many spans were not wanted, and why.
const LONGEST_ANSWER: usize = 64 << 10;
const CONNECT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-Tollgate/", env!("CARGO_PKG_VERSION"));

impl HttpCollector {
    /// A collector that is sent `headers` with each request, each of which takes at most `limit`. `tls` is for
    /// one that is spoken to so.
    pub fn new(
        place: Place,
        tls: Option<Arc<ClientConfig>>,
        headers: HeaderMap,
        limit: Duration,
    ) -> Self {
        Self {
            place,
            tls,
            headers,
            limit,
            kept: Mutex::new(None),
        }
    }

    async fn exchange(&self, body: Bytes, coding: Coding) -> Result<Answer, String> {
        let mut kept = self.kept.lock().await;
        // A connection that the collector has closed meanwhile shows it when it is asked to be ready.
        let mut ready = kept.take();
        if let Some(sender) = &mut ready
            && sender.ready().await.is_err()
        {
            ready = None;
        }
        let mut sender = match ready {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let sent = sender.send_request(self.request(body, coding)).await;
        let response = sent.map_err(|error| told(&error))?;
        let (answer, whole) = read(response).await;
        if whole {
            *kept = Some(sender);
        }
        Ok(answer)
    }

    fn request(&self, body: Bytes, coding: Coding) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from(self.place.path.clone());
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(header::HOST, self.place.field.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        if coding == Coding::Gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let Place { host, port, .. } = &self.place;
        let addresses = lookup_host((host.as_str(), *port)).await;
        let addresses = addresses.map_err(|error| format!("its name is not found: {error}"))?;
        let mut stream = Err("its name has no address".to_owned());
        for address in addresses {
            stream = match timeout(CONNECT, socket::connect(address)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(format!("no connection: {}", error.kind())),
                Err(_) => Err("no connection in time".to_owned()),
            };
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream?;
        match &self.tls {
            None => speak(stream).await,
            Some(config) => {
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                let handshake = TlsConnector::from(config.clone()).connect(name, stream);
                let failed = |error: io::Error| format!("TLS failed: {error}");
                speak(handshake.await.map_err(failed)?).await
            }
        }
    }
}

impl Collector for HttpCollector {
    fn send(&self, body: Bytes, coding: Coding) -> BoxFuture<'_, Answer> {
        async move {
            let later = |why: String| Answer::Later { after: None, why };
            match timeout(self.limit, self.exchange(body, coding)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(why)) => later(why),
                Err(_) => later(format!("no answer within {:?}", self.limit)),
            }
        }
        .boxed()
    }

    fn name(&self) -> String {
        format!("{}:{}", self.place.host, self.place.port)
    }
}

impl fmt::Debug for HttpCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpCollector({})", self.name())
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| told(&error))?;
    // It ends when the sender is dropped; what it ends with was told to whoever sent.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

/// What hyper says, without its causes: those may quote what was sent.
fn told(error: &hyper::Error) -> String {
    match error {
        error if error.is_incomplete_message() => "the connection was cut".to_owned(),
        error if error.is_parse() => "its answer is not HTTP".to_owned(),
        _ => "the connection failed".to_owned(),
    }
}

/// What an answer means (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>), and whether all of it
/// was read, so that the connection can be used again. Its text is not told: it may echo what it was sent.
async fn read(response: Response<Incoming>) -> (Answer, bool) {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await;
    let whole = body.is_ok();
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let why = format!("it answers {}", head.status.as_u16());
    let answer = match head.status {
        status if status.is_success() => Answer::Taken {
            rejected: rejected(&body),
        },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Later {
            after: retry_after(&head.headers),
            why,
        },
        _ => Answer::Refused { why },
    };
    (answer, whole)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// `ExportTraceServiceResponse { partial_success { rejected_spans } }`.
fn rejected(answer: &[u8]) -> u64 {
    const PARTIAL_SUCCESS: u64 = 1 << 3 | 2;
    const REJECTED_SPANS: u64 = 1 << 3;
    let read = || {
        let (tag, rest) = varint(answer)?;
        let (length, rest) = varint(rest).filter(|_| tag == PARTIAL_SUCCESS)?;
        let inner = rest.get(..usize::try_from(length).ok()?)?;
        let (tag, rest) = varint(inner)?;
        varint(rest).filter(|_| tag == REJECTED_SPANS)
    };
    read().map_or(0, |(count, _)| count)
}

fn varint(octets: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, octet) in octets.iter().enumerate().take(10) {
        value |= u64::from(octet & 0x7f) << (7 * index).min(63);
        if octet & 0x80 == 0 {
            return Some((value, &octets[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_http_url_without_secrets() {
        let place = Place::parse("http://collector:4318/v1/traces").unwrap();
        assert_eq!(place.security, Security::Cleartext);
        assert_eq!((place.host.as_str(), place.port), ("collector", 4318));
        assert_eq!(place.path, "/v1/traces");
        let place = Place::parse("https://[::1]/x?tenant=a").unwrap();
        assert_eq!((place.host.as_str(), place.port), ("::1", 443));
        assert_eq!(place.path, "/x?tenant=a");
        for (url, error) in [
            ("collector:4318", PlaceError::Url),
            ("grpc://collector:4317", PlaceError::Url),
            ("unix:/run/otel.sock", PlaceError::Url),
            ("http://", PlaceError::Url),
            ("", PlaceError::Url),
            ("http://user:pw@collector/", PlaceError::UserInfo),
        ] {
            assert_eq!(Place::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn what_a_collector_did_not_want_is_read_out_of_its_answer() {
        for (answer, count) in [
            (&b""[..], 0),
            (&[0x0a, 0x00], 0),
            (&[0x0a, 0x02, 0x08, 0x05], 5),
            (&[0x0a, 0x06, 0x08, 0xac, 0x02, 0x12, 0x01, b'x'], 300),
            (&[0x0a, 0x03, 0x12, 0x01, b'x'], 0),
            (&[0x0a, 0x7f, 0x08], 0),
            (&[0xff; 20], 0),
        ] {
            assert_eq!(rejected(answer), count, "{answer:?}");
        }
    }
}
