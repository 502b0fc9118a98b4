//! What HTTP/2 adds to the ways in which an answer can end, and what HTTP has before a head and behind a body: the
//! books are right all the same.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::support::budgeted::{Budgeted, cap};
use crate::support::origin::Origin;
use crate::support::provider::conduct::{Conduct, Fate};
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::{ANTHROPIC, OPENAI};
use crate::support::proxy::proxy;
use crate::support::spender::{Ask, chat, message, streamed};

const SONNET: &str = "claude-sonnet-4-5";

fn stream() -> Ask {
    Ask::message(&streamed(message(SONNET, 300)))
}

/// The agent resets one stream in the middle of its answer.
#[tokio::test]
async fn a_stream_that_its_agent_resets_is_paid_as_far_as_it_came_and_others_go_on() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let agent = scene.proxy.spender().multiplexed(ANTHROPIC).await;
    let gate = Gate::closed();
    let held = Conduct::says(300).input(30).piece(10).held(12, &gate);
    scene.provider.on("left", held.clone());
    scene.provider.on("stays", held);
    let mut left = agent.begin(&stream().call("left")).await;
    let mut stays = agent.begin(&stream().call("stays")).await;
    gate.arrived(2).await;
    for _ in 0..11 {
        assert!(left.event().await.is_some());
    }
    drop(left);
    // The stand-in holds it: it would never end by itself, and only the one is dropped.
    scene.provider.truth.billed(1).await;
    let books = scene
        .proxy
        .books_with("the one", |books| books.entries.len() == 1);
    let row = books.await.entries.remove(0);
    assert_eq!((row.ending(), row.is_estimated()), ("agent_left", true));
    let bill = scene.provider.truth.bill("left");
    assert!(!bill.whole);
    assert!(row.cost() >= bill.cost, "{bill:?} {row:?}");
    assert!(row.cost() < usd("0.0045"), "all of it: {row:?}");
    gate.open();
    assert!(!stays.rest().await.is_empty() && !stays.cut);
    let books = scene.books().await;
    let exact = books.exact();
    assert_eq!(exact.len(), 1);
    assert_eq!(exact[0].cost(), scene.provider.truth.bill("stays").cost);
}

/// The origin resets one stream in the middle of its answer.
#[tokio::test]
async fn a_stream_that_its_origin_resets_is_paid_as_far_as_it_came_and_others_go_on() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let agent = scene.proxy.spender().multiplexed(ANTHROPIC).await;
    let gate = Gate::closed();
    let held = Conduct::says(300).input(30).piece(10).held(12, &gate);
    scene.provider.on("stays", held);
    let (before, reset) = (Gate::closed(), Fate::Reset(12));
    let reset = Conduct::says(300).input(30).piece(10).fate(reset);
    scene.provider.on("reset", reset.held(12, &before));
    let mut stays = agent.begin(&stream().call("stays")).await;
    gate.arrived(1).await;
    let mut broken = agent.begin(&stream().call("reset")).await;
    assert_eq!(broken.status, 200);
    for _ in 0..11 {
        assert!(broken.event().await.is_some());
    }
    before.open();
    broken.rest().await;
    assert!(broken.cut, "the agent's stream is reset as well");
    scene.provider.truth.billed(1).await;
    let books = scene
        .proxy
        .books_with("the one", |books| books.entries.len() == 1);
    let row = books.await.entries.remove(0);
    assert_eq!((row.ending(), row.is_estimated()), ("origin_broke", true));
    let bill = scene.provider.truth.bill("reset");
    assert!(row.cost() >= bill.cost && bill.cost > 0, "{bill:?} {row:?}");
    gate.open();
    assert!(!stays.rest().await.is_empty() && !stays.cut);
    let books = scene.books().await;
    assert_eq!(books.exact().len(), 1);
    assert_eq!(
        books.exact()[0].cost(),
        scene.provider.truth.bill("stays").cost
    );
}

/// Nothing came of it, and nobody knows what it cost: it is not taken for nothing.
#[tokio::test]
async fn a_stream_that_its_origin_resets_before_its_head_is_charged_as_reserved() {
    let scene = Budgeted::new(&cap("100.00")).await;
    scene
        .provider
        .usually(Conduct::says(300).fate(Fate::Reset(0)));
    let agent = scene.proxy.spender().multiplexed(ANTHROPIC).await;
    let answer = agent.begin(&stream()).await.whole().await;
    assert!(answer.status >= 500, "{}", answer.text());
    let books = scene.proxy.books_with("a row", |books| {
        books.reservations.is_empty() && !books.entries.is_empty()
    });
    for row in &books.await.entries {
        assert_eq!((row.ending(), row.is_estimated()), ("origin_broke", true));
        assert!(row.cost() >= usd("0.0045"), "{row:?}");
    }
}

#[tokio::test]
async fn trailers_pass_behind_an_answer_that_is_counted() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let spender = scene.proxy.spender();
    let conduct = Conduct::says(137).input(1001).trailing();
    let mut asking = streamed(chat("gpt-4o", 300));
    let hidden = Ask::chat(&asking);
    asking["stream_options"] = serde_json::json!({"include_usage": true});
    for (host, ask) in [
        (ANTHROPIC, stream()),
        (OPENAI, Ask::chat(&asking)),
        // Its last event is held back, to be hidden.
        (OPENAI, hidden),
    ] {
        let agent = spender.multiplexed(host).await;
        scene.provider.next(conduct.clone());
        let mut answer = agent.begin(&ask).await;
        let text = String::from_utf8(answer.rest().await).unwrap();
        assert!(!answer.cut, "{text}");
        assert!(
            text.contains("message_stop") || text.contains("[DONE]"),
            "{text}"
        );
        assert_eq!(answer.trailers["x-checksum"], "1234", "{text}");
    }
    let books = scene.agree().await;
    assert!(books.served().iter().all(|row| row.ending() == "complete"));
}

/// Hints, twice, and then an answer of 12 tokens to 1001.
async fn hinting(mut stream: TlsStream<TcpStream>) {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") || !read.ends_with(b"}") {
        match stream.read_u8().await {
            Ok(octet) => read.push(octet),
            Err(_) => return,
        }
    }
    let body = r#"{"type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"usage":{"input_tokens":1001,"output_tokens":12}}"#;
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n";
    let answer = format!(
        "{hint}HTTP/1.1 102 Processing\r\n\r\n{hint}HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

/// They are no answer: neither does one of them settle the call, nor give back what it has reserved.
#[tokio::test]
async fn what_comes_before_the_head_of_an_answer_settles_nothing() {
    let origin = Origin::rude(&[ANTHROPIC], hinting).await;
    let proxy = proxy()
        .origin(&origin)
        .policy("- {hosts: [api.anthropic.com], api: Anthropic}")
        .document("EgressBudget", "cap", &cap("100.00"))
        .start()
        .await;
    let ask = Ask::message(&message(SONNET, 300)).header("expect", "100-continue");
    for number in 1..=2 {
        let answer = match number {
            1 => proxy.spender().ask(&ask).await,
            _ => {
                let agent = proxy.spender().multiplexed(ANTHROPIC).await;
                agent.begin(&ask).await.whole().await
            }
        };
        assert_eq!(answer.status, 200, "{}", answer.text());
        let books = proxy.books_of(number).await;
        assert_eq!(books.entries.len(), number);
        let row = &books.entries[number - 1];
        assert_eq!((row.ending(), row.is_estimated()), ("complete", false));
        // 1001 tokens at 3 dollars a million, 12 at 15.
        assert_eq!(row.cost(), usd("0.003183"));
    }
}
