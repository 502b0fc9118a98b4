//! Processes that share one grant never redeem a token twice, and stop together where they must.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::clients::one_at_a_time;
use crate::support::operator::{PATIENCE, put, until};
use crate::support::owner::{Owner, Stored, assert_needs_login};
use crate::support::ownership::{EARLY, LIFETIME, PAUSE};
use crate::support::token_server::fault::{Fault, Stage};
use crate::support::token_server::server::token_server;
use crate::support::traffic::Traffic;

#[tokio::test]
async fn sixteen_processes_share_one_grant_for_a_thousand_rotations() {
    const ROTATIONS: usize = 1000;
    let _alone = one_at_a_time("many-proxies.lock").await;
    let server = token_server().lifetime(Duration::from_millis(5900));
    let server = server.start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let dir = tempfile::tempdir().unwrap();
    let (store, seed) = (dir.path().join("grant.json"), dir.path().join("seed"));
    std::fs::write(&seed, server.login().refresh()).unwrap();
    let starting = (0..16).map(|_| {
        let owner = Owner::of(&server, &api).store(&store).seed(&seed);
        owner.build().secret(server.sentinel()).start()
    });
    let mut proxies = join_all(starting).await;
    let agents: Vec<Traffic> = proxies
        .iter()
        .map(|proxy| proxy.traffic(Duration::from_millis(150)))
        .collect();

    let begun = Instant::now();
    let operators = proxies.iter().map(async |proxy| {
        while server.truth().rotations < ROTATIONS {
            let said = proxy.refresh().await;
            assert_eq!(said.status, 200, "{}", said.text);
        }
    });
    join_all(operators).await;
    eprintln!("{ROTATIONS} rotations in {:?}", begun.elapsed());
    for agent in &agents {
        agent.passes("after the last rotation").await;
        let tally = agent.tally();
        assert_eq!((tally.refusals(), tally.broken), (0, 0), "{tally:?}");
    }
    drop(agents);
    for proxy in &proxies {
        proxy.terminate().await;
    }
    for proxy in &mut proxies {
        proxy.ended().await;
    }
    let truth = server.truth();
    truth.assert_one_clean_grant();
    assert_eq!((truth.refused, truth.most_at_once), (0, 1));
    let stored = Stored::read(&store).unwrap();
    assert_eq!(stored.refresh_token(), truth.refresh_token());
    assert!(!stored.has_intent());
    api.assert_no_stale_token();
    eprintln!("{} requests", api.seen().len());
}

#[tokio::test]
async fn before_a_grant_is_put_at_risk_every_process_stops_using_its_token() {
    let _alone = one_at_a_time("many-proxies.lock").await;
    let server = token_server().start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let dir = tempfile::tempdir().unwrap();
    let (store, seed) = (dir.path().join("grant.json"), dir.path().join("seed"));
    std::fs::write(&seed, server.login().refresh()).unwrap();
    let starting = (0..4).map(|_| Owner::of(&server, &api).store(&store).seed(&seed).start());
    let mut proxies = join_all(starting).await;
    let agents: Vec<Traffic> = proxies
        .iter()
        .map(|proxy| proxy.traffic(Duration::from_millis(10)))
        .collect();
    for agent in &agents {
        agent.passes("its first token").await;
    }
    let gate = server.gate(Stage::Rotated);
    let order = proxies[0].order_refresh().await;
    gate.arrived(1).await;
    proxies[0].kill().await;
    gate.open();
    drop(order);
    for agent in &agents[1..] {
        agent.passes("the stored token is still good").await;
    }
    assert_eq!(server.origin.requests().len(), 2);

    // One starts anew and must ask; two are told to ask, and one of them must wait; one only looks on.
    let orders = [
        proxies[1].order_refresh().await,
        proxies[2].order_refresh().await,
    ];
    proxies[0].respawn();
    proxies[0].ready().await;
    agents[0].moves(proxies[0].bare_door());
    for (proxy, agent) in proxies.iter().zip(&agents) {
        assert_needs_login(proxy, agent).await;
    }
    drop(orders);
    let truth = server.truth();
    assert_eq!(
        (truth.reuses.len(), truth.refused, truth.live_grants),
        (1, 1, 0)
    );
    assert_eq!(server.origin.requests().len(), 3);
    api.assert_no_stale_token();

    put(&seed, server.login().refresh());
    for agent in &agents {
        agent.passes("a new login, taken over once").await;
    }
    assert_eq!(server.origin.requests().len(), 4);
    let truth = server.truth();
    assert_eq!((truth.live_grants, truth.refused), (1, 1));
    api.assert_no_stale_token();
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
