//! Origins that fail at each stage of an exchange, by either protocol on either side, with a credential
//! and without: the agent is told, time limits hold, the next request is served, no credential strays and
//! no request is sent twice.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::door::Door;
use super::support::faulty::{Faulty, Speaks};
use super::support::operator::{PATIENCE, until};
use super::support::proxy::{Proxy, ProxyBuilder, proxy};
use super::support::{reply, tunnel, wire};

const HOST: &str = "faulty.example.com";
const OTHER: &str = "other.example.com";
const GARBAGE: &str = "garbage.example.com";
const KEY: &str = "faulty-REAL-0c2f4e81-REAL";
const OTHER_KEY: &str = "other-REAL-77d1b3a5-REAL";

/// Of the rules below: for a head, and for silence in a body.
const LIMIT: Duration = Duration::from_secs(1);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_secs(14);

fn before(origin: &Faulty) -> ProxyBuilder {
    let limits = "timeouts: {connect: 1s, tls: 1s, responseHeaders: 1s, idle: 1s}";
    let builder = proxy()
        .root(&origin.ca_pem)
        .policy(&format!(
            "
            - {{hosts: [{HOST}], credentials: [faulty], {limits}}}
            - {{hosts: [{OTHER}], credentials: [other], {limits}}}
            - {{hosts: [{GARBAGE}], tls: Intercept, {limits}}}
            "
        ))
        .credential_file("faulty", KEY, &credential(HOST, "faulty-placeholder-0001"))
        .credential_file(
            "other",
            OTHER_KEY,
            &credential(OTHER, "other-placeholder-0001"),
        );
    [HOST, OTHER, GARBAGE]
        .into_iter()
        .fold(builder, |builder, host| builder.resolve(host, origin.addr))
}

fn credential(host: &str, placeholder: &str) -> String {
    format!(
        "hosts: [{host}]\nplacements: [{{bearer: {{}}}}]\nplaceholder: {{value: {placeholder}}}\n"
    )
}

/// How an agent asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asks {
    http2: bool,
    /// With a placeholder: its answer is searched.
    credential: bool,
}

const WAYS: [Asks; 4] = [
    Asks {
        http2: false,
        credential: false,
    },
    Asks {
        http2: false,
        credential: true,
    },
    Asks {
        http2: true,
        credential: false,
    },
    Asks {
        http2: true,
        credential: true,
    },
];

/// What the agent got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    /// Status, `x-tollgate-stage`, and the whole body.
    Whole(u16, Option<String>, String),
    /// No whole answer.
    Broken,
}

