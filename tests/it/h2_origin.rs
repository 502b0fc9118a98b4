//! Origins that misuse HTTP/2: what they send is told as their failure, and agents, other origins and the proxy's
//! memory are none the worse.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE, Peer,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use super::support::origin::Origin;
use super::support::reply::full;
use super::support::scene::{BARE, HOST, PATHS, PLACEHOLDER, Scene, TUNNEL};
use super::support::wire::Answer;
use super::support::{reply, scene, tunnel};

/// `:status 200` by its index (RFC 7541, appendix A).
const OK: &[u8] = &[0x88];

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

fn fine(stream: u32) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, stream, OK),
        frame(DATA, END_STREAM, stream, b"reached"),
    ]
    .concat()
}

/// How the origin behaves at its next request: one of [`CASES`], or well. After a flood that nobody ended it is
/// [`ENDLESS`].
type Mood = Arc<Mutex<&'static str>>;

const ENDLESS: &str = "taken without end";

/// Whom a flood is sent to does not matter: it goes on while the other side takes it. Nobody waits for this task, so
/// it leaves word.
async fn flood<S>(peer: &mut Peer<S>, piece: &[u8], mood: &Mood)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let piece = piece.repeat(50);
    let refused = async {
        for _ in 0..100_000 {
            if !peer.send(&piece).await {
                return true;
            }
        }
        false
    };
    // The library gives up a connection on which it hears no answer to its own PING for 50 seconds; that does not count.
    let refused = tokio::time::timeout(Duration::from_secs(40), refused).await;
    if refused != Ok(true) {
        *mood.lock().unwrap() = ENDLESS;
    }
}

const CASES: &[&str] = &[
    "push",
    "early-push",
    "no-status",
    "odd-status",
    "two-status",
    "lines",
    "upper",
    "connection",
    "chunked",
    "length-more",
    "length-less",
    "length-odd",
    "length-two",
    "pings",
    "settings",
    "empties",
    "windows",
    "hints",
    "continued",
    "bomb",
    "unknown",
    "resets",
    "gone",
    "refused",
    "calm",
    "other",
    "after",
    "no-end",
];

async fn conduct(stream: TlsStream<TcpStream>, mood: Mood) {
    let Some(mut peer) = Peer::origin(stream, &[]).await else {
        return;
    };
    while let Some(head) = peer.find(|f| f.kind == HEADERS).await {
        let id = head.stream;
        let answer = |fields: &[(&str, &str)], flags: u8| {
            let all = [OK, &block(fields)].concat();
            frame(HEADERS, END_HEADERS | flags, id, &all)
        };
        let now = {
            let mut mood = mood.lock().unwrap();
            match *mood {
                ENDLESS => "",
                _ => std::mem::take(&mut *mood),
            }
        };
        match now {
            "push" => {
                let promised = block(&frames::request("GET", HOST, "/v1/pushed"));
                let push = [&2u32.to_be_bytes()[..], &promised].concat();
                peer.send(
                    &[
                        frame(PUSH_PROMISE, END_HEADERS, id, &push),
                        fine(2),
                        fine(id),
                    ]
                    .concat(),
                )
                .await
            }
            "early-push" => peer.send(&[fine(2), fine(id)].concat()).await,
            "no-status" => {
                peer.send(&frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    id,
                    &block(&[("x-a", "1")]),
                ))
                .await
            }
            "odd-status" => {
                peer.send(&frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    id,
                    &block(&[(":status", "2000")]),
                ))
                .await
            }
            "two-status" => peer.send(&answer(&[(":status", "200")], END_STREAM)).await,
            "lines" => {
                peer.send(&answer(
                    &[("x-a", "1\r\nset-cookie: a=b\r\n\r\nHTTP/1.1 200 OK")],
                    END_STREAM,
                ))
                .await
            }
            "upper" => peer.send(&answer(&[("X-A", "1")], END_STREAM)).await,
            "connection" => {
                peer.send(&answer(&[("connection", "close")], END_STREAM))
                    .await
            }
            "chunked" => {
                peer.send(
                    &[
                        answer(&[("transfer-encoding", "chunked")], 0),
                        frame(DATA, END_STREAM, id, b"0\r\n\r\n"),
                    ]
                    .concat(),
                )
                .await
            }
            "length-more" => {
                peer.send(
                    &[
                        answer(&[("content-length", "2")], 0),
                        frame(DATA, END_STREAM, id, b"more than two"),
                    ]
                    .concat(),
                )
                .await
            }
            "length-less" => {
                peer.send(
                    &[
                        answer(&[("content-length", "200")], 0),
                        frame(DATA, END_STREAM, id, b"less"),
                    ]
                    .concat(),
                )
                .await
            }
            "length-odd" => {
                peer.send(&answer(&[("content-length", "many")], END_STREAM))
                    .await
            }
            "length-two" => {
                peer.send(
                    &[
                        answer(&[("content-length", "2"), ("content-length", "3")], 0),
                        frame(DATA, END_STREAM, id, b"two"),
                    ]
                    .concat(),
                )
                .await
            }
            "pings" => return flood(&mut peer, &frame(PING, 0, 0, &[0; 8]), &mood).await,
            "settings" => return flood(&mut peer, &frame(SETTINGS, 0, 0, &[]), &mood).await,
            "unknown" => return flood(&mut peer, &frame(0xbe, 0, 0, &[]), &mood).await,
            "windows" => {
                return flood(
                    &mut peer,
                    &frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
                    &mood,
                )
                .await;
            }
            "hints" => {
                return flood(
                    &mut peer,
                    &frame(
                        HEADERS,
                        END_HEADERS,
                        id,
                        &block(&[(":status", "103"), ("link", "</x>")]),
                    ),
                    &mood,
                )
                .await;
            }
            "resets" => return flood(&mut peer, &reset(id, frames::CANCEL), &mood).await,
            "empties" => {
                peer.send(&answer(&[], 0)).await;
                return flood(&mut peer, &frame(DATA, 0, id, &[]), &mood).await;
            }
            "continued" => {
                peer.send(&frame(HEADERS, 0, id, OK)).await;
                return flood(
                    &mut peer,
                    &frame(CONTINUATION, 0, id, &block(&[("x-a", "1")])),
                    &mood,
                )
                .await;
            }
            "bomb" => {
                let mut bomb = OK.to_vec();
                bomb.push(0x40);
                frames::string(&mut bomb, b"x-bomb");
                frames::string(&mut bomb, &[b'x'; 4000]);
                bomb.extend([0xbe; 12_000]);
                peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, id, &bomb))
                    .await
            }
            "gone" => peer.send(&goaway(0, frames::PROTOCOL_ERROR)).await,
            "refused" => peer.send(&reset(id, frames::REFUSED_STREAM)).await,
            "calm" => peer.send(&reset(id, frames::ENHANCE_YOUR_CALM)).await,
            "other" => {
                peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, id + 2, OK))
                    .await
            }
            "after" => {
                peer.send(
                    &[
                        fine(id),
                        frame(HEADERS, END_HEADERS | END_STREAM, id, OK),
                        frame(DATA, END_STREAM, id, b"twice"),
                    ]
                    .concat(),
                )
                .await
            }
            "no-end" => {
                peer.send(
                    &[
                        answer(&[], 0),
                        frame(HEADERS, END_HEADERS, id, &block(&[("x-a", "1")])),
                    ]
                    .concat(),
                )
                .await
            }
            _ => peer.send(&fine(id)).await,
        };
    }
}

