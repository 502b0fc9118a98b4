//! An origin that repeats what it was sent shows the agent its placeholder: in fields, bodies, trailers, error
//! pages and messages, in every coding, cut at any octet, and no event comes later for it.

use std::sync::Arc;

use async_compression::tokio::write::{
    BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::support::door::Door;
use super::support::needles::{Haystack, Needle};
use super::support::origin::{Exchange, Origin};
use super::support::proxy::{Proxy, proxy};
use super::support::reply::{self, Reply};
use super::support::{tunnel, wire};

const HOST: &str = "mirror.example.com";
const REAL: &str = "sk-mirror-R3al_K3y-0f/the+0rig1n=Zq7";
/// As long as the secret.
const PLACEHOLDER: &str = "sk-mirror-pl4ceh0ld3r-0f-the-ag3nt-0";
const LONG_PLACEHOLDER: &str = "a-placeholder-that-is-longer-than-the-secret-it-stands-for";
/// The agent's side; the origin speaks both.
const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
const CODINGS: [&str; 5] = ["gzip", "deflate", "raw", "br", "zstd"];

struct Stage {
    origin: Origin,
    proxy: Proxy,
    door: Door,
    gate: Arc<Semaphore>,
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl Got {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Everything that came, searched for the secret in all forms.
    fn assert_clean(&self, what: &str) {
        let mut hay = Haystack::default();
        hay.add(format!("the head of {what}"), format!("{:?}", self.headers));
        hay.add(format!("the body of {what}"), self.body.clone());
        hay.add(
            format!("the trailers of {what}"),
            format!("{:?}", self.trailers),
        );
        hay.assert_free_of(&[Needle::new("the secret", REAL)]);
    }
}

impl Stage {
    async fn new() -> Self {
        Self::with("", PLACEHOLDER).await
    }

    async fn with(rule: &str, placeholder: &str) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let opened = gate.clone();
        let origin = Origin::tls(&[HOST], move |exchange| answer(exchange, opened.clone())).await;
        let placements = "[{bearer: {}}, {basic: {}}, {header: {name: x-key}}, {query: {name: key}}, {path: {template: '/bot{}/'}}]";
        let proxy = proxy()
            .origin(&origin)
            .policy(&format!(
                "- hosts: [{HOST}]\n  ambiguousPaths: Pass\n  credentials: [mirror]\n  {rule}"
            ))
            .credential_file(
                "mirror",
                REAL,
                &format!("hosts: [{HOST}]\nplaceholder: {{value: {placeholder}}}\nplacements: {placements}"),
            )
            .start()
            .await;
        let door = proxy.door().await;
        Self {
            origin,
            proxy,
            door,
            gate,
        }
    }

    async fn send(&self, version: Version, request: http::request::Builder) -> Response<Incoming> {
        let mut request = request.body(reply::full("")).unwrap();
        let path = request.uri().to_string();
        if version == Version::HTTP_2 {
            *request.uri_mut() = format!("https://{HOST}{path}").parse().unwrap();
            let mut sender = tunnel::http2(&self.door, HOST).await;
            return sender.send_request(request).await.unwrap();
        }
        request.headers_mut().insert("host", HOST.parse().unwrap());
        let mut sender = tunnel::http1(&self.door, HOST).await;
        sender.send_request(request).await.unwrap()
    }

    async fn get(&self, version: Version, path: &str) -> Got {
        got(self.send(version, with_key(path)).await).await
    }
}

fn with_key(path: &str) -> http::request::Builder {
    Request::get(path).header("authorization", format!("Bearer {PLACEHOLDER}"))
}

async fn got(response: Response<Incoming>) -> Got {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Got {
        status: head.status.as_u16(),
        headers: head.headers,
        body: collected.to_bytes().to_vec(),
        trailers,
    }
}

/// What stands for the secret in the request, as the origin read it.
fn shown(exchange: &Exchange) -> String {
    let head = &exchange.head;
    let bearer = head.bearer().map(ToOwned::to_owned);
    let basic = || {
        let value = head.header("authorization")?.strip_prefix("Basic ")?;
        String::from_utf8(STANDARD.decode(value).unwrap()).ok()
    };
    bearer.or_else(basic).unwrap_or_default()
}

async fn answer(mut exchange: Exchange, gate: Arc<Semaphore>) -> Reply {
    exchange.body().await;
    let key = shown(&exchange);
    let target = exchange.head.target.clone();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (word, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match word {
        "fields" => fields(&key),
        "forms" => reply::json(200, &json!({"echo": spellings(&key)})),
        "cut" => cut(&key, rest.parse().unwrap()),
        "coded" => coded(rest, &key).await,
        "events" => events(rest, &key, gate).await,
        "torn" => torn(&key, rest.parse().unwrap(), gate),
        "trailers" => trailers(&key),
        "large" => {
            let text = format!("{key}{}{key}", "0123456789".repeat(20_000));
            let reply = reply::text(200, text.clone());
            reply::with(reply, "content-length", &text.len().to_string())
        }
        "unknown" => reply::with(reply::text(200, "???"), "content-encoding", rest),
        "stale" => reply::with(reply::status(304), "etag", "\"v1\""),
        "ws" => websocket(exchange, &key),
        _ => {
            let authorization = exchange.head.header("authorization").unwrap_or_default();
            let page = format!(
                "no such thing: {target} {query} for {authorization} {:?}",
                exchange.head.headers
            );
            reply::with(
                reply::text(500, page.clone()),
                "content-length",
                &page.len().to_string(),
            )
        }
    }
}

fn fields(key: &str) -> Reply {
    let mut reply = reply::text(200, format!("{{\"token\":\"{key}\"}}"));
    for (name, value) in [
        ("x-echo", format!("Bearer {key}")),
        ("x-basic", STANDARD.encode(format!("user:{key}"))),
        ("set-cookie", format!("session={}; Path=/", percent(key))),
        ("set-cookie", "other=1".to_owned()),
        (
            "location",
            format!("https://{HOST}/next?key={}", percent(key)),
        ),
        ("content-digest", "sha-256=:AAAA:".to_owned()),
        ("etag", "\"v1\"".to_owned()),
    ] {
        reply = reply::with(reply, name, &value);
    }
    let name = HeaderName::from_bytes(b"x-status").unwrap();
    reply.headers_mut().insert(name, "fine".parse().unwrap());
    let reason = hyper::ext::ReasonPhrase::try_from(format!("OK {key}").into_bytes()).unwrap();
    reply.extensions_mut().insert(reason);
    let length = format!("{{\"token\":\"{key}\"}}").len();
    reply::with(reply, "content-length", &length.to_string())
}

fn percent(text: &str) -> String {
    percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string()
}

fn spellings(key: &str) -> Vec<String> {
    let hex = |write: &dyn Fn(u8) -> String| key.bytes().map(write).collect::<String>();
    vec![
        key.to_owned(),
        key.replace('/', "\\/"),
        percent(key),
        percent(key).replace("%2D", "%2d").replace("%2F", "%2f"),
        percent(&percent(key)),
        hex(&|b| format!("%{b:02x}")),
        hex(&|b| format!("&#x{b:X};")),
        key.replace('/', "&#47;").replace('=', "&#x3D;"),
        STANDARD.encode(key),
        STANDARD.encode(format!("u{key}")),
        STANDARD
            .encode(format!("us:{key}:x"))
            .replace('+', "-")
            .replace('/', "_"),
    ]
}

/// The key cut at this octet, the pieces in frames of their own.
fn cut(key: &str, at: usize) -> Reply {
    let text = format!("data: {key}\n\n");
    let (one, two) = text.split_at(at);
    let frames = [one.to_owned(), two.to_owned()];
    let frames = futures_util::stream::iter(frames).then(|text| async move {
        tokio::task::yield_now().await;
        Frame::data(Bytes::from(text))
    });
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::streamed(frames);
    reply::with(reply, "content-type", "text/event-stream")
}

/// Each of these texts compressed and flushed, as one stream.
async fn compress(coding: &str, texts: Vec<String>) -> Vec<Bytes> {
    macro_rules! with {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            let (mut pieces, mut from) = (Vec::new(), 0);
            for text in texts {
                encoder.write_all(text.as_bytes()).await.unwrap();
                encoder.flush().await.unwrap();
                pieces.push(Bytes::copy_from_slice(&encoder.get_ref()[from..]));
                from = encoder.get_ref().len();
            }
            encoder.shutdown().await.unwrap();
            pieces.push(Bytes::copy_from_slice(&encoder.get_ref()[from..]));
            pieces
        }};
    }
    match coding {
        "gzip" => with!(GzipEncoder),
        "deflate" => with!(ZlibEncoder),
        "raw" => with!(DeflateEncoder),
        "br" => with!(BrotliEncoder),
        "zstd" => with!(ZstdEncoder),
        _ => texts.into_iter().map(Bytes::from).collect(),
    }
}

