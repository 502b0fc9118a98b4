//! Limits on connections and streams: past each an answer that names it, and room again once others are gone.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tollgate::types::limits::ADMIN_CONNECTIONS;

use super::support::frames::{self, Fate, Peer, frame};
use super::support::hello;
use super::support::operator::{PATIENCE, until};
use super::support::origin::Origin;
use super::support::proxy::{Proxy, ProxyBuilder};
use super::support::reply::{self, full};
use super::support::scene::{self, BARE, HOST, Scene, TUNNEL};
use super::support::wire::{self, Answer};
use super::support::{echo, tunnel};

const GET: &str = "GET /v1/x HTTP/1.1\r\nHost: bare.example.com\r\n\r\n";

/// Two agents with tokens; who they are is not known before they say it.
pub fn two_agents(proxy: ProxyBuilder) -> ProxyBuilder {
    let of = |name: &str| format!("{{name: {name}, token: {{env: {{name: TOKEN_{name}}}}}}}");
    proxy
        .env("TOKEN_a", "token-of-a-0000001")
        .env("TOKEN_b", "token-of-b-0000001")
        .setting(&format!("identity: {{agents: [{}, {}]}}", of("a"), of("b")))
}

async fn dial(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addr).await.unwrap()
}

/// CONNECT, by an agent that names itself.
pub async fn connect(proxy: &Proxy, agent: &str, target: &str) -> (TcpStream, Answer) {
    let mut stream = dial(proxy).await;
    let token = STANDARD.encode(format!("{agent}:token-of-{agent}-0000001"));
    let head = format!(
        "CONNECT {target}:443 HTTP/1.1\r\nHost: {target}:443\r\nProxy-Authorization: Basic {token}\r\n\r\n"
    );
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    (stream, answer)
}

#[track_caller]
fn assert_full(answer: &Answer, status: u16, limit: &str, value: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("x-tollgate-limit"), Some(limit), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let told = match body["error"]["message"].as_str() {
        Some(told) => told.to_owned(),
        None => answer.text(),
    };
    let setting = format!("`spec.limits.{limit}`, which is {value}");
    assert!(told.contains(&setting), "{told}");
}

async fn counted(proxy: &Proxy, limit: &str, least: f64) {
    let series = format!("tollgate_limits_reached_total{{limit=\"{limit}\"}}");
    until(&series, PATIENCE, async || {
        proxy.metric(&series).await.unwrap_or(0.0) >= least
    })
    .await;
}

/// Whatever a connection has become, it is one: silent, intercepted, a tunnel.
#[tokio::test]
async fn past_the_limit_of_all_a_connection_is_told_and_the_next_finds_room() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {connections: {total: 3}}")
        .start()
        .await;
    let door = proxy.bare_door();
    let silent = dial(&proxy).await;
    let mut intercepted = tunnel::tls(&door, BARE, &[b"http/1.1"]).await;
    let (_passed, status) = tunnel::connect(&door, &format!("{TUNNEL}:443")).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    // What one has still to say does not keep it from hearing why.
    let long = format!("{GET}{}", "x".repeat(300 << 10));
    for words in [GET, "", &long] {
        let mut late = dial(&proxy).await;
        late.write_all(words.as_bytes()).await.ok();
        assert_full(&wire::hear(&mut late).await, 503, "connections.total", "3");
        assert!(wire::rest(&mut late).await.is_empty());
    }
    counted(&proxy, "connections.total", 3.0).await;
    let record = proxy.access_log(3).await.pop().unwrap();
    assert_eq!(record["reason"], "too_many_connections", "{record}");
    assert!(
        proxy.output().contains("connections.total"),
        "{}",
        proxy.output()
    );
    assert_eq!(
        wire::say(&mut intercepted, GET.as_bytes()).await.status,
        200
    );
    drop(silent);
    until("there is room again", PATIENCE, async || {
        let mut next = dial(&proxy).await;
        wire::say(&mut next, b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .status
            == 404
    })
    .await;
}

