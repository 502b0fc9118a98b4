//! A hostile agent that takes all it may at once: memory stays within the sum of the limits, and an honest
//! request passes meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_compression::Level;
use async_compression::tokio::write::BrotliEncoder;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tollgate::types::limits::{
    AnswerLimits, BodyLimits, ConnectionLimits, LeafLimits, Limits, StreamLimits,
};

use super::support::door::Door;
use super::support::frames::{self, Peer, block, frame};
use super::support::operator::{PATIENCE, until};
use super::support::origin::{Exchange, Origin};
use super::support::proxy::{Proxy, proxy};
use super::support::reply::{self, Reply};
use super::support::{tunnel, wire};

const HOST: &str = "victim.example.com";
const SECRET: &str = "victim-R3al-5ecret-00001";
const PLACEHOLDER: &str = "victim-placeholder-0001";
const MIB: u64 = 1 << 20;

const SETTINGS: &str = "
limits:
  connections: {total: 220}
  streams: {total: 200}
  requests: {headTime: 5m, bodyIdle: 5m}
  bodies: {kept: 8MiB, read: 16MiB}
  answers: {windows: 32MiB}
  leaves: {cached: 64}
";

/// The same as numbers.
fn limits() -> Limits {
    let limits = Limits::default();
    Limits {
        connections: ConnectionLimits {
            total: 220,
            ..limits.connections
        },
        streams: StreamLimits {
            total: 200,
            ..limits.streams
        },
        bodies: BodyLimits {
            kept: 8 * MIB,
            read: 16 * MIB,
            ..limits.bodies
        },
        answers: AnswerLimits {
            windows: 32 * MIB,
            ..limits.answers
        },
        leaves: LeafLimits {
            cached: 64,
            ..limits.leaves
        },
        ..limits
    }
}

async fn conduct(mut exchange: Exchange, bomb: Bytes) -> Reply {
    match exchange.head.path() {
        "/flood" => {
            let piece = Bytes::from(vec![b'x'; 64 << 10]);
            let mut reply = reply::status(200);
            *reply.body_mut() =
                reply::streamed(stream::repeat_with(move || Frame::data(piece.clone())));
            reply
        }
        "/bomb" => {
            let reply = reply::with_body(200, "text/plain", bomb);
            reply::with(reply, "content-encoding", "br")
        }
        // It reads nothing of what it is sent.
        "/deaf" => std::future::pending().await,
        _ => {
            exchange.body().await;
            reply::text(200, "reached")
        }
    }
}

/// Many mebibytes of nothing.
async fn bomb() -> Bytes {
    let mut encoder = BrotliEncoder::with_quality(Vec::new(), Level::Fastest);
    for _ in 0..64 {
        encoder.write_all(&vec![0; 1 << 20]).await.unwrap();
    }
    encoder.shutdown().await.unwrap();
    encoder.into_inner().into()
}

/// A figure of the process in octets, as proc(5) tells it.
fn memory(proxy: &Proxy, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

/// Writes as much as is taken, and keeps what it is written to.
async fn push<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    let writing = async {
        stream.write_all(bytes).await.ok();
        stream.flush().await.ok();
    };
    tokio::time::timeout(Duration::from_millis(200), writing)
        .await
        .ok();
}

async fn inside(door: &Door, bytes: &[u8]) -> TlsStream<TcpStream> {
    let mut stream = tunnel::tls(door, HOST, &[b"http/1.1"]).await;
    push(&mut stream, bytes).await;
    stream
}

/// An HTTP/2 connection that opens its windows as far as they go, asks for floods, and reads nothing (RFC 9113,
/// sections 3.4, 6.2, 6.5 and 6.9; RFC 7541, section 6).
async fn thirsty(door: &Door, streams: u32) -> TlsStream<TcpStream> {
    let most = 0x7FFF_FFFF_u32;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let window = [&[0, 4][..], &most.to_be_bytes()].concat();
    said.extend(frame(4, 0, 0, &window));
    said.extend(frame(8, 0, 0, &(most - 65_535).to_be_bytes()));
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // GET, https, :path and :authority as literals.
    let head = [
        &[0x82, 0x87, 0x04][..],
        &text("/flood"),
        &[0x01],
        &text(HOST),
    ]
    .concat();
    for number in 0..streams {
        said.extend(frame(1, 0b101, 2 * number + 1, &head));
    }
    let mut stream = tunnel::tls(door, HOST, &[b"h2"]).await;
    push(&mut stream, &said).await;
    stream
}

