//! Limits on what is kept in memory and on what costs work: certificates, bodies, windows, frames.

use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::limits_connections::{connect, two_agents};
use super::support::budgeted::cap;
use super::support::frames::{self, Fate, Peer, block, frame};
use super::support::operator::{PATIENCE, until};
use super::support::origin::Origin;
use super::support::proxy::{Proxy, ProxyBuilder, proxy};
use super::support::reply::{self, full};
use super::support::spender::message;
use super::support::wire::{self, Answer};
use super::support::{echo, tunnel};

async fn counted(proxy: &Proxy, limit: &str) {
    let series = format!("tollgate_limits_reached_total{{limit=\"{limit}\"}}");
    until(&series, PATIENCE, async || {
        proxy.metric(&series).await.unwrap_or(0.0) >= 1.0
    })
    .await;
}

/// A wildcard lets an agent ask for endless hosts, and each costs a signature.
#[tokio::test]
async fn an_agent_that_asks_for_endless_hosts_gets_no_more_certificates() {
    for (rate, status, limit) in [
        ("mintsPerAgent: 3/h", 429, "leaves.mintsPerAgent"),
        ("mints: 3/h", 503, "leaves.mints"),
    ] {
        let proxy = proxy()
            .policy("- {hosts: ['*.many.example.com'], tls: Intercept}")
            .setting(&format!("limits: {{leaves: {{{rate}}}}}"))
            .start()
            .await;
        let connect = async |number: u32| {
            let mut stream = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
            let target = format!("n{number}.many.example.com:443");
            let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            wire::say(&mut stream, head.as_bytes()).await
        };
        for number in [1, 2, 3, 1, 2, 3] {
            assert_eq!(connect(number).await.status, 200, "{number}");
        }
        let answer = connect(4).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("x-tollgate-limit"), Some(limit));
        assert!(answer.text().contains("which is 3/h"), "{}", answer.text());
        assert_eq!(connect(3).await.status, 200, "what is there costs nothing");
        counted(&proxy, limit).await;
        until("it is on record", PATIENCE, async || {
            let records = proxy.access_log(1).await;
            records
                .iter()
                .any(|r| r["reason"] == "too_many_certificates")
        })
        .await;
    }
}

const HOST: &str = "keys.example.com";
const SECRET: &str = "keys-R3al-5ecret-000001";
const PLACEHOLDER: &str = "keys-placeholder-00001";

fn in_front_of(origin: &Origin, limits: &str) -> ProxyBuilder {
    proxy()
        .origin(origin)
        .policy(&format!("- {{hosts: [{HOST}], credentials: [keys]}}"))
        .credential_file(
            "keys",
            SECRET,
            &format!(
                "hosts: [{HOST}]\nplaceholder: {{value: {PLACEHOLDER}}}\n\
                 placements: [{{bearer: {{}}}}, {{body: {{pointer: /key, limit: 4MiB}}}}]"
            ),
        )
        .setting(&format!("limits: {{{limits}}}"))
}

