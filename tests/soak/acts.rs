//! Owns what an agent may do, from a small question to hanging up in the middle.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::chance::Chance;
use super::support::door::Door;
use super::support::echo::{HOST, PLACEHOLDER, pattern};
use super::support::recorded::sha256;
use super::support::reply::{full, streamed};
use super::support::spender::{Ask, chat, message, streamed as as_stream};
use super::support::tunnel::{self, Outgoing};
use super::support::wire;
use super::world::{
    CALLS, FAULTY, FAULTY_PLACEHOLDER, ROTATED, ROTATED_PLACEHOLDER, Stage, TUNNEL,
};

/// What an act came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    Fine,
    /// It was made to fail, and did.
    AsMade,
    Wrong(String),
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}

type Doing = Pin<Box<dyn Future<Output = Came> + Send>>;
type Act = fn(Arc<Stage>, Chance) -> Doing;

/// What is listed twice is done twice as often.
pub const ACTS: &[(&str, Act)] = &[
    ("small", |stage, chance| Box::pin(small(stage, chance))),
    ("small", |stage, chance| Box::pin(small(stage, chance))),
    ("multiplexed", |stage, chance| {
        Box::pin(multiplexed(stage, chance))
    }),
    ("rotated", |stage, chance| Box::pin(rotated(stage, chance))),
    ("call", |stage, chance| Box::pin(call(stage, chance))),
    ("call", |stage, chance| Box::pin(call(stage, chance))),
    ("stream", |stage, chance| Box::pin(events(stage, chance))),
    ("stream", |stage, chance| Box::pin(events(stage, chance))),
    ("leave-stream", |stage, chance| {
        Box::pin(leave_stream(stage, chance))
    }),
    ("poor", |stage, _| Box::pin(poor(stage))),
    ("upload", |stage, chance| Box::pin(upload(stage, chance))),
    ("download", |stage, chance| {
        Box::pin(download(stage, chance))
    }),
    ("websocket", |stage, chance| {
        Box::pin(websocket(stage, chance))
    }),
    ("tunnel", |stage, _| Box::pin(through(stage))),
    ("refused", |stage, chance| Box::pin(refused(stage, chance))),
    ("faulty", |stage, chance| Box::pin(faulty(stage, chance))),
    ("hang-up", |stage, chance| Box::pin(hang_up(stage, chance))),
];

fn wrong(what: impl std::fmt::Debug) -> Came {
    Came::Wrong(format!("{what:?}"))
}

/// One request on a connection of its own.
async fn send(
    door: &Door,
    http2: bool,
    host: &str,
    request: http::request::Builder,
    path: &str,
    body: Outgoing,
) -> Result<Response<Incoming>, String> {
    let sent = match http2 {
        true => {
            let request = request.uri(format!("https://{host}{path}")).body(body);
            tunnel::http2(door, host)
                .await
                .send_request(request.unwrap())
                .await
        }
        false => {
            let request = request.uri(path).header("host", host).body(body);
            tunnel::http1(door, host)
                .await
                .send_request(request.unwrap())
                .await
        }
    };
    sent.map_err(|error| format!("{path}: {error:?}"))
}

fn bearer(method: &str, key: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .header("authorization", format!("Bearer {key}"))
}

/// The whole body.
async fn whole(answer: Response<Incoming>) -> Result<(u16, Bytes), String> {
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| format!("a body of {status} broke off: {error:?}"))?;
    Ok((status, body.to_bytes()))
}

async fn small(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let mut sender = tunnel::http1(&stage.door, HOST).await;
    for number in 0..=chance.below(10) {
        if let Err(error) = sender.ready().await {
            return wrong(error);
        }
        let request = bearer("POST", PLACEHOLDER)
            .uri(format!("/small/{number}"))
            .header("host", HOST)
            .header("content-type", "application/json")
            .body(full("{\"a\": 1}"));
        let answer = match sender.send_request(request.unwrap()).await {
            Ok(answer) => whole(answer).await,
            Err(error) => return wrong(error),
        };
        if !matches!(answer, Ok((200, _))) {
            return wrong(answer);
        }
    }
    Came::Fine
}

