//! A Lease as a lock, and a Secret as a store, against a strict Kubernetes API.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use tollgate::cluster::call::CallError;
use tollgate::cluster::connect::{ConnectError, Surroundings, connect_in};
use tollgate::cluster::lease::{LeaseError, LeaseLock, LeaseTimes};
use tollgate::cluster::lease_guard::LeaseGuard;
use tollgate::cluster::name::{DataKey, ObjectName};
use tollgate::cluster::secret::{SecretObject, SecretStoreError};

use super::support::kube_access::{Rule, everything};
use super::support::kube_api::{KubeApi, NAMESPACE};
use super::support::kube_faults::{Fault, Stage};
use super::support::kube_objects::Kind;

/// Long enough that a loaded machine renews in time.
const STEADY: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(6),
    retry: Duration::from_millis(50),
};
/// Renewed a few times within a test, and still with time to spare.
const LIVELY: LeaseTimes = LeaseTimes {
    duration: Duration::from_millis(4500),
    retry: Duration::from_millis(50),
};
/// Short enough to watch it run out.
const BRIEF: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(2),
    retry: Duration::from_millis(50),
};

const TOKEN: &[u8] = b"refresh-token-0001";
const NEXT: &[u8] = b"refresh-token-0002";

fn nowhere() -> Surroundings {
    Surroundings {
        host: None,
        port: None,
        service_account: "/nonexistent".into(),
        kubeconfig: None,
    }
}

/// A client as Tollgate makes one, of an account with these rules.
async fn client(api: &KubeApi, name: &str, rules: Vec<Rule>) -> kube::Client {
    let token = api.account(name, rules);
    let surroundings = Surroundings {
        kubeconfig: Some(api.kubeconfig(&token).into()),
        ..nowhere()
    };
    connect_in(&surroundings, None).await.unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::parse(NAMESPACE, name).unwrap()
}

/// The lock of a replica that is called `holder`.
async fn lock(api: &KubeApi, holder: &str, times: LeaseTimes) -> LeaseLock {
    let client = client(api, holder, everything()).await;
    LeaseLock::new(client, name("lock"), holder.to_owned(), times)
}

async fn acquire(lock: &LeaseLock) -> LeaseGuard {
    let acquired = timeout(Duration::from_secs(30), lock.acquire()).await;
    acquired
        .unwrap_or_else(|_| panic!("never acquired: {:?}", lock.obstacle()))
        .unwrap()
}

/// Who holds the Lease, without the random end of its identity.
fn holder(api: &KubeApi) -> Option<String> {
    let holder = api.holder("lock")?;
    Some(holder.split('_').next().unwrap().to_owned())
}

fn store_of(client: kube::Client) -> SecretObject {
    let key = DataKey::parse("grant").unwrap();
    SecretObject::new(client, name("oauth"), key)
}

/// A Secret with a grant, and a store on it.
async fn stored(api: &KubeApi) -> SecretObject {
    api.put_secret("oauth", &[("grant", TOKEN), ("other", b"untouched")]);
    store_of(client(api, "alpha", everything()).await)
}

fn grant(api: &KubeApi) -> Vec<u8> {
    api.secret_value("oauth", "grant").unwrap()
}

/// Nothing of a stored value in an error, plain or coded.
#[track_caller]
fn shows_nothing(error: &SecretStoreError) {
    use base64::Engine as _;
    let text = format!("{error} {error:?}");
    for value in [TOKEN, NEXT] {
        let coded = base64::engine::general_purpose::STANDARD.encode(value);
        assert!(!text.contains(&coded[..12]), "{text}");
        assert!(
            !text.contains(std::str::from_utf8(value).unwrap()),
            "{text}"
        );
    }
}

// --- the lock

#[tokio::test]
async fn of_two_holders_one_waits_until_the_other_has_released() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    let beta = lock(&api, "beta", STEADY).await;
    let first = acquire(&alpha).await;
    assert!(first.is_held());
    let waiting = tokio::spawn({
        let beta = beta.clone();
        async move { acquire(&beta).await }
    });
    // It has looked more than once, and not at a Lease that it may take.
    api.wait_for("beta looking", |api| {
        (api.asked("beta").len() > 2).then_some(())
    })
    .await;
    assert!(!waiting.is_finished());
    assert!(beta.obstacle().unwrap().starts_with("alpha_"));
    assert_eq!(holder(&api).as_deref(), Some("alpha"));
    first.release().await.unwrap();
    let second = waiting.await.unwrap();
    assert_eq!(holder(&api).as_deref(), Some("beta"));
    assert_eq!(beta.obstacle(), None);
    assert!(second.transitions() > 0);
    assert!(api.overlaps().is_empty());
}

