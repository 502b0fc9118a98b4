//! An agent that stops taking its answer does not keep what was reserved for it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::budgeted::{Budgeted, cap, with};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::server::{ANTHROPIC, Provider};
use crate::support::spender::{Ask, message, streamed};

const HAIKU: &str = "claude-haiku-4-5";
/// Of an answer that no buffer on its way holds: 24 MB, which are taken for 8 million tokens where nobody counts.
const ENDLESS: u64 = 6_000_000;

/// Not so fast that the rest of it comes in the moment for which it is read on.
fn endless() -> Conduct {
    let conduct = Conduct::says(ENDLESS).piece(4096).input(30);
    conduct.pace(Duration::from_millis(2))
}

async fn scene(provider: Provider, spec: &str) -> Budgeted {
    let proxy = provider.proxy_saying(", timeouts: {agentIdle: 1s}");
    let proxy = proxy.document("EgressBudget", "cap", spec).start().await;
    Budgeted { provider, proxy }
}

/// Asks on a connection that takes little unread, with this field as well, and reads nothing.
async fn ask_and_read_nothing(scene: &Budgeted, ask: &Ask, field: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(scene.proxy.addr).await.unwrap();
    let head = format!(
        "POST /anthropic{} HTTP/1.1\r\nhost: {}\r\nx-api-key: sk-ant-api03-placeholder-0001\r\n\
         anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{field}\r\n",
        ask.target,
        scene.proxy.addr,
        ask.body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&ask.body).await.unwrap();
    stream
}

/// How each exchange ended, once there are so many.
async fn ends(scene: &Budgeted, count: usize) -> Vec<String> {
    let log = scene.proxy.access_log(count).await;
    let end = |record: &serde_json::Value| record["end"].as_str().unwrap_or_default().to_owned();
    log.iter().map(end).collect()
}

#[tokio::test]
async fn an_agent_that_stops_reading_is_left_and_gives_its_reservation_back() {
    let scene = scene(Provider::http1().await, &cap("100.00")).await;
    scene.provider.usually(endless());
    let ask = Ask::message(&streamed(message(HAIKU, ENDLESS)));
    let mut agent = ask_and_read_nothing(&scene, &ask, "").await;
    let books = scene.proxy.books_of(1).await;
    let row = &books.entries[0];
    assert_eq!((row.ending(), row.is_estimated()), ("agent_left", true));
    // The provider was not read beyond what the buffers took: neither did the reservation grow.
    assert!(row.used().output < ENDLESS, "{row:?}");
    scene.provider.truth.idle().await;
    assert!(!scene.provider.truth.bills()[0].whole);
    assert_eq!(ends(&scene, 1).await, ["agent_stalled"]);
    // Its connection has ended: behind what was under way comes nothing more.
    let mut rest = vec![0; 64 << 10];
    let ending = async { while agent.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let ended = tokio::time::timeout(Duration::from_secs(60), ending).await;
    assert!(ended.is_ok(), "the connection is open still");
}

/// It asks to leave HTTP, which nobody grants it: its answer is one like any other.
#[tokio::test]
async fn an_agent_that_asks_for_an_upgrade_and_stops_reading_is_left_too() {
    let scene = scene(Provider::http1().await, &cap("100.00")).await;
    scene.provider.usually(endless());
    let ask = Ask::message(&streamed(message(HAIKU, ENDLESS)));
    let agent = ask_and_read_nothing(&scene, &ask, "upgrade: x\r\n").await;
    let books = scene.proxy.books_of(1).await;
    assert_eq!(books.entries[0].ending(), "agent_left");
    assert_eq!(ends(&scene, 1).await, ["agent_stalled"]);
    drop(agent);
}

/// The same inside TLS that is ended here, and for an answer that no budget counts.
#[tokio::test]
async fn an_agent_that_stops_reading_inside_a_tunnel_is_left_too() {
    for spec in [
        cap("100.00"),
        with(&cap("1.00"), "match: {agents: [nobody]}"),
    ] {
        let scene = scene(Provider::http1().await, &spec).await;
        scene.provider.usually(endless());
        let ask = Ask::message(&streamed(message(HAIKU, ENDLESS)));
        let mut answer = scene.proxy.spender().begin(&ask).await;
        assert_eq!(answer.status, 200);
        let ends = ends(&scene, 1).await;
        assert_eq!(ends, ["agent_stalled"], "{spec}");
        scene.provider.truth.idle().await;
        assert!(!scene.provider.truth.bills()[0].whole, "{spec}");
        answer.rest().await;
        assert!(answer.cut, "{spec}");
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_its_connection_goes_on() {
    let scene = scene(Provider::http1().await, &cap("100.00")).await;
    scene.provider.on("stalled", endless());
    let agent = scene.proxy.spender().multiplexed(ANTHROPIC).await;
    let ask = Ask::message(&streamed(message(HAIKU, ENDLESS))).call("stalled");
    let mut answer = agent.begin(&ask).await;
    let books = scene.proxy.books_of(1).await;
    let row = &books.entries[0];
    assert_eq!((row.ending(), row.is_estimated()), ("agent_left", true));
    assert!(row.used().output < ENDLESS, "{row:?}");
    assert_eq!(ends(&scene, 1).await, ["agent_stalled"]);
    let other = agent.begin(&Ask::message(&message(HAIKU, 100))).await;
    assert_eq!(other.whole().await.status, 200);
    answer.rest().await;
    assert!(answer.cut, "the stream was reset");
}

/// Not an octet of the answer fits into the window, and there is no more of it than one piece.
#[tokio::test]
async fn an_answer_for_which_there_is_no_window_is_read_out_and_paid_for() {
    let scene = scene(Provider::start().await, &cap("100.00")).await;
    scene.provider.usually(Conduct::says(64).input(30));
    let spender = scene.proxy.spender();
    for (number, body) in [message(HAIKU, 100), streamed(message(HAIKU, 100))]
        .into_iter()
        .enumerate()
    {
        let agent = spender.multiplexed_within(ANTHROPIC, Some(0)).await;
        let answer = agent.begin(&Ask::message(&body)).await;
        assert_eq!(answer.status, 200);
        let books = scene.proxy.books_of(number + 1).await;
        assert_eq!(books.total(), scene.provider.truth.total(), "{books:#?}");
        drop(answer);
    }
}

#[tokio::test]
async fn who_waits_for_what_a_stalled_agent_holds_gets_it() {
    let spec = with(&cap("0.03"), "contention: {queue: 60s}");
    let scene = scene(Provider::http1().await, &spec).await;
    let gate = Gate::closed();
    // Nothing but its first events come: what it holds is what was reserved for it.
    let held = Conduct::says(4000).input(30).held(3, &gate);
    scene.provider.on("stalled", held);
    scene.provider.usually(Conduct::says(64).input(30));
    let spender = scene.proxy.spender();
    let agent = spender.multiplexed_within(ANTHROPIC, Some(0)).await;
    let ask = Ask::message(&streamed(message(HAIKU, 4000))).call("stalled");
    let stalled = agent.begin(&ask).await;
    gate.arrived(1).await;
    let waiting = spender.ask(&Ask::message(&message(HAIKU, 4000))).await;
    assert_eq!(waiting.status, 200, "{}", waiting.text());
    drop(stalled);
}
