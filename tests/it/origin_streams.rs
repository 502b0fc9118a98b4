//! What an origin lets an agent take of others: the few streams on a connection, connections that wait for the next
//! request, answers without end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::limits_connections::{connect, two_agents};
use super::support::operator::{PATIENCE, until};
use super::support::origin::Origin;
use super::support::proxy::{Proxy, proxy};
use super::support::reply::{self, Reply, full};
use super::support::scene::{self, BARE, HOST, PATHS, Scene, TUNNEL};
use super::support::tunnel::{self, Outgoing};
use super::support::wire::Answer;

const STREAMS: u32 = 3;
const OPEN: &str = "tollgate_upstream_open_connections";

fn endless() -> Reply {
    let first = stream::iter([Frame::data(Bytes::from_static(b"and so on"))]);
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::streamed(first.chain(stream::pending()));
    reply
}

async fn answer(request: Request<Incoming>) -> Result<Reply, Infallible> {
    Ok(match request.uri().path() {
        "/endless" => endless(),
        _ => reply::text(200, "reached"),
    })
}

/// An origin that takes few streams on a connection, and says so.
async fn narrow() -> Origin {
    Origin::raw(&[HOST, PATHS, BARE, TUNNEL], &[b"h2"], |stream| async {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.max_concurrent_streams(STREAMS);
        let serving = server.serve_connection(TokioIo::new(stream), service_fn(answer));
        serving.await.ok();
    })
    .await
}

type Sender = http2::SendRequest<Outgoing>;

/// HTTP/2 with the bare host, by an agent that names itself.
async fn of_agent(proxy: &Proxy, agent: &str) -> Sender {
    let (stream, answer) = connect(proxy, agent, BARE).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let stream = tunnel::handshake(&proxy.bare_door(), BARE, &[b"h2"], stream).await;
    let io = TokioIo::new(stream.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    sender
}

/// The head of an answer, which is there soon.
async fn ask(sender: &mut Sender, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("https://{BARE}{path}"));
    let asked = sender.send_request(request.body(full("")).unwrap());
    let answer = timeout(Duration::from_secs(10), asked).await;
    answer
        .unwrap_or_else(|_| panic!("{path} is kept waiting"))
        .unwrap()
}

#[tokio::test]
async fn an_agent_that_takes_all_streams_of_an_origin_keeps_nobody_waiting() {
    let origin = narrow().await;
    let proxy = two_agents(scene::in_front_of(&origin)).start().await;
    let (mut greedy, mut other) = (of_agent(&proxy, "a").await, of_agent(&proxy, "b").await);
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        held.push(ask(&mut greedy, "/endless").await);
    }
    assert_eq!(origin.connections(), 1, "as long as its streams suffice");
    assert_eq!(
        Answer::of(ask(&mut other, "/x").await).await.text(),
        "reached"
    );
    for _ in 0..10 {
        held.push(ask(&mut greedy, "/endless").await);
    }
    assert_eq!(
        Answer::of(ask(&mut other, "/x").await).await.text(),
        "reached"
    );
    assert_eq!(origin.connections(), 5, "no more than it takes");
    drop(held);
    until("the streams are free again", PATIENCE, async || {
        let before = origin.connections();
        let mut few = Vec::new();
        for _ in 0..STREAMS {
            few.push(ask(&mut other, "/endless").await);
        }
        origin.connections() == before
    })
    .await;
}

#[tokio::test]
async fn an_answer_without_end_keeps_its_place() {
    let origin = narrow().await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {streams: {total: 2}}")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let mut sender = tunnel::http2(&scene.door, BARE).await;
    let held = [
        ask(&mut sender, "/endless").await,
        ask(&mut sender, "/endless").await,
    ];
    let refused = Answer::of(ask(&mut sender, "/x").await).await;
    assert_eq!(refused.header("x-tollgate-limit"), Some("streams.total"));
    drop(held);
    until("there is room again", PATIENCE, async || {
        ask(&mut sender, "/x").await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn connections_that_wait_are_few_however_many_hosts_were_asked() {
    let names: Vec<String> = (0..12).map(|n| format!("h{n}.many.example.com")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let origin = Origin::tls_http1(&all, |_| async { reply::text(200, "reached") }).await;
    let proxy = proxy()
        .origin(&origin)
        .policy("- {hosts: ['*.many.example.com'], tls: Intercept}")
        .setting("limits: {origins: {idle: 3}}")
        .start()
        .await;
    let door = proxy.bare_door();
    for name in &names {
        let mut sender = tunnel::http1(&door, name).await;
        let request = Request::get("/x").header("host", name.as_str());
        let answer = sender.send_request(request.body(full("")).unwrap()).await;
        assert_eq!(Answer::of(answer.unwrap()).await.text(), "reached");
        // A minute earlier than they would go by themselves.
        until("only some wait", Duration::from_secs(20), async || {
            proxy.metric(OPEN).await.is_some_and(|open| open <= 4.0)
        })
        .await;
    }
    assert_eq!(origin.connections(), names.len(), "each host had its own");
}

#[tokio::test]
async fn of_one_host_no_more_connections_wait_than_the_operator_says() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let origin = Origin::tls_http1(&[HOST, PATHS, BARE, TUNNEL], move |_| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            reply::text(200, "reached")
        }
    })
    .await;
    let proxy = scene::in_front_of(&origin)
        .setting("limits: {origins: {idlePerHost: 2}}")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let mut asked = Vec::new();
    for _ in 0..6 {
        let mut sender = tunnel::http1(&scene.door, BARE).await;
        let request = Request::get("/x").header("host", BARE);
        asked.push(tokio::spawn(async move {
            let answer = sender.send_request(request.body(full("")).unwrap()).await;
            Answer::of(answer.unwrap()).await.status
        }));
    }
    until("all are under way", PATIENCE, async || {
        scene.origin.requests().len() == 6
    })
    .await;
    assert_eq!(scene.proxy.metric(OPEN).await, Some(6.0));
    gate.add_permits(6);
    for asked in asked {
        assert_eq!(asked.await.unwrap(), 200);
    }
    until("two wait", Duration::from_secs(20), async || {
        scene.proxy.metric(OPEN).await == Some(2.0)
    })
    .await;
}