fn named(reply: Reply, coding: &str) -> Reply {
    match coding {
        "identity" => reply,
        coding => reply::with(reply, "content-encoding", &coding.replace("raw", "deflate")),
    }
}

async fn coded(coding: &str, key: &str) -> Reply {
    let text = format!(
        "{{\"echo\":\"{key}\",\"filler\":\"{}\"}}",
        "filler ".repeat(20_000)
    );
    let body = compress(coding, vec![text]).await.concat();
    let length = body.len().to_string();
    let mut reply = reply::with_body(200, "application/json", body);
    for (name, value) in [
        ("content-length", &*length),
        ("etag", "\"v1\""),
        ("repr-digest", "sha-256=:AAAA:"),
    ] {
        reply = reply::with(reply, name, value);
    }
    named(reply, coding)
}

/// An event, then one with the key, then one that ends like the key's beginning: each when the test says so.
async fn events(coding: &str, key: &str, gate: Arc<Semaphore>) -> Reply {
    let texts = ["begin".to_owned(), key.to_owned(), key[..12].to_owned()];
    let texts = texts
        .iter()
        .map(|text| format!("event: tick\ndata: {text}\n\n"));
    let pieces = compress(coding, texts.collect()).await;
    let frames = futures_util::stream::iter(pieces).then(move |piece| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Frame::data(piece)
        }
    });
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::streamed(frames);
    named(
        reply::with(reply, "content-type", "text/event-stream"),
        coding,
    )
}

