//! Limits on requests as they come in: each is told with its value and the setting that changes it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use tokio::io::AsyncWriteExt as _;

use super::support::operator::{PATIENCE, until};
use super::support::origin::{Exchange, Origin};
use super::support::proxy::{Proxy, proxy};
use super::support::recorded::Recorded;
use super::support::reply::{self, Reply, full};
use super::support::scene::{self, HOST, PLACEHOLDER, Scene};
use super::support::tunnel;
use super::support::wire::{self, Answer};

async fn scene(limits: &str) -> Scene {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .setting(&format!("limits: {{requests: {{{limits}}}}}"))
        .start()
        .await;
    Scene::with(origin, proxy).await
}

#[tokio::test]
async fn heads_are_as_large_as_the_operator_says() {
    let scene = scene("headSize: 8KiB, headFields: 10").await;
    let get = format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n");
    let of_size = |size: usize| {
        let rest = size - get.len() - "X: \r\n\r\n".len();
        format!("{get}X: {}\r\n\r\n", "y".repeat(rest))
    };
    let of_fields = |count: usize| format!("{get}{}\r\n", "X: y\r\n".repeat(count - 1));
    for inside in [true, false] {
        for (case, head, says) in [
            (
                "size",
                of_size(8193),
                "`spec.limits.requests.headSize`, which is 8 KiB",
            ),
            (
                "fields",
                of_fields(11),
                "`spec.limits.requests.headFields`, which is 10",
            ),
        ] {
            let answer = match inside {
                true => wire::say(&mut scene.inside(HOST).await, head.as_bytes()).await,
                false => wire::say(&mut scene.outside().await, head.as_bytes()).await,
            };
            assert_eq!(
                answer
                    .header("x-tollgate-limit")
                    .map(|l| l.split('.').count()),
                Some(2)
            );
            scene
                .refused(case, &answer, 431, "head_too_large", says)
                .await;
        }
    }
    for head in [of_size(8100), of_fields(10)] {
        assert_eq!(scene.ask(HOST, &head).await.status, 200);
    }
    // Over HTTP/2 too: the field that is one too many is counted here, not by the library.
    let mut sender = tunnel::http2(&scene.door, HOST).await;
    let mut request = http::Request::get(format!("https://{HOST}/v1/x"));
    for number in 0..11 {
        request = request.header(format!("x-{number}"), "y");
    }
    let answer = sender.send_request(request.body(full("")).unwrap()).await;
    assert_eq!(answer.unwrap().status(), 431);
}

#[tokio::test]
async fn more_fields_than_the_library_takes_by_itself_can_be_allowed() {
    let scene = scene("headFields: 300").await;
    let many = format!(
        "GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
        "X: y\r\n".repeat(250)
    );
    assert_eq!(scene.ask(HOST, &many).await.status, 200);
}

#[tokio::test]
async fn a_head_has_the_time_that_the_operator_gives_it() {
    let scene = scene("headTime: 300ms").await;
    for _ in 0..2 {
        let mut stream = scene.outside().await;
        let answer = wire::say(&mut stream, b"GET / HTTP/1.1\r\nHost: a").await;
        let says = "`spec.limits.requests.headTime`, which is 300ms";
        scene
            .refused("slow head", &answer, 408, "slow_request", says)
            .await;
        assert!(wire::rest(&mut stream).await.is_empty(), "it is closed");
    }
}

/// The origin has got the head, and learns that the body broke off; the agent learns why.
#[tokio::test]
async fn a_body_that_stalls_ends_its_request() {
    let scene = scene("bodyIdle: 400ms").await;
    let head = format!(
        "POST /v1/slow HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\
         Content-Length: 10\r\n\r\nhello"
    );
    let mut stream = scene.inside(HOST).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let answer = wire::hear(&mut stream).await;
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(answer.header("x-tollgate-limit"), Some("requests.bodyIdle"));
    let record = scene.record("slow body", "slow_body").await;
    assert_eq!(record["status"], 408);
    let sent = scene.origin.wait_for("the cut", |r| r.cut).await;
    assert!(!sent.complete);
    let series = "tollgate_limits_reached_total{limit=\"requests.bodyIdle\"}";
    until(series, PATIENCE, async || {
        scene.proxy.metric(series).await == Some(1.0)
    })
    .await;
}

