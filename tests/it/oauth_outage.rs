//! Tollgate owns a grant: a token endpoint that fails, in every way, costs no more than it must.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::operator::{PATIENCE, put, until};
use crate::support::owner::{Owner, Stored, assert_needs_login};
use crate::support::ownership::{EARLY, LIFETIME, Ownership, PAUSE};
use crate::support::proxy::proxy;
use crate::support::token_server::fault::{Fault, Stage};
use crate::support::token_server::server::token_server;

/// Tokens are used until their end and not longer, the endpoint is not pestered, and when it is well
/// again so is everything.
async fn outage(name: &str, lines: &[&str], fault: Fault) {
    let scene = Ownership::with(lines).await;
    let before = scene.calls();
    scene.server.fault(fault);
    let why = scene.failure().await;
    assert!(why.contains("token.example.com"), "{name}: {why}");
    let tally = scene.traffic.tally();
    assert_eq!(tally.refusals(), 0, "{name}: {tally:?}");
    scene.traffic.passes("the old token is still good").await;
    let told = scene.traffic.is_refused("its token has ended").await;
    assert!(told.contains("has expired"), "{name}: {told}");
    let calls = scene.calls() - before;
    assert!((1..=8).contains(&calls), "{name}: {calls} calls");

    scene.server.heal();
    scene.traffic.passes("the endpoint is well again").await;
    assert_eq!(
        scene.proxy.login().await["lastError"],
        Value::Null,
        "{name}"
    );
    // A request that is never answered is under way for ever.
    let mut truth = scene.server.truth();
    truth.most_at_once = 1;
    truth.assert_one_clean_grant();
    scene.api.assert_no_stale_token();
    assert_eq!(truth.refused, 0, "{name}");
}

#[tokio::test]
async fn while_the_endpoint_fails_a_token_is_used_until_its_end_and_not_longer() {
    let early = &[EARLY][..];
    let hasty = &[EARLY, "timeout: 2s"][..];
    tokio::join!(
        outage("500", early, Fault::oauth(500, "server_error")),
        outage("503 with a page", early, Fault::html(503)),
        outage("502 with a page", early, Fault::html(502)),
        outage("504 with a page", early, Fault::html(504)),
        outage("rate limit", early, Fault::RateLimit(1)),
        outage("cut before", early, Fault::Cut(Stage::Received)),
        outage("silence before", hasty, Fault::Silent(Stage::Received)),
    );
}

/// The provider has rotated, and nobody has the new tokens.
async fn lost_answer(name: &str, lines: &[&str], fault: Fault) {
    let mut scene = Ownership::with(lines).await;
    let (before, rotated) = (scene.calls(), scene.server.truth().rotations);
    scene.server.fault_next(1, fault);
    scene.failure().await;
    scene.traffic.passes("the old token is still good").await;
    assert_needs_login(&scene.proxy, &scene.traffic).await;
    let refused = scene.traffic.tally().refused;
    assert!(
        refused.keys().any(|told| told.contains("has expired")),
        "{name}: asked again while the token was good: {refused:?}"
    );
    let truth = scene.server.truth();
    assert_eq!(truth.rotations, rotated + 1, "{name}");
    assert_eq!(
        (truth.reuses.len(), truth.refused),
        (1, 1),
        "{name}: {truth:#?}"
    );
    assert_eq!(truth.live_grants, 0, "{name}");

    scene.proxy.kill().await;
    scene.restart().await;
    assert_needs_login(&scene.proxy, &scene.traffic).await;
    assert_eq!(scene.calls(), before + 2, "{name}: it goes on asking");
    scene.api.assert_no_stale_token();

    // What helps is a login, here as another seed.
    put(&scene.proxy.file("seed"), scene.server.login().refresh());
    scene.traffic.passes("a new login").await;
    let truth = scene.server.truth();
    assert_eq!((truth.live_grants, truth.refused), (1, 1), "{name}");
    truth.assert_no_violation();
    scene.api.assert_no_stale_token();
}

#[tokio::test]
async fn an_answer_that_was_lost_after_the_rotation_ends_in_a_plain_call_for_a_login() {
    let early = &[EARLY][..];
    let hasty = &[EARLY, "timeout: 2s"][..];
    tokio::join!(
        lost_answer("cut after", early, Fault::Cut(Stage::Rotated)),
        lost_answer("silence after", hasty, Fault::Silent(Stage::Rotated)),
        lost_answer("half an answer", early, Fault::Truncated),
        lost_answer("not JSON", early, Fault::NotJson),
        lost_answer("too large", early, Fault::TooLarge(4 << 20)),
    );
}