/// Events whose pieces on the wire are not theirs: with each, but the last, come so many octets of the key in the next.
fn torn(key: &str, at: usize, gate: Arc<Semaphore>) -> Reply {
    let (one, two) = key.split_at(at);
    let pieces = [
        format!("data: begin\n\nevent: tick\ndata: {one}"),
        format!("{two}\n\ndata: {one}"),
        format!("{two}\n\n"),
    ];
    let frames = futures_util::stream::iter(pieces).then(move |piece| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Frame::data(Bytes::from(piece))
        }
    });
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::streamed(frames);
    reply::with(reply, "content-type", "text/event-stream")
}

fn trailers(key: &str) -> Reply {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", "13".parse().unwrap());
    fields.insert("grpc-message", percent(key).parse().unwrap());
    fields.insert(
        "x-details-bin",
        STANDARD.encode(format!("\x0a{key}")).parse().unwrap(),
    );
    let mut message = vec![0, 0, 0, 0, u8::try_from(key.len()).unwrap()];
    message.extend(key.bytes());
    let (one, two) = message.split_at(20);
    let chunks = vec![Bytes::copy_from_slice(one), Bytes::copy_from_slice(two)];
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::with_trailers(chunks, fields);
    reply::with(reply, "content-type", "application/grpc")
}