/// An origin of moods, and what sets them.
async fn moody(names: &[&str]) -> (Origin, Mood) {
    let mood = Mood::default();
    let told = mood.clone();
    let origin = Origin::raw(names, &[b"h2"], move |stream| conduct(stream, told.clone())).await;
    (origin, mood)
}

/// An answer, or nothing if it broke off.
async fn ask(scene: &Scene, what: &str) -> Option<(u16, Vec<u8>)> {
    let mut sender = tunnel::http2(&scene.door, HOST).await;
    let request = Request::get(format!("https://{HOST}/v1/x"))
        .header("authorization", format!("Bearer {PLACEHOLDER}"))
        .body(full(""))
        .unwrap();
    let asked = async {
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?;
        Some((status, body.to_bytes().to_vec()))
    };
    let asked = tokio::time::timeout(Duration::from_secs(120), asked).await;
    asked.unwrap_or_else(|_| panic!("{what}: never answered"))
}

#[tokio::test]
async fn answers_that_are_malformed_are_the_origins_failure() {
    let (origin, mood) = moody(&[HOST, PATHS, BARE, TUNNEL]).await;
    let proxy = scene::in_front_of(&origin).start().await;
    let scene = Scene::with(origin, proxy).await;
    let mut wrong = Vec::new();
    for case in CASES {
        *mood.lock().unwrap() = case;
        let answer = ask(&scene, case).await;
        assert_ne!(*mood.lock().unwrap(), ENDLESS, "{case}");
        let right = match (*case, &answer) {
            // What was whole before the fault counts.
            ("after", answer) => *answer == Some((200, b"reached".to_vec())),
            (_, None) => true,
            (_, Some((status, _))) => *status == 502,
        };
        if !right {
            wrong.push(format!("{case}: {answer:?}"));
        }
        // A request may still be given to a connection that is just being left.
        let mut next = ask(&scene, case).await;
        if next != Some((200, b"reached".to_vec())) {
            next = ask(&scene, case).await;
        }
        if next != Some((200, b"reached".to_vec())) {
            wrong.push(format!("after {case}: {next:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn floods_of_an_origin_do_not_touch_who_talks_to_another() {
    let (hostile, mood) = moody(&[HOST, PATHS]).await;
    let other = Origin::tls(&[BARE, TUNNEL], |_| async { reply::text(200, "other") }).await;
    let proxy = scene::in_front_of(&hostile).origin(&other).start().await;
    let scene = Scene::with(hostile, proxy).await;
    for case in ["pings", "settings", "windows", "hints", "empties"] {
        *mood.lock().unwrap() = case;
        let ask_other = async {
            let head = format!("GET /v1/x HTTP/1.1\r\nHost: {BARE}\r\n\r\n");
            scene.ask(BARE, &head).await
        };
        let (flooded, answered): (_, Answer) = tokio::join!(ask(&scene, case), ask_other);
        assert_ne!(*mood.lock().unwrap(), ENDLESS, "{case}");
        assert!(flooded.is_none_or(|(status, _)| status == 502), "{case}");
        assert_eq!(answered.text(), "other", "beside {case}");
    }
}

/// Before an origin that answers request after request, from number 0, on whichever connection and stream it comes;
/// and how many came.
async fn answering(
    answer: impl Fn(usize, u32) -> Vec<u8> + Clone + Send + Sync + 'static,
) -> (Scene, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let origin = Origin::raw(&[HOST, PATHS, BARE, TUNNEL], &[b"h2"], move |stream| {
        let (seen, answer) = (counted.clone(), answer.clone());
        async move {
            let Some(mut peer) = Peer::origin(stream, &[]).await else {
                return;
            };
            while let Some(stream) = peer.request().await {
                let number = seen.fetch_add(1, Ordering::SeqCst);
                peer.send(&answer(number, stream)).await;
            }
        }
    })
    .await;
    let proxy = scene::in_front_of(&origin).start().await;
    (Scene::with(origin, proxy).await, seen)
}

/// GOAWAY names the last stream that counts: what is beyond was not processed, and goes out again on another
/// connection; what is within is answered there.
#[tokio::test]
async fn a_connection_that_goes_away_takes_nothing_along() {
    let answer = |_, stream| [goaway(stream, frames::NO_ERROR), fine(stream)].concat();
    let (scene, seen) = answering(answer).await;
    for number in 1..=10 {
        let answer = ask(&scene, "going away").await;
        assert_eq!(answer, Some((200, b"reached".to_vec())));
        assert_eq!(seen.load(Ordering::SeqCst), number, "each request once");
    }
}

/// An origin says of some requests that it did not process them (RFC 9113, section 8.7): they go out once more,
/// whatever they are. Of others it says nothing of the kind.
#[tokio::test]
async fn what_an_origin_did_not_process_goes_out_once_more() {
    const REFUSED: u32 = 7;
    const CALM: u32 = 11;
    type Says = fn(u32) -> Vec<u8>;
    let cases: [(&str, usize, Says, u16, usize); 6] = [
        (
            "goes away before it",
            1,
            |_| goaway(0, frames::NO_ERROR),
            200,
            2,
        ),
        ("refuses its stream", 1, |id| reset(id, REFUSED), 200, 2),
        (
            "goes away always",
            usize::MAX,
            |_| goaway(0, frames::NO_ERROR),
            502,
            2,
        ),
        (
            "refuses always",
            usize::MAX,
            |id| reset(id, REFUSED),
            502,
            2,
        ),
        ("cancels it", 1, |id| reset(id, frames::CANCEL), 502, 1),
        ("wants calm", 1, |_| goaway(0, CALM), 502, 1),
    ];
    for (case, times, says, status, sent) in cases {
        let (scene, seen) = answering(move |number, stream| match number < times {
            true => says(stream),
            false => fine(stream),
        })
        .await;
        let answer = ask(&scene, case).await;
        assert_eq!(answer.map(|(status, _)| status), Some(status), "{case}");
        assert_eq!(seen.load(Ordering::SeqCst), sent, "{case}");
    }
}

/// How an origin takes the PING of the proxy.
#[derive(Clone, Copy, PartialEq)]
enum Pinged {
    /// As if it were gone.
    Mute,
    /// It answers each, and the request after the third.
    Slow,
}

#[tokio::test]
async fn an_origin_that_answers_no_ping_fails_its_requests_and_one_that_is_only_slow_does_not() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let origin = Origin::raw(&[HOST, PATHS, BARE, TUNNEL], &[b"h2"], move |stream| {
        let how = match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Pinged::Mute,
            _ => Pinged::Slow,
        };
        async move {
            let Some(mut peer) = Peer::origin(stream, &[]).await else {
                return;
            };
            let Some(id) = peer.request().await else {
                return;
            };
            let mut pings = 0;
            while let Some(ping) = peer.find(|f| f.kind == PING).await {
                if how == Pinged::Mute {
                    continue;
                }
                peer.send(&frame(PING, frames::ACK, 0, &ping.payload)).await;
                pings += 1;
                if pings == 3 {
                    peer.send(&fine(id)).await;
                }
            }
        }
    })
    .await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {origins: {ping: 2s}}")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let answer = ask(&scene, "gone").await;
    assert_eq!(answer.map(|(status, _)| status), Some(502));
    let answer = ask(&scene, "slow").await;
    assert_eq!(answer, Some((200, b"reached".to_vec())));
    assert_eq!(taken.load(Ordering::SeqCst), 2);
    let series = "tollgate_limits_reached_total{limit=\"origins.ping\"}";
    assert_eq!(scene.proxy.metric(series).await, Some(1.0));
}
