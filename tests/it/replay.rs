//! An origin that answers 401 to a credential that can be renewed is asked once more, and the agent
//! sees the second answer only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tollgate::credential::held::{HeldCredential, Renewer, Unavailable};
use tollgate::credential::source::{Fetched, SourceError};
use tollgate::types::secret::Secret;

use super::http::{Speaks, ask, send};
use super::support::echo::{self, HOST, PLACEHOLDER, REAL_KEY, pattern};
use super::support::inside::Inside;
use super::support::operator::{PATIENCE, until};
use super::support::origin::{Exchange, Origin};
use super::support::owner::{self, Owner};
use super::support::proxy::{Proxy, ProxyBuilder};
use super::support::recorded::{Recorded, sha256};
use super::support::reply::{self, Reply, full, with_trailers};
use super::support::token_server::api::Verdict;
use super::support::token_server::fault::Stage as Moment;
use super::support::token_server::server::token_server;
use super::support::wire::Answer;
use super::support::{tunnel, wire};

const STALE: &str = "echo-STALE-1b7f4c20a9d3-STALE";

/// Gives the right key when it is asked.
#[derive(Debug)]
struct TestRenewer {
    held: Weak<HeldCredential>,
    gives: Option<&'static str>,
    limit: u64,
    asked: Mutex<Vec<u64>>,
    /// A renewal ends only when it is told to.
    held_up: AtomicBool,
    go: Notify,
    done: AtomicUsize,
}

impl Renewer for TestRenewer {
    fn renew(&self, rejected: u64) -> BoxFuture<'_, Result<(), Unavailable>> {
        async move {
            self.asked.lock().unwrap().push(rejected);
            if self.held_up.load(Ordering::SeqCst) {
                self.go.notified().await;
            }
            let held = self.held.upgrade().unwrap();
            let outcome = match self.gives {
                Some(key) => {
                    held.report(Ok(Fetched::lasting(Secret::from(key.to_owned()))));
                    Ok(())
                }
                None => Err(Unavailable {
                    credential: "echo".into(),
                    reason: "the token endpoint is out of reach".to_owned(),
                }),
            };
            self.done.fetch_add(1, Ordering::SeqCst);
            outcome
        }
        .boxed()
    }

    fn replay_limit(&self) -> u64 {
        self.limit
    }
}

struct Stage {
    origin: Origin,
    proxy: Inside,
    renewer: Arc<TestRenewer>,
}

impl Stage {
    /// The proxy holds a key that the origin does not accept any more.
    async fn new(origin: Origin) -> Self {
        Self::with(origin, Some(REAL_KEY), 4 << 20).await
    }

    async fn with(origin: Origin, gives: Option<&'static str>, limit: u64) -> Self {
        let proxy = in_front_of(&origin).inside().await;
        let renewer = renewer(&proxy, gives, limit);
        Self {
            origin,
            proxy,
            renewer,
        }
    }

    async fn send(&self, speaks: Speaks, request: Request<tunnel::Outgoing>) -> Response<Incoming> {
        send(&self.proxy.door(), speaks, request).await
    }

    /// Waits until the renewer was asked.
    async fn refused(&self) {
        until("the origin's refusal", PATIENCE, async || {
            !self.renewer.asked.lock().unwrap().is_empty()
        })
        .await;
    }

    /// Both tries, as the origin saw them.
    fn tries(&self, path: &str) -> Vec<Recorded> {
        let tries = self.origin.requests_for(path);
        let keys: Vec<_> = tries.iter().map(Recorded::bearer).collect();
        assert_eq!(keys, [Some(STALE), Some(REAL_KEY)], "{path}");
        tries
    }