/// Says the key in two fragments with a ping between, then in one message, then closes.
fn websocket(exchange: Exchange, key: &str) -> Reply {
    let accept = exchange
        .head
        .header("sec-websocket-key")
        .unwrap()
        .to_owned();
    let (one, two) = key.split_at(17);
    let frame = |first: u8, payload: &str| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first, length], payload.as_bytes()].concat()
    };
    let said = [
        frame(0x01, one),
        frame(0x89, "ping"),
        frame(0x80, two),
        frame(0x81, &format!("{{\"k\":\"{key}\"}}")),
        frame(0x81, &key[..20]),
        frame(0x88, ""),
    ];
    tokio::spawn(async move {
        let mut socket = TokioIo::new(exchange.upgrade.await.unwrap());
        for frame in said {
            socket.write_all(&frame).await.unwrap();
            socket.flush().await.unwrap();
        }
        // Until the agent has left.
        socket.read_to_end(&mut Vec::new()).await.ok();
    });
    let reply = reply::with(reply::status(101), "upgrade", "websocket");
    let reply = reply::with(reply, "connection", "upgrade");
    let reply = reply::with(reply, "x-echo", key);
    reply::with(
        reply,
        "sec-websocket-accept",
        &derive_accept_key(accept.as_bytes()),
    )
}

#[tokio::test]
async fn fields_bodies_and_error_pages_show_the_placeholder() {
    let stage = Stage::new().await;
    for version in BOTH {
        let answer = stage.get(version, "/fields").await;
        answer.assert_clean("/fields");
        assert_eq!(answer.text(), format!("{{\"token\":\"{PLACEHOLDER}\"}}"));
        assert_eq!(
            answer.header("x-echo"),
            Some(format!("Bearer {PLACEHOLDER}").as_str())
        );
        let basic = STANDARD.decode(answer.header("x-basic").unwrap()).unwrap();
        assert_eq!(
            String::from_utf8(basic).unwrap(),
            format!("user:{PLACEHOLDER}")
        );
        assert!(
            answer
                .header("location")
                .unwrap()
                .contains(&percent(PLACEHOLDER)[..20])
        );
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(answer.header("content-digest"), None);
        let length = answer.body.len().to_string();
        assert_eq!(
            answer.header("content-length"),
            Some(length.as_str()),
            "it is the same"
        );

        for path in [
            format!("/page?key={PLACEHOLDER}&x=%20"),
            format!("/bot{PLACEHOLDER}/sendMessage"),
        ] {
            let request = Request::get(&path);
            let answer = got(stage.send(version, request).await).await;
            assert_eq!(answer.status, 500);
            assert!(
                answer.text().starts_with("no such thing: /"),
                "{}",
                answer.text()
            );
            answer.assert_clean(&path);
        }
        let basic = STANDARD.encode(format!("git:{PLACEHOLDER}"));
        let request = Request::get("/page").header("authorization", format!("Basic {basic}"));
        let answer = got(stage.send(version, request).await).await;
        answer.assert_clean("a page about Basic credentials");
        assert!(
            answer.text().contains(&format!("for Basic {basic}")),
            "{}",
            answer.text()
        );
    }
    let records = stage.proxy.access_log(8).await;
    assert!(
        records
            .iter()
            .all(|record| record["scrubbed"].as_u64() > Some(0)),
        "{records:#?}"
    );
    // The reason beside the status is HTTP/1.1 only.
    let mut stream = tunnel::tls(&stage.door, HOST, &[b"http/1.1"]).await;
    let head = format!(
        "GET /fields HTTP/1.1\r\nHost: {HOST}\r\nx-key: {PLACEHOLDER}\r\nauthorization: Bearer {PLACEHOLDER}\r\n\r\n"
    );
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    assert!(!answer.phrase.contains("R3al"), "{}", answer.phrase);
}

