//! Origins that fail or misbehave: told to the agent as what they are, and the proxy goes on.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::support::origin::{Exchange, Origin};
use super::support::proxy::{Proxy, ProxyBuilder, proxy};
use super::support::wire::{self, Answer};
use super::support::{reply, tunnel};

const HOST: &str = "rude.example.com";

/// Reads a request's head; its path tells how to behave.
async fn path(stream: &mut TlsStream<TcpStream>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    let head = String::from_utf8(head).unwrap();
    head.split(' ').nth(1).unwrap().to_owned()
}

async fn conduct(mut stream: TlsStream<TcpStream>) {
    let answer: &[u8] = match path(&mut stream).await.as_str() {
        "/closes" => b"",
        "/garbage" => b"\x00\x01\x02 this is not HTTP\r\n\r\n",
        "/half-head" => b"HTTP/1.1 200 OK\r\nContent-Le",
        "/switches" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
        "/two-lengths" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        "/bad-length" => b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nhi",
        "/less" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "/more" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi, HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "/both" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "/bad-chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
        "/bad-chunk-later" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\nhi\r\n0\r\n\r\n",
        "/no-gzip" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Encoding: gzip\r\n\r\nthis is in no coding at all",
        "/fields" => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAlt-Svc: h3=\":443\"\r\nKeep-Alive: timeout=5\r\n\
              Connection: x-hop\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\
              Set-Cookie: a=b; Secure\r\nSet-Cookie: c=d\r\nX-Stays: 1\r\n\r\nhi"
        }
        "/storm" => {
            for _ in 0..2000 {
                let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
                stream.write_all(hint).await.unwrap();
            }
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        }
        "/large-head" => {
            let field = format!("X-Large: {}\r\n", "x".repeat(3000));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}", field.repeat(90));
            stream.write_all(head.as_bytes()).await.ok();
            b"\r\nhi"
        }
        "/many-fields" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}", "X: y\r\n".repeat(100));
            stream.write_all(head.as_bytes()).await.ok();
            b"\r\nhi"
        }
        "/silent" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            b""
        }
        "/falls-silent" => {
            let begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
            stream.write_all(begun).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            b""
        }
        "/ws" => {
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nAlt-Svc: h3=\":443\"\r\n\r\nraw"
        }
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nreached",
    };
    stream.write_all(answer).await.ok();
    stream.shutdown().await.ok();
}

fn before(origin: &Origin) -> ProxyBuilder {
    proxy().origin(origin).policy(
        "
        - hosts: [rude.example.com]
          tls: Intercept
          timeouts: {responseHeaders: 1s, idle: 1s}
        ",
    )
}

async fn ask(proxy: &Proxy, host: &str, path: &str) -> (Answer, Vec<u8>) {
    let mut stream = tunnel::tls(&proxy.door().await, host, &[b"http/1.1"]).await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    let rest = wire::rest(&mut stream).await;
    (answer, rest)
}

async fn last_record(proxy: &Proxy, count: usize) -> Value {
    proxy.access_log(count).await.pop().unwrap()
}

fn assert_told(case: &str, answer: &Answer, status: u16, stage: &str, says: &str) {
    assert_eq!(answer.status, status, "{case}: {answer:?}");
    assert_eq!(
        answer.header("x-tollgate-stage"),
        Some(stage),
        "{case}: {answer:?}"
    );
    assert_eq!(
        answer.header("x-tollgate-decision"),
        None,
        "{case}: not a denial"
    );
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let told = body["error"]["message"].as_str().unwrap();
    assert!(
        told.starts_with("Egress proxy: ") && told.contains(says),
        "{case}: {told}"
    );
}

#[tokio::test]
async fn answers_that_are_none_become_502() {
    let origin = Origin::rude(&[HOST], conduct).await;
    let proxy = before(&origin).start().await;
    let mut count = 0;
    for path in [
        "/closes",
        "/garbage",
        "/half-head",
        "/switches",
        "/two-lengths",
        "/bad-length",
        "/both",
        "/large-head",
        "/many-fields",
    ] {
        let (answer, _) = ask(&proxy, HOST, path).await;
        let says = match path {
            "/large-head" | "/many-fields" => {
                "sent a head of more than 128 KiB or 100 fields, the most that `spec.limits.origins.headSize`"
            }
            _ => "sent no valid HTTP",
        };
        assert_told(path, &answer, 502, "origin_error", says);
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
        count += 1;
        let record = last_record(&proxy, count).await;
        assert_eq!(
            (&record["reason"], &record["status"]),
            (&"origin_error".into(), &502.into()),
            "{path}"
        );
        let (answer, _) = ask(&proxy, HOST, "/fine").await;
        assert_eq!(answer.text(), "reached", "after {path}");
        count += 1;
        proxy.access_log(count).await;
    }
}