#[tokio::test]
async fn two_tasks_of_one_process_exclude_each_other_as_well() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    let first = acquire(&alpha).await;
    let second = timeout(Duration::from_millis(300), alpha.acquire()).await;
    assert!(second.is_err());
    drop(first);
    assert!(acquire(&alpha).await.is_held());
}

#[tokio::test]
async fn a_lease_is_renewed_for_as_long_as_it_is_held_and_nobody_takes_it() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", LIVELY).await;
    let guard = acquire(&alpha).await;
    let renewals = |api: &KubeApi, n| (api.writes(Kind::Lease, "lock").len() > n).then_some(());
    let beta = lock(&api, "beta", STEADY).await;
    let waiting = tokio::spawn(async move { acquire(&beta).await });
    // More renewals than fit into the time that one write gives.
    api.wait_for("four renewals", |api| renewals(api, 4)).await;
    assert!(guard.is_held());
    assert!(!waiting.is_finished());
    let writes = api.writes(Kind::Lease, "lock");
    let spec = |i: usize| writes[i].object["spec"].clone();
    assert_eq!(spec(4)["holderIdentity"], spec(0)["holderIdentity"]);
    assert_eq!(spec(4)["acquireTime"], spec(0)["acquireTime"]);
    assert_eq!(spec(4)["leaseTransitions"], spec(0)["leaseTransitions"]);
    assert_ne!(spec(4)["renewTime"], spec(0)["renewTime"]);
    let agent = &writes[0].user_agent;
    assert!(agent.starts_with("tollgate/"), "{agent}");
    guard.release().await.unwrap();
    assert!(waiting.await.unwrap().is_held());
    assert!(api.overlaps().is_empty());
}

#[tokio::test]
async fn a_holder_cut_off_from_the_server_knows_that_it_lost_the_lease_before_another_gets_it() {
    for cut in [Fault::Close, Fault::Hang] {
        let api = KubeApi::start().await;
        let alpha = lock(&api, "alpha", BRIEF).await;
        let beta = lock(&api, "beta", STEADY).await;
        let first = acquire(&alpha).await;
        let waiting = tokio::spawn(async move {
            let second = acquire(&beta).await;
            (second, std::time::Instant::now())
        });
        api.fault("alpha", cut);
        timeout(Duration::from_secs(20), first.lost())
            .await
            .unwrap();
        let lost = std::time::Instant::now();
        assert!(!first.is_held());
        assert_eq!(first.remaining(), Duration::ZERO);
        let (second, taken) = waiting.await.unwrap();
        assert!(lost < taken, "{cut:?}: held by two for {:?}", lost - taken);
        assert!(second.transitions() > first.transitions());
        assert!(api.overlaps().is_empty());
        // Back again, it neither has the Lease nor takes it away.
        api.heal("alpha");
        assert!(!first.is_held());
        first.release().await.unwrap();
        assert_eq!(holder(&api).as_deref(), Some("beta"));
    }
}

#[tokio::test]
async fn a_short_cut_does_not_cost_the_lease() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    let guard = acquire(&alpha).await;
    for fault in [Fault::Close, Fault::Broken(500), Fault::LoseAnswer] {
        api.fault_once("alpha", fault);
    }
    api.wait_for("a renewal after the faults", |api| {
        let writes = api.writes(Kind::Lease, "lock");
        // The first write, the renewal whose answer is lost, and the one after it.
        (writes.len() >= 3).then_some(())
    })
    .await;
    assert!(guard.is_held());
    assert_eq!(holder(&api).as_deref(), Some("alpha"));
}

#[tokio::test]
async fn a_crashed_holders_lease_is_free_after_its_time() {
    let api = KubeApi::start().await;
    // What it says of its clock plays no part.
    let spec = json!({
        "holderIdentity": "crashed", "leaseDurationSeconds": 1, "leaseTransitions": 7,
        "acquireTime": "2999-01-01T00:00:00.000000Z", "renewTime": "2999-01-01T00:00:00.000000Z",
    });
    api.put(Kind::Lease, "lock", json!({"metadata": {}, "spec": spec}));
    let start = std::time::Instant::now();
    let guard = acquire(&lock(&api, "alpha", STEADY).await).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(guard.transitions(), 8);
    assert!(api.overlaps().is_empty());
}

