//! The corners of HTTP, frame by frame: streaming, trailers, interim and empty answers, both protocols
//! on both sides.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::support::agent::Agent;
use super::support::door::Door;
use super::support::echo::{self, Echo, HOST, PLACEHOLDER, REAL_KEY};
use super::support::reply::{full, streamed, with_trailers};
use super::support::tunnel::{self, Outgoing};

/// The agent's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

/// One request of the test's own client.
pub async fn send(door: &Door, speaks: Speaks, request: Request<Outgoing>) -> Response<Incoming> {
    let answer = match speaks {
        Speaks::Http1 => {
            let mut request = request;
            *request.uri_mut() = request
                .uri()
                .path_and_query()
                .unwrap()
                .to_string()
                .parse()
                .unwrap();
            request
                .headers_mut()
                .insert("host", HeaderValue::from_static(HOST));
            tunnel::http1(door, HOST).await.send_request(request).await
        }
        Speaks::Http2 => tunnel::http2(door, HOST).await.send_request(request).await,
    };
    answer.unwrap()
}

pub fn ask(key: &str, method: &str, path: &str, body: Outgoing) -> Request<Outgoing> {
    Request::builder()
        .method(method)
        .uri(format!("https://{HOST}{path}"))
        .header("authorization", format!("Bearer {key}"))
        .body(body)
        .unwrap()
}

/// Each event arrives before the origin sends the next.
pub async fn events_arrive_one_by_one(echo: &Echo, door: &Door, key: &str, speaks: Speaks) {
    let mut answer = send(door, speaks, ask(key, "GET", "/gated", full(""))).await;
    assert_eq!(answer.status(), 200);
    for number in 1..=3 {
        echo.release();
        let mut event = Vec::new();
        while !event.ends_with(b"\n\n") {
            let frame = tokio::time::timeout(Duration::from_secs(10), answer.frame());
            let frame = frame
                .await
                .unwrap_or_else(|_| panic!("event {number} is held back"));
            event.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(event, format!("event: tick\ndata: {number}\n\n").as_bytes());
    }
    ended(&mut answer).await;
}

/// Nothing comes any more; an empty frame is nothing (HTTP/2 ends a stream with one).
async fn ended(answer: &mut Response<Incoming>) {
    while let Some(frame) = answer.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.is_empty(), "one more piece: {data:?}");
    }
}

/// A body is mirrored piece by piece while it is still being sent.
pub async fn both_directions_flow_at_once(door: &Door, key: &str, speaks: Speaks) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = streamed(stream::unfold(receiver, |mut receiver| async move {
        Some((Frame::data(receiver.recv().await?), receiver))
    }));
    let mut answer = send(door, speaks, ask(key, "POST", "/mirror", body)).await;
    for number in 0..3 {
        let piece = format!("piece {number};");
        sender.send(piece.clone().into()).await.unwrap();
        let mut back = Vec::new();
        while back.len() < piece.len() {
            let frame = tokio::time::timeout(Duration::from_secs(10), answer.frame());
            let frame = frame
                .await
                .unwrap_or_else(|_| panic!("{piece} is held back"));
            back.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(back, piece.as_bytes());
    }
    drop(sender);
    ended(&mut answer).await;
}

/// Trailers of the answer arrive (RFC 9110, section 6.5).
pub async fn trailers_arrive(door: &Door, key: &str, speaks: Speaks) {
    let mut request = ask(key, "GET", "/trailers", full(""));
    request
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let answer = send(door, speaks, request).await;
    let body = answer.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    assert_eq!(trailers.get("x-checksum").unwrap(), "abc123");
    assert_eq!(body.to_bytes(), "one,two");
}

/// Trailers of the request reach the origin.
pub async fn request_trailers_arrive(echo: &Echo, door: &Door, key: &str, speaks: Speaks) {
    let mut fields = HeaderMap::new();
    fields.insert("x-digest", HeaderValue::from_static("def456"));
    let body = with_trailers(vec![Bytes::from("some"), Bytes::from("thing")], fields);
    let mut request = ask(key, "POST", "/sink", body);
    request
        .headers_mut()
        .insert("trailer", HeaderValue::from_static("x-digest"));
    assert_eq!(send(door, speaks, request).await.status(), 200);
    let sink = echo.origin.only("/sink");
    assert_eq!(sink.body, b"something");
    assert_eq!(
        sink.trailers,
        [("x-digest".to_owned(), "def456".to_owned())]
    );
}

/// Answers that have no body end at once, with their headers.
pub async fn empty_answers_end_at_once(door: &Door, key: &str, speaks: Speaks) {
    for (method, path, status) in [
        ("GET", "/no-content", 204),
        ("GET", "/not-modified", 304),
        ("HEAD", "/bytes/5000", 200),
    ] {
        let answer = send(door, speaks, ask(key, method, path, full(""))).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        if method == "HEAD" {
            assert_eq!(answer.headers()["content-length"], "5000");
        }
        if status == 304 {
            assert_eq!(answer.headers()["etag"], "\"v1\"");
        }
        let body = tokio::time::timeout(Duration::from_secs(10), answer.into_body().collect());
        let body = body
            .await
            .unwrap_or_else(|_| panic!("{method} {path} does not end"));
        assert!(body.unwrap().to_bytes().is_empty());
    }
}

pub const SPOKEN: [Speaks; 2] = [Speaks::Http1, Speaks::Http2];

