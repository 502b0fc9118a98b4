//! HTTP/2 frames that ask for work and bring nothing: the connection ends in the words that RFC 9113 has for it,
//! others go on, and neither the proxy nor the origin has much to do.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Fate, HEADERS, PING,
    PRIORITY, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
};
use super::support::origin::Origin;
use super::support::reply;
use super::support::scene::{self, BARE, HOST, PATHS, Scene, TUNNEL};

/// What a process uses: resident KiB, and CPU time in hundredths of a second.
fn usage(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim().trim_end_matches(" kB");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, stat) = stat.rsplit_once(") ").unwrap();
    let times = stat.split(' ').skip(11).take(2);
    let ticks = times.map(|t| t.parse::<u64>().unwrap()).sum();
    (resident.parse().unwrap(), ticks)
}

/// An origin that answers `/v1/slow` only after a long time.
async fn slow_scene() -> Scene {
    let origin = Origin::tls(&[HOST, PATHS, BARE, TUNNEL], |mut exchange| async move {
        exchange.body().await;
        if exchange.head.path() == "/v1/slow" {
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        reply::text(200, "reached")
    })
    .await;
    let proxy = scene::in_front_of(&origin).start().await;
    Scene::with(origin, proxy).await
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(
        SETTINGS,
        0,
        0,
        &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat(),
    )
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &frames::CANCEL.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// Sends `flood` until the other side has had enough, and reads what it says meanwhile.
async fn flooded(
    scene: &Scene,
    case: &str,
    begin: &[u8],
    flood: impl Fn(u32) -> Vec<u8>,
) -> Option<u32> {
    flooded_on(Peer::agent(&scene.door, HOST).await, case, begin, flood).await
}

/// The same on a connection that stands.
async fn flooded_on<S: AsyncRead + AsyncWrite + Unpin>(
    agent: Peer<S>,
    case: &str,
    begin: &[u8],
    flood: impl Fn(u32) -> Vec<u8>,
) -> Option<u32> {
    let (read, write) = tokio::io::split(agent.stream);
    let mut hears = Peer {
        stream: tokio::io::join(read, tokio::io::sink()),
    };
    let mut says = Peer {
        stream: tokio::io::join(tokio::io::empty(), write),
    };
    says.send(begin).await;
    let told = async { hears.goodbye().await };
    let sent = async {
        for round in 0..200_000 {
            if !says.send(&flood(round)).await {
                return;
            }
        }
        panic!("{case}: the flood is taken without end");
    };
    let told = async { tokio::join!(told, sent).0 };
    let told = tokio::time::timeout(Duration::from_secs(120), told).await;
    told.unwrap_or_else(|_| panic!("{case}: the connection does not end"))
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_and_no_other() {
    let scene = Scene::new().await;
    scene.still_serves().await;
    let mut honest = Peer::agent(&scene.door, HOST).await;
    let (resident, _) = usage(scene.proxy.pid());
    let open = frame(
        HEADERS,
        END_HEADERS,
        1,
        &block(&request("POST", HOST, "/v1/x")),
    );
    let over = frames::get(1, HOST, "/v1/x");
    type Flood = Box<dyn Fn(u32) -> Vec<u8>>;
    let floods: Vec<(&str, &[u8], Flood)> = vec![
        (
            "PING",
            b"",
            Box::new(|_| frame(PING, 0, 0, &[0; 8]).repeat(50)),
        ),
        (
            "PING answers",
            b"",
            Box::new(|_| frame(PING, 1, 0, &[0; 8]).repeat(50)),
        ),
        (
            "SETTINGS",
            b"",
            Box::new(|_| frame(SETTINGS, 0, 0, &[]).repeat(50)),
        ),
        (
            "windows by SETTINGS",
            &open,
            Box::new(|n| settings(4, 65_535 + n % 2).repeat(50)),
        ),
        (
            "tables by SETTINGS",
            b"",
            Box::new(|n| settings(1, n % 2 * 4096).repeat(50)),
        ),
        (
            "PRIORITY",
            b"",
            Box::new(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(50)),
        ),
        (
            "WINDOW_UPDATE of the connection",
            b"",
            Box::new(|_| window(0, 1).repeat(50)),
        ),
        (
            "WINDOW_UPDATE of a stream",
            &open,
            Box::new(|_| window(1, 1).repeat(50)),
        ),
        (
            "empty DATA",
            &open,
            Box::new(|_| frame(DATA, 0, 1, b"").repeat(50)),
        ),
        (
            "padding",
            &open,
            Box::new(|_| frame(DATA, 8, 1, &[3, 0, 0, 0]).repeat(50)),
        ),
        (
            "frames of no kind",
            b"",
            Box::new(|_| frame(0xbe, 0, 0, b"").repeat(50)),
        ),
        (
            "resets of what is over",
            &over,
            Box::new(|_| reset(1).repeat(50)),
        ),
    ];
    for (number, (case, begin, flood)) in (0..).zip(floods) {
        let told = flooded(&scene, case, begin, flood).await;
        assert!(matches!(told, Some(ENHANCE_YOUR_CALM)), "{case}: {told:?}");
        let stream = 2 * number + 1;
        honest.send(&frames::get(stream, HOST, "/v1/honest")).await;
        assert_eq!(honest.fate(stream).await, Fate::Fine, "beside {case}");
    }
    let (after, _) = usage(scene.proxy.pid());
    assert!(after < resident + 8 * 1024, "{resident} KiB became {after}");
    let records = scene.proxy.access_log(1).await;
    let floods = records.iter().filter(|r| r["reason"] == "http2_flood");
    assert!(floods.count() >= 8, "{records:#?}");
}

/// Rapid reset, CVE-2023-44487: each stream has its request at the origin before it is given up.
#[tokio::test]
async fn streams_that_are_opened_and_reset_bother_the_origin_a_bounded_number_of_times() {
    let scene = slow_scene().await;
    scene.still_serves().await;
    let before = scene.origin.requests().len();
    let (_, busy) = usage(scene.proxy.pid());
    let told = flooded(&scene, "rapid reset", b"", |n| {
        let stream = 2 * n + 1;
        [frames::get(stream, HOST, "/v1/slow"), reset(stream)].concat()
    })
    .await;
    assert_eq!(told, Some(ENHANCE_YOUR_CALM));
    let asked = scene.origin.requests().len() - before;
    assert!(asked < 500, "the origin got {asked} requests");
    // Before anybody takes them up: so few that nothing but their number can be what is wrong.
    let burst: Vec<u8> = (0..100)
        .flat_map(|n| [frames::get(2 * n + 1, HOST, "/v1/slow"), reset(2 * n + 1)].concat())
        .collect();
    let mut agent = Peer::agent(&scene.door, HOST).await;
    agent.send(&burst).await;
    assert_eq!(agent.goodbye().await, Some(ENHANCE_YOUR_CALM));
    // With their requests at the origin before they are reset.
    let started = Instant::now();
    let mut agent = Peer::agent(&scene.door, HOST).await;
    for batch in 0..500 {
        let streams = || (0..20).map(|n| 2 * (20 * batch + n) + 1);
        let opened: Vec<u8> = streams()
            .flat_map(|stream| frames::get(stream, HOST, "/v1/slow"))
            .collect();
        let ping = frame(PING, 0, 0, &[1; 8]);
        let resets: Vec<u8> = streams().flat_map(reset).collect();
        // The answer to a PING shows that what came before it has been read.
        let goes_on = agent.send(&[opened, ping].concat()).await
            && agent.find(|f| f.kind == PING).await.is_some()
            && agent.send(&resets).await;
        if !goes_on {
            break;
        }
        assert!(batch < 499, "10,000 streams are opened and reset");
    }
    let allowed = 600 + 60 * usize::try_from(started.elapsed().as_secs()).unwrap();
    scene.still_serves().await;
    let asked = scene.origin.requests().len() - before;
    assert!(asked < 500 + allowed, "the origin got {asked} requests");
    let (_, ticks) = usage(scene.proxy.pid());
    assert!(ticks - busy < 3000, "{} ms of CPU", (ticks - busy) * 10);
}

/// MadeYouReset, CVE-2025-8671: the proxy itself is made to reset streams whose requests are under way.
#[tokio::test]
async fn streams_that_the_proxy_is_made_to_reset_are_bounded_too() {
    let scene = slow_scene().await;
    scene.still_serves().await;
    let post = block(&request("POST", HOST, "/v1/slow"));
    let get = block(&request("GET", HOST, "/v1/slow"));
    type Provoke = Box<dyn Fn(u32) -> Vec<u8>>;
    let cases: Vec<(&str, Vec<u8>, u8, Provoke)> = vec![
        (
            "a window of nothing",
            get.clone(),
            END_STREAM,
            Box::new(|s| window(s, 0)),
        ),
        (
            "a window too large",
            get.clone(),
            END_STREAM,
            Box::new(|s| window(s, 0x7fff_ffff)),
        ),
        (
            "DATA behind the end",
            get.clone(),
            END_STREAM,
            Box::new(|s| frame(DATA, 0, s, b"x")),
        ),
        (
            "a head behind the end",
            get,
            END_STREAM,
            Box::new(move |s| {
                frame(
                    HEADERS,
                    END_STREAM | END_HEADERS,
                    s,
                    &block(&[("x-a", "1")]),
                )
            }),
        ),
        (
            "a stream that depends on itself",
            post,
            0,
            Box::new(|s| frame(PRIORITY, 0, s, &[&s.to_be_bytes()[..], &[1]].concat())),
        ),
    ];
    for (case, head, flags, provoke) in cases {
        let before = scene.origin.requests().len();
        let told = flooded(&scene, case, b"", |n| {
            let stream = 2 * n + 1;
            [
                frame(HEADERS, flags | END_HEADERS, stream, &head),
                provoke(stream),
            ]
            .concat()
        })
        .await;
        assert!(told.is_some(), "{case}");
        let asked = scene.origin.requests().len() - before;
        assert!(asked < 500, "{case}: the origin got {asked} requests");
    }
    // With their requests at the origin before that; what their frames cost would do for far more.
    let get = block(&request("GET", HOST, "/v1/slow"));
    let mut agent = Peer::agent(&scene.door, HOST).await;
    for batch in 0.. {
        let streams = || (0..20).map(|n| 2 * (20 * batch + n) + 1);
        let open = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &get);
        let opened: Vec<u8> = streams().flat_map(open).collect();
        let ping = frame(PING, 0, 0, &[1; 8]);
        let provoked: Vec<u8> = streams().flat_map(|s| window(s, 0x7fff_ffff)).collect();
        let goes_on = agent.send(&[opened, ping].concat()).await
            && agent.find(|f| f.kind == PING).await.is_some()
            && agent.send(&provoked).await;
        if !goes_on {
            break;
        }
        assert!(batch < 30, "the proxy resets 600 streams of one connection");
    }
    scene.still_serves().await;
}

/// What an agent sends and no origin takes waits in its windows: a part of the bound on memory.
#[tokio::test]
async fn windows_are_as_small_as_the_bound_on_memory_says() {
    let origin = Origin::tls(&[HOST, PATHS, BARE, TUNNEL], |exchange| async move {
        match exchange.head.path() {
            "/v1/deaf" => std::future::pending().await,
            _ => reply::text(200, "reached"),
        }
    })
    .await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let mut agent = Peer::agent(&scene.door, HOST).await;
    let settings = agent
        .find(|f| f.kind == SETTINGS && !f.payload.is_empty())
        .await;
    let settings = settings.unwrap().payload;
    let window = settings.chunks(6).find(|one| one[..2] == [0, 4]).unwrap();
    assert_eq!(window[2..], (256_u32 << 10).to_be_bytes());
    // All begin with 64 KiB (RFC 9113, section 6.9.2), and hold until this is heard.
    let opened = agent
        .find(|f| f.kind == WINDOW_UPDATE && f.stream == 0)
        .await;
    let opened: [u8; 4] = opened.unwrap().payload.try_into().unwrap();
    assert_eq!(u32::from_be_bytes(opened) + 65_535, 1 << 20);
    // Each stream within its own window, and all together far beyond that of the connection, and what the
    // origin's side takes besides.
    let post = block(&request("POST", HOST, "/v1/deaf"));
    let piece = frame(DATA, 0, 0, &[b'x'; 16 << 10]);
    let told = flooded_on(agent, "windows", &frame(SETTINGS, 1, 0, &[]), |n| {
        if n >= 32 {
            return Vec::new();
        }
        let stream = 2 * n + 1;
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &post);
        for _ in 0..16 {
            bytes.extend(&piece[..5]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(&piece[9..]);
        }
        bytes
    })
    .await;
    assert_eq!(told, Some(frames::FLOW_CONTROL_ERROR));
    scene.still_serves().await;
}

/// CONTINUATION without end (CVE-2024-27316), and small blocks that become large fields (RFC 7541, section 7.3).
#[tokio::test]
async fn heads_without_end_and_bombs_end_the_connection() {
    let scene = Scene::new().await;
    scene.still_serves().await;
    let (resident, busy) = usage(scene.proxy.pid());
    let begin = frame(
        HEADERS,
        END_STREAM,
        1,
        &block(&request("GET", HOST, "/v1/x")),
    );
    // One entry of 4 KiB in the table, then many times its index.
    let mut entry = vec![0x40];
    frames::string(&mut entry, b"x-bomb");
    frames::string(&mut entry, &[b'x'; 4000]);
    let mut bomb = block(&request("GET", HOST, "/v1/x"));
    bomb.extend(&entry);
    bomb.extend([0xbe; 12_000]);
    let mut nothings = block(&request("GET", HOST, "/v1/x"));
    nothings.extend(block(&[("x", "")]).repeat(4000));
    type Flood<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let floods: Vec<(&str, &[u8], Flood<'_>)> = vec![
        (
            "CONTINUATION",
            &begin,
            Box::new(|_| frame(CONTINUATION, 0, 1, &block(&[("x-a", "1")]))),
        ),
        (
            "empty CONTINUATION",
            &begin,
            Box::new(|_| frame(CONTINUATION, 0, 1, &[])),
        ),
        (
            "a string without end",
            &begin,
            Box::new(|n| {
                let begin: &[u8] = if n == 0 {
                    &[0, 127, 0xff, 0xff, 0xff, 0x07]
                } else {
                    &[]
                };
                frame(CONTINUATION, 0, 1, &[begin, &[b'x'; 16_000]].concat())
            }),
        ),
        (
            "a bomb",
            b"",
            Box::new(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &bomb)),
        ),
        (
            "fields of nothing",
            b"",
            Box::new(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &nothings)),
        ),
    ];
    for (case, begin, flood) in floods {
        let told = flooded(&scene, case, begin, flood).await;
        assert!(
            matches!(
                told,
                Some(ENHANCE_YOUR_CALM | frames::COMPRESSION_ERROR | frames::PROTOCOL_ERROR)
            ),
            "{case}: {told:?}"
        );
    }
    scene.nothing_sent("a flood of heads");
    scene.still_serves().await;
    let (after, ticks) = usage(scene.proxy.pid());
    assert!(
        after < resident + 16 * 1024,
        "{resident} KiB became {after}"
    );
    assert!(ticks - busy < 3000, "{} ms of CPU", (ticks - busy) * 10);
}