    /// The one record of a request.
    async fn record(&self, path: &str) -> Value {
        let wanted = |record: &Value| record["target"] == path;
        let mut records = self.proxy.records(1, wanted).await;
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    fn replays(&self, result: &str) -> Option<f64> {
        let labels = format!("{{credential=\"echo\",result=\"{result}\"}}");
        self.proxy
            .metric(&format!("tollgate_replays_total{labels}"))
    }
}

fn in_front_of(origin: &Origin) -> ProxyBuilder {
    placed_in("{bearer: {}}", origin)
}

fn placed_in(placement: &str, origin: &Origin) -> ProxyBuilder {
    // A source that does not speak up by itself: the renewer has the last word.
    let spec = format!(
        "
        source: {{env: {{name: ECHO_KEY}}}}
        hosts: [echo.example.com]
        placements: [{placement}]
        placeholder: {{value: {PLACEHOLDER}}}
        "
    );
    super::support::proxy::proxy()
        .origin(origin)
        .policy("- {hosts: [echo.example.com], credentials: [echo]}")
        .document("EgressCredential", "echo", &spec)
        .env("ECHO_KEY", STALE)
}

fn renewer(proxy: &Inside, gives: Option<&'static str>, limit: u64) -> Arc<TestRenewer> {
    let held = proxy.credential("echo");
    let renewer = Arc::new(TestRenewer {
        held: Arc::downgrade(&held),
        gives,
        limit,
        asked: Mutex::default(),
        held_up: AtomicBool::new(false),
        go: Notify::new(),
        done: AtomicUsize::new(0),
    });
    held.renewed_by(renewer.clone());
    renewer
}

/// Says what it thinks of the key once it has read the whole body.
async fn judge(mut exchange: Exchange) -> Reply {
    let body = exchange.body().await;
    match exchange.head.bearer() == Some(REAL_KEY) {
        true => reply::json(200, &json!({"bytes": body.len(), "sha256": digest(&body)})),
        false => reply::text(401, "wrong key\n"),
    }
}

async fn body_of(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

fn digest(body: &[u8]) -> String {
    sha256(body).iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn a_refused_request_is_sent_again_with_the_renewed_key_and_is_one_exchange() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        for origin in [echo::echo().await.origin, echo::echo_http1().await.origin] {
            let stage = Stage::new(origin).await;
            let answer = stage
                .send(speaks, ask(PLACEHOLDER, "GET", "/x?y=%2F", full("")))
                .await;
            assert_eq!(answer.status(), 200, "{speaks:?}");
            assert!(!answer.headers().contains_key("x-tollgate-credential"));
            let answer: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
            assert_eq!(answer["target"], "/x?y=%2F");
            let tries = stage.tries("/x");
            assert_eq!(tries[0].target, tries[1].target);
            assert_eq!(*stage.renewer.asked.lock().unwrap(), [1]);

            let record = stage.record("/x?y=[redacted]").await;
            assert_eq!(record["replayed"], true, "{record}");
            assert_eq!(record["status"], 200);
            assert_eq!(record["credentials"], json!(["echo"]));
            assert_eq!(stage.replays("accepted"), Some(1.0));
            let injections = "tollgate_injections_total{credential=\"echo\"}";
            assert_eq!(stage.proxy.metric(injections), Some(1.0));
            let status = stage.proxy.credential("echo").status();
            assert!(status.last_rejection.is_some());

            // With the right key nothing is sent twice.
            let answer = stage
                .send(speaks, ask(PLACEHOLDER, "GET", "/later", full("")))
                .await;
            assert_eq!(answer.status(), 200);
            assert_eq!(stage.origin.only("/later").bearer(), Some(REAL_KEY));
            assert_eq!(stage.record("/later").await.get("replayed"), None);
        }
    }
}

#[tokio::test]
async fn an_origin_that_has_seen_both_keys_shows_the_agent_neither() {
    let telling = |exchange: Exchange| async move {
        match exchange.head.bearer() == Some(REAL_KEY) {
            true => reply::text(200, format!("now {REAL_KEY}, before {STALE}\n")),
            false => reply::text(401, "wrong key\n"),
        }
    };
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let stage = Stage::new(Origin::tls(&["echo.example.com"], telling).await).await;
        let answer = stage
            .send(speaks, ask(PLACEHOLDER, "GET", "/both", full("")))
            .await;
        assert_eq!(answer.status(), 200, "{speaks:?}");
        let body = body_of(answer).await;
        let text = String::from_utf8_lossy(&body);
        assert!(
            text.starts_with("now ") && text.contains(", before "),
            "{text}"
        );
        for key in [REAL_KEY, STALE] {
            assert!(!text.contains(key), "{speaks:?}: {text}");
        }
        assert_eq!(stage.record("/both").await["scrubbed"], 2);
    }
}

