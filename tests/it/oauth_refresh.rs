//! Tollgate owns a grant: what origins see of its tokens, over renewals, failures and restarts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::operator::{PATIENCE, put, until};
use crate::support::owner::{Owner, Stored, assert_needs_login};
use crate::support::proxy::{Proxy, proxy};
use crate::support::token_server::api::ProtectedApi;
use crate::support::token_server::fault::{Fault, Stage};
use crate::support::token_server::server::{TokenServer, token_server};
use crate::support::traffic::Traffic;

/// Between two requests of an agent.
const PAUSE: Duration = Duration::from_millis(30);
/// Endpoints tell whole seconds and round down: a machine that is busy has nine tenths of one to spare.
const LIFETIME: Duration = Duration::from_millis(12_900);
/// A renewal is tried three seconds after the last one.
const EARLY: &str = "refreshBefore: 9s";

/// A provider, its API, and an owner of one login with an agent.
struct Scene {
    server: TokenServer,
    api: ProtectedApi,
    proxy: Proxy,
    traffic: Traffic,
}

impl Scene {
    /// With these lines in `source.oauth`.
    async fn with(lines: &[&str]) -> Self {
        let server = token_server().lifetime(LIFETIME).start().await;
        Self::of(server, lines).await
    }

    async fn of(server: TokenServer, lines: &[&str]) -> Self {
        let api = server.protected_api(&["api.example.com"]).await;
        let mut owner = Owner::of(&server, &api).seeded(server.login().refresh());
        for line in lines {
            owner = owner.with(line);
        }
        let proxy = owner.start().await;
        let traffic = proxy.traffic(PAUSE);
        traffic.passes("its first token").await;
        Self {
            server,
            api,
            proxy,
            traffic,
        }
    }

    /// Token requests so far.
    fn calls(&self) -> usize {
        self.server.origin.requests().len()
    }

    async fn restart(&mut self) {
        self.proxy.restart().await;
        self.traffic.moves(self.proxy.bare_door());
    }