#[tokio::test]
async fn a_slow_endpoint_and_a_mislabelled_answer_are_no_failure() {
    let scene = Ownership::with(&[EARLY]).await;
    let rotations = scene.server.truth().rotations;
    scene.server.fault(Fault::Latency(Duration::from_secs(2)));
    scene.server.fault(Fault::WrongContentType);
    let renewed = scene.server.wait_until("two slow renewals", |truth| {
        truth.rotations >= rotations + 2
    });
    renewed.await;
    until("the last one has arrived", PATIENCE, async || {
        let stored = Stored::read(&scene.proxy.own_store()).unwrap();
        stored.refresh_token() == scene.server.truth().refresh_token()
    })
    .await;
    let tally = scene.traffic.tally();
    assert_eq!((tally.refusals(), tally.broken), (0, 0), "{tally:?}");
    scene.assert_clean();
}

#[tokio::test]
async fn an_endpoint_that_says_when_to_come_back_is_left_alone_until_then() {
    let scene = Ownership::with(&[EARLY]).await;
    let before = scene.calls();
    scene.server.fault_next(1, Fault::RateLimit(4));
    until("it was refused", PATIENCE, async || {
        scene.calls() == before + 1
    })
    .await;
    let refused = Instant::now();
    until("it comes back", PATIENCE, async || {
        scene.calls() == before + 2
    })
    .await;
    assert!(
        refused.elapsed() > Duration::from_millis(3500),
        "{:?}",
        refused.elapsed()
    );
    scene.traffic.passes("the same").await;
    assert_eq!(scene.traffic.tally().refusals(), 0);
    scene.assert_clean();
}

/// Stands before an address; while it is closed, connections are refused.
struct Gateway {
    addr: SocketAddr,
    behind: SocketAddr,
    open: Option<JoinHandle<()>>,
}

impl Gateway {
    async fn before(behind: SocketAddr) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self {
            addr,
            behind,
            open: None,
        };
        gateway.open().await;
        gateway
    }

    async fn open(&mut self) {
        let listener = TcpListener::bind(self.addr).await.unwrap();
        self.addr = listener.local_addr().unwrap();
        let behind = self.behind;
        self.open = Some(tokio::spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                streams.spawn(async move {
                    let mut to = TcpStream::connect(behind).await.unwrap();
                    copy_bidirectional(&mut stream, &mut to).await.ok();
                });
                while streams.try_join_next().is_some() {}
            }
        }));
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
            open.await.ok();
        }
    }
}

#[tokio::test]
async fn an_endpoint_out_of_reach_is_asked_again_when_it_can_be_reached() {
    let server = token_server().lifetime(LIFETIME).start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let mut gateway = Gateway::before(server.origin.addr).await;
    let builder = proxy()
        .origin(&server.origin)
        .resolve("token.example.com", gateway.addr);
    let owner = Owner::at(&server, &api, builder).with(EARLY);
    let proxy = owner.seeded(server.login().refresh()).start().await;
    let traffic = proxy.traffic(PAUSE);
    traffic.passes("its first token").await;

    gateway.close().await;
    let told = traffic.is_refused("its token has ended").await;
    assert!(
        told.contains("has expired") && told.contains("refused"),
        "{told}"
    );
    assert_eq!(server.truth().rotations, 1);
    assert!(!Stored::read(&proxy.own_store()).unwrap().has_intent());

    gateway.open().await;
    traffic.passes("the endpoint can be reached").await;
    server.truth().assert_one_clean_grant();
    api.assert_no_stale_token();
}

#[tokio::test]
async fn an_endpoint_without_an_address_leaves_the_grant_as_it_is() {
    let server = token_server().names(&["token.invalid"]).lifetime(LIFETIME);
    let server = server.start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("grant.json");
    let owner = |builder| Owner::at(&server, &api, builder).with(EARLY).store(&store);

    let known = proxy().origin(&server.origin);
    let mut finds = owner(known).seeded(server.login().refresh()).start().await;
    finds.terminate().await;
    finds.ended().await;

    let lost = owner(proxy()).start().await;
    let traffic = lost.traffic(PAUSE);
    traffic.passes("the stored token").await;
    let told = traffic.is_refused("its token has ended").await;
    assert!(
        told.contains("has expired") && told.contains("DNS has no address for token.invalid"),
        "{told}"
    );
    assert!(!Stored::read(&store).unwrap().has_intent());
    drop((traffic, lost));

    assert_eq!(server.truth().rotations, 1);
    finds.restart().await;
    let traffic = finds.traffic(PAUSE);
    traffic.passes("the endpoint has an address").await;
    server.truth().assert_one_clean_grant();
    api.assert_no_stale_token();
}