/// Only so many are told at once, and none of them for ever.
#[tokio::test]
async fn those_who_are_told_and_stay_do_not_keep_others_from_being_told() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {connections: {total: 1}}")
        .start()
        .await;
    let _held = dial(&proxy).await;
    let mut crowd = Vec::new();
    for _ in 0..80 {
        crowd.push(dial(&proxy).await);
    }
    counted(&proxy, "connections.total", 80.0).await;
    until("somebody is told again", PATIENCE, async || {
        let mut late = dial(&proxy).await;
        wire::rest(&mut late).await.starts_with(b"HTTP/1.1 503 ")
    })
    .await;
    drop(crowd);
}

#[tokio::test]
async fn one_agent_that_takes_all_it_may_leaves_others_their_room() {
    let origin = scene::origin().await;
    let proxy = two_agents(scene::in_front_of(&origin))
        .setting("limits: {connections: {perAgent: 2}}")
        .start()
        .await;
    let (first, answer) = connect(&proxy, "a", BARE).await;
    assert_eq!(answer.status, 200);
    let (_second, answer) = connect(&proxy, "a", TUNNEL).await;
    assert_eq!(answer.status, 200);
    let (mut third, answer) = connect(&proxy, "a", BARE).await;
    assert_full(&answer, 429, "connections.perAgent", "2");
    assert!(wire::rest(&mut third).await.is_empty(), "it is closed");
    counted(&proxy, "connections.perAgent", 1.0).await;
    let (_others, answer) = connect(&proxy, "b", BARE).await;
    assert_eq!(answer.status, 200);
    drop(first);
    until("there is room again", PATIENCE, async || {
        connect(&proxy, "a", BARE).await.1.status == 200
    })
    .await;
}