/// A body that a credential goes into is read whole: of all together there is no more than their room.
#[tokio::test]
async fn bodies_that_are_read_whole_share_their_room() {
    let origin = Origin::tls(&[HOST], |mut exchange| async move {
        exchange.body().await;
        reply::text(200, "reached")
    })
    .await;
    let proxy = in_front_of(&origin, "bodies: {read: 1MiB}").start().await;
    let door = proxy.bare_door();
    let body = |size: usize| {
        format!(
            "{{\"key\":\"{PLACEHOLDER}\",\"x\":\"{}\"}}",
            "y".repeat(size)
        )
    };
    let head = |length: usize| {
        format!(
            "POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let ask = async |size: usize| {
        let body = body(size);
        let mut stream = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
        let request = head(body.len()) + &body;
        wire::say(&mut stream, request.as_bytes()).await
    };
    assert_eq!(ask(100 << 10).await.status, 200);
    let sent = origin.requests().pop().unwrap();
    assert_eq!(sent.json()["key"], SECRET);

    let whole = body(700 << 10);
    let hold = async || {
        let mut held = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
        let part = head(whole.len()) + &whole[..600 << 10];
        // One that finds no room may be left before it is written.
        held.write_all(part.as_bytes()).await.ok();
        held.flush().await.ok();
        held
    };
    let mut held = hold().await;
    let mut told = None;
    until("the second finds no room", PATIENCE, async || {
        let answer = ask(500 << 10).await;
        let full = answer.status == 503;
        told = Some(answer);
        // It may be the first that found none, where the second was read before it.
        let mut refused = [0; 1];
        let answered = tokio::time::timeout(Duration::from_millis(20), held.read(&mut refused));
        if !full && answered.await.is_ok() {
            held = hold().await;
        }
        full
    })
    .await;
    let told = told.unwrap();
    assert_eq!(told.header("x-tollgate-limit"), Some("bodies.read"));
    assert!(
        told.text()
            .contains("`spec.limits.bodies.read`, which is 1 MiB"),
        "{}",
        told.text()
    );
    counted(&proxy, "bodies.read").await;
    drop(held);
    until("there is room again", PATIENCE, async || {
        ask(300 << 10).await.status == 200
    })
    .await;
}

/// Where there are several agents, one of them cannot take the room of all.
#[tokio::test]
async fn an_agent_has_a_share_of_the_room_for_bodies_that_are_read_whole() {
    let origin = Origin::tls(&[HOST], |mut exchange| async move {
        exchange.body().await;
        reply::text(200, "reached")
    })
    .await;
    let builder = in_front_of(&origin, "bodies: {read: 4MiB}");
    let proxy = two_agents(builder).start().await;
    let body = |size: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(size));
    let head = |length: usize| {
        format!(
            "POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let door = proxy.bare_door();
    let tls = async |agent: &str| {
        let (stream, _) = connect(&proxy, agent, HOST).await;
        tunnel::handshake(&door, HOST, &[b"http/1.1"], stream)
            .await
            .unwrap()
    };
    let ask = async |agent: &str, size: usize| {
        let body = body(size);
        let mut stream = tls(agent).await;
        let request = head(body.len()) + &body;
        wire::say(&mut stream, request.as_bytes()).await
    };
    let (greedy, other) = ("a", "b");
    // A quarter is one agent's. Whichever of the two comes too late is refused: it is tried until it is the second.
    let whole = body(900 << 10);
    let part = head(whole.len()) + &whole[..800 << 10];
    let mut found = None;
    until("the second finds no room", PATIENCE, async || {
        let mut held = tls(greedy).await;
        if held.write_all(part.as_bytes()).await.is_err() || held.flush().await.is_err() {
            return false;
        }
        let answer = ask(greedy, 500 << 10).await;
        let full = answer.status != 200;
        found = Some((held, answer));
        full
    })
    .await;
    let (held, told) = found.unwrap();
    assert_eq!(told.status, 429, "{told:?}");
    assert_eq!(told.header("x-tollgate-limit"), Some("bodies.readPerAgent"));
    counted(&proxy, "bodies.readPerAgent").await;
    assert_eq!(ask(other, 900 << 10).await.status, 200);
    drop(held);
    until("there is room again", PATIENCE, async || {
        ask(greedy, 500 << 10).await.status == 200
    })
    .await;
}

/// Nothing below keeps the time of a body on HTTP/2.
#[tokio::test]
async fn a_body_that_is_read_whole_has_the_time_of_any_other() {
    let origin = Origin::tls(&[HOST], |mut exchange| async move {
        exchange.body().await;
        reply::text(200, "reached")
    })
    .await;
    let proxy = in_front_of(&origin, "requests: {bodyIdle: 400ms}")
        .start()
        .await;
    let door = proxy.bare_door();
    let begun = b"{\"key\":";

    let mut agent = Peer::agent(&door, HOST).await;
    let mut fields = frames::request("POST", HOST, "/v1/x").to_vec();
    fields.extend([
        ("content-type", "application/json"),
        ("content-length", "100"),
    ]);
    let head = frame(frames::HEADERS, frames::END_HEADERS, 1, &block(&fields));
    agent.send(&head).await;
    agent.send(&frame(frames::DATA, 0, 1, begun)).await;
    assert_eq!(agent.fate(1).await, Fate::Refused);

    let mut agent = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
    let head = format!(
        "POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    );
    let answer = wire::say(&mut agent, &[head.as_bytes(), begun].concat()).await;
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(answer.header("x-tollgate-limit"), Some("requests.bodyIdle"));

    for record in proxy.access_log(2).await {
        let told = (&record["status"], &record["reason"]);
        assert!(told.0 == 408 && told.1 == "slow_body", "{record}");
    }
    let series = "tollgate_limits_reached_total{limit=\"requests.bodyIdle\"}";
    until(series, PATIENCE, async || {
        proxy.metric(series).await == Some(2.0)
    })
    .await;
    assert!(origin.requests().is_empty());
}

async fn brotli(text: &[u8]) -> Vec<u8> {
    let mut encoder = BrotliEncoder::new(Vec::new());
    encoder.write_all(text).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

/// Two answers in `br` may be under way: while they are, others are asked for in a coding that takes less, and
/// an origin that does not heed that is not undone.
#[tokio::test]
async fn codings_that_take_much_memory_share_their_room() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let packed = brotli(b"it is so").await;
    let origin = Origin::tls(&[HOST], move |exchange| {
        let (held, packed) = (held.clone(), packed.clone());
        async move {
            match exchange.head.path() {
                "/held" => held.acquire().await.unwrap().forget(),
                "/light" => return reply::text(200, "light"),
                _ => {}
            }
            let reply = reply::with_body(200, "text/plain", packed);
            reply::with(reply, "content-encoding", "br")
        }
    })
    .await;
    let proxy = in_front_of(&origin, "answers: {windows: 32MiB}")
        .start()
        .await;
    let mut sender = tunnel::http2(&proxy.bare_door(), HOST).await;
    let ask = |path: &str| {
        Request::get(format!("https://{HOST}{path}"))
            .header("authorization", format!("Bearer {PLACEHOLDER}"))
            .header("accept-encoding", "br, gzip;q=0.5")
            .body(full(""))
            .unwrap()
    };
    let asked_for = |path: &str| {
        let last = origin.requests_for(path).pop().unwrap();
        last.header("accept-encoding").unwrap().to_owned()
    };
    let answers = [(); 2].map(|()| tokio::spawn(sender.send_request(ask("/held"))));
    until("two are under way", PATIENCE, async || {
        origin.requests_for("/held").len() == 2
    })
    .await;
    assert_eq!(asked_for("/held"), "br, gzip;q=0.5");
    let light = Answer::of(sender.send_request(ask("/light")).await.unwrap()).await;
    assert_eq!((light.status, light.text().as_str()), (200, "light"));
    assert_eq!(asked_for("/light"), "gzip;q=0.5");
    let told = Answer::of(sender.send_request(ask("/stubborn")).await.unwrap()).await;
    assert_eq!(told.status, 503, "{told:?}");
    assert_eq!(told.header("x-tollgate-limit"), Some("answers.windows"));
    counted(&proxy, "answers.windows").await;
    gate.add_permits(2);
    for answer in answers {
        let answer = Answer::of(answer.await.unwrap().unwrap()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "it is so"));
    }
    until("there is room again", PATIENCE, async || {
        sender
            .send_request(ask("/stubborn"))
            .await
            .unwrap()
            .status()
            == 200
    })
    .await;
}

/// An answer that is read for what it costs is undone as well, and takes of the same room.
#[tokio::test]
async fn codings_of_answers_that_are_only_metered_share_that_room() {
    const MODELS: &str = "api.anthropic.com";
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let packed =
        brotli(br#"{"type":"message","usage":{"input_tokens":1,"output_tokens":1}}"#).await;
    let origin = Origin::tls(&[MODELS], move |mut exchange| {
        let (held, packed) = (held.clone(), packed.clone());
        async move {
            exchange.body().await;
            let waits = exchange.head.header("x-wait").is_some();
            let reply = reply::with_body(200, "application/json", "");
            let mut reply = reply::with(reply, "content-encoding", "br");
            reply.headers_mut().remove("content-length");
            *reply.body_mut() = reply::streamed(stream::once(async move {
                if waits {
                    held.acquire().await.unwrap().forget();
                }
                Frame::data(packed.into())
            }));
            reply
        }
    })
    .await;
    let proxy = proxy()
        .origin(&origin)
        .policy(&format!("- {{hosts: [{MODELS}], tls: Intercept}}"))
        .document("EgressBudget", "cap", &cap("100.00"))
        .setting("limits: {answers: {windows: 32MiB}}")
        .start()
        .await;
    let mut sender = tunnel::http2(&proxy.bare_door(), MODELS).await;
    let ask = |wait: Option<&str>| {
        let request = Request::post(format!("https://{MODELS}/v1/messages"))
            .header("content-type", "application/json")
            .header("accept-encoding", "br, gzip;q=0.5");
        let request = wait
            .iter()
            .fold(request, |r, wait| r.header("x-wait", *wait));
        let body = message("claude-sonnet-4-5", 10).to_string();
        request.body(full(body)).unwrap()
    };
    // There is room for two of the largest windows, and which one an answer takes is not known before its first octet.
    let first = sender.send_request(ask(Some("yes"))).await.unwrap();
    let second = sender.send_request(ask(Some("yes"))).await.unwrap();
    let third = sender.send_request(ask(None)).await.unwrap();
    third.into_body().collect().await.unwrap();
    gate.add_permits(2);
    for answer in [first, second] {
        answer.into_body().collect().await.unwrap();
    }
    let records = proxy.access_log(3).await;
    let unread = records.iter().filter(|r| r["estimated"] == true).count();
    assert_eq!(unread, 1, "{records:#?}");
    assert!(records[0]["estimated"] == true, "{records:#?}");
}

/// An answer of one piece is kept until its end is read, which tells what it used.
#[tokio::test]
async fn a_piece_of_an_answer_for_which_there_is_no_room_is_not_kept_to_be_read() {
    const MODELS: &str = "api.anthropic.com";
    let origin = Origin::tls(&[MODELS], |mut exchange| async move {
        let asked = exchange.body().await;
        let size = if asked.len() > 1000 { 3 << 20 } else { 1 << 10 };
        let text = "y".repeat(size);
        let content = json!([{"type": "text", "text": text}]);
        let usage = json!({"input_tokens": 1, "output_tokens": 1});
        reply::json(
            200,
            &json!({"type": "message", "content": content, "usage": usage}),
        )
    })
    .await;
    for (read, large_is_unread) in [("1MiB", true), ("8MiB", false)] {
        let proxy = proxy()
            .origin(&origin)
            .policy(&format!("- {{hosts: [{MODELS}], tls: Intercept}}"))
            .document("EgressBudget", "cap", &cap("100.00"))
            .setting(&format!("limits: {{answers: {{read: {read}}}}}"))
            .start()
            .await;
        let mut sender = tunnel::http2(&proxy.bare_door(), MODELS).await;
        for (number, words, is_unread) in [(1, 10, false), (2, 1000, large_is_unread)] {
            let mut body = message("claude-sonnet-4-5", 10);
            body["messages"][0]["content"] = "word ".repeat(words).into();
            let request = Request::post(format!("https://{MODELS}/v1/messages"))
                .header("content-type", "application/json")
                .body(full(body.to_string()));
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            // Whether it is read or not, it goes on.
            let came = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(came.ends_with(b"}"), "{read}");
            let records = proxy.access_log(number).await;
            assert_eq!(
                records[number - 1]["estimated"] == true,
                is_unread,
                "{read}: {records:#?}"
            );
        }
    }
}

/// What is undone for the search is undone as fast as the agent reads it, whoever made it small.
#[tokio::test]
async fn a_bomb_that_nobody_reads_stays_folded() {
    // Parts in a row are one body (RFC 1952, section 2.2).
    let bomb: Bytes = gzip(&vec![0; 16 << 20]).await.repeat(8).into();
    let origin = Origin::tls(&[HOST], move |exchange| {
        let bomb = bomb.clone();
        async move {
            match exchange.head.path() {
                "/bomb" => {
                    let reply = reply::with_body(200, "text/plain", bomb);
                    reply::with(reply, "content-encoding", "gzip")
                }
                _ => reply::text(200, "reached"),
            }
        }
    })
    .await;
    let proxy = in_front_of(&origin, "").start().await;
    let door = proxy.bare_door();
    let get = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
        )
    };
    let mut honest = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
    let fine = wire::say(&mut honest, get("/fine").as_bytes()).await;
    assert_eq!(fine.status, 200);
    let before = resident(&proxy);
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
        stream.write_all(get("/bomb").as_bytes()).await.unwrap();
        // It is being undone, and then nobody reads on.
        stream.read_exact(&mut [0; 64 << 10]).await.unwrap();
        held.push(stream);
    }
    let fine = wire::say(&mut honest, get("/fine").as_bytes()).await;
    assert_eq!(fine.status, 200);
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for eight who do not read");
    drop(held);
}