/// An origin that has used up its windows is given as much room again as is taken to wait for the agent.
#[tokio::test]
async fn of_an_answer_that_is_asked_for_and_not_read_little_waits_here() {
    const STREAMS: u32 = 100;
    const WINDOW: usize = 512 << 10;
    let answered = Arc::new(AtomicU32::new(0));
    let taken = Arc::new(AtomicU32::new(0));
    let counts = (answered.clone(), taken.clone());
    let origin = Origin::raw(&[HOST], &[b"h2"], move |stream| {
        let (answered, taken) = counts.clone();
        async move {
            let Some(mut peer) = Peer::origin(stream, &[]).await else {
                return;
            };
            while let Some(heard) = peer.next().await {
                match heard.kind {
                    frames::SETTINGS if !heard.payload.is_empty() => {
                        peer.send(&frame(frames::SETTINGS, frames::ACK, 0, &[]))
                            .await;
                    }
                    frames::HEADERS => {
                        let head = block(&[(":status", "200")]);
                        let head = frame(frames::HEADERS, frames::END_HEADERS, heard.stream, &head);
                        let piece = frame(frames::DATA, 0, heard.stream, &[b'x'; 16 << 10]);
                        let window = piece.repeat(WINDOW / (16 << 10));
                        assert!(peer.send(&[head, window].concat()).await);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    frames::WINDOW_UPDATE if heard.stream > 0 => {
                        let more = u32::from_be_bytes(heard.payload.try_into().unwrap());
                        taken.fetch_add(more, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let proxy = proxy()
        .origin(&origin)
        .policy(&format!("- {{hosts: [{HOST}], tls: Intercept}}"))
        .start()
        .await;
    let held = thirsty(&proxy.bare_door(), STREAMS).await;
    until("all windows are used up", PATIENCE, async || {
        answered.load(Ordering::Relaxed) == STREAMS
    })
    .await;
    // Long enough for whatever is taken to be told.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The bound for a stream, a frame, and what the sockets on the way to the agent take; the library's own bound is
    // 400 KiB.
    let each = taken.load(Ordering::Relaxed) / STREAMS;
    assert!(each < 200 << 10, "{each} octets of each wait here");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_takes_all_it_may_gets_no_more_memory_than_the_limits_say() {
    let bomb = bomb().await;
    let origin = Origin::tls(&[HOST], move |exchange| conduct(exchange, bomb.clone())).await;
    let proxy = proxy()
        .origin(&origin)
        .policy(&format!("- {{hosts: [{HOST}], credentials: [victim]}}"))
        .credential_file(
            "victim",
            SECRET,
            &format!(
                "hosts: [{HOST}]\nplaceholder: {{value: {PLACEHOLDER}}}\n\
                 placements: [{{bearer: {{}}}}, {{body: {{pointer: /key, limit: 4MiB}}}}]"
            ),
        )
        .setting(SETTINGS)
        .start()
        .await;
    let door = proxy.bare_door();
    let at_rest = memory(&proxy, "RssAnon");

    let half_head = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}",
        "y".repeat(60 << 10)
    );
    let body = format!(
        "{{\"key\":\"{PLACEHOLDER}\",\"x\":\"{}",
        "y".repeat(1 << 20)
    );
    let read_whole = format!(
        "POST /whole HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n{body}"
    );
    let deaf = format!(
        "POST /deaf HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: text/plain\r\nContent-Length: 90000000\r\n\r\n{}",
        "z".repeat(2 << 20)
    );
    let packed = format!(
        "GET /bomb HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\nAccept-Encoding: br\r\n\r\n"
    );
    let pipeline = format!("GET /flood HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(20_000);
    let mut outside = Vec::new();
    let mut held = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        push(&mut stream, half_head.as_bytes()).await;
        outside.push(stream);
        held.push(inside(&door, half_head.as_bytes()).await);
    }
    for _ in 0..3 {
        held.push(thirsty(&door, 40).await);
    }
    for (bytes, count) in [
        (&read_whole, 20),
        (&deaf, 20),
        (&packed, 4),
        (&pipeline, 20),
    ] {
        for _ in 0..count {
            held.push(inside(&door, bytes.as_bytes()).await);
        }
    }
    until("the floods are under way", PATIENCE, async || {
        origin.requests_for("/flood").len() >= 120
    })
    .await;

    // In the middle of it somebody honest asks.
    let honest = format!(
        "GET /honest HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
    );
    let mut stream = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
    let answer = wire::say(&mut stream, honest.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(origin.only("/honest").bearer(), Some(SECRET));
    drop(stream);

    // Long enough for whatever grows to show.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (peak, bound) = (memory(&proxy, "VmHWM"), limits().memory());
    let taken = memory(&proxy, "RssAnon");
    assert!(
        peak <= bound,
        "{} MiB of {}, {} at rest",
        peak / MIB,
        bound / MIB,
        at_rest / MIB
    );
    drop((outside, held));
    // What is free goes back to the system when somebody asks next: the allocator has no thread of its own. The half is
    // for what it keeps in pieces.
    let again = format!("GET /again HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    until("it gives memory back", PATIENCE, async || {
        let mut stream = tunnel::tls(&door, HOST, &[b"http/1.1"]).await;
        assert_eq!(wire::say(&mut stream, again.as_bytes()).await.status, 200);
        memory(&proxy, "RssAnon") < at_rest + (taken - at_rest) / 2
    })
    .await;
}
