//! Owns the origin, a process of its own: it checks the credential and answers as fast as it can.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, channel::Channel};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certs::Certificates;
use crate::model::{self, Wanted};
use crate::process::{Output, Process};

/// The credential that only the origin, nginx and tollgate know.
pub const SECRET: &str = "sk-ant-api03-the-real-one-0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyzAA";
/// Size of a small answer.
pub const SMALL: usize = 1024;

/// Where the origin listens, by the protocol it prefers.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub http1: SocketAddr,
    pub http2: SocketAddr,
}

/// Starts this program again as the origin.
pub fn start(certificates: &Certificates) -> (Process, Addresses) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg("origin")
        .arg(&certificates.leaf)
        .arg(&certificates.key);
    Process::start(&mut command, Output::Stdout, |line| {
        let (http1, http2) = line.strip_prefix("origin ")?.split_once(' ')?;
        Some(Addresses {
            http1: http1.parse().ok()?,
            http2: http2.parse().ok()?,
        })
    })
}

/// Is the origin, until it is killed.
pub fn run(certificate: &str, key: &str, _: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let http1 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http2 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!(
            "origin {} {}",
            http1.local_addr().unwrap(),
            http2.local_addr().unwrap()
        );
        std::io::stdout().flush().unwrap();
        let tls = |alpn| acceptor(Path::new(certificate), Path::new(key), alpn);
        tokio::join!(accept(http1, tls("http/1.1")), accept(http2, tls("h2")));
    });
}

fn acceptor(certificate: &Path, key: &Path, alpn: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = TokioIo::new(stream);
            // A connection that breaks off is the client's end of a measure.
            if http2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server
                    .serve_connection(stream, service_fn(answer))
                    .await
                    .ok();
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                server
                    .serve_connection(stream, service_fn(answer))
                    .await
                    .ok();
            }
        });
    }
}

type Answer = BoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let given = request.headers().get("x-api-key");
    if given.is_none_or(|key| key != SECRET) {
        let mut refused = Response::new(Full::default().boxed());
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(refused);
    }
    let path = request.uri().path().to_owned();
    let mut numbers = path.rsplit('/').map_while(|part| part.parse::<u64>().ok());
    let mut kind = "application/octet-stream";
    let body = match path.split('/').nth(2) {
        Some("messages") => {
            let mut body = request.into_body();
            let first = body.frame().await.and_then(Result::ok);
            let wanted = model::wanted(first.as_ref().and_then(|frame| frame.data_ref()));
            drain(body).await;
            kind = wanted.content_type().unwrap_or(kind);
            match wanted {
                Wanted::Filler => Full::new(Bytes::from_static(&[b'x'; SMALL])).boxed(),
                Wanted::Message => Full::new(model::message()).boxed(),
                Wanted::Events => model_events(),
            }
        }
        Some("upload") => {
            let bytes = drain(request.into_body()).await;
            Full::new(Bytes::from(bytes.to_string())).boxed()
        }
        Some("download") => Filler::new(numbers.next().unwrap()).boxed(),
        Some("events") => {
            let interval = Duration::from_millis(numbers.next().unwrap());
            events(numbers.next().unwrap(), interval)
        }
        _ => panic!("no such path: {path}"),
    };
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}

async fn drain(mut body: Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    bytes
}

/// Events that carry the time they were sent at.
fn events(count: u64, interval: Duration) -> Answer {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        for _ in 0..count {
            ticks.tick().await;
            let event = format!("event: content_block_delta\ndata: {}\n\n", now());
            if sender.send_data(event.into()).await.is_err() {
                return;
            }
        }
    });
    body.boxed()
}

/// A model's answer, one event at a time.
fn model_events() -> Answer {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(model::PACE);
        for event in model::events() {
            ticks.tick().await;
            if sender.send_data(event).await.is_err() {
                return;
            }
        }
    });
    body.boxed()
}

/// Microseconds on a clock that every process here shares.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_micros() as u64
}

/// A body of a known length without meaning.
pub struct Filler {
    left: u64,
}

impl Filler {
    const CHUNK: &[u8] = &[b'x'; 64 * 1024];

    pub fn new(length: u64) -> Self {
        Self { left: length }
    }
}

impl Body for Filler {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.left.min(Self::CHUNK.len() as u64);
        if length == 0 {
            return Poll::Ready(None);
        }
        self.left -= length;
        let chunk = Bytes::from_static(Self::CHUNK).slice(..length as usize);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
