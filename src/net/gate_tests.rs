//! Connections whose octets come late, are no request, or are not taken: when they end, and with what word.

use std::task::{Wake, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::closing::GOODBYE;
use super::*;

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_cut_at_its_first_deadline() {
    let (agent, proxy) = tokio::io::duplex(1024);
    let mut gate = watched(proxy, Arc::default());
    let (mut hear, mut speak) = tokio::io::split(agent);
    let trickle = tokio::spawn(async move {
        loop {
            if speak.write_all(b"G").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    });
    let started = Instant::now();
    let mut sink = Vec::new();
    assert!(gate.read_to_end(&mut sink).await.is_err());
    assert!(started.elapsed() <= Duration::from_secs(12));
    drop(gate);
    let mut told = String::new();
    hear.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, "SlowHead");
    trickle.await.unwrap();
}

/// The timer stands far off on a connection that was idle, and must not be what is waited for.
#[tokio::test(start_paused = true)]
async fn a_kept_connection_keeps_the_times_of_a_new_one() {
    let limits = AgentLimits::default().requests;
    for (part, limit) in [
        (&b"GET / HT"[..], limits.head_time),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab",
            limits.body_idle,
        ),
    ] {
        let (mut agent, proxy) = tokio::io::duplex(1024);
        let state = Arc::new(GateState::default());
        let mut gate = watched(proxy, state.clone());
        agent.write_all(GOOD).await.unwrap();
        let mut read = [0; GOOD.len()];
        gate.read_exact(&mut read).await.unwrap();
        drop(state.serving());
        gate.flush().await.unwrap();
        let silence = limits.head_time + limits.body_idle;
        assert!(silence < AgentLimits::default().idle);
        let said = tokio::spawn(async move {
            tokio::time::sleep(silence).await;
            agent.write_all(part).await.unwrap();
            agent
        });
        let begun = Instant::now();
        let mut sink = Vec::new();
        assert!(gate.read_to_end(&mut sink).await.is_err());
        let waited = begun.elapsed() - silence;
        // And a moment for the last word.
        assert!(
            waited >= limit && waited < limit + 2 * GOODBYE,
            "{waited:?}"
        );
        drop(said.await.unwrap());
    }
}

fn watched<S>(inner: S, state: Arc<GateState>) -> Gate<S> {
    let word = |violation| Bytes::from(format!("{violation:?}"));
    Gate::new(inner, AgentLimits::default(), state, Box::new(word))
}

fn poll_read<S>(gate: &mut Gate<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Pin::new(gate).poll_read(cx, &mut ReadBuf::new(&mut [0; PIPE]))
}

const GOOD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n";

/// A duplex pipe holds so much.
const PIPE: usize = 1024;

/// A connection whose first request was handed over, and `behind` sent behind it.
async fn with_one_request(behind: &[u8]) -> (DuplexStream, Gate<DuplexStream>, Arc<GateState>) {
    let (mut agent, proxy) = tokio::io::duplex(PIPE);
    let state = Arc::new(GateState::default());
    let mut gate = watched(proxy, state.clone());
    agent.write_all(&[GOOD, behind].concat()).await.unwrap();
    assert_eq!(gate.read(&mut [0; PIPE]).await.unwrap(), GOOD.len());
    (agent, gate, state)
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_answered_here_and_never_handed_on() {
    for (before, expected) in [
        (&b""[..], "Name"),
        (b"GET / HT", "RequestLine"),
        (b"GET / HTTP/1.1\r\n", "Name"),
        (b"\r\n", "Name"),
    ] {
        let (mut agent, proxy) = tokio::io::duplex(PIPE);
        let mut gate = watched(proxy, Arc::default());
        agent.write_all(&[before, BAD].concat()).await.unwrap();
        let mut read = Vec::new();
        assert!(gate.read_to_end(&mut read).await.is_err());
        assert!(read.is_empty());
        drop(gate);
        let mut told = String::new();
        agent.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, expected);
    }
}