    /// Waits for a renewal that has failed; returns the words for it.
    async fn failure(&self) -> String {
        let mut why = Value::Null;
        until("a renewal fails", 2 * PATIENCE, async || {
            why = self.proxy.login().await["lastError"].clone();
            why.is_string()
        })
        .await;
        why.as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn assert_clean(&self) {
        self.server.truth().assert_one_clean_grant();
        self.api.assert_no_stale_token();
    }
}

#[tokio::test]
async fn a_request_carries_a_token_that_was_renewed_before_it_was_needed() {
    let server = token_server().lifetime(Duration::from_millis(3900));
    let scene = Scene::of(server.start().await, &[]).await;
    let truth = scene
        .server
        .wait_until("five renewals", |truth| truth.rotations >= 5);
    truth.await;
    scene.traffic.passes("after five renewals").await;
    let tally = scene.traffic.tally();
    assert_eq!((tally.refusals(), tally.broken), (0, 0), "{tally:?}");
    scene.assert_clean();
    assert_eq!(scene.server.truth().refused, 0);
}

// --- an endpoint that fails

/// Tokens are used until their end and not longer, the endpoint is not pestered, and when it is well
/// again so is everything.
async fn outage(name: &str, lines: &[&str], fault: Fault) {
    let scene = Scene::with(lines).await;
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

#[tokio::test]
async fn processes_that_share_a_grant_do_not_wake_each_other_before_an_endpoint_that_is_down() {
    let server = token_server().lifetime(LIFETIME).start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let dir = tempfile::tempdir().unwrap();
    let (store, seed) = (dir.path().join("grant.json"), dir.path().join("seed"));
    std::fs::write(&seed, server.login().refresh()).unwrap();
    let starting = (0..2).map(|_| {
        let owner = Owner::of(&server, &api).with(EARLY);
        owner.store(&store).seed(&seed).start()
    });
    let proxies = join_all(starting).await;
    let agents: Vec<Traffic> = proxies.iter().map(|proxy| proxy.traffic(PAUSE)).collect();
    for agent in &agents {
        agent.passes("its first token").await;
    }
    let before = server.origin.requests().len();
    // Slow enough that each sees the other try.
    server.fault(Fault::Latency(Duration::from_millis(500)));
    server.fault(Fault::html(500));
    let calls = || server.origin.requests().len() - before;
    until("the first try", PATIENCE, async || calls() > 0).await;
    let down = Instant::now();
    until("a while", PATIENCE, async || {
        down.elapsed() > Duration::from_secs(15)
    })
    .await;
    // Each of them alone asks after 0, 1.5, 4 and 8.5 seconds.
    let calls = calls();
    assert!((2..=10).contains(&calls), "{calls} calls");
    server.heal();
    for agent in &agents {
        agent.passes("the endpoint is well again").await;
    }
    server.truth().assert_one_clean_grant();
    api.assert_no_stale_token();
}

/// The provider has rotated, and nobody has the new tokens.
async fn lost_answer(name: &str, lines: &[&str], fault: Fault) {
    let mut scene = Scene::with(lines).await;
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
    let scene = Scene::with(&[EARLY]).await;
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
    let scene = Scene::with(&[EARLY]).await;
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

// --- starting and ending

#[tokio::test]
async fn a_grant_outlives_its_process_and_a_seed_is_taken_only_once() {
    let server = token_server().start().await;
    let mut scene = Scene::of(server, &[]).await;
    let seed = scene.proxy.file("seed");
    for _ in 0..2 {
        scene.proxy.kill().await;
        scene.restart().await;
        scene.traffic.passes("after a restart").await;
    }
    let said = scene.proxy.refresh().await;
    assert_eq!(said.status, 200, "{}", said.text);
    scene.assert_clean();
    assert_eq!((scene.server.truth().rotations, scene.calls()), (2, 2));

    scene.server.revoke_all();
    let said = scene.proxy.refresh().await;
    assert_eq!(said.status, 502, "{}", said.text);
    assert!(
        said.text.contains("tollgate creds login login"),
        "{}",
        said.text
    );
    assert_needs_login(&scene.proxy, &scene.traffic).await;
    // The same text in a new file is the same seed.
    put(&seed, std::fs::read(&seed).unwrap());
    scene.proxy.kill().await;
    scene.restart().await;
    assert_needs_login(&scene.proxy, &scene.traffic).await;
    assert_eq!(scene.calls(), 3);

    put(&seed, scene.server.login().refresh());
    scene.traffic.passes("another seed").await;
    let truth = scene.server.truth();
    assert_eq!((truth.logins, truth.live_grants, truth.refused), (2, 1, 1));
    assert_eq!(scene.calls(), 4);
}

#[tokio::test]
async fn proxies_that_start_together_with_one_seed_log_in_once() {
    for _ in 0..3 {
        let server = token_server().start().await;
        let api = server.protected_api(&["api.example.com"]).await;
        let dir = tempfile::tempdir().unwrap();
        let (store, seed) = (dir.path().join("grant.json"), dir.path().join("seed"));
        std::fs::write(&seed, server.login().refresh()).unwrap();
        let starting = (0..6).map(|_| Owner::of(&server, &api).store(&store).seed(&seed).start());
        let proxies = join_all(starting).await;
        for proxy in &proxies {
            proxy.traffic(PAUSE).passes("its first token").await;
        }
        let truth = server.truth();
        truth.assert_one_clean_grant();
        assert_eq!((truth.rotations, truth.refused), (1, 0), "{truth:#?}");
        assert_eq!(server.origin.requests().len(), 1);
        api.assert_no_stale_token();
    }
}

/// What was granted is stored, and the next process goes on with it.
async fn goes_on(server: &TokenServer, api: &ProtectedApi, proxy: &mut Proxy, store: &Path) {
    let stored = Stored::read(store).unwrap();
    assert_eq!(stored.refresh_token(), server.truth().refresh_token());
    assert!(!stored.has_intent());
    proxy.restart().await;
    proxy.traffic(PAUSE).passes("after the restart").await;
    server.truth().assert_one_clean_grant();
    assert_eq!(server.truth().refused, 0);
    api.assert_no_stale_token();
}

#[tokio::test]
async fn a_process_that_is_told_to_end_waits_for_its_renewal_and_stores_it() {
    let server = token_server().start().await;
    let mut scene = Scene::of(server, &[]).await;
    for stage in [Stage::Received, Stage::Rotated] {
        let gate = scene.server.gate(stage);
        let asking = scene.proxy.refresh();
        let ending = async {
            gate.arrived(1).await;
            scene.proxy.terminate().await;
            until("it is ending", PATIENCE, async || {
                scene.proxy.output().contains("draining")
            })
            .await;
            gate.open();
        };
        let (said, ()) = tokio::join!(asking, ending);
        assert_eq!(said.status, 200, "{}", said.text);
        scene.proxy.ended().await;
        let store = scene.proxy.own_store();
        goes_on(&scene.server, &scene.api, &mut scene.proxy, &store).await;
    }
}

#[tokio::test]
async fn a_process_that_is_told_to_end_while_it_starts_stores_what_it_was_given() {
    let server = token_server().start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let gate = server.gate(Stage::Rotated);
    let owner = Owner::of(&server, &api).seeded(server.login().refresh());
    let mut proxy = owner.build().spawn();
    gate.arrived(1).await;
    proxy.terminate().await;
    // It would be gone by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(proxy.runs(), "{}", proxy.output());
    gate.open();
    proxy.ended().await;
    let store = proxy.own_store();
    goes_on(&server, &api, &mut proxy, &store).await;
}