#[tokio::test]
async fn a_posted_body_goes_out_twice_byte_for_byte() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        for origin in [
            Origin::tls(&[HOST], judge).await,
            Origin::tls_http1(&[HOST], judge).await,
        ] {
            let stage = Stage::new(origin).await;
            for (number, size) in [1, 48 << 10, 3 << 20].into_iter().enumerate() {
                let held = stage.proxy.credential("echo");
                held.report(Ok(Fetched::lasting(Secret::from(STALE.to_owned()))));
                let sent = pattern(size);
                let request = ask(PLACEHOLDER, "POST", "/sink", full(sent.clone()));
                let answer = stage.send(speaks, request).await;
                assert_eq!(answer.status(), 200, "{speaks:?}, {size} bytes");
                let said: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
                assert_eq!(said["sha256"], digest(&sent), "{speaks:?}, {size} bytes");
                let tries = stage.origin.requests_for("/sink");
                assert_eq!(tries.len(), 2 * (number + 1));
                let last = &tries[tries.len() - 1];
                assert_eq!((last.bearer(), last.complete), (Some(REAL_KEY), true));
            }
            let records = stage.proxy.records(3, |r| r["target"] == "/sink").await;
            let counted: Vec<_> = records.iter().map(|r| &r["request_bytes"]).collect();
            assert_eq!(counted, [1, 48 << 10, 3 << 20], "each byte counts once");
        }
    }
}

/// The origin answers before it has read anything; the agent has most of its body still to send.
#[tokio::test]
async fn an_early_refusal_half_way_through_a_body_is_made_good() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        for origin in [echo::echo().await.origin, echo::echo_http1().await.origin] {
            let stage = Stage::new(origin).await;
            let (agent, body) = http_body_util::channel::Channel::new(1);
            let request = ask(PLACEHOLDER, "POST", "/sink", body.boxed_unsync());
            let mut agent: http_body_util::channel::Sender<Bytes> = agent;
            let uploading = async {
                agent.send_data(pattern(1000).into()).await.unwrap();
                // The rest follows once the first try was refused.
                stage.refused().await;
                for piece in pattern(3_000_000).chunks(30_000) {
                    agent.send_data(piece.to_vec().into()).await.unwrap();
                }
                drop(agent);
            };
            let (answer, ()) = tokio::join!(stage.send(speaks, request), uploading);
            assert_eq!(answer.status(), 200, "{speaks:?}");
            let said: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
            let sent = [pattern(1000), pattern(3_000_000)].concat();
            assert_eq!(said["bytes"], sent.len());
            assert_eq!(said["sha256"], digest(&sent), "{speaks:?}");
            stage.tries("/sink");
        }
    }
}

#[tokio::test]
async fn trailers_go_out_twice() {
    let stage = Stage::new(echo::echo().await.origin).await;
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "17".parse().unwrap())]);
    let body = with_trailers(vec!["one".into(), "two".into()], trailers);
    let request = ask(PLACEHOLDER, "POST", "/sink", body.boxed_unsync());
    let answer = stage.send(Speaks::Http2, request).await;
    assert_eq!(answer.status(), 200);
    let tries = stage.tries("/sink");
    assert_eq!(tries[1].body, b"onetwo");
    assert_eq!(tries[1].trailers, [("x-sum".to_owned(), "17".to_owned())]);
}