/// A connection counts for its address until it names its agent. One that was told 407 has named none.
#[tokio::test]
async fn those_who_do_not_say_who_they_are_are_limited_by_address() {
    let origin = scene::origin().await;
    let proxy = two_agents(scene::in_front_of(&origin))
        .setting("limits: {connections: {unidentifiedPerAddress: 3}}")
        .start()
        .await;
    let mut named = Vec::new();
    for _ in 0..5 {
        let (stream, answer) = connect(&proxy, "a", BARE).await;
        assert_eq!(answer.status, 200);
        named.push(stream);
    }
    let _silent = [dial(&proxy).await, dial(&proxy).await];
    let mut stranger = dial(&proxy).await;
    let told = wire::say(&mut stranger, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(told.status, 407);
    let mut late = dial(&proxy).await;
    assert_full(
        &wire::hear(&mut late).await,
        429,
        "connections.unidentifiedPerAddress",
        "3",
    );
}

/// What has left HTTP by an upgrade is still a connection.
#[tokio::test]
async fn a_websocket_keeps_the_place_of_its_connection() {
    let echo = echo::echo_http1().await;
    let proxy = echo::in_front_of(&echo)
        .setting("limits: {connections: {total: 1}}")
        .start()
        .await;
    let url = format!("ws://{}/echo/ws", proxy.addr);
    let mut request = url.into_client_request().unwrap();
    let key = format!("Bearer {}", echo::PLACEHOLDER).parse().unwrap();
    request.headers_mut().insert("authorization", key);
    let stream = dial(&proxy).await;
    let (mut socket, answer) = client_async(request, stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    // HTTP is over on it by the time something has passed.
    for _ in 0..5 {
        socket.send(Message::text("here")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("here"));
        let mut late = dial(&proxy).await;
        assert_full(&wire::hear(&mut late).await, 503, "connections.total", "1");
    }
    drop(socket);
    until("there is room again", PATIENCE, async || {
        let (stream, status) = tunnel::connect(&proxy.bare_door(), "none.example.com:443").await;
        drop(stream);
        status.starts_with("HTTP/1.1 403")
    })
    .await;
}

/// An origin that answers `/held` once it is released.
async fn holding() -> (Origin, std::sync::Arc<tokio::sync::Semaphore>) {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let origin = Origin::tls(
        &[HOST, "paths.example.com", BARE, TUNNEL],
        move |exchange| {
            let held = held.clone();
            async move {
                if exchange.head.path() == "/held" {
                    held.acquire().await.unwrap().forget();
                }
                reply::text(200, "reached")
            }
        },
    )
    .await;
    (origin, gate)
}

fn ask(path: &str) -> Request<tunnel::Outgoing> {
    Request::get(format!("https://{BARE}{path}"))
        .body(full(""))
        .unwrap()
}

#[tokio::test]
async fn the_streams_of_one_agent_are_limited_on_all_its_connections() {
    for (limit, status, name) in [
        ("perAgent: 2", 429, "streams.perAgent"),
        ("total: 2", 503, "streams.total"),
    ] {
        let (origin, gate) = holding().await;
        let proxy = scene::in_front_of(&origin)
            .setting(&format!("limits: {{streams: {{{limit}}}}}"))
            .start()
            .await;
        let door = proxy.bare_door();
        let mut one = tunnel::http2(&door, BARE).await;
        let mut two = tunnel::http2(&door, BARE).await;
        let held = [
            tokio::spawn(one.send_request(ask("/held"))),
            tokio::spawn(two.send_request(ask("/held"))),
        ];
        until("both are under way", PATIENCE, async || {
            origin.requests().len() == 2
        })
        .await;
        let answer = Answer::of(two.send_request(ask("/more")).await.unwrap()).await;
        assert_full(&answer, status, name, "2");
        counted(&proxy, name, 1.0).await;
        assert!(origin.requests_for("/more").is_empty());
        gate.add_permits(2);
        for held in held {
            Answer::of(held.await.unwrap().unwrap()).await;
        }
        until("there is room again", PATIENCE, async || {
            two.send_request(ask("/more")).await.unwrap().status() == 200
        })
        .await;
    }
}

/// The library is done with a stream once it has the last piece of its answer. Its octets are in memory until the
/// agent has room for them.
#[tokio::test]
async fn a_stream_has_its_place_until_its_answer_is_taken() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {streams: {perAgent: 2}}")
        .start()
        .await;
    let mut agent = Peer::agent(&proxy.bare_door(), BARE).await;
    let room = |stream| frame(frames::WINDOW_UPDATE, 0, stream, &[0, 1, 0, 0]);
    // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2): one octet of each answer.
    let little = frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
    agent.send(&little).await;
    for stream in [1, 3] {
        agent.send(&frames::get(stream, BARE, "/v1/x")).await;
        assert_eq!(agent.fate(stream).await, Fate::Fine);
    }
    // As far as the exchanges go both are over.
    proxy.access_log(2).await;
    agent.send(&frames::get(5, BARE, "/v1/x")).await;
    assert_eq!(agent.fate(5).await, Fate::Refused);
    for stream in [1, 3, 5] {
        agent.send(&room(stream)).await;
    }
    let mut stream = 5;
    until("there is room again", PATIENCE, async || {
        stream += 2;
        agent.send(&frames::get(stream, BARE, "/v1/x")).await;
        let fate = agent.fate(stream).await;
        agent.send(&room(stream)).await;
        fate == Fate::Fine
    })
    .await;
}

/// Clients are told how many streams a connection may have, and keep to it.
#[tokio::test]
async fn a_connection_has_as_many_streams_as_it_is_told() {
    let (origin, gate) = holding().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {streams: {perConnection: 2}}")
        .start()
        .await;
    let mut sender = tunnel::http2(&proxy.bare_door(), BARE).await;
    // The announcement has come once something was answered.
    assert_eq!(
        sender.send_request(ask("/first")).await.unwrap().status(),
        200
    );
    let held = [(); 3].map(|()| tokio::spawn(sender.send_request(ask("/held"))));
    until("two are under way", PATIENCE, async || {
        origin.requests_for("/held").len() == 2
    })
    .await;
    // Whatever was sent with them has come by the time another connection is answered.
    let mut other = tunnel::http2(&proxy.bare_door(), BARE).await;
    assert_eq!(
        other.send_request(ask("/later")).await.unwrap().status(),
        200
    );
    assert_eq!(origin.requests_for("/held").len(), 2);
    gate.add_permits(3);
    for held in held {
        Answer::of(held.await.unwrap().unwrap()).await;
    }
    assert_eq!(origin.requests_for("/held").len(), 3);
}

/// A CONNECT that nothing follows, half a handshake, a connection that is kept for nothing: each is closed at
/// its own time.
#[tokio::test]
async fn connections_on_which_nothing_happens_are_closed() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {connections: {tunnelStart: 300ms, handshake: 400ms, idle: 500ms}, requests: {headTime: 600ms}}")
        .start()
        .await;
    let door = proxy.bare_door();

    for host in [BARE, TUNNEL] {
        let (mut stream, _) = tunnel::connect(&door, &format!("{host}:443")).await;
        assert!(wire::rest(&mut stream).await.is_empty(), "{host}");
    }
    counted(&proxy, "connections.tunnelStart", 2.0).await;
    for record in proxy.access_log(2).await {
        assert_eq!(record["reason"], "tunnel_no_client_hello", "{record}");
    }

    let (mut stream, _) = tunnel::connect(&door, &format!("{BARE}:443")).await;
    stream.write_all(&hello::naming(BARE)[..50]).await.unwrap();
    assert!(wire::rest(&mut stream).await.is_empty());
    counted(&proxy, "connections.handshake", 1.0).await;
    let record = proxy.access_log(3).await.pop().unwrap();
    assert_eq!(record["reason"], "handshake_timeout", "{record}");

    let mut silent = dial(&proxy).await;
    assert!(wire::rest(&mut silent).await.is_empty());
    counted(&proxy, "requests.headTime", 1.0).await;

    let mut kept = tunnel::tls(&door, BARE, &[b"http/1.1"]).await;
    assert_eq!(wire::say(&mut kept, GET.as_bytes()).await.status, 200);
    assert!(wire::rest(&mut kept).await.is_empty());
    counted(&proxy, "connections.idle", 1.0).await;
}