/// An answer is not cut into single bytes for ever.
#[tokio::test]
async fn windows_of_one_byte_end_the_connection() {
    let origin = Origin::tls(&[HOST, PATHS, BARE, TUNNEL], |_| async {
        reply::with_body(200, "application/octet-stream", vec![0; 1_000_000])
    })
    .await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let begin = [settings(4, 1), frames::get(1, HOST, "/v1/large")].concat();
    let told = flooded(&scene, "one byte", &begin, |_| window(1, 1)).await;
    assert_eq!(told, Some(ENHANCE_YOUR_CALM));
}

/// What honest clients do a lot of goes on: many requests, pings, and windows as they read.
#[tokio::test]
async fn honest_frames_are_never_too_many() {
    let origin = Origin::tls(&[HOST, PATHS, BARE, TUNNEL], |_| async {
        reply::with_body(200, "application/octet-stream", vec![0; 20_000])
    })
    .await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let mut agent = Peer::agent(&scene.door, HOST).await;
    for number in 0..600 {
        let stream = 2 * number + 1;
        agent.send(&frames::get(stream, HOST, "/v1/large")).await;
        let mut came = 0;
        while came < 20_000 {
            let wanted = |f: &frames::Frame| f.kind == DATA && f.stream == stream;
            let data = agent.find(wanted).await.unwrap().payload;
            came += data.len();
            // As often as Go's client does it: for each 4 KiB, on the stream and on the connection.
            for piece in data.chunks(4096) {
                let more = u32::try_from(piece.len()).unwrap();
                agent
                    .send(&[window(stream, more), window(0, more)].concat())
                    .await;
            }
        }
        agent.send(&frame(PING, 0, 0, &[2; 8])).await;
    }
    agent.send(&frames::get(1201, HOST, "/v1/large")).await;
    assert_eq!(agent.fate(1201).await, Fate::Fine);
}

/// One that floods and never reads holds nothing for long.
#[tokio::test]
async fn a_flood_whose_sender_takes_no_answer_stays_small() {
    let scene = Scene::new().await;
    scene.still_serves().await;
    let (resident, _) = usage(scene.proxy.pid());
    let mut agents = Vec::new();
    for _ in 0..20 {
        let mut agent = Peer::agent(&scene.door, HOST).await;
        let flood = frame(PING, 0, 0, &[0; 8]).repeat(1500);
        agent.send(&flood).await;
        agents.push(agent);
    }
    scene.still_serves().await;
    let (after, _) = usage(scene.proxy.pid());
    assert!(
        after < resident + 16 * 1024,
        "{resident} KiB became {after}"
    );
    drop(agents);
    scene.still_serves().await;
}