#[tokio::test]
async fn every_spelling_of_a_secret_is_found() {
    let stage = Stage::new().await;
    let answer = stage.get(Version::HTTP_11, "/forms").await;
    answer.assert_clean("/forms");
    let echo: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let echo = echo["echo"].as_array().unwrap();
    assert_eq!((echo.len(), &echo[0]), (11, &json!(PLACEHOLDER)));
    assert_eq!(stage.proxy.access_log(1).await[0]["scrubbed"], 11);
}

#[tokio::test]
async fn a_secret_cut_at_any_octet_is_found() {
    let stage = Stage::new().await;
    let mut sender = tunnel::http2(&stage.door, HOST).await;
    for at in 0..=REAL.len() + 8 {
        let path = format!("https://{HOST}/cut/{at}");
        let request = with_key(&path).body(reply::full("")).unwrap();
        let answer = got(sender.send_request(request).await.unwrap()).await;
        assert_eq!(
            answer.text(),
            format!("data: {PLACEHOLDER}\n\n"),
            "cut at {at}"
        );
    }
}

#[tokio::test]
async fn compressed_answers_are_searched_in_every_coding() {
    let stage = Stage::new().await;
    for coding in CODINGS {
        for version in BOTH {
            let answer = stage.get(version, &format!("/coded/{coding}")).await;
            answer.assert_clean(coding);
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["echo"], PLACEHOLDER, "{coding}");
            assert_eq!(body["filler"].as_str().unwrap().len(), 140_000);
            assert_eq!(answer.header("content-encoding"), None);
            assert_eq!(answer.header("content-length"), None);
            assert_eq!(answer.header("repr-digest"), None);
            assert_eq!(answer.header("etag"), Some("W/\"v1\""));
        }
    }
    let head = stage
        .send(
            Version::HTTP_11,
            with_key("/coded/gzip").method(Method::HEAD),
        )
        .await;
    let head = got(head).await;
    assert_eq!(
        (head.header("content-encoding"), head.body.len()),
        (None, 0)
    );
    let stale = stage.get(Version::HTTP_11, "/stale").await;
    assert_eq!((stale.status, stale.header("etag")), (304, Some("\"v1\"")));
}

#[tokio::test]
async fn an_event_leaves_as_soon_as_it_has_come() {
    let stage = Stage::new().await;
    let codings = ["identity"].iter().chain(&CODINGS);
    for (coding, version) in codings.flat_map(|coding| BOTH.map(|version| (coding, version))) {
        let mut answer = stage
            .send(version, with_key(&format!("/events/{coding}")))
            .await
            .into_body();
        for text in ["begin", PLACEHOLDER, &REAL[..12]] {
            stage.gate.add_permits(1);
            let expected = format!("event: tick\ndata: {text}\n\n");
            let mut event = Vec::new();
            while event.len() < expected.len() {
                let frame = answer.frame().await.expect("the stream goes on").unwrap();
                event.extend_from_slice(&frame.into_data().unwrap());
            }
            assert_eq!(String::from_utf8(event).unwrap(), expected, "{coding}");
        }
        stage.gate.add_permits(1);
        let rest = answer.collect().await.unwrap().to_bytes();
        assert!(rest.is_empty(), "{coding}");
        // What the end of a stream that is not compressed has not taken.
        stage.gate.try_acquire().map(|permit| permit.forget()).ok();
    }
}

