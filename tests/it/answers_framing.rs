//! Answers of HTTP/1.1 origins with two readings: one request gets one answer, and what else an origin sends on a
//! kept connection is nobody's answer (RFC 9112, sections 6.3 and 9.3).

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::http::{SPOKEN, Speaks};
use super::support::operator::{PATIENCE, until};
use super::support::origin::Origin;
use super::support::proxy::proxy;
use super::support::reply::full;
use super::support::scene::{BARE, HOST, PATHS, PLACEHOLDER, REAL_KEY, Scene, TUNNEL};
use super::support::{scene, tunnel, wire};

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// An answer's text, and whether whoever asked may have it at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Yes, with this body.
    Whole(&'static str),
    /// No: it is the origin's failure.
    Not,
    /// It breaks off.
    Broken,
}

/// Answers, how agents take them, and whether their connection may be used again.
fn answers() -> Vec<(&'static str, String, Takes)> {
    use Takes::*;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
    let two = "2\r\nhi\r\n0\r\n\r\n";
    vec![
        (
            "/both",
            format!("{chunked}Content-Length: 12\r\n\r\n{two}"),
            Not,
        ),
        (
            "/both-around",
            format!("{sized}Transfer-Encoding: chunked\r\n\r\n{two}"),
            Not,
        ),
        (
            "/both-and-more",
            format!("{sized}Transfer-Encoding: chunked\r\n\r\n{two}{POISON}"),
            Not,
        ),
        (
            "/lengths",
            format!("{sized}Content-Length: 3\r\n\r\nhi!"),
            Not,
        ),
        (
            "/lengths-alike",
            format!("{sized}Content-Length: 2\r\n\r\nhi"),
            Not,
        ),
        (
            "/length-list",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/length-sign",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/length-hex",
            "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/length-below",
            "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/length-huge",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/length-spaced",
            "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/gzip-chunked",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{two}"),
            Not,
        ),
        (
            "/chunked-twice",
            format!("{chunked}Transfer-Encoding: chunked\r\n\r\n{two}"),
            Not,
        ),
        (
            "/chunked-list",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n{two}"),
            Not,
        ),
        (
            "/chunked-then",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n{two}"),
            Not,
        ),
        (
            "/xchunked",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n{two}"),
            Not,
        ),
        (
            "/identity",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi"
                .to_owned(),
            Not,
        ),
        (
            "/chunked-of-old",
            format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{two}"),
            Not,
        ),
        (
            "/folded",
            format!("{sized}X-A: 1\r\n Set-Cookie: a=b\r\n\r\nhi"),
            Not,
        ),
        ("/nul", format!("{sized}X-A: 1\x002\r\n\r\nhi"), Not),
        ("/cr", format!("{sized}X-A: 1\r2\r\n\r\nhi"), Not),
        ("/nameless", format!("{sized}: 1\r\n\r\nhi"), Not),
        ("/no-colon", format!("{sized}X-A\r\n\r\nhi"), Not),
        ("/old", "hi there\r\n\r\n".to_owned(), Not),
        (
            "/icy",
            "ICY 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/newer",
            "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/status",
            "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
            Not,
        ),
        (
            "/switched",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
                .to_owned(),
            Not,
        ),
        (
            "/size-hex",
            format!("{chunked}\r\n0x2\r\nhi\r\n0\r\n\r\n"),
            Broken,
        ),
        (
            "/size-sign",
            format!("{chunked}\r\n+2\r\nhi\r\n0\r\n\r\n"),
            Broken,
        ),
        (
            "/size-none",
            format!("{chunked}\r\n\r\nhi\r\n0\r\n\r\n"),
            Broken,
        ),
        (
            "/size-huge",
            format!("{chunked}\r\n10000000000000002\r\nhi\r\n0\r\n\r\n"),
            Broken,
        ),
        (
            "/size-line",
            format!("{chunked}\r\n2\nhi\r\n0\r\n\r\n"),
            Broken,
        ),
        (
            "/extension-line",
            format!("{chunked}\r\n2;a\nhi\r\n0\r\n\r\n"),
            Broken,
        ),
        (
            "/chunk-end",
            format!("{chunked}\r\n2\r\nhi!\r\n0\r\n\r\n"),
            Broken,
        ),
        ("/more", format!("{sized}\r\nhi{POISON}"), Whole("hi")),
        (
            "/more-chunks",
            format!("{chunked}\r\n{two}{POISON}"),
            Whole("hi"),
        ),
        (
            "/more-none",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{POISON}"),
            Whole(""),
        ),
        (
            "/no-content",
            format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}"),
            Whole(""),
        ),
        (
            "/no-content-sized",
            format!("HTTP/1.1 204 No Content\r\nContent-Length: 51\r\n\r\n{POISON}"),
            Whole(""),
        ),
        (
            "/not-modified",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 51\r\n\r\n{POISON}"),
            Whole(""),
        ),
        (
            "/hinted",
            format!("HTTP/1.1 103 Early Hints\r\nContent-Length: 51\r\n\r\n{sized}\r\nhi"),
            Whole("hi"),
        ),
        (
            "/continued",
            format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{sized}\r\nhi"),
            Whole("hi"),
        ),
        (
            "/lines",
            format!("{sized}X-A: 1\r\n\r\nhi\r\n\r\n"),
            Whole("hi"),
        ),
        (
            "/closed",
            "HTTP/1.1 200 OK\r\n\r\nhi".to_owned(),
            Whole("hi"),
        ),
    ]
}