/// However much of what follows comes with it.
#[tokio::test(start_paused = true)]
async fn a_request_before_one_that_is_none_is_answered_first() {
    for cut in [0, 1, 20, BAD.len()] {
        let (now, later) = BAD.split_at(cut);
        let (mut agent, mut gate, state) = with_one_request(now).await;
        let mut buffer = [0; PIPE];
        let serving = state.serving();
        agent.write_all(later).await.unwrap();
        let second = Duration::from_secs(1);
        let waits = tokio::time::timeout(second, gate.read(&mut buffer)).await;
        assert!(waits.is_err(), "cut at {cut}: it does not wait");
        gate.write_all(b"answer, ").await.unwrap();
        drop(serving);
        // The library may have the end of it in a buffer yet.
        let waits = tokio::time::timeout(second, gate.read(&mut buffer)).await;
        assert!(waits.is_err(), "cut at {cut}: it does not wait");
        gate.write_all(b"its end, ").await.unwrap();
        gate.flush().await.unwrap();
        assert!(gate.read(&mut buffer).await.is_err());
        assert_eq!(
            state.violation(),
            None,
            "cut at {cut}: of the one that is good"
        );
        drop(gate);
        let mut told = String::new();
        agent.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, "answer, its end, Name", "cut at {cut}");
    }
}

/// While there is an answer to be heard, whatever came behind its request.
#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_up_is_heard() {
    for behind in [&b""[..], b"\r\n", b"GET / HT", BAD, b"\x16\x03\x01"] {
        let (agent, mut gate, state) = with_one_request(behind).await;
        let mut buffer = [0; PIPE];
        let _serving = state.serving();
        drop(agent);
        let begun = Instant::now();
        let read = gate.read(&mut buffer).await;
        assert!(matches!(read, Ok(0)), "{behind:?}: {read:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{behind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_so_much_is_read_ahead() {
    let (mut agent, mut gate, state) = with_one_request(b"").await;
    let mut buffer = [0; PIPE];
    let _serving = state.serving();
    let mut sent = 0;
    let sending = async {
        loop {
            sent += agent.write(&GOOD.repeat(10)).await.unwrap();
        }
    };
    let hour = Duration::from_secs(3600);
    tokio::select! {
        _ = gate.read(&mut buffer) => panic!("it is over"),
        () = sending => {}
        () = tokio::time::sleep(hour) => {}
    }
    let most = AgentLimits::default().requests.head_size;
    assert!((most..=most + 2 * PIECE).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn requests_are_handed_over_one_by_one() {
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let all = [GOOD, post, b"\r\n", GOOD];
    for cut in 0..all.concat().len() {
        let (mut agent, proxy) = tokio::io::duplex(PIPE);
        let state = Arc::new(GateState::default());
        let mut gate = watched(proxy, state.clone());
        let mut pieces = all.concat();
        let later = pieces.split_off(cut);
        agent.write_all(&pieces).await.unwrap();
        let speaking = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            agent.write_all(&later).await.unwrap();
            agent
        });
        for request in [GOOD, post, &[b"\r\n", GOOD].concat()] {
            let mut read = vec![0; request.len()];
            gate.read_exact(&mut read).await.unwrap();
            assert_eq!(read, request, "cut at {cut}");
            let serving = state.serving();
            let second = Duration::from_secs(2);
            let next = tokio::time::timeout(second, gate.read(&mut read)).await;
            assert!(next.is_err(), "cut at {cut}: the next comes early");
            drop(serving);
            gate.flush().await.unwrap();
        }
        drop(speaking.await.unwrap());
        assert_eq!(gate.held.capacity(), 0);
    }
}

/// An agent may wait for the first answer before it sends the body of the next request.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_body_begins_with_its_turn() {
    let (mut agent, proxy) = tokio::io::duplex(PIPE);
    let state = Arc::new(GateState::default());
    let mut gate = watched(proxy, state.clone());
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
    agent.write_all(&[GOOD, head].concat()).await.unwrap();
    let mut buffer = [0; PIPE];
    assert_eq!(gate.read(&mut buffer).await.unwrap(), GOOD.len());
    let limit = AgentLimits::default().requests.body_idle;
    let first = state.serving();
    let waits = tokio::time::timeout(2 * limit, gate.read(&mut buffer)).await;
    assert!(waits.is_err(), "its turn has not come");
    drop(first);
    gate.flush().await.unwrap();
    assert_eq!(gate.read(&mut buffer).await.unwrap(), head.len());
    let _second = state.serving();
    let body = async {
        tokio::time::sleep(limit / 2).await;
        agent.write_all(b"ab").await.unwrap();
    };
    let (read, ()) = tokio::join!(gate.read(&mut buffer), body);
    assert_eq!(read.unwrap(), 2);
    let begun = Instant::now();
    let error = gate.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.to_string(), Violation::SlowBody.message());
    assert!((limit..limit * 3 / 2).contains(&begun.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_from_the_end_of_the_last_answer() {
    let (_agent, mut gate, state) = with_one_request(b"").await;
    let mut buffer = [0; PIPE];
    let serving = state.serving();
    let idle = AgentLimits::default().idle;
    let waits = tokio::time::timeout(idle * 3 / 2, gate.read(&mut buffer)).await;
    assert!(waits.is_err(), "it is answered");
    drop(serving);
    gate.flush().await.unwrap();
    let begun = Instant::now();
    let error = gate.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.to_string(), "idle");
    let second = Duration::from_secs(1);
    assert!((idle..idle + second).contains(&begun.elapsed()));
}

/// Whoever waits for the answer to go out is not polled for anything else.
#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_is_read_on_at_the_end_of_the_answer() {
    let (_agent, mut gate, state) = with_one_request(BAD).await;
    let serving = state.serving();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(poll_read(&mut gate, &mut cx).is_pending());
    drop(serving);
    assert!(!woken.0.swap(false, Ordering::Relaxed));
    assert!(Pin::new(&mut gate).poll_flush(&mut cx).is_ready());
    assert!(woken.0.load(Ordering::Relaxed));
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_in_pieces_is_handed_on_whole() {
    let (mut agent, proxy) = tokio::io::duplex(PIPE);
    let mut gate = watched(proxy, Arc::default());
    let fields = "X: y\r\n".repeat(98);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 4\r\n\r\n");
    assert!(head.len() > PIPE / 2);
    let (sent, first) = tokio::sync::oneshot::channel();
    let saying = tokio::spawn(async move {
        let (last, before) = head.as_bytes().split_last().unwrap();
        for octet in before {
            agent.write_all(&[*octet]).await.unwrap();
            tokio::task::yield_now().await;
        }
        sent.send(()).unwrap();
        agent.write_all(&[*last]).await.unwrap();
        agent.write_all(b"body").await.unwrap();
        (agent, head.clone() + "body")
    });
    let mut buffer = [0; 100];
    let read = gate.read(&mut buffer).await.unwrap();
    assert_eq!(first.await, Ok(()), "it was handed on before its end");
    let mut heard = buffer[..read].to_vec();
    let (agent, said) = saying.await.unwrap();
    drop(agent);
    gate.read_to_end(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), said);
    assert_eq!(
        gate.held.capacity(),
        0,
        "a connection keeps no room that it has no use for"
    );
}