async fn multiplexed(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let sender = tunnel::http2(&stage.door, HOST).await;
    let count = 1 + chance.below(20);
    let asked = (0..count).map(|number| {
        let mut sender = sender.clone();
        async move {
            let request = bearer("GET", PLACEHOLDER).uri(format!("https://{HOST}/many/{number}"));
            let answer = sender.send_request(request.body(full("")).unwrap()).await;
            whole(answer.map_err(|error| format!("{error:?}"))?).await
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    match answers.iter().all(|answer| matches!(answer, Ok((200, _)))) {
        true => Came::Fine,
        false => wrong(
            answers
                .iter()
                .find(|answer| !matches!(answer, Ok((200, _)))),
        ),
    }
}

/// The origin says the secret back; the agent must see its placeholder.
async fn rotated(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let http2 = chance.below(2) == 0;
    let request = bearer("GET", ROTATED_PLACEHOLDER);
    let answer = send(&stage.door, http2, ROTATED, request, "/", full("")).await;
    let answer = match answer {
        Ok(answer) => whole(answer).await,
        Err(error) => return wrong(error),
    };
    match &answer {
        Ok((200, body)) => {
            let text = String::from_utf8_lossy(body);
            match text.contains(ROTATED_PLACEHOLDER) && !text.contains("REAL") {
                true => Came::Fine,
                false => wrong(text),
            }
        }
        _ => wrong(answer),
    }
}

/// A call without a stream, well or ill.
async fn call(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let (name, is_whole) = chance.one_of(&CALLS);
    // An answer that is no stream comes in two pieces: no fifth one fails.
    let is_whole = is_whole || name.ends_with("-5");
    let ask = match chance.below(2) {
        0 => Ask::message(&message("claude-sonnet-4-5", 4000)),
        _ => Ask::chat(&chat("gpt-5", 4000)),
    };
    let mut answer = match stage.spender.try_begin(&ask.call(name)).await {
        Ok(answer) => answer,
        Err(error) if is_whole => return wrong(error),
        Err(_) => return Came::AsMade,
    };
    let body = answer.rest().await;
    match (answer.status, answer.cut) {
        (200, false) if is_whole => Came::Fine,
        (status, cut) if is_whole => wrong((name, status, cut, shown(&body))),
        (200, false) => wrong((name, "looks whole", shown(&body))),
        _ => Came::AsMade,
    }
}

/// A stream, well or ill.
async fn events(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let (name, is_whole) = chance.one_of(&CALLS);
    let (ask, last) = match chance.below(2) {
        0 => (
            Ask::message(&as_stream(message("claude-sonnet-4-5", 4000))),
            "message_stop",
        ),
        _ => (Ask::chat(&as_stream(chat("gpt-5", 4000))), "[DONE]"),
    };
    let mut answer = match stage.spender.try_begin(&ask.call(name)).await {
        Ok(answer) => answer,
        Err(error) if is_whole => return wrong(error),
        Err(_) => return Came::AsMade,
    };
    let body = answer.rest().await;
    // What is coded is not looked into here.
    let ended = name == "coded" || String::from_utf8_lossy(&body).contains(last);
    match (answer.status, answer.cut) {
        (200, false) if is_whole && ended => Came::Fine,
        (status, cut) if is_whole => wrong((name, status, cut, ended)),
        (200, false) if ended => wrong((name, "looks whole")),
        _ => Came::AsMade,
    }
}

/// Reads a little and goes.
async fn leave_stream(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let ask = Ask::message(&as_stream(message("claude-sonnet-4-5", 4000))).call("slow");
    match stage.spender.try_begin(&ask).await {
        Ok(mut answer) => {
            for _ in 0..chance.below(12) {
                answer.piece().await;
            }
            Came::AsMade
        }
        Err(error) => wrong(error),
    }
}

/// A budget that has no room.
async fn poor(stage: Arc<Stage>) -> Came {
    let ask = Ask::chat(&chat("gpt-5-nano", 4000)).call("whole");
    match stage.spender.try_begin(&ask).await {
        Ok(answer) if matches!(answer.status, 402 | 429) => Came::Fine,
        Ok(answer) => wrong((answer.status, answer.whole().await.text())),
        Err(error) => wrong(error),
    }
}

async fn upload(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let bytes = Bytes::from(pattern(1 << (10 + chance.below(11))));
    let digest: String = sha256(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let body = match chance.below(2) {
        0 => full(bytes),
        _ => {
            let pieces: Vec<Bytes> = bytes.chunks(16_000).map(Bytes::copy_from_slice).collect();
            streamed(stream::iter(pieces).map(Frame::data))
        }
    };
    let http2 = chance.below(2) == 0;
    let request = bearer("POST", PLACEHOLDER);
    let answer = match send(&stage.door, http2, HOST, request, "/sink", body).await {
        Ok(answer) => whole(answer).await,
        Err(error) => return wrong(error),
    };
    match &answer {
        Ok((200, body)) if String::from_utf8_lossy(body).contains(&digest) => Came::Fine,
        _ => wrong(answer),
    }
}

async fn download(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let length = 1 << (10 + chance.below(12));
    let http2 = chance.below(2) == 0;
    let request = bearer("GET", PLACEHOLDER);
    let path = format!("/bytes/{length}");
    let answer = match send(&stage.door, http2, HOST, request, &path, full("")).await {
        Ok(answer) => whole(answer).await,
        Err(error) => return wrong(error),
    };
    match answer {
        Ok((200, body)) if body == pattern(length) => Came::Fine,
        Ok((status, body)) => wrong((status, body.len(), length)),
        Err(error) => wrong(error),
    }
}

async fn websocket(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let stream = tunnel::tls(&stage.door, HOST, &[b"http/1.1"]).await;
    let mut request: Request<()> = format!("wss://{HOST}/ws").into_client_request().unwrap();
    let key = format!("Bearer {PLACEHOLDER}").parse().unwrap();
    request.headers_mut().insert("authorization", key);
    let mut socket = match client_async(request, stream).await {
        Ok((socket, _)) => socket,
        Err(error) => return wrong(error),
    };
    for _ in 0..=chance.below(8) {
        let said = match chance.below(2) {
            0 => Message::text("ä".repeat(1 + chance.below(20_000))),
            _ => Message::binary(pattern(1 + chance.below(60_000))),
        };
        if let Err(error) = socket.send(said.clone()).await {
            return wrong(error);
        }
        match socket.next().await {
            Some(Ok(heard)) if heard == said => {}
            other => return wrong(other.map(|heard| heard.map(|heard| heard.len()))),
        }
    }
    // Some close in good order, and some just go.
    if chance.below(3) == 0 {
        return Came::AsMade;
    }
    socket.close(None).await.ok();
    Came::Fine
}

/// Unread: the origin's own certificate, and its own credential.
async fn through(stage: Arc<Stage>) -> Came {
    let dir = tempfile::tempdir().unwrap();
    let mut door = stage.door.clone();
    door.ca_file = dir.path().join("origin.pem");
    std::fs::write(&door.ca_file, &stage.tunnel.ca_pem).unwrap();
    let answer = match send(&door, true, TUNNEL, Request::builder(), "/", full("")).await {
        Ok(answer) => whole(answer).await,
        Err(error) => return wrong(error),
    };
    match &answer {
        Ok((200, _)) => Came::Fine,
        _ => wrong(answer),
    }
}

async fn refused(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let (status, phrase) = match chance.below(5) {
        0 => {
            let (_, phrase) = tunnel::connect(&stage.door, "evil.example.net:443").await;
            (403, phrase)
        }
        1 => {
            let (_, phrase) = tunnel::connect(&stage.door, &format!("{HOST}:22")).await;
            (403, phrase)
        }
        2 => {
            let request = bearer("GET", PLACEHOLDER);
            let answer = send(&stage.door, true, HOST, request, "/admin/users", full("")).await;
            (
                403,
                format!("HTTP/1.1 {}", answer.map_or(0, |a| a.status().as_u16())),
            )
        }
        // A placeholder where it does not belong.
        3 => {
            let request = bearer("GET", PLACEHOLDER);
            let answer = send(&stage.door, false, ROTATED, request, "/", full("")).await;
            (
                403,
                format!("HTTP/1.1 {}", answer.map_or(0, |a| a.status().as_u16())),
            )
        }
        _ => {
            let mut stream = tunnel::tls(&stage.door, HOST, &[b"http/1.1"]).await;
            let two = format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            );
            let answer = wire::say(&mut stream, two.as_bytes()).await;
            (400, format!("HTTP/1.1 {}", answer.status))
        }
    };
    match phrase.starts_with(&format!("HTTP/1.1 {status}")) {
        true => Came::Fine,
        false => wrong((status, phrase)),
    }
}

/// At an origin that fails as it is told, or at one that works beside such ones.
async fn faulty(stage: Arc<Stage>, mut chance: Chance) -> Came {
    const FAULTS: [&str; 16] = [
        "closes-before",
        "resets-before",
        "goes-away-before",
        "refuses-before",
        "resets-in-head",
        "stalls-before",
        "garbage",
        "resets-in-body",
        "closes-in-body",
        "stalls-in-body",
        "short",
        "long",
        "drips-body",
        "resets-after",
        "closes-after",
        "babbles-after",
    ];
    let host = chance.one_of(&FAULTY);
    let fault = chance.one_of(&FAULTS);
    let http2 = chance.below(2) == 0;
    let request = bearer("POST", FAULTY_PLACEHOLDER);
    let path = format!("/{fault}/{}", chance.next());
    // Whatever it is, it has an end; one connection to an origin may carry many of them.
    if let Ok(answer) = send(&stage.door, http2, host, request, &path, full("a=1")).await {
        whole(answer).await.ok();
    }
    Came::AsMade
}

/// Goes away at some stage.
async fn hang_up(stage: Arc<Stage>, mut chance: Chance) -> Came {
    let door = &stage.door;
    let after = Duration::from_millis(chance.next() % 50);
    match chance.below(5) {
        0 => {
            let mut stream = TcpStream::connect(door.addr).await.unwrap();
            stream.write_all(b"CONNECT echo.exa").await.ok();
            tokio::time::sleep(after).await;
        }
        1 => {
            let (mut stream, _) = tunnel::connect(door, &format!("{HOST}:443")).await;
            stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.ok();
            tokio::time::sleep(after).await;
        }
        2 => {
            let mut stream = tunnel::tls(door, HOST, &[b"http/1.1"]).await;
            stream
                .write_all(b"POST /sink HTTP/1.1\r\nHost: echo")
                .await
                .ok();
            tokio::time::sleep(after).await;
        }
        3 => {
            let first = stream::once(async { Frame::data(Bytes::from("only the beginning")) });
            let body = streamed(first.chain(stream::pending::<Frame<Bytes>>()));
            // By HTTP/2 the library would not go before its body has ended.
            let asked = send(
                door,
                false,
                HOST,
                bearer("POST", PLACEHOLDER),
                "/sink",
                body,
            );
            tokio::time::timeout(after, asked).await.ok();
        }
        _ => {
            let http2 = chance.below(2) == 0;
            let request = bearer("GET", PLACEHOLDER);
            let answer = send(door, http2, HOST, request, "/bytes/4000000", full("")).await;
            if let Ok(answer) = answer {
                answer.into_body().frame().await;
            }
        }
    }
    Came::AsMade
}