#[tokio::test]
async fn a_body_that_was_held_back_is_asked_for_by_the_second_try() {
    let stage = Stage::new(echo::echo_http1().await.origin).await;
    let door = stage.proxy.door();
    let mut stream = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
    let head = format!(
        "POST /sink HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\
         Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    let interim = wire::say(&mut stream, head.as_bytes()).await;
    assert_eq!(interim.status, 100);
    let answer = wire::say(&mut stream, b"hello").await;
    assert_eq!(answer.status, 200);
    let tries = stage.tries("/sink");
    assert_eq!(tries[0].body, b"", "the refused try took nothing");
    assert_eq!(tries[1].body, b"hello");
    assert_eq!(tries[1].header("expect"), Some("100-continue"));
}

#[tokio::test]
async fn a_refused_websocket_handshake_is_repeated() {
    for origin in [echo::echo().await.origin, echo::echo_http1().await.origin] {
        let stage = Stage::new(origin).await;
        let stream = tunnel::tls(&stage.proxy.door(), HOST, &[b"http/1.1"]).await;
        let url = format!("wss://{HOST}/ws");
        super::websocket::converse(stream, &url, PLACEHOLDER).await;
        let tries = stage.tries("/ws");
        let keys: Vec<_> = tries
            .iter()
            .map(|t| t.header("sec-websocket-key"))
            .collect();
        assert_eq!(keys[0], keys[1]);
        assert_eq!(stage.record("/ws").await["replayed"], true);
    }
}

#[tokio::test]
async fn a_refused_websocket_handshake_that_cannot_be_renewed_is_told() {
    let stage = Stage::with(echo::echo_http1().await.origin, None, 1 << 20).await;
    let stream = tunnel::tls(&stage.proxy.door(), HOST, &[b"http/1.1"]).await;
    let mut request = format!("wss://{HOST}/ws").into_client_request().unwrap();
    let key = format!("Bearer {PLACEHOLDER}").parse().unwrap();
    request.headers_mut().insert("authorization", key);
    let error = client_async(request, stream).await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
}

#[tokio::test]
async fn a_body_past_the_limit_is_sent_once_and_the_key_is_renewed_for_the_next_request() {
    for length_known in [true, false] {
        let stage = Stage::with(echo::echo().await.origin, Some(REAL_KEY), 1000).await;
        let body = match length_known {
            true => full(pattern(1001)),
            false => with_trailers(vec![pattern(1001).into()], HeaderMap::new()),
        };
        let request = ask(PLACEHOLDER, "POST", "/sink", body.boxed_unsync());
        let answer = stage.send(Speaks::Http1, request).await;
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["x-tollgate-credential"], "rejected");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert_eq!(body_of(answer).await, "wrong key\n");
        assert_eq!(stage.origin.only("/sink").bearer(), Some(STALE));
        assert_eq!(stage.record("/sink").await.get("replayed"), None);
        assert_eq!(stage.replays("not_kept"), Some(1.0));
        let held = stage.proxy.credential("echo");
        let mut versions = held.subscribe();
        let renewed = versions.wait_for(|version| *version == 2);
        let renewed = tokio::time::timeout(Duration::from_secs(10), renewed);
        renewed.await.unwrap().unwrap();
        let answer = stage
            .send(Speaks::Http1, ask(PLACEHOLDER, "GET", "/next", full("")))
            .await;
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn a_second_refusal_is_the_answer() {
    let other = "echo-OTHER-77e0c5d1-OTHER";
    let stage = Stage::with(echo::echo().await.origin, Some(other), 1 << 20).await;
    let answer = stage
        .send(Speaks::Http1, ask(PLACEHOLDER, "POST", "/sink", full("x")))
        .await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["x-tollgate-credential"], "rejected");
    let tries = stage.origin.requests_for("/sink");
    let keys: Vec<_> = tries.iter().map(Recorded::bearer).collect();
    assert_eq!(
        keys,
        [Some(STALE), Some(other)],
        "twice, never a third time"
    );
    assert_eq!(stage.record("/sink").await["replayed"], true);
    assert_eq!(stage.replays("rejected"), Some(1.0));
}

#[tokio::test]
async fn without_a_new_key_the_first_answer_passes_as_it_is() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let stage = Stage::with(echo::echo().await.origin, None, 1 << 20).await;
        let request = ask(PLACEHOLDER, "POST", "/sink", full(pattern(100_000)));
        let answer = stage.send(speaks, request).await;
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert_eq!(body_of(answer).await, "wrong key\n");
        assert_eq!(stage.origin.only("/sink").bearer(), Some(STALE));
        assert_eq!(stage.replays("not_renewed"), Some(1.0));
        assert_eq!(stage.record("/sink").await.get("replayed"), None);
    }
}

/// A request that carried no credential was not refused for one.
#[tokio::test]
async fn a_refusal_of_a_request_without_a_credential_renews_nothing() {
    let stage = Stage::new(echo::echo().await.origin).await;
    let request = Request::builder()
        .method("POST")
        .uri(format!("https://{HOST}/sink"))
        .body(full("x").boxed_unsync())
        .unwrap();
    let answer = stage.send(Speaks::Http2, request).await;
    assert_eq!(answer.status(), 401);
    assert!(stage.renewer.asked.lock().unwrap().is_empty());
    assert!(!answer.headers().contains_key("x-tollgate-credential"));
    stage.origin.only("/sink");
}

