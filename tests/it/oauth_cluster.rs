//! A grant in a Kubernetes Secret, where the cluster is in the way: answers that get lost, edits by
//! others, a server that is busy, a Role that changes, and everything that is found at start.

use std::time::Duration;

use serde_json::json;

use crate::support::kube_access::Rule;
use crate::support::kube_faults::{Fault, Stage as Held};
use crate::support::kube_objects::Kind;
use crate::support::operator::{PATIENCE, until};
use crate::support::replicas::{
    BRISK, Cluster, HOUR, KEY, LEASE, Replica, SECRET, readers_role, role,
};
use crate::support::token_server::fault::Stage;

/// For those who wait for no Lease to run out: a request may take longer.
const STEADY: &str = "leaseDuration: 15s";

/// A pair with a fresh login.
async fn pair() -> (Cluster, Replica, Replica) {
    let cluster = Cluster::with_login(HOUR, BRISK, &[]).await;
    let (first, second) = cluster.pair().await;
    (cluster, first, second)
}

/// Both have the tokens of the only renewal so far, and nobody noticed.
async fn renewed_once(cluster: &Cluster, replicas: [&Replica; 2]) {
    for replica in replicas {
        replica.renewed_since(1).await;
        replica.proxy.settles(&["ok"]).await;
        replica.traffic.passes("the new token").await;
        replica.assert_no_gap();
    }
    let truth = cluster.server.truth();
    assert_eq!((truth.refreshes, truth.refused), (1, 0), "{truth:?}");
    let stored = cluster.stored();
    assert_eq!((stored.generation(), stored.has_intent()), (2, false));
    cluster.assert_clean();
}

// --- answers and versions

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_to_be_done() {
    let (cluster, first, second) = pair().await;
    // Of the intent and of the new tokens.
    cluster.kube.lose_answers(&first.account, Kind::Secret, 2);
    assert_eq!(first.proxy.refresh().await.status, 200);
    renewed_once(&cluster, [&first, &second]).await;
}

#[tokio::test]
async fn an_intent_that_may_be_stored_and_that_nothing_came_of_holds_nobody_up() {
    let (cluster, first, second) = pair().await;
    let gate = cluster
        .kube
        .hold(&first.account, Kind::Secret, Held::Committed);
    first.begins(gate.reached()).await;
    cluster.kube.lose_answers(&first.account, Kind::Secret, 1);
    cluster.kube.fault(&first.account, Fault::Close);
    gate.release();
    first.says("gave no answer").await;
    assert!(cluster.stored().has_intent());
    assert_eq!(cluster.server.truth().refreshes, 0);

    cluster.kube.heal(&first.account);
    let renewed = cluster.server.wait_until("a renewal", |t| t.rotations == 1);
    renewed.await;
    renewed_once(&cluster, [&first, &second]).await;
}

#[tokio::test]
async fn an_edit_of_another_key_in_the_middle_of_a_renewal_costs_neither() {
    let (cluster, first, second) = pair().await;
    let held = cluster
        .kube
        .hold(&first.account, Kind::Secret, Held::Received);
    let gate = cluster.server.gate(Stage::Rotated);
    first.begins(held.reached()).await;
    cluster.put_beside(&[("other", b"edited before the intent")]);
    held.release();
    // The intent was made from an older version: it is made anew.
    gate.arrived(1).await;
    cluster.put_beside(&[("other", b"edited before the tokens")]);
    gate.open();
    renewed_once(&cluster, [&first, &second]).await;
    let other = cluster.kube.secret_value(SECRET, "other").unwrap();
    assert_eq!(other, b"edited before the tokens");
}

#[tokio::test]
async fn an_outcome_is_told_to_all_although_the_secret_was_edited_meanwhile() {
    let (cluster, first, second) = pair().await;
    let gate = cluster.server.gate(Stage::Received);
    first.begins(gate.arrived(1)).await;
    cluster.server.revoke_all();
    cluster.put_beside(&[("other", b"edited")]);
    gate.open();
    for replica in [&first, &second] {
        replica.says("does not accept the refresh token").await;
    }
    assert_eq!(cluster.server.truth().refused, 1);
    assert!(cluster.stored().needs_login().is_some());
}