#[tokio::test]
async fn bodies_that_break_off_break_off_for_the_agent_too() {
    let origin = Origin::rude(&[HOST], conduct).await;
    let proxy = before(&origin).start().await;
    let door = proxy.door().await;
    let cases = [
        ("/bad-chunk-later", "origin_broke_off", "hi"),
        ("/falls-silent", "origin_silent", "hi"),
        ("/less", "origin_broke_off", "only this"),
    ];
    for (number, (path, end, begun)) in cases.into_iter().enumerate() {
        let mut stream = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let all = String::from_utf8(wire::rest(&mut stream).await).unwrap();
        // The end of chunks or the announced length is what tells whole from broken.
        let whole = all.ends_with("0\r\n\r\n") || all.contains("content-length: 9");
        assert!(!whole, "{path} looks whole: {all}");
        let went_out = all.starts_with("HTTP/1.1 200 OK\r\n") && all.trim_end().ends_with(begun);
        assert!(went_out, "{path}: what had come did not go on: {all:?}");
        let record = last_record(&proxy, 2 * number + 1).await;
        let told = (&record["status"], &record["end"], &record["response_bytes"]);
        let expected = (&200.into(), &end.into(), &begun.len().into());
        assert_eq!(told, expected, "{path}: {record}");

        let mut sender = tunnel::http2(&door, HOST).await;
        let request = http::Request::get(format!("https://{HOST}{path}"));
        let request = request.body(reply::full("")).unwrap();
        // A reset drops what the library has not written by then: the head may be lost with it, and the stream ends
        // in an error either way.
        if let Ok(answer) = sender.send_request(request).await {
            assert_eq!(answer.status(), 200, "{path}");
            assert!(answer.into_body().collect().await.is_err(), "{path}");
        }
        proxy.access_log(2 * number + 2).await;
    }
    assert_eq!(ask(&proxy, HOST, "/fine").await.0.text(), "reached");
}

#[tokio::test]
async fn heads_of_answers_are_as_large_as_the_operator_says() {
    let answer = |exchange: Exchange| async move {
        let (size, count) = match exchange.head.path() {
            "/large" => (9 << 10, 1),
            "/many" => (1, 12),
            _ => (6 << 10, 8),
        };
        let mut reply = reply::text(200, "reached");
        for number in 0..count {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            let value = "y".repeat(size / count);
            reply.headers_mut().insert(name, value.parse().unwrap());
        }
        reply
    };
    for origin in [
        Origin::tls(&[HOST], answer).await,
        Origin::tls_http1(&[HOST], answer).await,
    ] {
        let proxy = before(&origin)
            .setting("limits: {origins: {headSize: 8KiB, headFields: 11}}")
            .start()
            .await;
        for path in ["/large", "/many"] {
            let (answer, _) = ask(&proxy, HOST, path).await;
            let says = "more than 8 KiB or 11 fields";
            assert_told(path, &answer, 502, "origin_error", says);
            assert_eq!(ask(&proxy, HOST, "/fine").await.0.text(), "reached");
        }
    }
}

/// The library's own bounds are lower, and others for either version.
#[tokio::test]
async fn heads_of_answers_may_be_larger_than_the_library_takes_by_itself() {
    let answer = |_| async {
        let mut reply = reply::text(200, "reached");
        for number in 0..200 {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            let value = "y".repeat(3 << 10).parse().unwrap();
            reply.headers_mut().insert(name, value);
        }
        reply
    };
    for origin in [
        Origin::tls(&[HOST], answer).await,
        Origin::tls_http1(&[HOST], answer).await,
    ] {
        let proxy = before(&origin)
            .setting("limits: {origins: {headSize: 1MiB, headFields: 300}}")
            .start()
            .await;
        let (answer, _) = ask(&proxy, HOST, "/large").await;
        assert_eq!(answer.text(), "reached", "{answer:?}");
        assert!(answer.header("x-199").is_some());
    }
}

/// Where nothing of an answer has gone on, since what is wrong comes in one packet with its head, it is told what is wrong with it.
#[tokio::test]
async fn an_answer_that_breaks_before_its_first_octet_is_a_502() {
    let origin = Origin::rude(&[HOST], conduct).await;
    let placeholder = "rude-placeholder-0001";
    let key = format!(
        "hosts: [{HOST}]\nplacements: [{{bearer: {{}}}}]\nplaceholder: {{value: {placeholder}}}\n"
    );
    let policy = format!("[{{hosts: [{HOST}], credentials: [rude]}}]");
    let proxy = proxy()
        .origin(&origin)
        .policy(&policy)
        .credential_file("rude", "rude-REAL-5b1f-REAL", &key)
        .start()
        .await;
    let door = proxy.door().await;
    let mut count = 0;
    for (path, credential, says, end) in [
        (
            "/bad-chunk",
            "",
            "before its body began",
            "origin_broke_off",
        ),
        (
            "/bad-chunk",
            placeholder,
            "before its body began",
            "origin_broke_off",
        ),
        (
            "/no-gzip",
            placeholder,
            "Content-Encoding",
            "origin_undecodable",
        ),
    ] {
        let case = format!("{path} {credential}");
        let mut stream = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {credential}\r\n\r\n"
        );
        let answer = wire::say(&mut stream, head.as_bytes()).await;
        assert_told(&case, &answer, 502, "origin_error", says);

        let mut sender = tunnel::http2(&door, HOST).await;
        let request = http::Request::get(format!("https://{HOST}{path}"))
            .header("authorization", format!("Bearer {credential}"));
        let request = request.body(reply::full("")).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 502, "{case}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(
            String::from_utf8_lossy(&body).contains(says),
            "{case}: {body:?}"
        );

        count += 2;
        for record in proxy.access_log(count).await.split_off(count - 2) {
            let told = (&record["status"], &record["reason"], &record["end"]);
            let expected = (&502.into(), &"origin_error".into(), &end.into());
            assert_eq!(told, expected, "{case}: {record}");
        }
    }
    let failed =
        format!("tollgate_upstream_failures_total{{host=\"{HOST}\",stage=\"origin_error\"}}");
    assert_eq!(proxy.metric(&failed).await, Some(count as f64));
}