/// HTTP/2 keeps a connection alive with frames that ask for nothing; that does not make it busy.
#[tokio::test]
async fn an_http2_connection_without_requests_is_closed_and_one_with_a_long_one_is_not() {
    let (origin, gate) = holding().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {connections: {idle: 300ms}}")
        .start()
        .await;
    let door = proxy.bare_door();
    let mut busy = tunnel::http2(&door, BARE).await;
    let held = tokio::spawn(busy.send_request(ask("/held")));
    let mut idle = tunnel::http2(&door, BARE).await;
    assert_eq!(idle.send_request(ask("/once")).await.unwrap().status(), 200);
    until("the idle one is closed", PATIENCE, async || {
        idle.is_closed()
    })
    .await;
    counted(&proxy, "connections.idle", 1.0).await;
    // Far longer than the idle time. One that was being left would let what is under way end, and take no more.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let beside = busy.send_request(ask("/beside")).await;
    assert_eq!(beside.unwrap().status(), 200);
    gate.add_permits(1);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);

    // One that never says a word of HTTP/2 is left as well.
    let mut mute = tunnel::tls(&door, BARE, &[b"h2"]).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        let mut all = Vec::new();
        mute.read_to_end(&mut all).await.ok();
    });
    assert!(ended.await.is_ok(), "it stays open");
}

/// Whoever reaches the admin port needs no token to open a connection to it.
#[tokio::test]
async fn those_who_sit_on_the_admin_port_take_nothing_from_agents_and_are_closed() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin).start().await;
    let mut silent = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS + 88 {
        silent.push(TcpStream::connect(proxy.admin).await.unwrap());
    }
    let mut octet = [0; 1];
    let (gone, kept) = silent.split_at_mut(88);
    for gone in gone {
        let end = tokio::time::timeout(PATIENCE, gone.read(&mut octet)).await;
        assert!(!matches!(end.expect("its place is taken"), Ok(1..)));
    }
    let (_passed, status) = tunnel::connect(&proxy.bare_door(), &format!("{TUNNEL}:443")).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    // The library's own time is three times that of the admin port.
    let patience = Duration::from_secs(20);
    for kept in kept {
        let end = tokio::time::timeout(patience, kept.read(&mut octet)).await;
        assert!(!matches!(
            end.expect("without a head it is closed"),
            Ok(1..)
        ));
    }
}

#[tokio::test]
async fn a_head_for_the_admin_port_has_a_bound() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin).start().await;
    let mut stream = TcpStream::connect(proxy.admin).await.unwrap();
    let head = "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ";
    let fits = format!("{head}{}\r\n\r\n", "y".repeat(12 << 10));
    assert_eq!(wire::say(&mut stream, fits.as_bytes()).await.status, 200);
    let endless = format!("{head}{}", "y".repeat((16 << 10) - head.len()));
    assert_eq!(wire::say(&mut stream, endless.as_bytes()).await.status, 431);
}