async fn ask(door: &Door, host: &str, path: &str, asks: Asks) -> Got {
    let mut request = http::Request::post(path);
    if asks.credential {
        let name = host.split('.').next().unwrap();
        request = request.header("authorization", format!("Bearer {name}-placeholder-0001"));
    }
    let body = reply::full("a=1");
    let sent = match asks.http2 {
        true => {
            let request = request
                .uri(format!("https://{host}{path}"))
                .body(body)
                .unwrap();
            tunnel::http2(door, host).await.send_request(request).await
        }
        false => {
            let request = request.header("host", host).body(body).unwrap();
            tunnel::http1(door, host).await.send_request(request).await
        }
    };
    let Ok(answer) = sent else {
        return Got::Broken;
    };
    let stage = answer.headers().get("x-tollgate-stage");
    let stage = stage.map(|stage| stage.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    match answer.into_body().collect().await {
        Ok(body) => {
            let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            Got::Whole(status, stage, text)
        }
        Err(_) => Got::Broken,
    }
}

/// What becomes of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// 502 or 504 with this stage.
    Told(u16, &'static str),
    /// The head came; the body breaks off, and the log says so in this word.
    Broken(&'static str),
    /// One of the two: what breaks it comes with the head or behind it.
    ToldOrBroken(u16, &'static str, &'static str),
    /// Nothing is wrong with the answer.
    Whole(&'static str),
}

async fn passes_through(speaks: Speaks, faults: &[(&str, Expected)]) {
    let origin = Faulty::speaking(speaks, &[HOST, OTHER, GARBAGE]).await;
    let proxy = before(&origin).start().await;
    let door = proxy.bare_door();
    let mut records = 0;
    let mut sent = 0;
    for (fault, expected) in faults {
        for (number, asks) in WAYS.into_iter().enumerate() {
            let case = format!("{fault} {asks:?}");
            let path = format!("/{fault}/{number}");
            let asked = Instant::now();
            let got = ask(&door, HOST, &path, asks).await;
            assert!(
                asked.elapsed() < 3 * LIMIT + SLACK,
                "{case}: {:?}",
                asked.elapsed()
            );
            records += 1;
            let record = proxy.access_log(records).await.pop().unwrap();
            let expected = match (*expected, &got) {
                (Expected::ToldOrBroken(_, _, end), Got::Broken) => Expected::Broken(end),
                (Expected::ToldOrBroken(status, stage, _), _) => Expected::Told(status, stage),
                (expected, _) => expected,
            };
            match expected {
                Expected::ToldOrBroken(..) => unreachable!(),
                Expected::Told(status, stage) => {
                    let Got::Whole(got, at, text) = got else {
                        panic!("{case}: {got:?}: {record}");
                    };
                    assert_eq!(
                        (got, at.as_deref()),
                        (status, Some(stage)),
                        "{case}: {text}"
                    );
                    assert_eq!(record["reason"], stage, "{case}: {record}");
                }
                Expected::Broken(end) => {
                    assert_eq!(got, Got::Broken, "{case}: {record}");
                    assert_eq!(record["end"], end, "{case}: {record}");
                }
                Expected::Whole(text) => {
                    let Got::Whole(200, None, body) = got else {
                        panic!("{case}: {got:?}: {record}");
                    };
                    assert_eq!(body, text, "{case}");
                }
            }
            sent += 1;
            // The next request of this host and of another are served, each with its own key.
            for host in [HOST, OTHER] {
                let asks = Asks {
                    credential: true,
                    ..asks
                };
                let mut got = Got::Broken;
                until(&format!("served after {case}"), PATIENCE, async || {
                    got = ask(&door, host, "/fine", asks).await;
                    records += 1;
                    // Where the last connection was ended just then, once.
                    matches!(got, Got::Whole(200 | 502, ..))
                        && got == Got::Whole(200, None, "reached".to_owned())
                })
                .await;
            }
            records = proxy.access_log(records).await.len();
        }
    }
    let heard = origin.heard();
    for request in &heard {
        let own = match request.sni.as_str() {
            HOST => format!("Bearer {KEY}"),
            OTHER => format!("Bearer {OTHER_KEY}"),
            other => panic!("a session for {other}"),
        };
        assert!(
            request.authorization.is_empty() || request.authorization == [own],
            "a credential went astray: {request:?}"
        );
    }
    // What is not safe to repeat is not repeated, whatever became of it.
    let mut once: Vec<_> = heard
        .iter()
        .map(|h| &h.path)
        .filter(|path| *path != "/fine")
        .collect();
    assert_eq!(once.len(), sent);
    once.sort();
    once.dedup();
    assert_eq!(once.len(), sent, "a request was sent twice");
    until("nothing is in flight", PATIENCE, async || {
        proxy.metric("tollgate_requests_in_flight").await == Some(0.0)
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_fails_by_http1_is_told_of_and_survived() {
    use Expected::{Broken, Told, Whole};
    let broken = Broken("origin_broke_off");
    passes_through(
        Speaks::Http1,
        &[
            ("closes-before", Told(502, "origin_error")),
            ("resets-before", Told(502, "origin_error")),
            ("resets-in-head", Told(502, "origin_error")),
            ("half-closes-before", Told(502, "origin_error")),
            ("stalls-before", Told(504, "response_timeout")),
            ("stalls-in-head", Told(504, "response_timeout")),
            ("drips-head", Told(504, "response_timeout")),
            ("garbage", Told(502, "origin_error")),
            ("resets-in-body", broken),
            ("closes-in-body", broken),
            ("half-closes-in-body", broken),
            ("short", broken),
            ("stalls-in-body", Broken("origin_silent")),
            ("resets-in-stream", broken),
            ("closes-in-stream", broken),
            ("wrong-chunk", broken),
            ("stalls-in-stream", Broken("origin_silent")),
            ("drips-body", Whole("dddddddddddddddddddd")),
            ("resets-after", Whole("reached")),
            ("closes-after", Whole("reached")),
            ("babbles-after", Whole("reached")),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_origin_that_fails_by_http2_is_told_of_and_survived() {
    use Expected::{Broken, Told, ToldOrBroken, Whole};
    let broken = Broken("origin_broke_off");
    let at_once = ToldOrBroken(502, "origin_error", "origin_broke_off");
    passes_through(
        Speaks::Http2,
        &[
            ("closes-before", Told(502, "origin_error")),
            ("resets-before", Told(502, "origin_error")),
            ("goes-away-before", Told(502, "origin_error")),
            ("refuses-before", Told(502, "origin_error")),
            ("stalls-before", Told(504, "response_timeout")),
            ("closes-in-body", broken),
            ("resets-in-body", broken),
            ("goes-away-in-body", broken),
            ("refuses-in-body", broken),
            ("stalls-in-body", Broken("origin_silent")),
            ("short", at_once),
            ("long", at_once),
            ("drips-body", Whole("dddddddddddddddddddd")),
            ("resets-after", Whole("reached")),
            ("closes-after", Whole("reached")),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_origin_that_speaks_another_protocol_than_agreed_on_is_a_502() {
    let origin = Faulty::speaking(Speaks::Http2, &[HOST, GARBAGE]).await;
    let proxy = before(&origin).start().await;
    let door = proxy.bare_door();
    for asks in [WAYS[0], WAYS[2]] {
        let got = ask(&door, GARBAGE, "/fine", asks).await;
        let Got::Whole(502, Some(stage), text) = got else {
            panic!("{asks:?}: {got:?}");
        };
        assert_eq!(stage, "origin_error", "{text}");
        let fine = ask(&door, HOST, "/fine", asks).await;
        assert_eq!(fine, Got::Whole(200, None, "reached".to_owned()));
    }
}

/// An answer that comes before the request has ended is the answer (RFC 9112, section 9.5).
#[tokio::test]
async fn an_answer_that_comes_before_the_upload_has_ended_is_passed_on() {
    let origin = Faulty::speaking(Speaks::Http1, &[HOST]).await;
    let proxy = before(&origin).start().await;
    let mut stream = tunnel::tls(&proxy.bare_door(), HOST, &[b"http/1.1"]).await;
    let head = format!(
        "POST /answers-early/0 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nonly a little"
    );
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

/// A listener at `addr` whose queue is full: nothing answers, not even with a refusal.
pub(super) async fn deaf(addr: SocketAddr) -> (Socket, SocketAddr, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queue = Vec::new();
    loop {
        let next = TcpStream::connect(addr);
        match tokio::time::timeout(Duration::from_millis(300), next).await {
            Ok(stream) => queue.push(stream.unwrap()),
            Err(_) => return (socket, addr, queue),
        }
    }
}

#[tokio::test]
async fn an_origin_that_fails_before_tls_stands_is_given_up_in_time() {
    let origin = Faulty::speaking(Speaks::Http1, &[HOST, OTHER]).await;
    let (_socket, nobody, _queue) = deaf(([127, 0, 0, 1], 0).into()).await;
    let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent, closing, resetting, plain, half) = (
        listen().await,
        listen().await,
        listen().await,
        listen().await,
        listen().await,
    );
    let at = |listener: &TcpListener| listener.local_addr().unwrap();
    let cases = [
        ("deaf", nobody, 504, "connect", "no connection to"),
        ("silent", at(&silent), 504, "tls", "no TLS session with"),
        (
            "closing",
            at(&closing),
            502,
            "tls",
            "the connection broke off in the handshake",
        ),
        (
            "resetting",
            at(&resetting),
            502,
            "tls",
            "the connection broke off in the handshake",
        ),
        (
            "plain",
            at(&plain),
            502,
            "tls",
            "what it sent is no TLS handshake",
        ),
        (
            "half",
            at(&half),
            502,
            "tls",
            "the connection broke off in the handshake",
        ),
    ];
    let mut tasks = tokio::task::JoinSet::new();
    for (listener, says, with_reset) in [
        (silent, None, None),
        (closing, Some(&b""[..]), None),
        (resetting, Some(&b""[..]), Some(Duration::ZERO)),
        (
            plain,
            Some(&b"HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP was expected"[..]),
            None,
        ),
        // The beginning of a ServerHello.
        (half, Some(&b"\x16\x03\x03\x00\x7a\x02\x00"[..]), None),
    ] {
        tasks.spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).await.ok();
                match says {
                    None => kept.push(stream),
                    Some(bytes) => {
                        // All of the ClientHello, so that closing is no reset by itself.
                        let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
                        let mut rest = vec![0; length];
                        stream.read_exact(&mut rest).await.ok();
                        stream.write_all(bytes).await.ok();
                        socket2::SockRef::from(&stream)
                            .set_linger(with_reset)
                            .unwrap();
                    }
                }
            }
        });
    }
    let names: Vec<String> = cases
        .iter()
        .map(|(name, ..)| format!("{name}.example.net"))
        .collect();
    let rule = format!(
        "- {{hosts: [{}], tls: Intercept, timeouts: {{connect: 1s, tls: 1s, responseHeaders: 20s}}}}",
        names.join(", ")
    );
    let builder = cases.iter().zip(&names);
    let builder = builder.fold(before(&origin).policy(&rule), |builder, (case, name)| {
        builder.resolve(name, case.1)
    });
    let proxy = builder.start().await;
    let door = proxy.bare_door();
    for ((case, _, status, stage, says), name) in cases.iter().zip(&names) {
        for asks in [WAYS[0], WAYS[2]] {
            let asked = Instant::now();
            let got = ask(&door, name, "/fine", asks).await;
            assert!(
                asked.elapsed() < 2 * LIMIT + SLACK,
                "{case}: {:?}",
                asked.elapsed()
            );
            let Got::Whole(got, at, text) = got else {
                panic!("{case}: {got:?}");
            };
            assert_eq!(
                (got, at.as_deref()),
                (*status, Some(*stage)),
                "{case}: {text}"
            );
            assert!(text.contains(says), "{case}: {text}");
            assert!(
                text.contains("trying again later may help") || *case == "plain",
                "{case}: {text}"
            );
        }
    }
    let fine = ask(&door, HOST, "/fine", WAYS[1]).await;
    assert_eq!(fine, Got::Whole(200, None, "reached".to_owned()));
}

/// One that will send nothing more may still want its answer, or have gone: it never gets half of one that
/// looks whole, and nothing waits for it.
#[tokio::test]
async fn an_agent_that_stops_sending_gets_a_whole_answer_or_none() {
    let origin = Faulty::speaking(Speaks::Http1, &[HOST]).await;
    let proxy = before(&origin).start().await;
    for path in ["/fine", "/drips-body/0", "/stalls-before/0"] {
        let mut stream = tunnel::tls(&proxy.bare_door(), HOST, &[b"http/1.1"]).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let all = String::from_utf8(wire::rest(&mut stream).await).unwrap();
        let body = all.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let whole = ["reached", "dddddddddddddddddddd"].contains(&body) || body.ends_with('}');
        let cut = all.is_empty() || all.contains("content-length: 20") && body.len() < 20;
        assert!(whole || cut, "{path}: {all}");
        until("nothing is in flight", PATIENCE, async || {
            proxy.metric("tollgate_requests_in_flight").await == Some(0.0)
        })
        .await;
    }
}

/// Where an agent goes away.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    InConnect,
    AfterConnect,
    InHandshake,
    InHead,
    InUpload,
    BeforeAnswer,
    InAnswer,
}

/// Goes in the middle, with a reset or a proper close.
async fn leave(door: &Door, stage: Leaves, speaks: Speaks, with_reset: Option<Duration>) {
    let target = format!("{HOST}:443");
    if matches!(stage, Leaves::InConnect) {
        let mut stream = TcpStream::connect(door.addr).await.unwrap();
        stream.write_all(b"CONNECT faulty.exa").await.unwrap();
        socket2::SockRef::from(&stream)
            .set_linger(with_reset)
            .unwrap();
        return;
    }
    let (mut stream, status) = tunnel::connect(door, &target).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    socket2::SockRef::from(&stream)
        .set_linger(with_reset)
        .unwrap();
    match stage {
        Leaves::AfterConnect => return,
        Leaves::InHandshake => return stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap(),
        _ => {}
    }
    let (path, body) = match stage {
        Leaves::InUpload => ("/fine", "Content-Length: 100000\r\n\r\nonly a little"),
        Leaves::BeforeAnswer => ("/stalls-before/0", "\r\n"),
        _ => ("/drips-body/0", "\r\n"),
    };
    match speaks {
        Speaks::Http1 => {
            let mut stream = tunnel::handshake(door, HOST, &[b"http/1.1"], stream)
                .await
                .unwrap();
            let mut head = format!(
                "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer faulty-placeholder-0001\r\n{body}"
            );
            if matches!(stage, Leaves::InHead) {
                head.truncate(60);
            }
            stream.write_all(head.as_bytes()).await.unwrap();
            if matches!(stage, Leaves::InAnswer) {
                stream.read_u8().await.unwrap();
            }
        }
        Speaks::Http2 => {
            let socket = Socket::from(stream.as_fd().try_clone_to_owned().unwrap());
            let stream = tunnel::handshake(door, HOST, &[b"h2"], stream)
                .await
                .unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let builder =
                hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            let (mut sender, connection) = builder.handshake(io).await.unwrap();
            tokio::spawn(async move { connection.await.ok() });
            let body = match stage {
                Leaves::InUpload => reply::streamed(futures_util::stream::pending()),
                _ => reply::full(""),
            };
            let request = http::Request::post(format!("https://{HOST}{path}"))
                .body(body)
                .unwrap();
            let answer = sender.send_request(request);
            match stage {
                Leaves::InAnswer => drop(answer.await.unwrap().into_body().frame().await),
                _ => drop(tokio::time::timeout(Duration::from_millis(50), answer).await),
            }
            // The library would go on for the sake of the body.
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }
}

async fn open_files(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .unwrap()
        .count()
}

#[tokio::test]
async fn agents_that_hang_up_at_any_stage_leave_nothing_behind() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let origin = Faulty::speaking(speaks, &[HOST, OTHER]).await;
        let proxy = before(&origin).start().await;
        let door = proxy.bare_door();
        let fine = async || {
            ask(&door, HOST, "/fine", WAYS[1]).await == Got::Whole(200, None, "reached".to_owned())
        };
        assert!(fine().await);
        until("only its own connection is open", PATIENCE, async || {
            origin.open() <= 1
        })
        .await;
        let before = open_files(&proxy).await;
        let stages = [
            Leaves::InConnect,
            Leaves::AfterConnect,
            Leaves::InHandshake,
            Leaves::InHead,
            Leaves::InUpload,
            Leaves::BeforeAnswer,
            Leaves::InAnswer,
        ];
        for stage in stages {
            for with_reset in [None, Some(Duration::ZERO)] {
                for agents in [Speaks::Http1, Speaks::Http2] {
                    leave(&door, stage, agents, with_reset).await;
                }
            }
            // A stalled origin has a second to answer. A connection whose agent left while it was being opened waits
            // for the next to come, of each stage four at most; nobody else holds anything.
            let deadline = Instant::now() + PATIENCE;
            loop {
                let in_flight = proxy.metric("tollgate_requests_in_flight").await.unwrap();
                let (files, open) = (open_files(&proxy).await, origin.open());
                if in_flight == 0.0 && files <= before + 4 && open <= 4 {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "{stage:?} at {speaks:?}: {in_flight} in flight, {files} files after {before}, the origin has {open}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(fine().await, "{stage:?}");
        }
        for request in origin.heard() {
            assert_eq!(request.sni, HOST, "{request:?}");
        }
    }
}