#[tokio::test]
async fn one_request_gets_one_answer_however_much_the_origin_sends() {
    let origin = Origin::rude(&[HOST], conduct).await;
    let proxy = before(&origin).start().await;
    let (answer, rest) = ask(&proxy, HOST, "/more").await;
    assert_eq!((answer.text().as_str(), rest.as_slice()), ("hi", &b""[..]));
    assert_eq!(ask(&proxy, HOST, "/fine").await.0.text(), "reached");
    let (answer, _) = ask(&proxy, HOST, "/storm").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
}

#[tokio::test]
async fn what_concerns_one_connection_or_leads_past_the_proxy_stays_behind() {
    let origin = Origin::rude(&[HOST], conduct).await;
    let proxy = before(&origin).start().await;
    let (answer, _) = ask(&proxy, HOST, "/fields").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    for gone in [
        "alt-svc",
        "keep-alive",
        "x-hop",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
    ] {
        assert_eq!(answer.header(gone), None, "{answer:?}");
    }
    let cookies: Vec<_> = answer
        .headers
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie"))
        .collect();
    assert_eq!(cookies.len(), 2);
    assert_eq!(answer.header("x-stays"), Some("1"));

    let mut stream = tunnel::tls(&proxy.door().await, HOST, &[b"http/1.1"]).await;
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("alt-svc"), None, "{answer:?}");
    assert_eq!(wire::rest(&mut stream).await, b"raw");
}

#[tokio::test]
async fn an_origin_that_says_nothing_is_given_up_in_time() {
    let origin = Origin::rude(&[HOST], conduct).await;
    let proxy = before(&origin).start().await;
    let started = Instant::now();
    let (answer, _) = ask(&proxy, HOST, "/silent").await;
    assert_told(
        "/silent",
        &answer,
        504,
        "response_timeout",
        "no response head in time",
    );
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(last_record(&proxy, 1).await["reason"], "response_timeout");
    assert_eq!(ask(&proxy, HOST, "/fine").await.0.text(), "reached");
}

#[tokio::test]
async fn origins_that_cannot_be_reached_end_in_502() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let plain = Origin::plain(&["plain.example.com"], |_| async {
        reply::text(200, "reached")
    })
    .await;
    let proxy = proxy()
        .resolve("closed.example.com", closed)
        .resolve("plain.example.com", plain.addr)
        .policy(
            "
            - {hosts: [closed.example.com], tls: Intercept}
            - {hosts: [tunnel.closed.example.com, nowhere.invalid, plain.example.com]}
            - {hosts: [name.invalid], tls: Intercept}
            ",
        )
        .resolve("tunnel.closed.example.com", closed)
        .start()
        .await;
    let (answer, _) = ask(&proxy, "closed.example.com", "/").await;
    assert_told("closed", &answer, 502, "connect", "connection refused");
    assert_eq!(last_record(&proxy, 1).await["reason"], "connect");
    let (answer, _) = ask(&proxy, "name.invalid", "/").await;
    assert_told(
        "no such name",
        &answer,
        502,
        "dns",
        "DNS has no address for name.invalid",
    );
    assert_eq!(last_record(&proxy, 2).await["reason"], "dns");

    // A tunnel is dialled before CONNECT is answered, so the reason phrase can tell.
    let door = proxy.door().await;
    let (_, status) = tunnel::connect(&door, "tunnel.closed.example.com:443").await;
    assert!(
        status.starts_with("HTTP/1.1 502 no connection to tunnel.closed"),
        "{status}"
    );
    let (_, status) = tunnel::connect(&door, "nowhere.invalid:443").await;
    assert!(
        status.starts_with("HTTP/1.1 502 DNS has no address"),
        "{status}"
    );
    let reasons: Vec<Value> = proxy
        .access_log(4)
        .await
        .iter()
        .map(|r| r["reason"].clone())
        .collect();
    assert_eq!(reasons, ["connect", "dns", "connect", "dns"]);

    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    let head = b"GET http://plain.example.com/ HTTP/1.1\r\nHost: plain.example.com\r\n\r\n";
    assert_eq!(wire::say(&mut stream, head).await.text(), "reached");
}