/// Every combination of the agent's and the origin's protocol.
async fn origins() -> [Echo; 2] {
    [echo::echo().await, echo::echo_http1().await]
}

#[tokio::test]
async fn events_are_never_held_back() {
    for echo in origins().await {
        let proxy = echo::in_front_of(&echo).start().await;
        let door = proxy.door().await;
        for speaks in SPOKEN {
            events_arrive_one_by_one(&echo, &door, PLACEHOLDER, speaks).await;
        }
    }
}

#[tokio::test]
async fn upload_and_download_flow_at_once() {
    for echo in origins().await {
        let proxy = echo::in_front_of(&echo).start().await;
        let door = proxy.door().await;
        for speaks in SPOKEN {
            both_directions_flow_at_once(&door, PLACEHOLDER, speaks).await;
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    for speaks in SPOKEN {
        for echo in origins().await {
            let proxy = echo::in_front_of(&echo).start().await;
            let door = proxy.door().await;
            trailers_arrive(&door, PLACEHOLDER, speaks).await;
            request_trailers_arrive(&echo, &door, PLACEHOLDER, speaks).await;
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_end_at_once() {
    for echo in origins().await {
        let proxy = echo::in_front_of(&echo).start().await;
        let door = proxy.door().await;
        for speaks in SPOKEN {
            empty_answers_end_at_once(&door, PLACEHOLDER, speaks).await;
        }
    }
}

/// 20 MB there, 20 MB back.
pub async fn large_bodies_arrive_whole(echo: &Echo, door: &Door, key: &str, speaks: Speaks) {
    let bytes = echo::pattern(20_000_000);
    let request = ask(key, "POST", "/sink", full(bytes.clone()));
    assert_eq!(send(door, speaks, request).await.status(), 200);
    let sink = echo.origin.requests().pop().unwrap();
    assert!(
        sink.body == bytes,
        "{} bytes arrived, not the same",
        sink.body.len()
    );
    let request = ask(key, "GET", "/bytes/20000000", full(""));
    let answer = send(door, speaks, request).await;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(
        body == bytes,
        "{} bytes came back, not the same",
        body.len()
    );
}

#[tokio::test]
async fn twenty_megabytes_pass_whole() {
    for echo in origins().await {
        let proxy = echo::in_front_of(&echo).start().await;
        let door = proxy.door().await;
        for speaks in SPOKEN {
            large_bodies_arrive_whole(&echo, &door, PLACEHOLDER, speaks).await;
        }
    }
}

/// curl waits for `100 Continue`, or for the refusal, before it sends the body.
pub async fn expectations_are_met(curl: &std::path::Path, echo: &Echo, agent: &Agent, key: &str) {
    let key = format!("authorization: Bearer {key}");
    std::fs::write(agent.work().join("upload"), echo::pattern(200_000)).unwrap();
    let ask = async |path: &str| {
        let url = format!("https://{HOST}{path}");
        let mut args = vec![
            "-sSv",
            "--http1.1",
            "--expect100-timeout",
            "20",
            "--max-time",
            "15",
        ];
        args.extend(["-H", "Expect: 100-continue", "-H", &key]);
        args.extend(["--data-binary", "@upload", &url]);
        agent.run(curl, &args).await
    };
    let sink = ask("/sink").await;
    assert_eq!(sink.json()["bytes"], 200_000);
    assert!(sink.stderr.contains("100 Continue"), "{}", sink.stderr);
    let refused = ask("/refuse-upload").await;
    assert!(refused.stderr.contains("413"), "{}", refused.stderr);
    assert!(
        !refused.stderr.contains("100 Continue"),
        "{}",
        refused.stderr
    );
    assert!(echo.origin.only("/refuse-upload").body.is_empty());
}

#[tokio::test]
async fn an_expectation_is_the_origins_to_meet() {
    let curl = client!("curl");
    for echo in origins().await {
        let proxy = echo::in_front_of(&echo).start().await;
        let agent = Agent::at(&proxy.door().await);
        expectations_are_met(&curl, &echo, &agent, PLACEHOLDER).await;
    }
}

/// One connection of the agent, many requests at once, each with its own answer.
#[tokio::test]
async fn a_hundred_requests_share_one_http2_connection() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let sender = tunnel::http2(&proxy.door().await, HOST).await;
    let asked = (0..100).map(|number| {
        let mut sender = sender.clone();
        async move {
            let path = format!("/number/{number}");
            let request = ask(PLACEHOLDER, "GET", &path, full(""));
            let answer = sender.send_request(request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(said["target"], path);
        }
    });
    futures_util::future::join_all(asked).await;
    let requests = echo.origin.requests();
    assert_eq!(requests.len(), 100);
    assert!(requests.iter().all(|r| r.bearer() == Some(REAL_KEY)));
}

/// What belongs to one connection goes no further (RFC 9110, section 7.6.1).
#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let echo = echo::echo_http1().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let mut request = ask(PLACEHOLDER, "GET", "/hop", full(""));
    for (name, value) in [
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("proxy-authorization", "Basic eDp5"),
        ("keep-alive", "timeout=5"),
        ("x-stays", "1"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let answer = send(&proxy.door().await, Speaks::Http1, request).await;
    assert_eq!(answer.status(), 200);
    let seen = echo.origin.only("/hop");
    for gone in ["x-mine", "proxy-authorization", "keep-alive"] {
        assert_eq!(seen.header(gone), None);
    }
    assert_eq!(seen.header("x-stays"), Some("1"));
}
