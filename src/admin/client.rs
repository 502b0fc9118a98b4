//! Owns the command line's side of the admin API: one request to a running proxy.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

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

    async fn exchange(
        &self,
        stream: TcpStream,
        outgoing: Outgoing<'_>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
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
        let answer = async {
            let response = sender.send_request(request.body(body)?).await?;
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
}
