//! Requests with two readings, or none: refused in words, on record, and unknown to the origin.

use http::Request;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::proxy::proxy;
use super::support::reply::full;
use super::support::scene::{self, BARE, HOST, PATHS, PLACEHOLDER, REAL_KEY, Scene};
use super::support::tunnel;
use super::support::wire::{self, Answer};

const AMBIGUOUS: &str = "ambiguous_request";

#[tokio::test]
async fn a_bad_request_behind_a_good_one_is_refused_alone() {
    let scene = Scene::new().await;
    let good = format!("GET /v1/good HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let bad = format!("GET /v1/bad HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n");
    let mut stream = scene.inside(HOST).await;
    let answer = wire::say(&mut stream, (good.clone() + &bad + &good).as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    scene.honest();
    let answer = wire::hear(&mut stream).await;
    scene
        .refused("at once", &answer, 400, AMBIGUOUS, "exactly one Host")
        .await;
    assert!(wire::rest(&mut stream).await.is_empty());

    let mut stream = scene.inside(HOST).await;
    assert_eq!(wire::say(&mut stream, good.as_bytes()).await.status, 200);
    scene.settle().await;
    let answer = wire::say(&mut stream, bad.as_bytes()).await;
    scene
        .refused("one by one", &answer, 400, AMBIGUOUS, "exactly one Host")
        .await;
    assert!(wire::rest(&mut stream).await.is_empty());
    scene.still_serves().await;
}

/// Two requests in one write that are both fine are both answered.
#[tokio::test]
async fn honest_pipelining_passes() {
    let scene = Scene::new().await;
    let mut stream = scene.inside(HOST).await;
    let one = format!("GET /v1/one HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let two = format!("POST /v1/two HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(
        wire::say(&mut stream, (one + &two).as_bytes()).await.status,
        200
    );
    assert_eq!(wire::hear(&mut stream).await.status, 200);
    assert_eq!(scene.origin.only("/v1/two").body, b"hi");
}

#[tokio::test]
async fn heads_past_their_bounds_are_refused() {
    let scene = Scene::new().await;
    let get = format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n");
    let long = "y".repeat(70 * 1024);
    for (case, bytes) in [
        ("a header of 70 KiB", format!("{get}X: {long}\r\n\r\n")),
        ("a header without end", format!("{get}X: {long}{long}")),
        (
            "a line of 70 KiB",
            format!("GET /{long} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
        ("a method of 70 KiB", long.to_uppercase()),
        (
            "101 headers",
            format!("{get}{}\r\n", "X: y\r\n".repeat(100)),
        ),
    ] {
        for inside in [true, false] {
            let answer = if inside {
                wire::say(&mut scene.inside(HOST).await, bytes.as_bytes()).await
            } else {
                wire::say(&mut scene.outside().await, bytes.as_bytes()).await
            };
            let says = if case == "101 headers" {
                "more than 100"
            } else {
                "larger than 64 KiB"
            };
            scene
                .refused(case, &answer, 431, "head_too_large", says)
                .await;
        }
    }
    scene.still_serves().await;
}

/// What the library could not even name is told like anything else.
#[tokio::test]
async fn names_targets_and_lengths_that_nothing_can_hold_are_refused_in_words() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {requests: {headSize: 256KiB}}")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let long = "y".repeat(70_000);
    let host = format!("Host: {HOST}\r\n");
    for (case, bytes, status, says) in [
        (
            "a name",
            format!("GET /v1/x HTTP/1.1\r\n{host}{long}: z\r\n\r\n"),
            431,
            "name is longer than 65535",
        ),
        (
            "a target",
            format!("GET /v1/{long} HTTP/1.1\r\n{host}\r\n"),
            414,
            "target is longer than 65534",
        ),
        (
            "a length",
            format!(
                "POST /v1/x HTTP/1.1\r\n{host}Content-Length: {}\r\n\r\n",
                u64::MAX
            ),
            400,
            "below 2^64 - 2",
        ),
    ] {
        let answer = wire::say(&mut scene.inside(HOST).await, bytes.as_bytes()).await;
        scene.refused(case, &answer, status, AMBIGUOUS, says).await;
    }
    scene.still_serves().await;
}

/// The library has bounds of its own for what stands in a body beside its octets.
#[tokio::test]
async fn chunk_extensions_and_trailers_pass_up_to_their_bounds_and_are_refused_in_words_beyond() {
    let scene = Scene::new().await;
    let post = |body: String| {
        format!("POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    let extension = |more: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(16_382 + more));
    let trailer = |more: usize| format!("0\r\nX: {}\r\n\r\n", "t".repeat(16_376 + more));
    let trailers = |more: usize| format!("0\r\n{}\r\n", "X: y\r\n".repeat(100 + more));
    for body in [extension(0), trailer(0), trailers(0)] {
        assert_eq!(scene.ask(HOST, &post(body)).await.status, 200);
    }
    scene.settle().await;
    for (body, status, reason, says) in [
        (
            extension(1),
            400,
            AMBIGUOUS,
            "chunk extensions are longer than 16383",
        ),
        (trailer(1), 431, AMBIGUOUS, "trailers are larger than 16383"),
        (
            trailers(1),
            431,
            "head_too_large",
            "more than 100 header fields",
        ),
    ] {
        let answer = scene.ask(HOST, &post(body)).await;
        scene.refused(says, &answer, status, reason, says).await;
    }
    scene.still_serves().await;
}

/// HTTP/2 has its own words for it: the library answers 431 or resets the stream, and other streams go on.
#[tokio::test]
async fn heads_past_their_bounds_do_not_get_through_by_http2_either() {
    let scene = Scene::new().await;
    let mut sender = tunnel::http2(&scene.door, HOST).await;
    for (count, size) in [(1, 70 * 1024), (2000, 40)] {
        let mut request = Request::get(format!("https://{HOST}/v1/x"))
            .body(full(""))
            .unwrap();
        for number in 0..count {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            request
                .headers_mut()
                .insert(name, "y".repeat(size).parse().unwrap());
        }
        let mut other = tunnel::http2(&scene.door, HOST).await;
        if let Ok(answer) = other.send_request(request).await {
            assert_eq!(answer.status(), 431);
        }
    }
    assert!(scene.origin.requests().is_empty());
    let request = Request::get(format!("https://{HOST}/v1/x"))
        .body(full(""))
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn methods_that_reflect_or_connect_are_refused_within_tls() {
    let scene = Scene::new().await;
    for (method, target) in [
        ("TRACE", "/v1/x"),
        ("trace", "/v1/x"),
        ("TRACK", "/v1/x"),
        ("CONNECT", "echo.example.com:443"),
        ("CONNECT", "127.0.0.1:9090"),
    ] {
        let mut stream = scene.inside(HOST).await;
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = wire::say(&mut stream, request.as_bytes()).await;
        scene
            .refused(method, &answer, 405, "method_refused", "method is refused")
            .await;
        if method == "CONNECT" {
            // What follows is not followed any more, so nothing may.
            assert!(wire::rest(&mut stream).await.is_empty());
        }
    }
    let mut sender = tunnel::http2(&scene.door, HOST).await;
    for method in ["CONNECT", "TRACE"] {
        let uri = if method == "CONNECT" {
            format!("{HOST}:443")
        } else {
            format!("https://{HOST}/v1/x")
        };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(full(""))
            .unwrap();
        let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
        scene
            .refused("http2", &answer, 405, "method_refused", "method is refused")
            .await;
    }
    scene.still_serves().await;
}

/// Methods are case-sensitive (RFC 9110, section 9.1), and origins are not all so strict: what would be another
/// method here and the same there is none.
#[tokio::test]
async fn a_method_in_other_letters_is_refused_and_one_that_nobody_knows_is_matched_as_it_is() {
    let scene = Scene::new().await;
    let (reason, says) = ("malformed_request", "methods are written in capitals");
    for (method, host) in [
        ("get", HOST),
        ("Post", HOST),
        ("delete", HOST),
        ("get", PATHS),
    ] {
        let request = format!("{method} /v1/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = scene.ask(host, &request).await;
        scene.refused(method, &answer, 400, reason, says).await;
        let mut sender = tunnel::http2(&scene.door, host).await;
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{host}/v1/x"))
            .body(full(""))
            .unwrap();
        let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
        scene.refused("http2", &answer, 400, reason, says).await;
    }
    // The rule of this host names GET and POST.
    let unknown = format!("frobnicate /v1/x HTTP/1.1\r\nHost: {PATHS}\r\n\r\n");
    let answer = scene.ask(PATHS, &unknown).await;
    scene
        .refused("unknown", &answer, 403, "method_not_allowed", "allows only")
        .await;
    assert!(scene.origin.requests().is_empty());
    scene.still_serves().await;
}

#[tokio::test]
async fn methods_and_paths_that_no_rule_allows_are_refused() {
    let scene = Scene::new().await;
    for (line, reason, says) in [
        (
            "DELETE /v1/x",
            "method_not_allowed",
            "allows only GET and POST",
        ),
        ("GET /v2/x", "path_not_allowed", "/v1/**"),
        ("GET /", "path_not_allowed", "/v1/**"),
        ("OPTIONS *", "path_not_allowed", "is not allowed"),
        ("GET /v1/admin/x", "denied_by_rule", "refuses"),
        ("GET /v1/%61dmin/x", "denied_by_rule", "refuses"),
        ("GET /v1/admin;a=b/x", "denied_by_rule", "refuses"),
        ("GET /v1/admin%3ba=b/x", "denied_by_rule", "refuses"),
        ("GET /v1/../v2/x", "ambiguous_path", "dot segment"),
        ("GET /v1/%2e%2e/v2/x", "ambiguous_path", "dot segment"),
        ("GET /v1/..;/v2/x", "ambiguous_path", "dot segment"),
        ("GET /v1/..%2fv2/x", "ambiguous_path", "encoded slash"),
        ("GET /v1%2fx", "ambiguous_path", "encoded slash"),
        ("GET /v1/%252e%252e/x", "ambiguous_path", "double encoding"),
        ("GET /v1//x", "ambiguous_path", "empty segment"),
        ("GET //v1/x", "ambiguous_path", "empty segment"),
        ("GET /v1/\\..\\x", "ambiguous_path", "backslash"),
        ("GET /v1/%5c..%5cx", "ambiguous_path", "backslash"),
        ("GET /v1/%00", "ambiguous_path", "control character"),
        (
            "GET https://paths.example.com/v2/x",
            "path_not_allowed",
            "/v1/**",
        ),
        (
            "GET https://paths.example.com/v1/../x",
            "ambiguous_path",
            "dot segment",
        ),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: {PATHS}\r\n\r\n");
        let answer = scene.ask(PATHS, &request).await;
        scene.refused(line, &answer, 403, reason, says).await;
    }
    let mut sender = tunnel::http2(&scene.door, PATHS).await;
    for path in ["/v2/x", "/v1/%2e%2e/x", "/v1/admin;/x"] {
        let request = Request::get(format!("https://{PATHS}{path}"))
            .body(full(""))
            .unwrap();
        let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
        assert_eq!(answer.status, 403, "{path}");
        scene.settle().await;
    }
    assert!(scene.origin.requests_for("/v1/admin;/x").is_empty());
    scene.still_serves().await;
}

/// Some servers believe a header more than the request line.
#[tokio::test]
async fn headers_that_name_another_method_or_path_do_not_pass_policy_by() {
    let scene = Scene::new().await;
    let ask = async |header: &str| {
        let head = format!(
            "POST /v1/x HTTP/1.1\r\nHost: {PATHS}\r\n{header}\r\nContent-Length: 0\r\n\r\n"
        );
        scene.ask(PATHS, &head).await
    };
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        let answer = ask(&format!("{name}: DELETE")).await;
        scene
            .refused(name, &answer, 403, "method_not_allowed", "allows only")
            .await;
        let answer = ask(&format!("{name}: TRACE")).await;
        scene
            .refused(name, &answer, 405, "method_refused", "method")
            .await;
    }
    for name in ["X-Original-URL", "X-Rewrite-URL"] {
        let answer = ask(&format!("{name}: /v1/admin/x")).await;
        scene
            .refused(name, &answer, 400, "malformed_request", "another path")
            .await;
    }
    assert_eq!(ask("X-HTTP-Method-Override: GET").await.status, 200);
}

/// A header that names a method of another rule would bring that rule's credential, or take this one's along.
#[tokio::test]
async fn a_header_does_not_lead_from_one_rule_to_another() {
    let origin = scene::origin().await;
    let proxy = proxy()
        .origin(&origin)
        .policy(&format!(
            "
            - {{hosts: [{BARE}], http: [{{methods: [POST, PUT]}}]}}
            - {{hosts: [{BARE}], http: [{{methods: [DELETE]}}]}}
            "
        ))
        .start()
        .await;
    for (method, status) in [("PUT", 200), ("DELETE", 400)] {
        let head = format!(
            "POST /v1/x HTTP/1.1\r\nHost: {BARE}\r\nX-HTTP-Method-Override: {method}\r\nContent-Length: 0\r\n\r\n"
        );
        let mut stream = tunnel::tls(&proxy.bare_door(), BARE, &[b"http/1.1"]).await;
        let answer = wire::say(&mut stream, head.as_bytes()).await;
        assert_eq!(answer.status, status, "{method}: {answer:?}");
        assert_eq!(answer.text().contains("another rule"), status == 400);
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_refusal_to_head_has_no_body() {
    let scene = Scene::new().await;
    let mut stream = scene.inside(PATHS).await;
    let refused = format!("HEAD /v2/x HTTP/1.1\r\nHost: {PATHS}\r\n\r\n");
    let next = format!("GET /v1/x HTTP/1.1\r\nHost: {PATHS}\r\nConnection: close\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, refused.as_bytes())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, next.as_bytes())
        .await
        .unwrap();
    let all = String::from_utf8(wire::rest(&mut stream).await).unwrap();
    let (first, second) = all.split_once("\r\n\r\n").unwrap();
    assert!(
        first.starts_with("HTTP/1.1 403") && first.contains("x-tollgate-decision: deny"),
        "{first}"
    );
    assert!(second.starts_with("HTTP/1.1 200"), "{all}");

    let mut sender = tunnel::http2(&scene.door, PATHS).await;
    let request = Request::head(format!("https://{PATHS}/v2/x"))
        .body(full(""))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["x-tollgate-decision"], "deny");
    assert!(
        answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );

    let refused = String::from(
        "HEAD http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n",
    );
    let mut stream = scene.outside().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, refused.as_bytes())
        .await
        .unwrap();
    let all = wire::rest(&mut stream).await;
    assert!(all.starts_with(b"HTTP/1.1 403") && all.ends_with(b"\r\n\r\n"));
}

/// A reset in the middle of an upload would take the refusal with it.
#[tokio::test]
async fn a_refusal_reaches_those_who_are_uploading() {
    let scene = Scene::new().await;
    let body = "x".repeat(500_000);
    let mut stream = scene.inside(PATHS).await;
    let head = format!("POST /v2/x HTTP/1.1\r\nHost: {PATHS}\r\nContent-Length: 500000\r\n\r\n");
    let answer = wire::say(&mut stream, (head + &body).as_bytes()).await;
    scene
        .refused("http1", &answer, 403, "path_not_allowed", "/v1/**")
        .await;
    let next = format!("GET /v1/x HTTP/1.1\r\nHost: {PATHS}\r\n\r\n");
    assert_eq!(
        wire::say(&mut stream, next.as_bytes()).await.status,
        200,
        "the same connection"
    );
    scene.settle().await;

    let mut sender = tunnel::http2(&scene.door, PATHS).await;
    let request = Request::post(format!("https://{PATHS}/v2/x"))
        .body(full(body))
        .unwrap();
    let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
    scene
        .refused("http2", &answer, 403, "path_not_allowed", "/v1/**")
        .await;

    // One who announces and never sends is not waited for.
    let mut stream = scene.inside(PATHS).await;
    let head = format!("POST /v2/x HTTP/1.1\r\nHost: {PATHS}\r\nContent-Length: 5\r\n\r\n");
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    scene
        .refused("silent", &answer, 403, "path_not_allowed", "/v1/**")
        .await;
    let head = format!(
        "POST /v2/x HTTP/1.1\r\nHost: {PATHS}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    );
    let answer = wire::say(&mut scene.inside(PATHS).await, head.as_bytes()).await;
    scene
        .refused("asking first", &answer, 403, "path_not_allowed", "/v1/**")
        .await;
}

/// Fast agents are cut by octets long before the time for it is over.
#[tokio::test]
async fn of_a_refused_body_only_a_little_is_read() {
    let scene = Scene::new().await;
    let (mut hears, mut says) = tokio::io::split(scene.inside(PATHS).await);
    let head =
        format!("POST /v2/x HTTP/1.1\r\nHost: {PATHS}\r\nContent-Length: 1000000000\r\n\r\n");
    let sending = async {
        says.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; 64 << 10];
        let mut sent = 0;
        while sent < 1 << 29 && says.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    };
    let mut answer = Vec::new();
    let (sent, _) = tokio::join!(sending, hears.read_to_end(&mut answer));
    // The bound, and what the sockets hold besides.
    assert!(sent < 24 << 20, "{sent} octets were taken");
    scene.still_serves().await;
}

#[tokio::test]
async fn fields_of_the_connection_take_nothing_along() {
    let scene = Scene::new().await;
    for listed in [
        "authorization",
        "close, x-api-key",
        "Cookie",
        "keep-alive,HOST",
        "content-length",
    ] {
        let head = format!(
            "POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: {listed}\r\nAuthorization: Bearer {PLACEHOLDER}\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = scene.ask(HOST, &head).await;
        scene
            .refused(
                listed,
                &answer,
                400,
                "malformed_request",
                "Connection field lists",
            )
            .await;
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn expectations_that_nobody_meets_are_refused() {
    let scene = Scene::new().await;
    for junk in ["200-ok", "100-continue, more", "\"\"", "100-continue; q=1"] {
        let head = format!(
            "POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nExpect: {junk}\r\nContent-Length: 2\r\n\r\nhi"
        );
        let answer = scene.ask(HOST, &head).await;
        scene
            .refused(
                junk,
                &answer,
                400,
                "malformed_request",
                "other than 100-continue",
            )
            .await;
    }
    scene.still_serves().await;
}

/// `h2c` may be ignored (RFC 9110, section 7.8); what is not followed after it must not be a request.
#[tokio::test]
async fn an_upgrade_to_cleartext_http2_is_ignored_and_ends_the_connection() {
    let scene = Scene::new().await;
    let mut stream = scene.inside(HOST).await;
    let head = format!(
        "GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    );
    let smuggled = format!("GET /v1/y HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n");
    let answer = wire::say(&mut stream, (head + &smuggled).as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    wire::rest(&mut stream).await;
    let seen = scene.origin.only("/v1/x");
    assert_eq!(
        (seen.header("upgrade"), seen.header("http2-settings")),
        (None, None)
    );
    assert!(scene.origin.requests_for("/v1/y").is_empty());
}

/// Some servers read trailers as headers: none may bring a credential.
#[tokio::test]
async fn trailers_bring_no_credential() {
    let scene = Scene::new().await;
    let head = format!(
        "POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n\
         2\r\nhi\r\n0\r\nAuthorization: Bearer attacker\r\nX-Api-Key: attacker\r\nCookie: a=b\r\nContent_Length: 5\r\nX-Checksum: 1\r\n\r\n"
    );
    assert_eq!(scene.ask(HOST, &head).await.status, 200);
    let seen = scene.origin.wait_for("the body", |r| r.complete).await;
    assert_eq!(seen.body, b"hi");
    assert_eq!(seen.trailers, [("x-checksum".to_owned(), "1".to_owned())]);
    scene.still_serves().await;
}

/// A GET with a body of unknown length keeps it (Elasticsearch's clients send such).
#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let scene = Scene::new().await;
    for host in [HOST, BARE] {
        let head = format!(
            "GET /v1/get HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n"
        );
        assert_eq!(scene.ask(host, &head).await.status, 200);
        let seen = scene.origin.requests().pop().unwrap();
        assert_eq!(seen.body, b"query", "{host}");
    }
}

#[tokio::test]
async fn requests_that_leave_early_are_on_record_and_hurt_nobody() {
    let scene = Scene::new().await;
    let mut stream = scene.inside(HOST).await;
    let head = format!("POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nhalf");
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    scene
        .origin
        .wait_for("the half", |r| r.body == b"half")
        .await;
    drop(stream);
    let seen = scene.origin.wait_for("the cut", |r| r.cut).await;
    assert!(!seen.complete);
    scene.settle().await;
    scene.still_serves().await;
    assert!(!scene.proxy.output().contains(REAL_KEY));
}