async fn path(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    Some(head.split(' ').nth(1)?.to_owned())
}

/// Keeps every connection open, so that it is the proxy that has to give it up.
async fn conduct(mut stream: TlsStream<TcpStream>) {
    while let Some(path) = path(&mut stream).await {
        let known = answers().into_iter().find(|(case, ..)| *case == path);
        let fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine".to_owned();
        let answer = known.map_or(fine, |(_, answer, _)| answer);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if path == "/closed" {
            stream.shutdown().await.ok();
            return;
        }
    }
}

async fn scene_before(origin: Origin) -> Scene {
    let proxy = scene::in_front_of(&origin).start().await;
    Scene::with(origin, proxy).await
}

/// Status and body; nothing if it broke off.
async fn ask(scene: &Scene, speaks: Speaks, method: &str, path: &str) -> Option<(u16, String)> {
    let asked = tokio::time::timeout(PATIENCE, asked(scene, speaks, method, path)).await;
    asked.unwrap_or_else(|_| panic!("{path} by {speaks:?} does not end"))
}

async fn asked(scene: &Scene, speaks: Speaks, method: &str, path: &str) -> Option<(u16, String)> {
    let request = http::Request::builder()
        .method(method)
        .header("authorization", format!("Bearer {PLACEHOLDER}"));
    let answer = match speaks {
        Speaks::Http1 => {
            let request = request.uri(path).header("host", HOST);
            let mut sender = tunnel::http1(&scene.door, HOST).await;
            sender.send_request(request.body(full("")).unwrap()).await
        }
        Speaks::Http2 => {
            let request = request.uri(format!("https://{HOST}{path}"));
            let mut sender = tunnel::http2(&scene.door, HOST).await;
            sender.send_request(request.body(full("")).unwrap()).await
        }
    };
    let answer = answer.ok()?;
    for name in ["content-length", "transfer-encoding"] {
        assert!(
            answer.headers().get_all(name).iter().count() < 2,
            "{path}: {answer:?}"
        );
    }
    let status = answer.status().as_u16();
    if status == 204 {
        let length = answer.headers().get("content-length");
        assert_eq!(length, None, "{path} by {speaks:?}");
    }
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

#[tokio::test]
async fn an_answer_has_one_reading_and_its_connection_no_other_answer() {
    let scene = scene_before(Origin::rude(&[HOST, PATHS, BARE, TUNNEL], conduct).await).await;
    let mut wrong = Vec::new();
    for speaks in SPOKEN {
        for (path, _, takes) in answers() {
            let before = scene.origin.connections();
            let answer = ask(&scene, speaks, "GET", path).await;
            let right = match (takes, &answer) {
                (Takes::Whole(body), Some((status, text))) => *status < 400 && text == body,
                (Takes::Not, Some((status, text))) => {
                    *status == 502 && text.contains("sent no valid HTTP")
                }
                (Takes::Broken, answer) => answer.as_ref().is_none_or(|(s, _)| *s == 502),
                (_, None) => false,
            };
            if !right {
                wrong.push(format!("{path} by {speaks:?}: {answer:?}"));
            }
            for _ in 0..3 {
                let next = ask(&scene, speaks, "GET", "/fine").await;
                if next != Some((200, "fine".to_owned())) {
                    wrong.push(format!("after {path} by {speaks:?}: {next:?}"));
                }
            }
            let sound = ["/hinted", "/continued"].contains(&path);
            let opened = scene.origin.connections() - before;
            if !sound && opened == 0 && before > 0 {
                wrong.push(format!(
                    "{path} by {speaks:?}: its connection is used again"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!scene.proxy.output().contains(REAL_KEY));
}

/// Which connection is in doubt the library does not tell, but of which origin it is.
#[tokio::test]
async fn an_answer_with_two_readings_costs_other_origins_no_connection() {
    let scene = scene_before(Origin::rude(&[HOST, PATHS, BARE, TUNNEL], conduct).await).await;
    let ask = async |host: &str, path: &str| {
        let mut stream = scene.inside(host).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        wire::say(&mut stream, head.as_bytes()).await.status
    };
    let others = [PATHS, BARE];
    for host in [HOST].into_iter().chain(others) {
        assert_eq!(ask(host, "/v1/fine").await, 200);
    }
    let before = scene.origin.connections();
    assert_eq!(ask(HOST, "/both-around").await, 502);
    for host in others {
        assert_eq!(ask(host, "/v1/fine").await, 200);
    }
    // One whose name happens to fall together with the origin's is connected to anew; both do not.
    let opened = scene.origin.connections() - before;
    assert!(opened < others.len(), "{opened} are connected to anew");
}

/// Upgrades have connections of their own, and one that was not granted is used for the next.
#[tokio::test]
async fn a_connection_for_upgrades_whose_answer_has_two_readings_is_not_used_again() {
    let scene = scene_before(Origin::rude(&[HOST, PATHS, BARE, TUNNEL], conduct).await).await;
    let ask = async |path: &str| {
        let mut stream = scene.inside(HOST).await;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        wire::say(&mut stream, head.as_bytes()).await.status
    };
    until("one is used for the next", PATIENCE, async || {
        let before = scene.origin.connections();
        assert_eq!(ask("/fine").await, 200);
        scene.origin.connections() == before
    })
    .await;
    assert_eq!(ask("/both-around").await, 502);
    let before = scene.origin.connections();
    assert_eq!(ask("/fine").await, 200);
    assert_eq!(scene.origin.connections(), before + 1);
}

/// HEAD has no body whatever its head says; what comes all the same is nobody's answer.
#[tokio::test]
async fn a_body_behind_an_answer_to_head_is_nobodys() {
    let scene = scene_before(Origin::rude(&[HOST, PATHS, BARE, TUNNEL], conduct).await).await;
    for speaks in SPOKEN {
        for path in ["/more", "/more-none", "/lines"] {
            let answer = ask(&scene, speaks, "HEAD", path).await;
            assert_eq!(answer, Some((200, String::new())), "{path}");
            let next = ask(&scene, speaks, "GET", "/fine").await;
            assert_eq!(next, Some((200, "fine".to_owned())), "after {path}");
        }
    }
}

/// An answer that nobody asked for, on a connection that waits for its next request.
#[tokio::test]
async fn an_answer_without_a_request_is_nobodys() {
    let origin = Origin::rude(&[HOST, PATHS, BARE, TUNNEL], |mut stream| async move {
        while let Some(path) = path(&mut stream).await {
            let fine = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
            stream.write_all(fine).await.ok();
            stream.flush().await.ok();
            if path == "/poisons" {
                // In a record of its own, once the answer before has been taken.
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.write_all(POISON.as_bytes()).await.ok();
                stream.flush().await.ok();
            }
        }
    })
    .await;
    let scene = scene_before(origin).await;
    for round in 0..10 {
        let answer = ask(&scene, Speaks::Http1, "GET", "/poisons").await;
        assert_eq!(answer, Some((200, "fine".to_owned())), "{round}");
        let before = scene.origin.connections();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let answer = ask(&scene, Speaks::Http1, "GET", "/fine").await;
        assert_eq!(answer, Some((200, "fine".to_owned())), "{round}");
        assert_eq!(scene.origin.connections(), before + 1, "{round}");
    }
}

/// Interim answers end at some point, or the request does.
#[tokio::test]
async fn interim_answers_without_end_are_given_up() {
    let origin = Origin::rude(&[HOST, PATHS, BARE, TUNNEL], |mut stream| async move {
        if path(&mut stream).await.as_deref() != Some("/storm") {
            let fine = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
            stream.write_all(fine).await.ok();
            return;
        }
        let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(100);
        while stream.write_all(&hint).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let proxy = proxy()
        .origin(&origin)
        .policy(
            "
            - hosts: [echo.example.com]
              tls: Intercept
              timeouts: {responseHeaders: 2s}
            ",
        )
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let (status, text) = ask(&scene, Speaks::Http1, "GET", "/storm").await.unwrap();
    assert_eq!(status, 504, "{text}");
    let answer = ask(&scene, Speaks::Http1, "GET", "/fine").await;
    assert_eq!(answer, Some((200, "fine".to_owned())));
}

/// Trailers of an answer say nothing that only its head may, and nothing in the proxy's name.
#[tokio::test]
async fn an_answers_trailers_say_nothing_that_only_a_head_may() {
    let origin = Origin::rude(&[HOST, PATHS, BARE, TUNNEL], |mut stream| async move {
        while path(&mut stream).await.is_some() {
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
                Trailer: x-checksum, content-length, x-tollgate-decision, set-cookie, connection\r\n\r\n\
                2\r\nhi\r\n0\r\nX-Checksum: 1\r\nContent-Length: 51\r\nTransfer-Encoding: chunked\r\n\
                X-Tollgate-Decision: deny\r\nConnection: close\r\nAlt-Svc: h3=\":443\"\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.ok();
        }
    })
    .await;
    let scene = scene_before(origin).await;
    let mut sender = tunnel::http2(&scene.door, HOST).await;
    for key in ["", PLACEHOLDER] {
        let request = http::Request::get(format!("https://{HOST}/x"))
            .header("authorization", format!("Bearer {key}"))
            .header("te", "trailers");
        let request = match key {
            "" => http::Request::get(format!("https://{HOST}/x")).header("te", "trailers"),
            _ => request,
        };
        let answer = sender
            .send_request(request.body(full("")).unwrap())
            .await
            .unwrap();
        let body = answer.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["x-checksum"]);
    }
    let head =
        format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: close\r\n\r\n");
    let mut stream = scene.inside(HOST).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let all = String::from_utf8(wire::rest(&mut stream).await).unwrap();
    assert!(
        all.ends_with("2\r\nhi\r\n0\r\nx-checksum: 1\r\n\r\n"),
        "{all}"
    );
}