/// What was read behind a CONNECT belongs to the tunnel.
#[tokio::test(start_paused = true)]
async fn what_follows_http_is_not_lost() {
    let (mut agent, proxy) = tokio::io::duplex(PIPE);
    let mut gate = watched(proxy, Arc::default());
    let head = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    agent.write_all(&head[..10]).await.unwrap();
    let mut read = vec![0; head.len()];
    let pieces = tokio::join!(gate.read_exact(&mut read), async {
        tokio::task::yield_now().await;
        agent
            .write_all(&[&head[10..], b"\x16\x03\x01"].concat())
            .await
    });
    pieces.0.unwrap();
    pieces.1.unwrap();
    assert_eq!(read, head);
    assert_eq!(gate.into_inner().1, b"\x16\x03\x01");
}

#[tokio::test(start_paused = true)]
async fn a_violation_in_a_body_on_its_way_breaks_it_off() {
    let (mut agent, proxy) = tokio::io::duplex(PIPE);
    let state = Arc::new(GateState::default());
    let mut gate = watched(proxy, state.clone());
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bad = b"5\r\nhello\r\n0x5\r\n";
    agent.write_all(&[GOOD, head, bad].concat()).await.unwrap();
    let mut buffer = [0; PIPE];
    assert_eq!(gate.read(&mut buffer).await.unwrap(), GOOD.len());
    drop(state.serving());
    assert_eq!(state.violation(), None, "that one has no body");
    gate.flush().await.unwrap();
    let sound = head.len() + b"5\r\nhello\r\n".len();
    assert_eq!(gate.read(&mut buffer).await.unwrap(), sound);
    let _serving = state.serving();
    assert_eq!(state.violation(), Some(Violation::Chunk));
    let error = gate.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_nothing_of_its_answer_is_left() {
    for patience in [None, Some(Duration::from_secs(7))] {
        let (_agent, proxy) = tokio::io::duplex(1024);
        let state = Arc::new(GateState::default());
        let mut gate = watched(proxy, state.clone());
        if let Some(patience) = patience {
            state.answering(patience);
        }
        let started = Instant::now();
        let error = gate.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let patience = patience.unwrap_or(ANSWER_PATIENCE);
        assert!((patience..patience * 2).contains(&started.elapsed()));
        assert!(state.is_stalled());
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_its_answer_slowly_gets_all_of_it() {
    let (mut agent, proxy) = tokio::io::duplex(1024);
    let state = Arc::new(GateState::default());
    let mut gate = watched(proxy, state.clone());
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 512];
        for _ in 0..20 {
            tokio::time::sleep(ANSWER_PATIENCE * 9 / 10).await;
            agent.read_exact(&mut buffer).await.unwrap();
        }
    });
    gate.write_all(&[0; 20 * 512]).await.unwrap();
    reading.await.unwrap();
    assert!(!state.is_stalled());
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_an_exchange_in_flight_is_never_idle() {
    let (mut agent, proxy) = tokio::io::duplex(1024);
    let state = Arc::new(GateState::default());
    let mut gate = watched(proxy, state.clone());
    agent
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 64];
    assert_eq!(gate.read(&mut buffer).await.unwrap(), 27);
    let exchange = state.serving();
    let waited = tokio::time::timeout(Duration::from_secs(3600), gate.read(&mut buffer)).await;
    assert!(
        waited.is_err(),
        "the read ended although a response was still on its way"
    );
    drop(exchange);
    let error = gate.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.to_string(), "idle");
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_silent_once_it_has_been_upgraded_and_not_before() {
    for granted in [true, false] {
        let (mut agent, proxy) = tokio::io::duplex(1024);
        let state = Arc::new(GateState::default());
        let mut gate = watched(proxy, state.clone());
        agent
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let mut buffer = [0; 128];
        assert!(gate.read(&mut buffer).await.unwrap() > 0);
        if granted {
            state.leaves();
        }
        let hour = Duration::from_secs(3600);
        let read = tokio::time::timeout(hour, gate.read(&mut buffer)).await;
        assert_eq!(read.is_err(), granted);
        let written = tokio::time::timeout(hour, gate.write_all(&[0; 4096])).await;
        assert_eq!(written.is_err(), granted);
    }
}

