//! Owns the command line's side of the admin API: one request to a running proxy.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::net::socket;
use crate::types::secret::Secret;

/// How to reach a running proxy.
pub struct AdminClient {
    /// Its admin port.
    pub address: SocketAddr,
    /// Its token; probes need none.
    pub token: Option<Secret>,
}

/// Why a running proxy gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the admin port {address}: {cause}")]
pub struct AdminError {
    address: SocketAddr,
    cause: String,
    reached: Reached,
}

/// How far a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nobody listens.
    Nobody,
    /// Somebody does, and may have begun to do what was asked.
    Somebody,
}

impl AdminError {
    /// Whether no proxy is there, so that nothing of the call was done.
    pub fn is_nobody(&self) -> bool {
        self.reached == Reached::Nobody
    }
}

/// One request.
struct Outgoing<'a> {
    method: Method,
    target: &'a str,
    body: Option<Vec<u8>>,
}

/// Answers larger than this are not ours.
const LARGEST: usize = 64 << 20;

impl AdminClient {
    /// One request; the answer's status and body.
    pub async fn call(
        &self,
        method: Method,
        target: &str,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        self.call_within(Duration::from_secs(10), method, target)
            .await
    }

    /// The same with a JSON body, where there is one to send.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let request = Outgoing {
            method,
            target,
            body,
        };
        self.exchange_within(Duration::from_secs(10), request).await
    }

    /// The same for what may take longer.
    pub async fn call_within(
        &self,
        limit: Duration,
        method: Method,
        target: &str,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let request = Outgoing {
            method,
            target,
            body: None,
        };
        self.exchange_within(limit, request).await
    }

    async fn exchange_within(
        &self,
        limit: Duration,
        outgoing: Outgoing<'_>,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let failed = |reached, cause: &dyn std::fmt::Display| AdminError {
            address: self.address,
            cause: cause.to_string(),
            reached,
        };
        let stream = socket::connect(self.address).await;
        let stream = stream.map_err(|error| failed(Reached::Nobody, &error))?;
        match tokio::time::timeout(limit, self.exchange(stream, outgoing)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(Reached::Somebody, &error)),
            Err(_) => {
                let late = format!("it took longer than {} s", limit.as_secs());
                Err(failed(Reached::Somebody, &late))
            }
        }
    }

    /// Begins to read an answer that goes on for as long as the proxy runs: one JSON value a line.
    pub async fn watch(&self, target: &str) -> Result<(StatusCode, Lines), AdminError> {
        let failed = |reached, cause: &dyn std::fmt::Display| AdminError {
            address: self.address,
            cause: cause.to_string(),
            reached,
        };
        let stream = socket::connect(self.address).await;
        let stream = stream.map_err(|error| failed(Reached::Nobody, &error))?;
        let outgoing = Outgoing {
            method: Method::GET,
            target,
            body: None,
        };
        let begun = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let request = self.request(outgoing)?;
            // It ends with the answer, or with the proxy.
            let connection = tokio::spawn(async move { connection.await.ok() });
            let response = sender.send_request(request).await?;
            let status = response.status();
            let lines = Lines {
                body: response.into_body(),
                read: Vec::new(),
                _connection: AbortOnDropHandle::new(connection),
            };
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, lines))
        };
        match tokio::time::timeout(Duration::from_secs(10), begun).await {
            Ok(Ok(lines)) => Ok(lines),
            Ok(Err(error)) => Err(failed(Reached::Somebody, &error)),
            Err(_) => Err(failed(Reached::Somebody, &"it took longer than 10 s")),
        }
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        outgoing: Outgoing<'_>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = self.request(outgoing)?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST)
                .collect()
                .await?
                .to_bytes();
            Ok((status, body))
        };
        tokio::select! {
            answer = answer => answer,
            ended = connection => match ended {
                Ok(()) => Err("it closed the connection".into()),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn request(
        &self,
        outgoing: Outgoing<'_>,
    ) -> Result<Request<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder()
            .method(outgoing.method)
            .uri(outgoing.target)
            .header(header::HOST, self.address.to_string());
        if let Some(token) = &self.token {
            let mut value =
                header::HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat())?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if outgoing.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(outgoing.body.unwrap_or_default()));
        Ok(request.body(body)?)
    }
}

/// Lines of an answer that goes on.
pub struct Lines {
    body: Incoming,
    read: Vec<u8>,
    _connection: AbortOnDropHandle<Option<()>>,
}

/// Lines longer than this are not ours.
const LONGEST_LINE: usize = 1 << 20;

impl Lines {
    /// The next line, without its end; nothing once the proxy has ended the answer.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read) {
                let mut line: Vec<u8> = self.read.drain(..=end).collect();
                line.pop();
                return Some(line);
            }
            if self.read.len() > LONGEST_LINE {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }

    /// Everything that is left, as far as it comes within a bound: the text of a refusal.
    pub async fn rest(self) -> Bytes {
        let body = Limited::new(self.body, LONGEST_LINE).collect().await;
        body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes)
    }
}
