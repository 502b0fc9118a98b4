//! Tollgate owns a grant: what origins see of its tokens, over renewals, restarts and signals.

use std::path::Path;
use std::time::Duration;

use crate::support::operator::{PATIENCE, put, until};
use crate::support::owner::{Owner, Stored, assert_needs_login};
use crate::support::ownership::{Ownership, PAUSE};
use crate::support::proxy::Proxy;
use crate::support::token_server::api::ProtectedApi;
use crate::support::token_server::fault::Stage;
use crate::support::token_server::server::{TokenServer, token_server};

#[tokio::test]
async fn a_request_carries_a_token_that_was_renewed_before_it_was_needed() {
    let server = token_server().lifetime(Duration::from_millis(3900));
    let scene = Ownership::of(server.start().await, &[]).await;
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

#[tokio::test]
async fn a_grant_outlives_its_process_and_a_seed_is_taken_only_once() {
    let server = token_server().start().await;
    let mut scene = Ownership::of(server, &[]).await;
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
    let mut scene = Ownership::of(server, &[]).await;
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
