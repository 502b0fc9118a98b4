//! Replicas that share one grant in a Kubernetes Secret: whoever renews it, crashes or is cut off, the
//! grant stays whole, or its end is told in plain words.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::kube_faults::{Fault, Stage as Held};
use crate::support::kube_objects::Kind;
use crate::support::operator::{PATIENCE, until};
use crate::support::owner::assert_needs_login;
use crate::support::replicas::{BRISK, Cluster, HOUR, LEASE, Replica, SECRET};
use crate::support::token_server::fault::Stage;

/// As [`BRISK`], for those who are back before anybody gives them up.
const PATIENT: &str = "leaseDuration: 4s, abandonedAfter: 2m";

// --- sharing

/// Each renewal is done by one, and taken over by all.
async fn share(count: usize) {
    let cluster = Cluster::with_login(Duration::from_millis(6900), BRISK, &[]).await;
    let replicas = cluster.start(count).await;
    let rotated = |wanted| {
        cluster
            .server
            .wait_until("rotations", move |t| t.rotations >= wanted)
    };
    rotated(3).await;
    for replica in &replicas {
        replica.traffic.passes("after three renewals").await;
    }
    let renewals = cluster.renewals();
    let generations: Vec<u64> = renewals.iter().map(|(_, generation)| *generation).collect();
    let consecutive: Vec<u64> = (2..).take(generations.len()).collect();
    assert_eq!(generations, consecutive, "{renewals:?}");
    assert!(renewals.len() >= 3, "{renewals:?}");
    let truth = cluster.server.truth();
    // One may be under way, and none came to nothing.
    assert!(truth.refreshes - renewals.len() <= 1, "{truth:?}");
    assert_eq!((truth.refused, truth.refreshes), (0, truth.rotations));
    cluster.assert_clean();
    assert_eq!(
        cluster.kube.secret_value(SECRET, "other").unwrap(),
        b"untouched"
    );
}

#[tokio::test]
async fn of_two_replicas_one_renews_and_the_other_takes_it_over() {
    share(2).await;
}

#[tokio::test]
async fn of_five_replicas_one_renews_and_the_others_take_it_over() {
    share(5).await;
}

#[tokio::test]
async fn replicas_that_start_again_redeem_nothing() {
    let cluster = Cluster::with_login(HOUR, BRISK, &[]).await;
    let mut replicas = cluster.start(2).await;
    assert_eq!(replicas[0].proxy.refresh().await.status, 200);
    for replica in &mut replicas {
        replica.proxy.terminate().await;
        replica.proxy.ended().await;
    }
    // As pods do: all at once.
    join_all(replicas.iter_mut().map(Replica::restart)).await;
    for replica in &replicas {
        replica.traffic.passes("after its second start").await;
        assert_eq!(replica.proxy.login().await["state"], "ok");
    }
    assert_eq!(cluster.server.truth().refreshes, 1);
    assert_eq!(cluster.stored().generation(), 2);
    cluster.assert_clean();
}

#[tokio::test]
async fn a_seed_is_planted_once_however_many_replicas_start_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seed");
    let seed = format!("seed: {{file: {{path: {}}}}}", file.display());
    let cluster = Cluster::new(HOUR, BRISK, &[&seed]).await;
    std::fs::write(file, cluster.server.login().refresh()).unwrap();
    for replica in cluster.start(5).await {
        replica.traffic.passes("with the seed's login").await;
    }
    let truth = cluster.server.truth();
    assert_eq!((truth.refreshes, truth.refused), (1, 0), "{truth:?}");
    cluster.assert_clean();
}

// --- a partition

/// A replica is cut off with new tokens in hand, and comes back in time.
async fn cut_off_and_back(fault: Fault) {
    let cluster = Cluster::with_login(HOUR, PATIENT, &[]).await;
    let (first, second) = cluster.pair().await;
    let gate = cluster.server.gate(Stage::Rotated);
    first.begins(gate.arrived(1)).await;
    cluster.kube.fault(&first.account, fault);
    gate.open();
    first.says("new tokens cannot be stored").await;

    // The Lease is free when its time is over. Whoever takes it finds the intent, and asks nobody.
    let said = second.proxy.refresh().await;
    assert!(said.text.contains("may still be at it"), "{said:?}");
    let leases = cluster.kube.writes(Kind::Lease, LEASE);
    assert!(leases.iter().any(|write| write.account == second.account));
    assert_eq!(cluster.server.truth().refreshes, 1);
    for replica in [&first, &second] {
        replica.traffic.passes("the old token is good").await;
    }

    let versions = (first.version().await, second.version().await);
    cluster.kube.heal(&first.account);
    tokio::join!(
        first.renewed_since(versions.0),
        second.renewed_since(versions.1)
    );
    for replica in [&first, &second] {
        replica.traffic.passes("the new token").await;
        replica.proxy.settles(&["ok"]).await;
        replica.assert_no_gap();
    }
    assert_eq!(cluster.renewals(), [(first.account.clone(), 2)]);
    assert_eq!(cluster.server.truth().refreshes, 1);
    assert_eq!(second.proxy.refresh().await.status, 200);
    cluster.assert_clean();
}

#[tokio::test]
async fn a_replica_that_was_cut_off_stores_its_new_tokens_when_it_is_back() {
    cut_off_and_back(Fault::Close).await;
}

#[tokio::test]
async fn the_same_where_the_network_swallows_what_is_sent() {
    cut_off_and_back(Fault::Hang).await;
}