#[tokio::test(start_paused = true)]
async fn empty_lines_do_not_put_off_the_first_head() {
    let (mut agent, proxy) = tokio::io::duplex(1024);
    let state = Arc::new(GateState::default());
    let mut gate = watched(proxy, state.clone());
    let started = Instant::now();
    let speaking = tokio::spawn(async move {
        for piece in [&b"\r\n"[..], b"\r", b"\n"] {
            tokio::time::sleep(Duration::from_secs(3)).await;
            agent.write_all(piece).await.unwrap();
        }
        agent
    });
    let mut sink = Vec::new();
    assert!(gate.read_to_end(&mut sink).await.is_err());
    assert!(started.elapsed() <= Duration::from_secs(12));
    assert_eq!(state.waited_for(), Some(Limit::HeadTime));
    speaking.await.unwrap();
}

#[test]
fn threads_that_serve_one_connection_are_counted_until_the_last_is_through() {
    let state = Arc::new(GateState::default());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let _under_way = state.serving();
                    assert!((1..=3).contains(&state.in_flight.load(Ordering::Acquire)));
                    if state.violation().is_none() {
                        state.note(Violation::SlowBody);
                    }
                    assert_eq!(state.violation(), Some(Violation::SlowBody));
                }
            });
        }
    });
    assert_eq!(state.in_flight.load(Ordering::Acquire), 0);
    assert_eq!(state.served.load(Ordering::Acquire), 9);
}