/// KiB that the process has in memory (proc(5)).
fn resident(proxy: &Proxy) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().parse().unwrap()
}

async fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(text).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

#[tokio::test]
async fn a_websocket_frame_that_is_too_long_ends_it_with_1009() {
    let echo = echo::echo_http1().await;
    let proxy = echo::in_front_of(&echo)
        .setting("limits: {answers: {webSocketFrame: 1KiB}}")
        .start()
        .await;
    let stream = tunnel::tls(&proxy.bare_door(), echo::HOST, &[b"http/1.1"]).await;
    let url = format!("wss://{}/ws", echo::HOST);
    let mut request = url.into_client_request().unwrap();
    let key = format!("Bearer {}", echo::PLACEHOLDER).parse().unwrap();
    request.headers_mut().insert("authorization", key);
    let (mut socket, _) = client_async(request, stream).await.unwrap();
    let short = Message::text("x".repeat(1000));
    socket.send(short.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), short);
    socket.send(Message::text("x".repeat(2000))).await.unwrap();
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else {
        panic!("no close frame");
    };
    assert_eq!(close.code, CloseCode::Size);
    drop(socket);
    let record = proxy.access_log(1).await.pop().unwrap();
    assert_eq!(record["end"], "frame_too_large", "{record}");
    counted(&proxy, "answers.webSocketFrame").await;
}