#[tokio::test]
async fn an_old_renew_time_does_not_free_a_lease() {
    let api = KubeApi::start().await;
    let spec = json!({
        "holderIdentity": "slow-clock", "leaseDurationSeconds": 3600,
        "renewTime": "1999-01-01T00:00:00.000000Z",
    });
    api.put(Kind::Lease, "lock", json!({"metadata": {}, "spec": spec}));
    let alpha = lock(&api, "alpha", BRIEF).await;
    let acquired = timeout(Duration::from_millis(400), alpha.acquire()).await;
    assert!(acquired.is_err());
    assert_eq!(
        alpha.obstacle().unwrap(),
        "slow-clock holds the Lease lock in namespace egress-system"
    );
}

#[tokio::test]
async fn a_deleted_lease_is_lost_and_not_revived() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    let guard = acquire(&alpha).await;
    api.remove(Kind::Lease, "lock");
    timeout(Duration::from_secs(20), guard.lost())
        .await
        .unwrap();
    assert!(!guard.is_held());
    assert_eq!(api.object(Kind::Lease, "lock"), None);
}

#[tokio::test]
async fn an_acquisition_whose_answer_is_lost_is_found_to_be_its_own() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    api.fault_once("alpha", Fault::LoseAnswer);
    let guard = acquire(&alpha).await;
    assert!(guard.is_held());
    assert_eq!(api.holder("lock").as_deref(), Some(guard.identity()));
    assert_eq!(guard.transitions(), 0);
}

