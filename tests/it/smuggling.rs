//! Requests with two readings (RFC 9112, section 11.2): refused at every door, and unknown to the origin, whether it
//! is the framing, a line's end, a name or the request line that somebody else may read otherwise.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::support::operator::{PATIENCE, until};
use super::support::origin::Origin;
use super::support::scene::{self, BARE, HOST, PATHS, PLACEHOLDER, REAL_KEY, Scene, TUNNEL};
use super::support::{reply, tape, tunnel, wire};

const AMBIGUOUS: &str = "ambiguous_request";

/// Heads and bodies that the HTTP library would repair or refuse without a word.
fn ambiguous() -> Vec<(&'static str, String, &'static str)> {
    let post = format!("POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\n");
    let get = format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n");
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n");
    vec![
        (
            "TE and CL",
            format!("{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n"),
            "both Content-Length",
        ),
        (
            "CL and TE",
            format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "both Content-Length",
        ),
        (
            "CL twice",
            format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            "stands twice",
        ),
        (
            "CL twice, the same",
            format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
            "stands twice",
        ),
        (
            "CL as a list",
            format!("{post}Content-Length: 5, 5\r\n\r\nhello"),
            "plain number",
        ),
        (
            "CL with a sign",
            format!("{post}Content-Length: +5\r\n\r\nhello"),
            "plain number",
        ),
        (
            "CL spelt otherwise, alone",
            format!("{post}Content_Length: 5\r\n\r\nhello"),
            "spelt with",
        ),
        (
            "TE spelt otherwise, alone",
            format!("{post}transfer_encoding: chunked\r\n\r\n0\r\n\r\n"),
            "spelt with",
        ),
        (
            "empty lines",
            format!("\r\n\r\n\r\n{get}\r\n"),
            "request line",
        ),
        (
            "CL in hex",
            format!("{post}Content-Length: 0x5\r\n\r\nhello"),
            "plain number",
        ),
        (
            "TE twice",
            format!("{chunked}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "once",
        ),
        (
            "TE of another kind",
            format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            "must be `chunked`",
        ),
        (
            "TE in disguise",
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
            "must be `chunked`",
        ),
        (
            "TE in HTTP/1.0",
            format!(
                "POST /v1/x HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            "in HTTP/1.1",
        ),
        (
            "space before a colon",
            format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
            "plain name",
        ),
        (
            "chunk size in 0x",
            format!("{chunked}\r\n0x5\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "chunk size with a sign",
            format!("{chunked}\r\n+5\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "chunk size too long",
            format!("{chunked}\r\n00000000000000005\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "chunk longer than its size",
            format!("{chunked}\r\n5\r\nhelloX\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "chunk with bare LF",
            format!("{chunked}\r\n5\nhello\r\n0\r\n\r\n"),
            "CRLF",
        ),
        (
            "trailer with bare LF",
            format!("{chunked}\r\n0\r\nA: b\nC: d\r\n\r\n"),
            "CRLF",
        ),
        (
            "folded trailer",
            format!("{chunked}\r\n0\r\nA: b\r\n c\r\n\r\n"),
            "folded",
        ),
        (
            "bare LF",
            format!("GET /v1/x HTTP/1.1\nHost: {HOST}\n\n"),
            "CRLF",
        ),
        ("one bare LF", format!("{get}A: b\nC: d\r\n\r\n"), "CRLF"),
        ("folding", format!("{get}A: b\r\n folded\r\n\r\n"), "folded"),
        (
            "folded credential",
            format!("{get}Authorization: Bearer\r\n {PLACEHOLDER}\r\n\r\n"),
            "folded",
        ),
        ("NUL", format!("{get}A: b\0c\r\n\r\n"), "control character"),
        ("CR", format!("{get}A: b\rc\r\n\r\n"), "control character"),
        (
            "escape",
            format!("{get}A: b\x1b[2Jc\r\n\r\n"),
            "control character",
        ),
        (
            "two hosts",
            format!("{get}Host: {HOST}\r\n\r\n"),
            "exactly one Host",
        ),
        (
            "two other hosts",
            format!("{get}Host: evil.example.org\r\n\r\n"),
            "exactly one Host",
        ),
        (
            "no host",
            "GET /v1/x HTTP/1.1\r\n\r\n".to_owned(),
            "exactly one Host",
        ),
        (
            "a line without colon",
            format!("{get}Host\r\n\r\n"),
            "plain name",
        ),
        (
            "HTTP/2 preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "request line",
        ),
        ("HTTP/0.9", "GET /v1/x\r\n".to_owned(), "request line"),
        (
            "HTTP/1.9",
            format!("GET /v1/x HTTP/1.9\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "two spaces",
            format!("GET  /v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "a space in the target",
            format!("GET /v1/x y HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "garbage",
            "\x16\x03\x01\x02\x01\r\n\r\n".to_owned(),
            "request line",
        ),
        (
            "TE with an underscore",
            format!("{post}Content-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "spelt with",
        ),
        (
            "CL with an underscore",
            format!("{post}Content-Length: 5\r\nContent_Length: 0\r\n\r\nhello"),
            "spelt with",
        ),
        (
            "TE in quotes",
            format!("{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
            "must be `chunked`",
        ),
        (
            "TE with a parameter",
            format!("{post}Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
            "must be `chunked`",
        ),
        (
            "TE as a list",
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
            "must be `chunked`",
        ),
        (
            "TE of identity",
            format!("{post}Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
            "must be `chunked`",
        ),
        (
            "TE of nothing",
            format!("{post}Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello"),
            "must be `chunked`",
        ),
        (
            "TE behind a vertical tab",
            format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
            "control character",
        ),
        (
            "TE behind a fold",
            format!("{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
            "must be `chunked`",
        ),
        (
            "TE behind a bare CR",
            format!("{post}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "control character",
        ),
        (
            "TE behind a bare LF",
            format!("{post}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "CRLF",
        ),
        (
            "TE behind two CRs",
            format!("{post}X: y\r\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "control character",
        ),
        (
            "CL below zero",
            format!("{post}Content-Length: -5\r\n\r\nhello"),
            "plain number",
        ),
        (
            "CL of nothing",
            format!("{post}Content-Length:\r\n\r\nhello"),
            "plain number",
        ),
        (
            "CL with a space",
            format!("{post}Content-Length: 5 5\r\n\r\nhello"),
            "plain number",
        ),
        (
            "CL with a dot",
            format!("{post}Content-Length: 5.0\r\n\r\nhello"),
            "plain number",
        ),
        (
            "CL past 64 bits",
            format!("{post}Content-Length: 18446744073709551621\r\n\r\nhello"),
            "plain number",
        ),
        (
            "CL in other digits",
            format!("{post}Content-Length: \u{ff15}\r\n\r\nhello"),
            "plain number",
        ),
        (
            "an empty chunk size",
            format!("{chunked}\r\n\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "a chunk size below zero",
            format!("{chunked}\r\n-5\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "a chunk size with a space before",
            format!("{chunked}\r\n 5\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "two chunk sizes",
            format!("{chunked}\r\n5 6\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "an extension with CR",
            format!("{chunked}\r\n5;a\rb\r\nhello\r\n0\r\n\r\n"),
            "control character",
        ),
        (
            "an extension with LF",
            format!("{chunked}\r\n5;a\nhello\r\n0\r\n\r\n"),
            "CRLF",
        ),
        (
            "an extension with NUL",
            format!("{chunked}\r\n5;a=\0\r\nhello\r\n0\r\n\r\n"),
            "control character",
        ),
        (
            "an extension with an escape",
            format!("{chunked}\r\n5;a=\x1b\r\nhello\r\n0\r\n\r\n"),
            "chunked body",
        ),
        (
            "a chunk with a bare LF behind",
            format!("{chunked}\r\n5\r\nhello\n0\r\n\r\n"),
            "CRLF",
        ),
        (
            "a last chunk with a bare LF",
            format!("{chunked}\r\n5\r\nhello\r\n0\n\r\n"),
            "CRLF",
        ),
        (
            "an end with a bare LF",
            format!("{chunked}\r\n5\r\nhello\r\n0\r\n\n"),
            "CRLF",
        ),
        (
            "a trailer without colon",
            format!("{chunked}\r\n0\r\nGET /v1/y HTTP/1.1\r\n\r\n"),
            "plain name",
        ),
        (
            "a trailer with a space before its colon",
            format!("{chunked}\r\n0\r\nA : b\r\n\r\n"),
            "plain name",
        ),
        (
            "a nameless trailer",
            format!("{chunked}\r\n0\r\n: b\r\n\r\n"),
            "plain name",
        ),
        (
            "a trailer with an escape",
            format!("{chunked}\r\n0\r\nA: \x1b\r\n\r\n"),
            "control character",
        ),
        (
            "a fold before the first field",
            format!("GET /v1/x HTTP/1.1\r\n Host: {HOST}\r\n\r\n"),
            "folded",
        ),
        (
            "a tab before the colon of Host",
            format!("GET /v1/x HTTP/1.1\r\nHost\t: {HOST}\r\n\r\n"),
            "plain name",
        ),
        (
            "a name with a space",
            format!("{get}Content Length: 5\r\n\r\nhello"),
            "plain name",
        ),
        (
            "a name with NUL",
            format!("{get}Content-Length\0: 5\r\n\r\nhello"),
            "control character",
        ),
        (
            "a name that is no ASCII",
            format!("{get}X-\u{e4}: 5\r\n\r\n"),
            "plain name",
        ),
        (
            "a nameless field",
            format!("{get}: 5\r\n\r\n"),
            "plain name",
        ),
        (
            "DEL",
            format!("{get}A: b\x7fc\r\n\r\n"),
            "control character",
        ),
        (
            "tabs in the request line",
            format!("GET\t/v1/x\tHTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "a space before the method",
            format!(" GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "a space behind the version",
            format!("GET /v1/x HTTP/1.1 \r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "a method that is no token",
            format!("GE(T /v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "a method that is no ASCII",
            format!("G\u{e4}T /v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "a version in small letters",
            format!("GET /v1/x http/1.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "a version with zeros",
            format!("GET /v1/x HTTP/01.1\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
        (
            "HTTP/2 without its preface",
            format!("GET /v1/x HTTP/2.0\r\nHost: {HOST}\r\n\r\n"),
            "request line",
        ),
    ]
}

/// Whether the head has one reading.
fn in_body(bytes: &str) -> bool {
    bytes.contains("chunked\r\n\r\n") && !bytes.contains("\r\n\r\n0\r\n")
}

#[tokio::test]
async fn what_has_two_readings_is_refused_within_tls() {
    let scene = Scene::new().await;
    for (case, bytes, says) in ambiguous() {
        let mut stream = scene.inside(HOST).await;
        let answer = wire::say(&mut stream, bytes.as_bytes()).await;
        scene.refused(case, &answer, 400, AMBIGUOUS, says).await;
        assert!(
            wire::rest(&mut stream).await.is_empty(),
            "{case}: a second answer"
        );
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn what_has_two_readings_is_refused_at_the_door() {
    let scene = Scene::new().await;
    for (case, bytes, says) in ambiguous() {
        let mut stream = scene.outside().await;
        let bytes = bytes.replace(" /v1/x", &format!(" http://{HOST}/v1/x"));
        let answer = wire::say(&mut stream, bytes.as_bytes()).await;
        let record = scene.refused(case, &answer, 400, AMBIGUOUS, says).await;
        // A head that was whole is read, whatever is wrong with the body behind it.
        let read = record["ingress"] == "absolute-form" && bytes.contains("chunked\r\n\r\n");
        assert!(read || record["ingress"] == "unread", "{case}: {record}");
        assert!(
            wire::rest(&mut stream).await.is_empty(),
            "{case}: a second answer"
        );
    }
    scene.still_serves().await;
}

/// However the bytes are cut into packets, they have the same reading.
#[tokio::test]
async fn bytes_that_trickle_in_are_refused_alike() {
    let scene = Scene::new().await;
    for (case, bytes, says) in ambiguous() {
        let mut stream = scene.inside(HOST).await;
        for byte in bytes.as_bytes() {
            if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                break; // heard enough
            }
        }
        let answer = wire::hear(&mut stream).await;
        // A head that was whole before the fault in its body has been handed on by then.
        if in_body(&bytes) {
            assert_eq!(answer.status, 400, "{case}: {answer:?}");
            assert!(answer.text().contains(says), "{case}: {answer:?}");
            scene.settle().await;
        } else {
            scene.refused(case, &answer, 400, AMBIGUOUS, says).await;
        }
    }
    scene.still_serves().await;
}

/// They are no request, and the library would gather them.
#[tokio::test]
async fn empty_lines_without_end_are_answered_here() {
    let scene = Scene::new().await;
    let lines = "\r\n".repeat(35_000);
    for inside in [true, false] {
        let answer = match inside {
            true => scene.ask(HOST, &lines).await,
            false => wire::say(&mut scene.outside().await, lines.as_bytes()).await,
        };
        scene
            .refused("empty lines", &answer, 400, AMBIGUOUS, "request line")
            .await;
    }
}

/// What follows a CONNECT is the tunnel's, and nothing else (RFC 9110, section 9.3.6).
#[tokio::test]
async fn a_connect_with_a_body_is_refused() {
    let scene = Scene::new().await;
    for host in [HOST, TUNNEL] {
        for (framing, body) in [
            ("Content-Length: 5", "hello"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        ] {
            let target = format!("{host}:443");
            let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{framing}\r\n\r\n");
            let mut stream = scene.outside().await;
            let answer = wire::say(&mut stream, (head + body).as_bytes()).await;
            scene
                .refused(framing, &answer, 400, AMBIGUOUS, "has no body")
                .await;
            assert!(wire::rest(&mut stream).await.is_empty());
        }
    }
}

/// One request, whatever stands in its body: the origin gets it as a body, and one answer comes back.
#[tokio::test]
async fn requests_within_bodies_stay_there() {
    let (origin, tape) = tape::origin(&[HOST, PATHS, BARE, TUNNEL]).await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let inner = format!("GET /v1/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let length = inner.len();
    for (case, head, body, framing) in [
        (
            "GET with a length",
            "GET /v1/x HTTP/1.1",
            inner.clone(),
            format!("content-length: {length}\r\n"),
        ),
        (
            "a length with zeros",
            "POST /v1/x HTTP/1.1",
            inner.clone(),
            format!("content-length: 000{length}\r\n"),
        ),
        (
            "HEAD with a length",
            "HEAD /v1/x HTTP/1.1",
            inner.clone(),
            format!("content-length: {length}\r\n"),
        ),
        (
            "OPTIONS with a length",
            "OPTIONS /v1/x HTTP/1.1",
            inner.clone(),
            format!("content-length: {length}\r\n"),
        ),
        (
            "chunks",
            "POST /v1/x HTTP/1.1",
            format!("{length:x};a=\"b\"\r\n{inner}\r\n0\r\n\r\n"),
            "transfer-encoding: chunked\r\n".to_owned(),
        ),
        (
            "chunks in capitals",
            "POST /v1/x HTTP/1.1",
            format!("000{length:X}\r\n{inner}\r\n000\r\n\r\n"),
            "TRANSFER-ENCODING:\tCHUNKED \r\n".to_owned(),
        ),
        (
            "a length, behind an empty line",
            "\r\nPOST /v1/x HTTP/1.1",
            inner.clone(),
            format!("content-length: {length}\r\n"),
        ),
        (
            "HTTP/1.0",
            "POST /v1/x HTTP/1.0",
            inner.clone(),
            format!("content-length: {length}\r\n"),
        ),
    ] {
        tape.clear();
        let mut stream = scene.inside(HOST).await;
        let bytes = format!("{head}\r\nHost: {HOST}\r\nConnection: close\r\n{framing}\r\n{body}");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let all = String::from_utf8(wire::rest(&mut stream).await).unwrap();
        assert_eq!(all.matches("HTTP/1.").count(), 1, "{case}: {all}");
        assert!(all.contains(" 200 "), "{case}: {all}");
        let sent = tape.all();
        let (head, body) = sent.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" /v1/x HTTP/1.1\r\n"), "{case}: {sent}");
        let sized = body == inner && head.matches("content-length: ").count() == 1;
        let chunked = body == format!("{length:X}\r\n{inner}\r\n0\r\n\r\n")
            && head.matches("transfer-encoding: chunked").count() == 1;
        assert!(sized != chunked, "{case}: {sent}");
    }
}

/// Who asks first and sends all the same is refused, and what was sent is no request (RFC 9110, section 10.1.1).
#[tokio::test]
async fn a_body_that_nobody_asked_for_is_no_request() {
    let scene = Scene::new().await;
    let inner = format!("GET /v1/smuggled HTTP/1.1\r\nHost: {PATHS}\r\n\r\n");
    for (case, fields, before) in [
        (
            "a length",
            format!("Content-Length: {}\r\n", inner.len()),
            String::new(),
        ),
        (
            "chunks",
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("{:x}\r\n", inner.len()),
        ),
    ] {
        for expects in ["Expect: 100-continue\r\n", "Expect: 100-CONTINUE\r\n", ""] {
            let after = if before.is_empty() {
                ""
            } else {
                "\r\n0\r\n\r\n"
            };
            let head = format!("POST /v2/x HTTP/1.1\r\nHost: {PATHS}\r\n{fields}{expects}\r\n");
            let mut stream = scene.inside(PATHS).await;
            let bytes = format!("{head}{before}{inner}{after}");
            let answer = wire::say(&mut stream, bytes.as_bytes()).await;
            scene
                .refused(case, &answer, 403, "path_not_allowed", "/v1/**")
                .await;
            let last =
                format!("GET /v1/last HTTP/1.1\r\nHost: {PATHS}\r\nConnection: close\r\n\r\n");
            stream.write_all(last.as_bytes()).await.ok();
            let rest = wire::rest(&mut stream).await;
            let rest = String::from_utf8_lossy(&rest);
            assert!(
                rest.matches("HTTP/1.1 ").count() <= 1,
                "{case} {expects}: {rest}"
            );
            if rest.contains(" 200 ") {
                scene.settle().await;
            }
        }
    }
    for request in scene.origin.requests() {
        assert_eq!(request.path(), "/v1/last");
    }
    scene.still_serves().await;
}

/// The forms of a target that belong to a server as a whole, or to CONNECT (RFC 9112, section 3.2).
#[tokio::test]
async fn targets_without_a_path_are_refused() {
    let scene = Scene::new().await;
    for target in [
        "*",
        "echo.example.com",
        "echo.example.com:443",
        "x:1",
        "v1/x",
        "?a=b",
    ] {
        for method in ["GET", "OPTIONS", "POST"] {
            for head in [
                format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"),
                format!("{method} {target} HTTP/1.0\r\nContent-Length: 0\r\n\r\n"),
            ] {
                let answer = scene.ask(HOST, &head).await;
                assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
                let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
                assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
            }
        }
    }
    assert!(scene.origin.requests().is_empty());
    assert_eq!(scene.origin.connections(), 0);
}

/// What old clients do is carried, with the framing of HTTP/1.1 behind.
#[tokio::test]
async fn http_1_0_is_carried_with_one_framing() {
    let (origin, tape) = tape::origin(&[HOST, PATHS, BARE, TUNNEL]).await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let mut stream = scene.inside(HOST).await;
    let head = format!(
        "GET /v1/x HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
    );
    assert_eq!(wire::say(&mut stream, head.as_bytes()).await.status, 200);
    assert_eq!(wire::say(&mut stream, head.as_bytes()).await.status, 200);
    let sent =
        format!("GET /v1/x HTTP/1.1\r\nauthorization: Bearer {REAL_KEY}\r\nhost: {HOST}\r\n\r\n");
    assert_eq!(tape.all(), sent.repeat(2));
    let head = "GET /v1/x HTTP/1.0\r\n\r\nGET /v1/smuggled HTTP/1.0\r\n\r\n";
    let mut stream = scene.inside(HOST).await;
    assert_eq!(wire::say(&mut stream, head.as_bytes()).await.status, 200);
    wire::rest(&mut stream).await;
    assert!(!tape.all().contains("smuggled"));
}

/// Bytes of another protocol where HTTP is due.
#[tokio::test]
async fn tls_within_tls_is_no_request() {
    let scene = Scene::new().await;
    let target = format!("{HOST}:443");
    let (stream, _) = tunnel::connect(&scene.door, &target).await;
    let mut outer = tunnel::handshake(&scene.door, HOST, &[b"http/1.1"], stream)
        .await
        .unwrap();
    let hello = super::support::hello::naming(HOST);
    let answer = wire::say(&mut outer, &hello).await;
    scene
        .refused("TLS within TLS", &answer, 400, AMBIGUOUS, "request line")
        .await;
    assert!(wire::rest(&mut outer).await.is_empty());
    let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let mut outer = scene.inside(HOST).await;
    outer.write_all(connect.as_bytes()).await.unwrap();
    let answer = wire::say(&mut outer, &hello).await;
    scene
        .refused(
            "CONNECT within TLS",
            &answer,
            405,
            "method_refused",
            "method is refused",
        )
        .await;
    assert!(wire::rest(&mut outer).await.is_empty());
    scene.still_serves().await;
}

/// What comes behind a request that is being answered is judged in its turn: the one that is sound gets its answer,
/// the other a refusal, and then the connection is closed.
#[tokio::test]
async fn what_has_two_readings_is_refused_behind_a_request_under_way() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let origin = Origin::tls(&[HOST, PATHS, BARE, TUNNEL], move |mut exchange| {
        let held = held.clone();
        async move {
            exchange.body().await;
            if exchange.head.path() == "/v1/held" {
                held.acquire().await.unwrap().forget();
            }
            reply::text(200, "reached")
        }
    })
    .await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let post = format!("POST /v1/smuggled HTTP/1.1\r\nHost: {HOST}\r\n");
    let both = format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n");
    let unread = format!("{post}N\u{e4}me: a\r\n\r\n");
    let connect =
        format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nHost: {HOST}:443\r\n\r\n");
    let absolute = |text: &str| text.replace(" /v1/", &format!(" https://{HOST}/v1/"));
    for (number, (case, good, bad, says)) in [
        (
            "within",
            format!("GET /v1/held HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            both.clone(),
            "Transfer-Encoding",
        ),
        (
            "within, which the library cannot read",
            format!("GET /v1/held HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            unread,
            "plain name",
        ),
        (
            "outside",
            absolute(&format!("GET /v1/held HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
            absolute(&both),
            "Transfer-Encoding",
        ),
        (
            "outside, CONNECT",
            absolute(&format!("GET /v1/held HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
            connect,
            "exactly one Host",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream: Box<dyn Both> = match case {
            case if case.starts_with("within") => Box::new(scene.inside(HOST).await),
            _ => Box::new(scene.outside().await),
        };
        stream.write_all(good.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        until("it is under way", PATIENCE, async || {
            scene.origin.requests_for("/v1/held").len() == number + 1
        })
        .await;
        stream.write_all(bad.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // It is read by the time another connection is answered.
        let beside = format!("GET /v1/beside HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        assert_eq!(scene.ask(HOST, &beside).await.status, 200);
        gate.add_permits(1);
        assert_eq!(wire::hear(&mut stream).await.status, 200, "{case}");
        scene.honest();
        let refused = wire::hear(&mut stream).await;
        assert_eq!(refused.header("connection"), Some("close"), "{case}");
        scene.refused(case, &refused, 400, AMBIGUOUS, says).await;
        let rest = tokio::time::timeout(PATIENCE, wire::rest(&mut stream)).await;
        assert!(rest.is_ok_and(|rest| rest.is_empty()), "{case}: it goes on");
    }
    assert!(scene.origin.requests_for("/v1/smuggled").is_empty());
}

/// Not even the last piece of it, which may wait long after the origin has sent it.
#[tokio::test]
async fn no_refusal_is_written_into_an_answer_that_its_agent_reads_late() {
    let origin = Origin::tls(&[HOST, PATHS, BARE, TUNNEL], |exchange| async move {
        let size = exchange
            .head
            .path()
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .unwrap_or(0);
        reply::text(200, "a".repeat(size))
    })
    .await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let get = |size| format!("GET /v1/{size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut asked = Vec::new();
    // As much as no system holds of it, or not quite.
    for size in (1..=80_usize).map(|step| step * 50_000) {
        let mut stream = scene.inside(HOST).await;
        stream.write_all(get(size).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        asked.push((size, stream));
    }
    until("all are under way", PATIENCE, async || {
        scene.origin.requests().len() == asked.len()
    })
    .await;
    // By then all that fits is with the system.
    for _ in 0..20 {
        assert_eq!(scene.ask(HOST, &get(0)).await.status, 200);
    }
    for (_, stream) in &mut asked {
        stream
            .write_all(b"GET /v1/\x01 HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(scene.ask(HOST, &get(0)).await.status, 200);
    for (size, stream) in &mut asked {
        let answer = wire::hear(stream).await;
        assert_eq!((answer.status, answer.body.len()), (200, *size));
        assert!(answer.body.iter().all(|octet| *octet == b'a'), "{size}");
        let refused = wire::hear(stream).await;
        assert_eq!(refused.status, 400, "{size}: {refused:?}");
        assert!(refused.text().contains("request line"), "{size}");
    }
}

/// A connection, within TLS or not.
trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}