#[tokio::test]
async fn a_replica_that_is_given_up_uses_no_token_that_another_may_end() {
    let cluster = Cluster::with_login(HOUR, BRISK, &[]).await;
    let (first, second) = cluster.pair().await;
    let gate = cluster.server.gate(Stage::Rotated);
    first.begins(gate.arrived(1)).await;
    cluster.kube.fault(&first.account, Fault::Hang);
    gate.open();

    // An operator presses on: after `abandonedAfter` the refresh token is tried once more.
    let mut said = String::new();
    until("it is tried again", 2 * PATIENCE, async || {
        said = second.proxy.refresh().await.text;
        !said.contains("may still be at it")
    })
    .await;
    assert!(said.contains("needs a login"), "{said}");
    assert_needs_login(&second.proxy, &second.traffic).await;
    first.traffic.is_refused("it was given up").await;
    let truth = cluster.server.truth();
    assert_eq!((truth.refused, truth.reuses.len()), (1, 1), "{truth:?}");

    // What it has is worth nothing any more, and it learns that.
    cluster.kube.heal(&first.account);
    assert_needs_login(&first.proxy, &first.traffic).await;
    assert_eq!(cluster.server.truth().refused, 1);
    assert!(cluster.stored().needs_login().is_some());

    let desk = cluster.builder("desk");
    let file = cluster.login_file(&desk, &cluster.server.login());
    let import = ["creds", "import", &file, "--as", "login"];
    cluster.outside(&desk, &import).await.ok();
    for replica in [&first, &second] {
        replica.traffic.passes("after the new login").await;
    }
    assert_eq!(cluster.server.truth().live_grants, 1);
    cluster.assert_orderly();
}

#[tokio::test]
async fn a_replica_cut_off_while_it_plants_a_seed_does_not_undo_what_others_made_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seed");
    let seed = format!("seed: {{file: {{path: {}}}}}", file.display());
    let cluster = Cluster::new(HOUR, BRISK, &[&seed]).await;
    std::fs::write(file, cluster.server.login().refresh()).unwrap();
    let builder = cluster.builder("first");
    let held = cluster.kube.hold("first", Kind::Secret, Held::Received);
    let mut first = builder.spawn();
    held.reached().await;
    cluster.kube.fault("first", Fault::Hang);

    // The Lease runs out; another one plants the same seed, and renews.
    let second = cluster.replica("second".to_owned()).await;
    second.traffic.passes("with the seed's login").await;
    assert_eq!(cluster.renewals().len(), 2, "planted and renewed");
    // Too late: what was sent over the old version, and what is sent after the way is open again.
    held.release();
    cluster.kube.heal("first");
    first.ready().await;
    let traffic = first.traffic(Duration::from_millis(50));
    traffic.passes("with the token of the other").await;
    let truth = cluster.server.truth();
    assert_eq!((truth.refreshes, truth.refused), (1, 0), "{truth:?}");
    assert!(
        cluster
            .renewals()
            .iter()
            .all(|(account, _)| account == "second")
    );
    cluster.assert_clean();
}

// --- a crash

/// One of three is killed in the middle of a renewal, and started again.
async fn killed_at(stage: Stage) -> (Cluster, Vec<Replica>) {
    let lifetime = Duration::from_millis(18_900);
    let cluster = Cluster::with_login(lifetime, BRISK, &["refreshBefore: 8s"]).await;
    let mut replicas = cluster.start(3).await;
    let gate = cluster.server.gate(stage);
    replicas[0].begins(gate.arrived(1)).await;
    let account = cluster.redeemer();
    let crashed = replicas.iter_mut().find(|r| r.account == account).unwrap();
    crashed.proxy.kill().await;
    // The provider never sees it, or its answer goes nowhere.
    gate.cut();
    gate.open();
    for survivor in replicas.iter().filter(|r| r.account != account) {
        survivor.traffic.passes("the old token is good").await;
    }
    let crashed = replicas.iter_mut().find(|r| r.account == account).unwrap();
    crashed.restart().await;
    (cluster, replicas)
}

#[tokio::test]
async fn a_holder_killed_before_the_provider_acted_costs_nothing() {
    let (cluster, replicas) = killed_at(Stage::Received).await;
    let renewed = cluster.server.wait_until("a renewal", |t| t.rotations >= 1);
    renewed.await;
    for replica in &replicas {
        let version = replica.version().await;
        replica
            .traffic
            .passes(&format!("after version {version}"))
            .await;
        replica.proxy.settles(&["ok"]).await;
    }
    assert_eq!(cluster.server.truth().refused, 0);
    cluster.assert_clean();
}

#[tokio::test]
async fn a_holder_killed_after_the_provider_rotated_is_missed_once_and_a_login_is_asked_for() {
    let (cluster, replicas) = killed_at(Stage::Rotated).await;
    for replica in &replicas {
        assert_needs_login(&replica.proxy, &replica.traffic).await;
        replica.says("has no known result").await;
    }
    // Everybody looks at the Secret a few more times, and asks nobody.
    let looks = |cluster: &Cluster| -> usize {
        let asked = replicas
            .iter()
            .map(|r| cluster.kube.asked(&r.account).len());
        asked.min().unwrap()
    };
    let before = looks(&cluster);
    until("more looks", PATIENCE, async || {
        looks(&cluster) >= before + 3
    })
    .await;
    let truth = cluster.server.truth();
    assert_eq!((truth.refused, truth.reuses.len()), (1, 1), "{truth:?}");
    assert!(truth.most_at_once <= 1, "{truth:?}");
    cluster.assert_orderly();
}
