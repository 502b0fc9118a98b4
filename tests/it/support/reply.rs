//! Owns the small vocabulary in which origins answer.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::Value;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Reply = Response<Body>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

pub fn status(code: u16) -> Reply {
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = StatusCode::from_u16(code).unwrap();
    reply
}

pub fn text(code: u16, body: impl Into<String>) -> Reply {
    with_body(code, "text/plain", body.into())
}

pub fn json(code: u16, value: &Value) -> Reply {
    with_body(code, "application/json", value.to_string())
}

pub fn with_body(code: u16, content_type: &str, body: impl Into<Bytes>) -> Reply {
    let mut reply = status(code);
    *reply.body_mut() = full(body);
    with(reply, "content-type", content_type)
}

pub fn with(mut reply: Reply, name: &'static str, value: &str) -> Reply {
    reply
        .headers_mut()
        .append(HeaderName::from_static(name), value.parse().unwrap());
    reply
}

/// The answer to HEAD: the length of the body, not the body. (hyper does so on HTTP/1.1 only.)
pub fn without_body(reply: Reply) -> Reply {
    let (head, body) = reply.into_parts();
    let length = body.size_hint().exact().unwrap_or(0);
    let reply = Response::from_parts(head, full(Bytes::new()));
    with(reply, "content-length", &length.to_string())
}

/// A body of frames as they become ready.
pub fn streamed(frames: impl Stream<Item = Frame<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(frames.map(Ok::<_, Infallible>)).boxed_unsync()
}

/// Chunks, then trailers.
pub fn with_trailers(chunks: Vec<Bytes>, trailers: HeaderMap) -> Body {
    let frames = chunks
        .into_iter()
        .map(Frame::data)
        .chain([Frame::trailers(trailers)]);
    streamed(futures_util::stream::iter(frames.collect::<Vec<_>>()))
}

/// Server-sent events, one frame each, `pace` apart.
pub fn sse(events: Vec<(String, Value)>, pace: Duration) -> Reply {
    let frames = futures_util::stream::iter(events).then(move |(name, data)| async move {
        tokio::time::sleep(pace).await;
        Frame::data(Bytes::from(format!("event: {name}\ndata: {data}\n\n")))
    });
    let mut reply = with(status(200), "content-type", "text/event-stream");
    *reply.body_mut() = streamed(frames);
    with(reply, "cache-control", "no-cache")
}