/// Its bodies are read whole, since a credential may go into them.
const KEYS: &str = "keys.example.com";
/// Its bodies are passed on as they come.
const PASSED: &str = "passed.example.com";

async fn before_both(origin: &Origin, limits: &str) -> Proxy {
    let credential = format!(
        "hosts: [{KEYS}]\nplaceholder: {{value: keys-placeholder-00001}}\n\
         placements: [{{body: {{pointer: /key, limit: 64KiB}}}}]"
    );
    proxy()
        .origin(origin)
        .policy(&format!(
            "- {{hosts: [{KEYS}], credentials: [keys]}}\n- {{hosts: [{PASSED}], tls: Intercept}}"
        ))
        .credential_file("keys", "keys-REAL-5f02c1aa-REAL", &credential)
        .setting(&format!("limits: {{requests: {{{limits}}}}}"))
        .start()
        .await
}

async fn reached(mut exchange: Exchange) -> Reply {
    exchange.body().await;
    reply::text(200, "reached")
}

/// On HTTP/2 only the stream ends, and others on its connection go on.
#[tokio::test]
async fn a_body_that_stalls_on_a_stream_ends_that_stream_alone() {
    for origin in [
        Origin::tls(&[KEYS, PASSED], reached).await,
        Origin::tls_http1(&[KEYS, PASSED], reached).await,
    ] {
        let proxy = before_both(&origin, "bodyIdle: 400ms").await;
        let door = proxy.bare_door();
        for (number, host) in [PASSED, KEYS].into_iter().enumerate() {
            let mut sender = tunnel::http2(&door, host).await;
            let begun = stream::once(async { Frame::data(Bytes::from("{\"a\":")) });
            let request = http::Request::post(format!("https://{host}/slow"))
                .header("content-type", "application/json")
                .header("content-length", "10")
                .body(reply::streamed(begun.chain(stream::pending())));
            let asked = sender.send_request(request.unwrap());
            let answer = tokio::time::timeout(PATIENCE, asked).await;
            let answer = Answer::of(answer.expect("no answer").unwrap()).await;
            assert_eq!(answer.status, 408, "{host}: {answer:?}");
            let limit = answer.header("x-tollgate-limit");
            assert_eq!(limit, Some("requests.bodyIdle"), "{host}");
            let record = proxy.access_log(2 * number + 1).await.pop().unwrap();
            assert_eq!(record["reason"], "slow_body", "{host}: {record}");
            let next = http::Request::get(format!("https://{host}/next")).body(full(""));
            let next = sender.send_request(next.unwrap()).await.unwrap();
            assert_eq!(next.status(), 200, "after {host}");
            proxy.access_log(2 * number + 2).await;
        }
        let cut = |r: &Recorded| r.path() == "/slow" && r.cut;
        let sent = origin.wait_for("the cut", cut).await;
        assert!(
            !sent.complete && sent.authority.starts_with(PASSED),
            "{sent:?}"
        );
        assert_eq!(origin.requests_for("/slow").len(), 1);
    }
}