#[tokio::test]
async fn those_who_stay_on_the_admin_port_keep_no_probe_out_and_nobody_takes_an_operators_place() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin).start().await;
    let ask = async |stream: &mut TcpStream, path: &str, more: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        wire::say(stream, head.as_bytes()).await.status
    };
    let token = std::fs::read_to_string(proxy.file("state/admin.token")).unwrap();
    let token = format!("Authorization: Bearer {}\r\n", token.trim());
    let mut operator = TcpStream::connect(proxy.admin).await.unwrap();
    assert_eq!(ask(&mut operator, "/v1/policy", &token).await, 200);
    let mut crowd = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS - 1 {
        let mut one = TcpStream::connect(proxy.admin).await.unwrap();
        assert_eq!(ask(&mut one, "/livez", "").await, 200);
        assert_eq!(ask(&mut one, "/v1/policy", "").await, 401);
        crowd.push(one);
    }
    let mut probe = TcpStream::connect(proxy.admin).await.unwrap();
    assert_eq!(ask(&mut probe, "/livez", "").await, 200);
    let mut octet = [0; 1];
    let end = tokio::time::timeout(PATIENCE, crowd[0].read(&mut octet)).await;
    assert!(!matches!(end.expect("the oldest has left"), Ok(1..)));
    assert_eq!(ask(&mut operator, "/v1/policy", &token).await, 200);
}

#[tokio::test]
async fn an_agent_over_http2_that_answers_no_ping_is_left_and_one_that_does_is_not() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {connections: {ping: 2s}}")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let mut there = Peer::agent(&scene.door, HOST).await;
    let mut gone = Peer::agent(&scene.door, HOST).await;
    let left = async {
        let asked = gone.find(|f| f.kind == frames::PING).await;
        assert!(asked.is_some(), "closed without a PING");
        // It hears, and says nothing.
        while gone.next().await.is_some() {}
    };
    let answers = async {
        while let Some(ping) = there.find(|f| f.kind == frames::PING).await {
            let answer = frame(frames::PING, frames::ACK, 0, &ping.payload);
            assert!(there.send(&answer).await, "who answers is left");
        }
        panic!("who answers is left");
    };
    tokio::select! {
        () = left => {}
        () = answers => {}
    }
    there.send(&frames::get(1, HOST, "/v1/x")).await;
    assert_eq!(there.fate(1).await, Fate::Fine);
    counted(&scene.proxy, "connections.ping", 1.0).await;
}

/// What is on its way already stands before a PING, and an agent that takes it slowly sees it late.
#[tokio::test]
async fn an_agent_over_http2_that_reads_slowly_is_there() {
    const LENGTH: usize = 10 << 20;
    let origin = Origin::tls(&[HOST, BARE, TUNNEL, scene::PATHS], |_| async {
        reply::text(200, "x".repeat(LENGTH))
    })
    .await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {connections: {ping: 1s}}")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let mut agent = Peer::agent(&scene.door, HOST).await;
    let window = (16u32 << 20).to_be_bytes();
    let more = |stream, octets: u32| frame(frames::WINDOW_UPDATE, 0, stream, &octets.to_be_bytes());
    let wide = frame(frames::SETTINGS, 0, 0, &[&[0, 4][..], &window].concat());
    let ask = frames::get(1, HOST, "/v1/x");
    agent.send(&[wide, more(0, 16 << 20), ask].concat()).await;
    let (mut taken, mut unsaid) = (0, 0);
    while taken < LENGTH {
        let next = agent.next().await;
        let next = next.unwrap_or_else(|| panic!("left after {taken} octets"));
        match next.kind {
            frames::DATA => {
                taken += next.payload.len();
                unsaid += next.payload.len();
            }
            frames::PING => {
                let answer = frame(frames::PING, frames::ACK, 0, &next.payload);
                agent.send(&answer).await;
            }
            _ => {}
        }
        if unsaid >= 128 << 10 {
            let octets = u32::try_from(unsaid).unwrap();
            agent
                .send(&[more(0, octets), more(1, octets)].concat())
                .await;
            unsaid = 0;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