/// Each piece brings the end of an event and the beginning of the next one's secret: the end may not wait for it.
#[tokio::test]
async fn a_secret_torn_between_the_pieces_of_events_is_found_and_no_event_waits_for_the_next() {
    let stage = Stage::new().await;
    for version in BOTH {
        for at in [1, 3, REAL.len() / 2, REAL.len() - 1] {
            let request = with_key(&format!("/torn/{at}"));
            let mut answer = stage.send(version, request).await.into_body();
            let mut seen = String::new();
            for expected in [
                "data: begin\n\n".to_owned(),
                format!("event: tick\ndata: {PLACEHOLDER}\n\n"),
                format!("data: {PLACEHOLDER}\n\n"),
            ] {
                stage.gate.add_permits(1);
                // Nothing more is sent until it is here.
                while !seen.contains(&expected) {
                    let frame = answer.frame().await.expect("the stream goes on").unwrap();
                    let data = frame.into_data().unwrap();
                    seen.push_str(str::from_utf8(&data).unwrap());
                    assert!(
                        !seen.contains(&REAL[..at.max(12)]),
                        "{version:?}, {at}: {seen}"
                    );
                }
                seen = seen.split_off(seen.find(&expected).unwrap() + expected.len());
            }
            let rest = answer.collect().await.unwrap().to_bytes();
            assert!(rest.is_empty(), "{version:?}, {at}");
        }
    }
}

#[tokio::test]
async fn trailers_and_messages_of_grpc_are_searched_and_keep_their_lengths() {
    for placeholder in [PLACEHOLDER, LONG_PLACEHOLDER] {
        let stage = Stage::with("", placeholder).await;
        let request =
            Request::get("/trailers").header("authorization", format!("Bearer {placeholder}"));
        let answer = got(stage.send(Version::HTTP_2, request).await).await;
        answer.assert_clean("a gRPC answer");
        let expected = &placeholder.as_bytes()[..REAL.len()];
        assert_eq!(&answer.body[..5], [0, 0, 0, 0, REAL.len() as u8]);
        assert_eq!(&answer.body[5..], expected);
        assert_eq!(answer.trailers["grpc-status"], "13");
        assert_eq!(
            answer.trailers["grpc-message"],
            percent(placeholder).as_str()
        );
        let details = STANDARD
            .decode(answer.trailers["x-details-bin"].as_bytes())
            .unwrap();
        assert_eq!(details.len(), 1 + REAL.len());
    }
}