#[tokio::test]
async fn a_key_within_the_body_is_replaced_anew() {
    let origin = Origin::tls(&[HOST], |mut exchange| async move {
        match exchange.json().await["auth"]["token"] == REAL_KEY {
            true => reply::text(200, "welcome"),
            false => reply::text(401, "wrong key"),
        }
    })
    .await;
    let placed = placed_in("{body: {pointer: /auth/token}}", &origin);
    let proxy = placed.inside().await;
    renewer(&proxy, Some(REAL_KEY), 1 << 20);
    let body = json!({"auth": {"token": PLACEHOLDER}, "text": format!("about {PLACEHOLDER}")});
    let request = Request::builder()
        .method("POST")
        .uri(format!("https://{HOST}/login"))
        .header("content-type", "application/json")
        .body(full(body.to_string()).boxed_unsync())
        .unwrap();
    let answer = send(&proxy.door(), Speaks::Http1, request).await;
    assert_eq!(answer.status(), 200);
    let tries = origin.requests_for("/login");
    let told = |key| json!({"auth": {"token": key}, "text": format!("about {PLACEHOLDER}")});
    assert_eq!(tries.len(), 2);
    assert_eq!(tries[0].json(), told(STALE));
    assert_eq!(tries[1].json(), told(REAL_KEY));
}