// --- a server in trouble

/// The old token is used meanwhile, the state says why, and afterwards all is well.
async fn trouble(fault: Fault, words: &str) {
    let (cluster, first, second) = pair().await;
    for replica in [&first, &second] {
        cluster.kube.fault(&replica.account, fault);
    }
    let said = first.proxy.refresh().await;
    assert!(said.text.contains(words), "{said:?}");
    first.says(words).await;
    assert_eq!(cluster.server.truth().refreshes, 0, "without an intent");
    for replica in [&first, &second] {
        replica.traffic.passes("the old token is good").await;
        cluster.kube.heal(&replica.account);
    }
    // By itself.
    let renewed = cluster.server.wait_until("a renewal", |t| t.rotations == 1);
    renewed.await;
    renewed_once(&cluster, [&first, &second]).await;
}

#[tokio::test]
async fn a_busy_server_is_left_alone_and_asked_again() {
    trouble(Fault::TooManyRequests(1), "is busy (429)").await;
}

#[tokio::test]
async fn a_broken_server_is_waited_for() {
    trouble(Fault::Broken(500), "failed (500)").await;
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_told_apart_from_a_role() {
    trouble(Fault::Deny, "admission webhook").await;
}

#[tokio::test]
async fn a_slow_server_is_slow_and_no_more() {
    let (cluster, first, second) = pair().await;
    for replica in [&first, &second] {
        let slow = Fault::Latency(Duration::from_millis(300));
        cluster.kube.fault(&replica.account, slow);
    }
    assert_eq!(first.proxy.refresh().await.status, 200);
    renewed_once(&cluster, [&first, &second]).await;
}

#[tokio::test]
async fn a_role_that_becomes_read_only_stops_renewals_until_it_is_mended_and_not_requests_before_the_end()
 {
    let lifetime = Duration::from_millis(12_900);
    let cluster = Cluster::with_login(lifetime, BRISK, &["refreshBefore: 8s"]).await;
    let (first, second) = cluster.pair().await;
    for replica in [&first, &second] {
        cluster.kube.set_rules(&replica.account, readers_role());
    }
    let refreshes = cluster.server.truth().refreshes;
    let rule = "resources: [secrets], resourceNames: [login-grant], verbs: [get, patch]";
    for replica in [&first, &second] {
        replica.says(rule).await;
        replica.traffic.passes("the old token is good").await;
        replica.assert_no_gap();
    }
    for replica in [&first, &second] {
        let told = replica.traffic.is_refused("the token has ended").await;
        assert!(told.contains("may not patch the Secret"), "{told}");
    }
    // Nothing is redeemed without a durable intent.
    assert_eq!(cluster.server.truth().refreshes, refreshes);
    for replica in [&first, &second] {
        cluster.kube.set_rules(&replica.account, role());
    }
    for replica in [&first, &second] {
        replica.traffic.passes("the role is mended").await;
    }
    cluster.assert_clean();
}

// --- at start

#[tokio::test]
async fn what_could_never_keep_a_grant_is_found_at_start_with_the_rule_to_add() {
    let cluster = Cluster::with_login(HOUR, STEADY, &[]).await;
    let kube = &cluster.kube;
    let good = kube.object(Kind::Secret, SECRET).unwrap();
    let builder = cluster.builder("replica");
    let fails = async |words: &[&str]| {
        let ended = builder.serve_ends().await;
        assert_eq!(ended.code, Some(78), "{words:?}: {ended:?}");
        for words in words {
            assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        }
    };
    let (secret, lease) = (role()[0].clone(), role()[1..].to_vec());
    let patch = "resources: [secrets], resourceNames: [login-grant], verbs: [get, patch]";
    kube.set_rules("replica", readers_role());
    fails(&["may not patch the Secret", patch]).await;
    kube.set_rules("replica", lease.clone());
    fails(&["may not get the Secret", patch]).await;
    let create = "resources: [leases], verbs: [create]";
    let update = "resources: [leases], resourceNames: [tollgate-login-grant], verbs: [get, update]";
    kube.set_rules("replica", vec![secret.clone()]);
    fails(&["may not use the Lease", create, update]).await;
    kube.set_rules("replica", vec![secret, lease[1].clone()]);
    fails(&["may not use the Lease", create, update]).await;
    kube.set_rules("replica", role());

    cluster.put_beside(&[(KEY, br#"{"claudeAiOauth": {}}"#)]);
    fails(&["is not a grant record", "store.kubernetesSecret.key"]).await;
    kube.remove(Kind::Secret, SECRET);
    let command = "kubectl -n egress-system create secret generic login-grant";
    fails(&["does not exist", command]).await;
    let immutable = json!({"metadata": {}, "immutable": true, "data": good["data"]});
    kube.put(Kind::Secret, SECRET, immutable);
    fails(&["is immutable", "without `immutable: true`"]).await;

    let ended = cluster.without_cluster().serve_ends().await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains("KUBECONFIG is not set"), "{ended:?}");
    // Rehearsals and refusals: nothing was written.
    assert!(kube.object(Kind::Lease, LEASE).is_none());
    assert_eq!(cluster.server.truth().refreshes, 0);
}

#[tokio::test]
async fn a_server_that_is_away_at_start_is_waited_for() {
    let cluster = Cluster::with_login(HOUR, BRISK, &[]).await;
    let builder = cluster.builder("replica");
    cluster.kube.fault("replica", Fault::Close);
    let proxy = builder.start().await;
    let said = proxy.readyz().await;
    assert_eq!(said.status, 503, "{said:?}");
    assert!(said.text.contains("gave no answer"), "{said:?}");
    cluster.kube.heal("replica");
    until("it is ready by itself", PATIENCE, async || {
        proxy.readyz().await.status == 200
    })
    .await;
    let traffic = proxy.traffic(Duration::from_millis(50));
    traffic.passes("the login that was there").await;
    assert_eq!(cluster.server.truth().refreshes, 0);
    cluster.assert_clean();
}

// --- from outside

#[tokio::test]
async fn a_login_is_imported_looked_at_and_renewed_from_outside_and_the_replicas_take_it_over() {
    let cluster = Cluster::new(HOUR, BRISK, &[]).await;
    let desk = cluster.builder("desk");
    // Before the first login there is nothing to use, and no reason to end.
    let replica = cluster.replica("replica".to_owned()).await;
    replica.says("there is no login yet").await;

    let file = cluster.login_file(&desk, &cluster.server.login());
    let imported = cluster
        .outside(&desk, &["creds", "import", &file, "--as", "login"])
        .await;
    let place = "secret:egress-system/login-grant";
    assert!(imported.ok().contains(place), "{imported:?}");
    replica.traffic.passes("the imported login").await;
    assert_eq!(cluster.server.truth().refreshes, 0);

    let version = replica.version().await;
    cluster
        .outside(&desk, &["creds", "refresh", "login"])
        .await
        .ok();
    replica.renewed_since(version).await;
    let listed = cluster
        .outside(&desk, &["creds", "list", "-o", "json"])
        .await
        .json();
    assert_eq!(listed[0]["state"], "ok", "{listed}");
    assert_eq!(listed[0]["source"], format!("oauth:{place}"), "{listed}");
    assert_eq!(cluster.server.truth().refreshes, 1);
    assert_eq!(cluster.kube.holder(LEASE), None);
    cluster.assert_clean();
}

#[tokio::test]
async fn a_role_without_the_lease_is_named_by_every_command_that_would_write() {
    let cluster = Cluster::with_login(HOUR, STEADY, &[]).await;
    let desk = cluster.builder("desk");
    let secret = Rule::named(Kind::Secret, SECRET, &["get", "patch"]);
    let file = cluster.login_file(&desk, &cluster.server.login());
    cluster.kube.set_rules("desk", vec![secret]);
    for args in [
        &["creds", "import", &file, "--as", "login", "--replace"][..],
        &["creds", "refresh", "login"],
        &["check"],
    ] {
        let ended = cluster.outside(&desk, args).await;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(matches!(ended.code, Some(1 | 78)), "{args:?}: {ended:?}");
        assert!(said.contains("verbs: [create]"), "{args:?}: {said}");
    }
    assert_eq!(cluster.server.truth().refreshes, 0);
}