#[tokio::test]
async fn a_placeholder_of_another_length_stands_whole_where_no_length_was_told() {
    let stage = Stage::with("", LONG_PLACEHOLDER).await;
    let key = format!("Bearer {LONG_PLACEHOLDER}");
    for version in BOTH {
        let stream = Request::get("/cut/20").header("authorization", &key);
        let stream = got(stage.send(version, stream).await).await;
        assert_eq!(stream.text(), format!("data: {LONG_PLACEHOLDER}\n\n"));

        let large = Request::get("/large").header("authorization", &key);
        let large = got(stage.send(version, large).await).await;
        large.assert_clean("an answer that told its length");
        let length = large.body.len().to_string();
        assert_eq!(large.header("content-length"), Some(length.as_str()));
        assert_eq!(large.body.len(), 2 * REAL.len() + 200_000);
        assert!(large.text().starts_with(&LONG_PLACEHOLDER[..REAL.len()]));
    }
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused_unless_the_rule_lets_it_pass() {
    let stage = Stage::new().await;
    for (coding, named) in [
        ("dcb", "`dcb`"),
        ("gzip,gzip,gzip,gzip", "4 content codings"),
    ] {
        let answer = stage
            .get(Version::HTTP_11, &format!("/unknown/{coding}"))
            .await;
        let text = answer.text();
        assert_eq!(answer.status, 502, "{text}");
        assert!(text.contains(named) && text.contains(HOST), "{text}");
        assert!(
            text.contains("unknownCodings: Pass") && text.contains("documents.yaml:"),
            "{text}"
        );
    }
    assert_eq!(
        stage.proxy.access_log(2).await[0]["reason"],
        "unknown_coding"
    );
    // Without a credential nothing is searched, and nothing refused.
    let answer = got(stage
        .send(Version::HTTP_11, Request::get("/unknown/dcb"))
        .await)
    .await;
    assert_eq!(
        (answer.status, answer.header("content-encoding")),
        (200, Some("dcb"))
    );

    let stage = Stage::with("unknownCodings: Pass", PLACEHOLDER).await;
    let answer = stage.get(Version::HTTP_11, "/unknown/dcb").await;
    assert_eq!(
        (answer.status, answer.header("content-encoding")),
        (200, Some("dcb"))
    );
    assert_eq!(answer.text(), "???");
}

#[tokio::test]
async fn a_body_that_is_not_what_its_coding_says_breaks_off() {
    let stage = Stage::new().await;
    let request = with_key(&format!("https://{HOST}/unknown/gzip"));
    let mut sender = tunnel::http2(&stage.door, HOST).await;
    let answer = sender
        .send_request(request.body(reply::full("")).unwrap())
        .await
        .unwrap();
    // Where the first of it comes with the head, that is told instead.
    let status = answer.status();
    let body = answer.into_body().collect().await;
    assert!(status == 502 || body.is_err(), "{status}");
    assert_eq!(
        stage.proxy.access_log(1).await[0]["end"],
        "origin_undecodable"
    );
}

#[tokio::test]
async fn a_request_with_a_secret_asks_for_nothing_that_cannot_be_searched() {
    let stage = Stage::new().await;
    let fields = [
        ("accept-encoding", "gzip, dcb, br;q=0.5, zstd"),
        ("range", "bytes=0-9"),
        ("if-range", "\"v1\""),
    ];
    let ask = |mut request: http::request::Builder| {
        for (name, value) in fields {
            request = request.header(name, value);
        }
        request
    };
    stage
        .send(Version::HTTP_11, ask(with_key("/fields?with")))
        .await;
    stage
        .send(Version::HTTP_11, ask(Request::get("/fields?without")))
        .await;
    let requests = stage.origin.requests();
    assert_eq!(
        requests[0].header("accept-encoding"),
        Some("gzip, br;q=0.5, zstd")
    );
    assert_eq!(
        (requests[0].header("range"), requests[0].header("if-range")),
        (None, None)
    );
    for (name, value) in fields {
        assert_eq!(requests[1].header(name), Some(value));
    }
}

#[tokio::test]
async fn an_exchange_without_a_credential_passes_as_it_is() {
    let stage = Stage::new().await;
    for coding in CODINGS {
        let path = format!("/coded/{coding}");
        let answer = got(stage.send(Version::HTTP_11, Request::get(&path)).await).await;
        assert_eq!(answer.header("etag"), Some("\"v1\""));
        assert_eq!(answer.header("repr-digest"), Some("sha-256=:AAAA:"));
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()));
        assert_eq!(
            answer.header("content-encoding"),
            Some(coding.replace("raw", "deflate").as_str())
        );
    }
}

#[tokio::test]
async fn messages_of_a_websocket_show_the_placeholder() {
    let stage = Stage::new().await;
    let stream = tunnel::tls(&stage.door, HOST, &[b"http/1.1"]).await;
    let mut request = format!("wss://{HOST}/ws").into_client_request().unwrap();
    let fields = request.headers_mut();
    fields.insert(
        "authorization",
        format!("Bearer {PLACEHOLDER}").parse().unwrap(),
    );
    fields.insert(
        "sec-websocket-extensions",
        "permessage-deflate".parse().unwrap(),
    );
    let (mut socket, answer) = client_async(request, stream).await.unwrap();
    assert_eq!(answer.headers()["x-echo"], PLACEHOLDER);
    let mut said = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => said.push(text.to_string()),
            Message::Close(_) => break,
            _ => {}
        }
    }
    let expected = [
        PLACEHOLDER.to_owned(),
        format!("{{\"k\":\"{PLACEHOLDER}\"}}"),
        REAL[..20].to_owned(),
    ];
    assert_eq!(said, expected);
    drop(socket);
    let asked = stage.origin.only("/ws");
    assert_eq!(asked.header("sec-websocket-extensions"), None);
    assert_eq!(stage.proxy.access_log(1).await[0]["scrubbed"], 3);
}
