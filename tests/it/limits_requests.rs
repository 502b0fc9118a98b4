//! Limits on requests as they come in: each is told with its value and the setting that changes it.

use tokio::io::AsyncWriteExt as _;

use super::support::operator::{PATIENCE, until};
use super::support::reply::full;
use super::support::scene::{self, HOST, PLACEHOLDER, Scene};
use super::support::{tunnel, wire};

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
    let stuck = tokio::time::timeout(std::time::Duration::from_secs(3), flood).await;
    assert!(stuck.is_err());
    assert!(written < 32 << 20, "{written} octets were read ahead");
    assert_eq!(scene.origin.requests().len(), 1);
    gate.add_permits(1);
}

async fn held() -> (
    super::support::origin::Origin,
    std::sync::Arc<tokio::sync::Semaphore>,
) {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let names = [HOST, scene::PATHS, scene::BARE, scene::TUNNEL];
    let origin = super::support::origin::Origin::tls(&names, move |_| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            super::support::reply::text(200, "reached")
        }
    });
    (origin.await, gate)
}