#[tokio::test]
async fn an_acquisition_that_is_given_up_leaves_the_lease_free() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    let gate = api.hold("alpha", Kind::Lease, Stage::Committed);
    let acquiring = tokio::spawn(async move { alpha.acquire().await.map(|_| ()) });
    gate.reached().await;
    assert_eq!(holder(&api).as_deref(), Some("alpha"));
    acquiring.abort();
    gate.release();
    api.wait_for("the Lease let go", |api| {
        let lease = api.object(Kind::Lease, "lock")?;
        lease["spec"]["holderIdentity"].is_null().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dropped_guard_lets_the_lease_go() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    drop(acquire(&alpha).await);
    api.wait_for("the Lease let go", |api| {
        api.holder("lock").is_none().then_some(())
    })
    .await;
    let transitions = &api.object(Kind::Lease, "lock").unwrap()["spec"]["leaseTransitions"];
    assert_eq!(transitions, 0);
}

#[tokio::test]
async fn a_role_that_does_not_allow_the_lease_is_named_at_once() {
    let api = KubeApi::start().await;
    let readable = vec![Rule::named(Kind::Lease, "lock", &["get", "update"])];
    let client = client(&api, "alpha", readable).await;
    let alpha = LeaseLock::new(client, name("lock"), "alpha".to_owned(), STEADY);
    for error in [
        alpha.probe().await.unwrap_err(),
        alpha.acquire().await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(
            error,
            LeaseError::Forbidden {
                lease: name("lock")
            }
        );
        assert!(error.to_string().contains("verbs: [create]"), "{error}");
    }
    // Once the Lease exists, these rules are enough.
    api.put(Kind::Lease, "lock", json!({"metadata": {}, "spec": {}}));
    alpha.probe().await.unwrap();
    assert!(acquire(&alpha).await.is_held());
}

#[tokio::test]
async fn a_probe_of_the_lease_changes_nothing() {
    let api = KubeApi::start().await;
    let alpha = lock(&api, "alpha", STEADY).await;
    alpha.probe().await.unwrap();
    assert_eq!(api.object(Kind::Lease, "lock"), None);
    let guard = acquire(&alpha).await;
    lock(&api, "beta", STEADY).await.probe().await.unwrap();
    assert_eq!(holder(&api).as_deref(), Some("alpha"));
    assert!(guard.is_held());
}

#[tokio::test]
async fn many_candidates_hold_it_one_at_a_time_and_their_marks_grow() {
    const CANDIDATES: usize = 6;
    let api = KubeApi::start().await;
    let inside = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut running = tokio::task::JoinSet::new();
    for n in 0..CANDIDATES {
        let (inside, lock) = (inside.clone(), lock(&api, &format!("c{n}"), STEADY).await);
        running.spawn(async move {
            let guard = acquire(&lock).await;
            let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            let mark = guard.transitions();
            guard.release().await.unwrap();
            (others, mark)
        });
    }
    let mut seen = running.join_all().await;
    seen.sort_unstable();
    let marks: Vec<i32> = (0..).take(CANDIDATES).collect();
    assert_eq!(seen, marks.into_iter().map(|m| (0, m)).collect::<Vec<_>>());
    assert!(api.overlaps().is_empty());
}

// --- the store

#[tokio::test]
async fn what_is_written_is_read_with_a_new_version_and_other_keys_stay() {
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    let (bytes, version) = store.read().await.unwrap();
    assert_eq!(bytes.unwrap().as_slice(), TOKEN);
    let written = store.write(NEXT, &version).await.unwrap();
    assert_ne!(written, version);
    let (bytes, read) = store.read().await.unwrap();
    assert_eq!((bytes.unwrap().as_slice(), &read), (NEXT, &written));
    assert_eq!(api.secret_value("oauth", "other").unwrap(), b"untouched");
}

#[tokio::test]
async fn a_key_that_is_absent_has_no_bytes_and_can_be_written() {
    let api = KubeApi::start().await;
    api.put_secret("oauth", &[]);
    let store = store_of(client(&api, "alpha", everything()).await);
    let (bytes, version) = store.read().await.unwrap();
    assert!(bytes.is_none());
    store.write(TOKEN, &version).await.unwrap();
    assert_eq!(grant(&api), TOKEN);
}

#[tokio::test]
async fn a_write_on_an_old_version_is_a_conflict_and_changes_nothing() {
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    let (_, version) = store.read().await.unwrap();
    // Also if it was another key that changed: who reads again loses nothing.
    api.put_secret("oauth", &[("grant", TOKEN), ("other", b"changed")]);
    let error = store.write(NEXT, &version).await.unwrap_err();
    assert_eq!(
        error,
        SecretStoreError::Conflict {
            secret: name("oauth")
        }
    );
    shows_nothing(&error);
    assert_eq!(grant(&api), TOKEN);
}

#[tokio::test]
async fn a_secret_that_was_deleted_and_made_again_is_a_conflict() {
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    let (_, version) = store.read().await.unwrap();
    api.remove(Kind::Secret, "oauth");
    let error = store.write(NEXT, &version).await.unwrap_err();
    assert!(matches!(error, SecretStoreError::Missing { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("kubectl -n egress-system create secret generic oauth")
    );
    api.put_secret("oauth", &[("grant", TOKEN)]);
    let error = store.write(NEXT, &version).await.unwrap_err();
    assert!(
        matches!(error, SecretStoreError::Conflict { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_succeeds_with_the_version_it_made() {
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    let (_, version) = store.read().await.unwrap();
    api.fault_once("alpha", Fault::LoseAnswer);
    let written = store.write(NEXT, &version).await.unwrap();
    let (bytes, read) = store.read().await.unwrap();
    assert_eq!((bytes.unwrap().as_slice(), read), (NEXT, written));
    assert_eq!(api.writes(Kind::Secret, "oauth").len(), 2);
}

#[tokio::test]
async fn a_write_that_lands_after_it_was_given_up_is_settled_by_the_same_write() {
    let api = KubeApi::start().await;
    let store = stored(&api).await.with_patience(Duration::from_millis(300));
    let (_, version) = store.read().await.unwrap();
    let gate = api.hold("alpha", Kind::Secret, Stage::Received);
    let error = store.write(NEXT, &version).await.unwrap_err();
    assert!(error.may_be_done(), "{error}");
    shows_nothing(&error);
    assert_eq!(grant(&api), TOKEN);
    gate.release();
    api.wait_for("the late write", |api| (grant(api) == NEXT).then_some(()))
        .await;
    let store = store.with_patience(Duration::from_secs(10));
    let written = store.write(NEXT, &version).await.unwrap();
    assert_eq!(store.read().await.unwrap().1, written);
    assert_eq!(api.writes(Kind::Secret, "oauth").len(), 2);
}

#[tokio::test]
async fn a_server_that_is_cut_off_busy_or_broken_is_told_apart_and_nothing_is_written() {
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    let (_, version) = store.read().await.unwrap();
    for (fault, may_be_done) in [
        (Fault::Close, true),
        (Fault::Broken(500), true),
        (Fault::TooManyRequests(3), false),
    ] {
        api.fault("alpha", fault);
        let error = store.write(NEXT, &version).await.unwrap_err();
        assert_eq!(error.may_be_done(), may_be_done, "{fault:?}: {error}");
        shows_nothing(&error);
    }
    let source = CallError::Busy(Some(Duration::from_secs(3)));
    let secret = name("oauth");
    assert_eq!(
        store.read().await.unwrap_err(),
        SecretStoreError::Call { secret, source }
    );
    // No request was repeated behind the caller's back: one read, then a write and a look each,
    // except after 429, and the last read.
    assert_eq!(api.asked("alpha").len(), 1 + 2 + 2 + 1 + 1);
    assert_eq!(grant(&api), TOKEN);
}

#[tokio::test]
async fn a_secret_that_may_only_be_read_is_found_at_start_with_the_rule_to_add() {
    let api = KubeApi::start().await;
    api.put_secret("oauth", &[("grant", TOKEN)]);
    let rules = vec![Rule::named(Kind::Secret, "oauth", &["get"])];
    let store = store_of(client(&api, "alpha", rules).await);
    assert_eq!(store.read().await.unwrap().0.unwrap().as_slice(), TOKEN);
    let error = store.probe_writable().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the ServiceAccount may not patch the Secret oauth in namespace egress-system; give its Role \
         the rule {apiGroups: [\"\"], resources: [secrets], resourceNames: [oauth], verbs: [get, patch]}"
    );
    // The rule that it names is enough.
    let named = Rule::named(Kind::Secret, "oauth", &["get", "patch"]);
    api.set_rules("alpha", vec![named]);
    store.probe_writable().await.unwrap();
    let (_, version) = store.read().await.unwrap();
    store.write(NEXT, &version).await.unwrap();
}

#[tokio::test]
async fn a_probe_of_the_secret_changes_nothing() {
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    let before = api.object(Kind::Secret, "oauth");
    store.probe_writable().await.unwrap();
    assert_eq!(api.object(Kind::Secret, "oauth"), before);
    let asked = api.asked("alpha");
    assert!(
        asked.last().unwrap().target.contains("dryRun=All"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_missing_or_immutable_secret_and_a_strangers_token_are_found_at_start() {
    let api = KubeApi::start().await;
    let store = store_of(client(&api, "alpha", everything()).await);
    let error = store.probe_writable().await.unwrap_err();
    assert!(matches!(error, SecretStoreError::Missing { .. }), "{error}");

    let object = json!({"metadata": {}, "immutable": true, "data": {}});
    api.put(Kind::Secret, "oauth", object);
    let error = store.probe_writable().await.unwrap_err();
    assert!(
        matches!(error, SecretStoreError::Immutable { .. }),
        "{error}"
    );
    let (_, version) = store.read().await.unwrap();
    let error = store.write(TOKEN, &version).await.unwrap_err();
    assert!(
        matches!(error, SecretStoreError::Immutable { .. }),
        "{error}"
    );

    let stranger = Surroundings {
        kubeconfig: Some(api.kubeconfig("kube-token-of-nobody").into()),
        ..nowhere()
    };
    let store = store_of(connect_in(&stranger, None).await.unwrap());
    let error = store.probe_writable().await.unwrap_err();
    assert!(error.to_string().contains("does not accept"), "{error}");
}

#[tokio::test]
async fn a_refusal_that_quotes_the_token_is_not_passed_on() {
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    let (_, version) = store.read().await.unwrap();
    api.fault("alpha", Fault::Deny);
    let error = store.write(NEXT, &version).await.unwrap_err();
    let source = CallError::Denied;
    let secret = name("oauth");
    assert_eq!(error, SecretStoreError::Call { secret, source });
    shows_nothing(&error);
    assert!(!error.to_string().contains("Role"), "{error}");
    // What would refuse the write refuses its rehearsal.
    let probed = store.probe_writable().await.unwrap_err();
    assert_eq!(probed, error);
}

#[tokio::test]
async fn a_secret_without_room_is_told_apart_from_a_bad_one() {
    const MEBIBYTE: usize = 1024 * 1024;
    let api = KubeApi::start().await;
    let store = stored(&api).await;
    api.put_secret("oauth", &[("other", &vec![b'x'; MEBIBYTE - 8])]);
    let (_, version) = store.read().await.unwrap();
    for bytes in [NEXT.to_vec(), vec![0; MEBIBYTE + 1]] {
        let error = store.write(&bytes, &version).await.unwrap_err();
        let secret = name("oauth");
        assert_eq!(error, SecretStoreError::TooLarge { secret });
    }
    store.write(b"12345678", &version).await.unwrap();
}

// --- the way there

#[tokio::test]
async fn a_pods_service_account_is_used_before_a_kubeconfig() {
    let api = KubeApi::start().await;
    let token = api.account("pod", everything());
    let pod = api.in_cluster(&token);
    api.put_secret("oauth", &[("grant", TOKEN)]);
    let surroundings = Surroundings {
        host: Some(pod.host),
        port: Some(pod.port),
        service_account: pod.folder,
        kubeconfig: Some(api.kubeconfig("kube-token-of-nobody").into()),
    };
    let client = connect_in(&surroundings, None).await.unwrap();
    assert_eq!(client.default_namespace(), NAMESPACE);
    assert!(store_of(client).read().await.is_ok());
    assert_eq!(api.asked("pod").len(), 1);
    let client = connect_in(&surroundings, Some("elsewhere")).await.unwrap();
    assert_eq!(client.default_namespace(), "elsewhere");
}

#[tokio::test]
async fn without_a_cluster_it_is_said_what_is_missing() {
    let error = connect_in(&nowhere(), None).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ConnectError::Nowhere), "{error}");

    let api = KubeApi::start().await;
    let pod = api.in_cluster(&api.account("pod", everything()));
    std::fs::remove_file(pod.folder.join("token")).unwrap();
    let surroundings = Surroundings {
        host: Some(pod.host),
        port: Some(pod.port),
        service_account: pod.folder,
        kubeconfig: None,
    };
    let error = connect_in(&surroundings, None).await.map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("automountServiceAccountToken"), "{error}");
}

#[tokio::test]
async fn a_kubeconfig_that_would_weaken_tls_or_leak_is_refused_without_being_quoted() {
    let api = KubeApi::start().await;
    let path = api.kubeconfig(&api.account("alpha", everything()));
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let cluster = "/clusters/0/cluster";
    let address = json!(format!("http://{}", api.addr));
    for (pointer, name, value, words) in [
        (cluster, "server", address, "https://"),
        (
            cluster,
            "insecure-skip-tls-verify",
            json!(true),
            "insecure-skip-tls-verify",
        ),
        (
            cluster,
            "certificate-authority-data",
            json!(null),
            "certificate-authority",
        ),
        (
            cluster,
            "proxy-url",
            json!("http://127.0.0.1:1"),
            "proxy-url",
        ),
        ("/users/0/user", "exec", json!({"command": "true"}), "exec"),
        (
            "",
            "contexts",
            json!("kube-token-of-alpha"),
            "no kubeconfig",
        ),
        ("", "current-context", json!("other"), "no context"),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap()[name] = value;
        std::fs::write(&path, bad.to_string()).unwrap();
        let surroundings = Surroundings {
            kubeconfig: Some(path.clone().into()),
            ..nowhere()
        };
        let error = connect_in(&surroundings, None).await.map(|_| ());
        let error = format!("{0} {0:?}", error.unwrap_err());
        assert!(error.contains(words), "{name}: {error}");
        assert!(!error.contains("\"kube-token-of"), "{error}");
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_spoken_to() {
    let (real, other) = (KubeApi::start().await, KubeApi::start().await);
    let path = real.kubeconfig(&real.account("alpha", everything()));
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace(&real.addr.to_string(), &other.addr.to_string());
    std::fs::write(&path, text).unwrap();
    other.account("alpha", everything());
    let surroundings = Surroundings {
        kubeconfig: Some(path.into()),
        ..nowhere()
    };
    let store = store_of(connect_in(&surroundings, None).await.unwrap());
    let error = store.read().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(other.asked("alpha").is_empty());
}