/// An origin's time begins when it has all of the request: while more is to come it is the agent's turn.
#[tokio::test]
async fn a_slow_upload_takes_nothing_of_the_time_of_its_origin() {
    const PAUSE: Duration = Duration::from_secs(3);
    let answer = async |mut exchange: Exchange| {
        exchange.body().await;
        if exchange.head.path() == "/mute" {
            std::future::pending::<()>().await;
        }
        reply::text(200, "reached")
    };
    for origin in [
        Origin::tls(&[PASSED], answer).await,
        Origin::tls_http1(&[PASSED], answer).await,
    ] {
        let policy =
            format!("- {{hosts: [{PASSED}], tls: Intercept, timeouts: {{responseHeaders: 2s}}}}");
        let proxy = proxy().origin(&origin).policy(&policy).start().await;
        let door = proxy.bare_door();
        let http1 = async |path: &str, framing: &str, pieces: [&str; 2]| {
            let mut stream = tunnel::tls(&door, PASSED, &[b"http/1.1"]).await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: {PASSED}\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(pieces[0].as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(PAUSE).await;
            stream.write_all(pieces[1].as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            wire::hear(&mut stream).await.status
        };
        let http2 = async |path: &str, length: Option<&str>| {
            let mut sender = tunnel::http2(&door, PASSED).await;
            let said = stream::once(async { Frame::data(Bytes::from("hello")) });
            let later = stream::once(async {
                tokio::time::sleep(PAUSE).await;
                Frame::data(Bytes::from(" again"))
            });
            let request = http::Request::post(format!("https://{PASSED}{path}"));
            let request = length
                .iter()
                .fold(request, |r, length| r.header("content-length", *length));
            let request = request.body(reply::streamed(said.chain(later)));
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            answer.status().as_u16()
        };
        let (length, chunked) = ("Content-Length: 11", "Transfer-Encoding: chunked");
        let chunks = ["5\r\nhello\r\n", "6\r\n again\r\n0\r\n\r\n"];
        let told = tokio::join!(
            http1("/told", length, ["hello", " again"]),
            http1("/chunks", chunked, chunks),
            http2("/told", Some("11")),
            // It may be one side of a conversation, and nobody else would ever end it.
            http2("/untold", None),
            http1("/mute", length, ["hello", " again"]),
        );
        assert_eq!(told, (200, 200, 200, 504, 504));
    }
}

/// One side of a conversation may be silent: it tells no length, and the other side keeps the time.
#[tokio::test]
async fn a_stream_without_a_length_may_be_silent() {
    let origin = Origin::tls(&[KEYS, PASSED], reached).await;
    let proxy = before_both(&origin, "bodyIdle: 300ms").await;
    let mut sender = tunnel::http2(&proxy.bare_door(), PASSED).await;
    let said = stream::once(async { Frame::data(Bytes::from("hello")) });
    let later = stream::once(async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Frame::data(Bytes::from(" again"))
    });
    let request = http::Request::post(format!("https://{PASSED}/talk"))
        .header("content-type", "text/plain")
        .body(reply::streamed(said.chain(later)));
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(origin.only("/talk").body, b"hello again");
}

/// What is read whole is refused as soon as it is past its bound, not once all of it is there.
#[tokio::test]
async fn a_body_past_its_bound_is_refused_before_all_of_it_has_come() {
    let origin = Origin::tls(&[KEYS, PASSED], reached).await;
    let proxy = before_both(&origin, "bodyIdle: 5m").await;
    let door = proxy.bare_door();
    let begun = "x".repeat(80 << 10);
    let head =
        format!("POST /large HTTP/1.1\r\nHost: {KEYS}\r\nContent-Type: application/json\r\n");
    for (case, framing, body) in [
        ("told", "Content-Length: 1000000", begun.clone()),
        (
            "in chunks",
            "Transfer-Encoding: chunked",
            format!("20000\r\n{begun}"),
        ),
    ] {
        let mut stream = tunnel::tls(&door, KEYS, &[b"http/1.1"]).await;
        let request = format!("{head}{framing}\r\n\r\n{body}");
        let answer = wire::say(&mut stream, request.as_bytes()).await;
        assert_eq!(answer.status, 413, "{case}: {answer:?}");
    }
    let mut stream = tunnel::tls(&door, KEYS, &[b"http/1.1"]).await;
    let with_trailers =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nX-Checksum: 1\r\n\r\n");
    let answer = wire::say(&mut stream, with_trailers.as_bytes()).await;
    assert_eq!(answer.status, 400, "with trailers: {answer:?}");
    assert!(origin.requests().is_empty());
}

/// Requests that are sent ahead wait in the kernel: what is read of them is less than two heads.
#[tokio::test]
async fn a_pipeline_without_end_is_not_read_ahead() {
    let (origin, gate) = held().await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut stream = scene.inside(HOST).await;
    stream.write_all(get("/held").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    scene.origin.wait_for("the first", |_| true).await;
    let many = get("/v1/next").repeat(1000);
    let mut written = 0;
    let flood = async {
        loop {
            stream.write_all(many.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            written += many.len();
        }
    };
    // The kernel takes some megabytes on both sides; then nobody reads.
    let stuck = tokio::time::timeout(Duration::from_secs(3), flood).await;
    assert!(stuck.is_err());
    assert!(written < 32 << 20, "{written} octets were read ahead");
    assert_eq!(scene.origin.requests().len(), 1);
    gate.add_permits(1);
}

async fn held() -> (Origin, std::sync::Arc<tokio::sync::Semaphore>) {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let names = [HOST, scene::PATHS, scene::BARE, scene::TUNNEL];
    let origin = Origin::tls(&names, move |_| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            reply::text(200, "reached")
        }
    });
    (origin.await, gate)
}