/// What the second try brings is the answer, also when it brings none.
#[tokio::test]
async fn an_origin_that_fails_at_the_second_try_is_told_as_such() {
    let tries = Arc::new(AtomicUsize::new(0));
    let origin = Origin::rude(&[HOST], move |mut stream| {
        let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut heard = [0; 4096];
            assert_ne!(stream.read(&mut heard).await.unwrap(), 0);
            if first {
                let answer = b"HTTP/1.1 401 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    })
    .await;
    let proxy = in_front_of(&origin).inside().await;
    renewer(&proxy, Some(REAL_KEY), 1 << 20);
    let request = ask(PLACEHOLDER, "GET", "/x", full("").boxed_unsync());
    let answer = send(&proxy.door(), Speaks::Http1, request).await;
    assert_eq!(answer.status(), 502);
    let record = proxy.records(1, |r| r["target"] == "/x").await.remove(0);
    assert_eq!(record["replayed"], true, "{record}");
    let series = "tollgate_replays_total{credential=\"echo\",result=\"failed\"}";
    assert_eq!(proxy.metric(series), Some(1.0));
}

/// A renewal takes its time; what is not allowed any more when it ends is not sent.
#[tokio::test]
async fn a_policy_that_changed_meanwhile_ends_it_with_the_first_answer() {
    let stage = Stage::new(echo::echo().await.origin).await;
    stage.renewer.held_up.store(true, Ordering::SeqCst);
    let changing = async {
        stage.refused().await;
        let documents = stage.proxy.file("documents.yaml");
        let text = std::fs::read_to_string(&documents).unwrap();
        let stricter = text.replace("credentials:", "http: [{paths: [/v2/**]}], credentials:");
        assert_ne!(text, stricter);
        let before = stage.proxy.exchange.snapshots.load().version;
        let mut changes = stage.proxy.exchange.snapshots.subscribe();
        std::fs::write(&documents, stricter).unwrap();
        let changed = changes.wait_for(|version| *version > before);
        tokio::time::timeout(Duration::from_secs(20), changed)
            .await
            .unwrap()
            .unwrap();
        stage.renewer.go.notify_one();
    };
    let asking = stage.send(Speaks::Http1, ask(PLACEHOLDER, "GET", "/v1/x", full("")));
    let (answer, ()) = tokio::join!(asking, changing);
    assert_eq!(answer.status(), 401);
    assert_eq!(body_of(answer).await, "wrong key\n");
    assert_eq!(stage.origin.only("/v1/x").bearer(), Some(STALE));
}

/// Its token has ended, and the next one is on its way: that is no reason to refuse anybody.
#[tokio::test]
async fn a_request_that_comes_while_its_credential_is_renewed_waits_for_the_new_value() {
    let stage = Stage::new(echo::echo().await.origin).await;
    let held = stage.proxy.credential("echo");
    held.report(Err(SourceError::Withdrawn("it has ended".to_owned())));
    let refused = ask(PLACEHOLDER, "GET", "/nobody-renews", full(""));
    assert_eq!(stage.send(Speaks::Http1, refused).await.status(), 503);

    let renewal = held.renewal();
    let request = ask(PLACEHOLDER, "POST", "/waits", full("body"));
    let mut asking = std::pin::pin!(stage.send(Speaks::Http1, request));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut asking).await;
    assert!(early.is_err(), "it was answered before there was a value");
    held.report(Ok(Fetched::lasting(Secret::from(REAL_KEY.to_owned()))));
    drop(renewal);
    assert_eq!(asking.await.status(), 200);
    assert_eq!(stage.origin.only("/waits").bearer(), Some(REAL_KEY));
    assert!(stage.renewer.asked.lock().unwrap().is_empty());
}

// --- with a grant that the binary owns

async fn post_through(proxy: &Proxy, path: &str) -> Answer {
    let body = pattern(20_000);
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header("host", owner::HOST)
        .header("authorization", format!("Bearer {}", owner::PLACEHOLDER))
        .body(full(body))
        .unwrap();
    let mut sender = tunnel::http1(&proxy.bare_door(), owner::HOST).await;
    Answer::of(sender.send_request(request).await.unwrap()).await
}

#[tokio::test]
async fn a_revoked_token_is_renewed_once_for_all_who_were_refused() {
    let server = token_server().start().await;
    let api = server.protected_api(&[owner::HOST]).await;
    let proxy = Owner::of(&server, &api)
        .seeded(server.login().refresh())
        .start()
        .await;
    proxy.settles(&["ok"]).await;
    let before = server.truth();
    server.revoke_access(before.access_token());
    let gate = server.gate(Moment::Rotated);
    let refused = api.wait_for("eight refusals", |_| {
        let seen = api.seen();
        seen.iter()
            .filter(|seen| seen.verdict == Verdict::Withdrawn)
            .count()
            == 8
    });
    // Nobody is ahead of the others: the renewal ends when all of them were refused.
    let opening = async {
        refused.await;
        gate.arrived(1).await;
        gate.open();
    };
    let paths = ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"];
    let asking = futures_util::future::join_all(paths.map(|path| post_through(&proxy, path)));
    let (answers, ()) = tokio::join!(asking, opening);
    for answer in answers {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let truth = server.truth();
    assert_eq!(truth.rotations, before.rotations + 1);
    truth.assert_one_clean_grant();
    let series = "tollgate_replays_total{credential=\"login\",result=\"accepted\"}";
    assert_eq!(proxy.metric(series).await, Some(8.0));
    let told = proxy.login().await;
    assert!(told["lastRejection"].is_string(), "{told}");
}

#[tokio::test]
async fn a_renewal_goes_on_when_the_agent_that_needed_it_leaves() {
    let server = token_server().start().await;
    let api = server.protected_api(&[owner::HOST]).await;
    let proxy = Owner::of(&server, &api)
        .seeded(server.login().refresh())
        .start()
        .await;
    proxy.settles(&["ok"]).await;
    let before = server.truth();
    server.revoke_access(before.access_token());
    let gate = server.gate(Moment::Received);
    {
        let asking = post_through(&proxy, "/left");
        tokio::select! {
            answer = asking => panic!("{answer:?}"),
            () = gate.arrived(1) => {}
        }
    }
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!(record["end"], "agent_left", "{record}");
    gate.open();
    server
        .wait_until("the renewal", |truth| {
            truth.rotations == before.rotations + 1
        })
        .await;
    assert_eq!(post_through(&proxy, "/next").await.status, 200);
    assert_eq!(server.truth().rotations, before.rotations + 1);
    server.truth().assert_one_clean_grant();
}

/// An origin may refuse a good token for reasons of its own: that must not spend one after the other.
#[tokio::test]
async fn refusals_that_a_new_token_does_not_mend_renew_once() {
    let server = token_server().start().await;
    let api = server.protected_api(&[owner::HOST]).await;
    let proxy = Owner::of(&server, &api)
        .seeded(server.login().refresh())
        .start()
        .await;
    proxy.settles(&["ok"]).await;
    let before = server.truth().rotations;
    api.refuse_next(100);
    for _ in 0..5 {
        let answer = post_through(&proxy, "/x").await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("x-tollgate-credential"), Some("rejected"));
    }
    assert_eq!(server.truth().rotations, before + 1);
    let metric = async |result: &str| {
        let labels = format!("{{credential=\"login\",result=\"{result}\"}}");
        proxy
            .metric(&format!("tollgate_replays_total{labels}"))
            .await
    };
    assert_eq!(metric("rejected").await, Some(1.0));
    assert_eq!(metric("not_renewed").await, Some(4.0));
}
