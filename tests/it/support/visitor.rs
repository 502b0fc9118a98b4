//! An agent that asks the echo origin again and again on one kept connection.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use super::door::Door;
use super::echo::HOST;
use super::reply::full;
use super::tunnel::{self, Outgoing};

enum Connection {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

pub struct Visitor {
    connection: Connection,
    key: String,
}

/// Status and body, or how the connection broke.
pub type Got = Result<(u16, String), String>;

impl Visitor {
    pub async fn http1(door: &Door, key: &str) -> Self {
        Self {
            connection: Connection::Http1(tunnel::http1(door, HOST).await),
            key: key.to_owned(),
        }
    }

    pub async fn http2(door: &Door, key: &str) -> Self {
        Self {
            connection: Connection::Http2(tunnel::http2(door, HOST).await),
            key: key.to_owned(),
        }
    }

    pub async fn send(&mut self, path: &str) -> Result<Response<Incoming>, String> {
        let request = Request::get(path).header("authorization", format!("Bearer {}", self.key));
        let answer = match &mut self.connection {
            Connection::Http1(sender) => {
                sender.ready().await.map_err(|e| e.to_string())?;
                let request = request.header("host", HOST).body(full("")).unwrap();
                sender.send_request(request).await
            }
            Connection::Http2(sender) => {
                let mut request = request.body(full("")).unwrap();
                *request.uri_mut() = format!("https://{HOST}{path}").parse().unwrap();
                sender.send_request(request).await
            }
        };
        answer.map_err(|e| format!("{path}: {e}"))
    }

    pub async fn get(&mut self, path: &str) -> Got {
        let answer = self.send(path).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|e| format!("{path}: {e}"))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// One request on a connection of its own.
pub async fn get(door: &Door, key: &str, path: &str) -> (u16, String) {
    Visitor::http1(door, key).await.get(path).await.unwrap()
}
