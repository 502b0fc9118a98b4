//! The stand-in for the Kubernetes API keeps its promises, seen with the `kube` crate.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, Error};
use serde_json::{Value, json};

use super::support::kube_access::{Rule, everything};
use super::support::kube_api::{KubeApi, NAMESPACE, version};
use super::support::kube_faults::{Fault, Stage};
use super::support::kube_objects::Kind;
use super::support::wire::Answer;

/// A server, and a client whose account may do everything.
async fn served() -> (KubeApi, Client) {
    let api = KubeApi::start().await;
    let client = api.client(&api.account("alpha", everything())).await;
    (api, client)
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn secret(value: &str) -> Secret {
    let text = json!({"metadata": {"name": "grant"}, "data": {"token": value}});
    serde_json::from_value(text).unwrap()
}

fn lease(holder: &str, seconds: i32, from: Option<&Lease>) -> Lease {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    let spec = json!({
        "holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": now.to_string(),
    });
    let mut lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": "lock"}, "spec": spec})).unwrap();
    if let Some(from) = from {
        lease.metadata = from.metadata.clone();
    }
    lease
}

async fn create<K: Stored>(api: &Api<K>, object: &K) -> Result<K, Error> {
    api.create(&PostParams::default(), object).await
}

async fn put<K: Stored>(api: &Api<K>, name: &str, object: &K) -> Result<K, Error> {
    api.replace(name, &PostParams::default(), object).await
}

async fn merge<K: Stored>(api: &Api<K>, name: &str, patch: Value) -> Result<K, Error> {
    let parameters = PatchParams::default();
    api.patch(name, &parameters, &Patch::Merge(patch)).await
}

/// What the typed client can send.
trait Stored: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned {}
impl Stored for Secret {}
impl Stored for Lease {}

/// The code and reason of a refusal.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result.unwrap_err() {
        Error::Api(status) => {
            assert!(status.is_failure());
            (status.code, status.reason)
        }
        other => panic!("{other}"),
    }
}

fn is(code: u16, reason: &str) -> (u16, String) {
    (code, reason.to_owned())
}

/// A request that the typed client would not make.
async fn send(client: &Client, method: &str, target: &str, kind: &str, body: &str) -> Answer {
    let mut request = http::Request::builder().method(method).uri(target);
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    let body = Body::from(body.as_bytes().to_vec());
    let response = client.send(request.body(body).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    Answer {
        status: head.status.as_u16(),
        phrase: String::new(),
        headers: super::support::recorded::fields(&head.headers),
        body: body.collect_bytes().await.unwrap().to_vec(),
    }
}

const SECRETS: &str = "/api/v1/namespaces/egress-system/secrets";
const SECRET: &str = "/api/v1/namespaces/egress-system/secrets/grant";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/egress-system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/egress-system/leases/lock";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

#[tokio::test]
async fn every_write_makes_a_larger_version_and_is_remembered_with_its_author() {
    let (api, client) = served().await;
    let secrets = secrets(&client);
    let first = create(&secrets, &secret("b25l")).await.unwrap();
    let mut next = first.clone();
    next.data = secret("dHdv").data;
    let second = put(&secrets, "grant", &next).await.unwrap();
    let patch = json!({"data": {"other": "eA=="}});
    let third = merge(&secrets, "grant", patch.clone()).await.unwrap();

    let versions: Vec<u64> = [&first, &second, &third]
        .map(|s| {
            s.metadata
                .resource_version
                .as_ref()
                .unwrap()
                .parse()
                .unwrap()
        })
        .to_vec();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert_eq!(secrets.get("grant").await.unwrap(), third);
    assert_eq!(api.secret_value("grant", "token").unwrap(), b"two");
    assert_eq!(api.secret_value("grant", "other").unwrap(), b"x");

    let writes = api.writes(Kind::Secret, "grant");
    let steps: Vec<_> = writes.iter().map(|w| (w.from.clone(), &w.to)).collect();
    let [a, b, c] = [0, 1, 2].map(|i| versions[i].to_string());
    assert_eq!(
        steps,
        [(None, &a), (Some(a.clone()), &b), (Some(b.clone()), &c)]
    );
    assert!(writes.iter().all(|w| w.account == "alpha"));
    // A write that changes nothing makes no version.
    let same = merge(&secrets, "grant", patch).await.unwrap();
    assert_eq!(
        same.metadata.resource_version,
        third.metadata.resource_version
    );
    assert_eq!(api.writes(Kind::Secret, "grant").len(), 3);
}

#[tokio::test]
async fn a_write_from_an_old_version_is_a_conflict_and_changes_nothing() {
    let (api, client) = served().await;
    let old = api.put_secret("grant", &[("token", b"one")]);
    api.put_secret("grant", &[("token", b"two")]);
    let mut stale = secret("b2xk");
    stale.metadata.resource_version = Some(old.clone());
    let replaced = put(&secrets(&client), "grant", &stale).await;
    assert_eq!(refused(replaced), is(409, "Conflict"));
    let patch = json!({"metadata": {"resourceVersion": old}, "data": {"token": "b2xk"}});
    let patched = merge(&secrets(&client), "grant", patch).await;
    assert_eq!(refused(patched), is(409, "Conflict"));
    assert_eq!(api.secret_value("grant", "token").unwrap(), b"two");
}

#[tokio::test]
async fn what_exists_is_not_created_again_and_what_does_not_is_not_found() {
    let (api, client) = served().await;
    let patched = merge(&secrets(&client), "grant", json!({})).await;
    assert_eq!(refused(patched), is(404, "NotFound"));
    assert_eq!(
        refused(secrets(&client).get("grant").await),
        is(404, "NotFound")
    );
    let put = put(&secrets(&client), "grant", &secret("eA==")).await;
    assert_eq!(refused(put), is(404, "NotFound"));
    api.put_secret("grant", &[]);
    let created = create(&secrets(&client), &secret("eA==")).await;
    assert_eq!(refused(created), is(409, "AlreadyExists"));
}

#[tokio::test]
async fn a_lease_is_not_replaced_unseen_and_not_revived_after_its_deletion() {
    let (api, client) = served().await;
    // A Lease, unlike a Secret, may be created by PUT.
    let made = put(&leases(&client), "lock", &lease("a", 15, None)).await;
    let made = made.unwrap();
    let unseen = lease("a", 15, None);
    let replaced = put(&leases(&client), "lock", &unseen).await;
    assert_eq!(refused(replaced), is(422, "Invalid"));
    api.remove(Kind::Lease, "lock");
    let revived = lease("a", 15, Some(&made));
    let replaced = put(&leases(&client), "lock", &revived).await;
    assert_eq!(refused(replaced), is(409, "Conflict"));
}

#[tokio::test]
async fn without_a_known_token_nothing_is_answered() {
    let api = KubeApi::start().await;
    api.put_secret("grant", &[("token", b"one")]);
    let stranger = api.client("kube-token-of-nobody").await;
    assert_eq!(
        refused(secrets(&stranger).get("grant").await),
        is(401, "Unauthorized")
    );
}

#[tokio::test]
async fn a_role_allows_what_its_rules_name_and_no_more() {
    let api = KubeApi::start().await;
    api.put_secret("grant", &[("token", b"one")]);
    api.put_secret("other", &[("token", b"two")]);
    let read_only = vec![Rule::named(Kind::Secret, "grant", &["get"])];
    let client = api.client(&api.account("alpha", read_only)).await;
    let secrets = secrets(&client);
    assert!(secrets.get("grant").await.is_ok());
    assert_eq!(refused(secrets.get("other").await), is(403, "Forbidden"));
    let patch = json!({"data": {"token": "eA=="}});
    let patched = merge(&secrets, "grant", patch.clone()).await;
    assert_eq!(refused(patched), is(403, "Forbidden"));

    // By name, create is never allowed: the name is not in the address that RBAC judges.
    let named: &[_] = &["get", "create", "patch"];
    api.set_rules("alpha", vec![Rule::named(Kind::Secret, "grant", named)]);
    assert!(merge(&secrets, "grant", patch).await.is_ok());
    let created = create(&secrets, &secret("eA==")).await;
    assert_eq!(refused(created), is(403, "Forbidden"));
    let elsewhere: Api<Secret> = Api::namespaced(client.clone(), "default");
    assert_eq!(refused(elsewhere.get("grant").await), is(403, "Forbidden"));
}

#[tokio::test]
async fn bad_objects_are_refused_as_the_real_server_refuses_them() {
    let (api, client) = served().await;
    api.put_secret("grant", &[("token", b"one")]);
    api.put(Kind::Lease, "lock", json!({"metadata": {}, "spec": {}}));
    let secret = |rest: &str| format!(r#"{{"apiVersion":"v1","kind":"Secret",{rest}}}"#);
    let lease =
        |rest: &str| format!(r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease",{rest}}}"#);
    let named = r#""metadata":{"name":"lock"}"#;
    for (method, target, body, code) in [
        ("POST", SECRETS, "no JSON".to_owned(), 400),
        ("POST", SECRETS, secret(r#""data":{}"#), 400),
        ("POST", SECRETS, secret(r#""metadata":{}"#), 422),
        (
            "POST",
            SECRETS,
            secret(r#""metadata":{"name":"UPPER"}"#),
            422,
        ),
        ("POST", SECRETS, lease(r#""metadata":{"name":"x"}"#), 400),
        (
            "POST",
            SECRETS,
            secret(r#""metadata":{"name":"x","namespace":"default"}"#),
            400,
        ),
        (
            "POST",
            SECRETS,
            secret(r#""metadata":{"name":"x","resourceVersion":"1"}"#),
            400,
        ),
        (
            "POST",
            SECRETS,
            secret(r#""metadata":{"name":"x"},"data":{"token":"no base64"}"#),
            400,
        ),
        (
            "POST",
            SECRETS,
            secret(r#""metadata":{"name":"x"},"data":{"a/b":"eA=="}"#),
            422,
        ),
        ("PUT", SECRET, secret(r#""metadata":{"name":"x"}"#), 400),
        ("PATCH", SECRET, "[]".to_owned(), 400),
        (
            "PATCH",
            SECRET,
            r#"{"data":{"token":"no base64"}}"#.to_owned(),
            422,
        ),
        ("PUT", LEASE, lease(r#""metadata":{"name":"x"}"#), 400),
        (
            "POST",
            LEASES,
            lease(r#""metadata":{"name":"l"},"spec":{"renewTime":"2026-01-01T00:00:00Z"}"#),
            400,
        ),
        (
            "POST",
            LEASES,
            lease(r#""metadata":{"name":"l"},"spec":{"leaseDurationSeconds":0}"#),
            422,
        ),
        ("PUT", LEASE, lease(named), 422),
        (
            "PATCH",
            LEASE,
            r#"{"spec":{"leaseTransitions":-1}}"#.to_owned(),
            422,
        ),
    ] {
        let kind = if method == "PATCH" { MERGE } else { JSON };
        let answer = send(&client, method, target, kind, &body).await;
        let status: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, code, "{method} {target} {body}: {status}");
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&json!("Status"), &json!(code))
        );
    }
    assert_eq!(api.secret_value("grant", "token").unwrap(), b"one");
}

#[tokio::test]
async fn a_refused_patch_comes_back_with_the_whole_object_in_its_message() {
    let (api, client) = served().await;
    api.put_secret("grant", &[("token", b"one")]);
    let answer = send(&client, "PATCH", SECRET, MERGE, r#"{"data":{"x":"?"}}"#).await;
    assert!(answer.text().contains("b25l"), "{}", answer.text());
}

#[tokio::test]
async fn an_immutable_secret_takes_no_new_data() {
    let (api, client) = served().await;
    let object = json!({"metadata": {}, "immutable": true, "data": {"token": "b25l"}});
    api.put(Kind::Secret, "grant", object);
    for patch in [
        json!({"data": {"token": "dHdv"}}),
        json!({"immutable": false}),
    ] {
        let patched = merge(&secrets(&client), "grant", patch).await;
        assert_eq!(refused(patched), is(422, "Invalid"));
    }
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    assert!(merge(&secrets(&client), "grant", labelled).await.is_ok());
}

#[tokio::test]
async fn a_secret_has_a_mebibyte_and_a_request_three() {
    use base64::Engine as _;
    let (api, client) = served().await;
    api.put_secret("grant", &[]);
    let patch = |length: usize| {
        let coded = base64::engine::general_purpose::STANDARD.encode(vec![b'x'; length]);
        json!({"data": {"token": coded}}).to_string()
    };
    const MEBIBYTE: usize = 1024 * 1024;
    for (length, code) in [(MEBIBYTE, 200), (MEBIBYTE + 1, 422), (3 * MEBIBYTE, 413)] {
        let answer = send(&client, "PATCH", SECRET, MERGE, &patch(length)).await;
        assert_eq!(answer.status, code, "{length} bytes");
    }
}

#[tokio::test]
async fn what_no_client_of_ours_sends_is_a_violation() {
    let (api, client) = served().await;
    api.put_secret("grant", &[]);
    let strange = |text: &str| format!(r#"{{"metadata":{{"annotations":{{}}}},{text}}}"#);
    let cases = [
        ("GET", format!("{SECRET}?watch=1"), "", String::new(), 400),
        ("GET", SECRETS.to_owned(), "", String::new(), 405),
        ("DELETE", SECRET.to_owned(), "", String::new(), 405),
        (
            "GET",
            "/api/v1/namespaces/x/pods/y".into(),
            "",
            String::new(),
            404,
        ),
        ("PATCH", SECRET.to_owned(), JSON, "{}".into(), 415),
        (
            "PATCH",
            format!("{SECRET}?dryRun=1"),
            MERGE,
            "{}".into(),
            400,
        ),
        (
            "PATCH",
            SECRET.to_owned(),
            MERGE,
            strange(r#""dta":{}"#),
            400,
        ),
        (
            "PATCH",
            SECRET.to_owned(),
            MERGE,
            strange(r#""spec":{}"#),
            400,
        ),
    ];
    let count = cases.len();
    for (method, target, kind, body, code) in cases {
        let answer = send(&client, method, &target, kind, &body).await;
        assert_eq!(answer.status, code, "{method} {target} {body}");
    }
    let violations = api.take_violations();
    assert_eq!(violations.len(), count, "{violations:#?}");
}

#[tokio::test]
async fn a_dry_run_is_judged_and_not_done() {
    let (api, client) = served().await;
    api.put_secret("grant", &[("token", b"one")]);
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let merge = Patch::Merge(json!({"data": {"token": "dHdv"}}));
    let shown = secrets(&client).patch("grant", &dry, &merge).await.unwrap();
    assert_eq!(shown.data.unwrap()["token"].0, b"two");
    assert_eq!(api.secret_value("grant", "token").unwrap(), b"one");
    assert_eq!(api.writes(Kind::Secret, "grant").len(), 1);
    api.set_rules("alpha", vec![Rule::all(Kind::Secret, &["get"])]);
    let patched = secrets(&client).patch("grant", &dry, &merge).await;
    assert_eq!(refused(patched), is(403, "Forbidden"));
}

#[tokio::test]
async fn one_account_is_cut_off_while_another_goes_on() {
    let (api, alpha) = served().await;
    let beta = api.client(&api.account("beta", everything())).await;
    api.put_secret("grant", &[]);
    let patch = json!({"data": {"token": "dHdv"}});
    api.fault("alpha", Fault::Close);
    let cut = merge(&secrets(&alpha), "grant", patch.clone()).await;
    assert!(!matches!(cut.unwrap_err(), Error::Api(_)));
    api.fault("alpha", Fault::Hang);
    let alphas = secrets(&alpha);
    let stuck = merge(&alphas, "grant", patch);
    let stuck = tokio::time::timeout(Duration::from_millis(200), stuck).await;
    assert!(stuck.is_err());
    assert!(secrets(&beta).get("grant").await.is_ok());
    assert_eq!(api.asked("alpha").len(), 2);
    assert_eq!(api.secret_value("grant", "token"), None);
    api.heal("alpha");
    assert!(secrets(&alpha).get("grant").await.is_ok());
}

#[tokio::test]
async fn a_server_may_be_slow_busy_or_broken() {
    let (api, client) = served().await;
    api.put_secret("grant", &[]);
    api.fault_once("alpha", Fault::TooManyRequests(7));
    api.fault_once("alpha", Fault::Broken(503));
    let busy = send(&client, "GET", SECRET, "", "").await;
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("7")));
    let broken = secrets(&client).get("grant").await;
    assert_eq!(refused(broken), is(503, "ServiceUnavailable"));
    let slow = Duration::from_millis(150);
    api.fault_once("alpha", Fault::Latency(slow));
    let start = Instant::now();
    assert!(secrets(&client).get("grant").await.is_ok());
    assert!(start.elapsed() >= slow);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_done() {
    let (api, client) = served().await;
    api.put_secret("grant", &[("token", b"one")]);
    api.fault_once("alpha", Fault::LoseAnswer);
    assert!(secrets(&client).get("grant").await.is_ok());
    let patch = json!({"data": {"token": "dHdv"}});
    let patched = merge(&secrets(&client), "grant", patch).await;
    assert!(!matches!(patched.unwrap_err(), Error::Api(_)));
    assert_eq!(api.secret_value("grant", "token").unwrap(), b"two");
}

#[tokio::test]
async fn a_write_is_held_before_it_is_done_or_after() {
    let (api, client) = served().await;
    api.put_secret("grant", &[("token", b"0")]);
    for (stage, value, meanwhile) in [(Stage::Received, "1", "0"), (Stage::Committed, "2", "2")] {
        let gate = api.hold("alpha", Kind::Secret, stage);
        let secrets = secrets(&client);
        let patch = json!({"data": {"token": base64(value)}});
        let writing = tokio::spawn(async move { merge(&secrets, "grant", patch).await });
        assert_eq!(gate.reached().await.name, "grant");
        assert!(!writing.is_finished());
        assert_eq!(
            api.secret_value("grant", "token").unwrap(),
            meanwhile.as_bytes()
        );
        gate.release();
        writing.await.unwrap().unwrap();
        assert_eq!(
            api.secret_value("grant", "token").unwrap(),
            value.as_bytes()
        );
    }
}

#[tokio::test]
async fn a_held_write_is_done_even_if_its_client_has_given_up() {
    let (api, client) = served().await;
    api.put_secret("grant", &[]);
    let gate = api.hold("alpha", Kind::Secret, Stage::Received);
    let secrets = secrets(&client);
    let patch = json!({"data": {"token": "dHdv"}});
    let writing = tokio::spawn(async move { merge(&secrets, "grant", patch).await });
    gate.reached().await;
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    gate.release();
    let late = api.wait_for("the write", |api| api.secret_value("grant", "token"));
    assert_eq!(late.await, b"two");
}

#[tokio::test]
async fn two_holders_at_once_are_counted_by_the_servers_clock() {
    let (api, client) = served().await;
    let leases = leases(&client);
    let take = async |holder: &str, seconds: i32| {
        let found = leases.get_opt("lock").await.unwrap();
        let wanted = lease(holder, seconds, found.as_ref());
        match found {
            Some(_) => put(&leases, "lock", &wanted).await,
            None => create(&leases, &wanted).await,
        }
        .unwrap();
    };
    take("a", 1).await;
    take("a", 1).await;
    tokio::time::sleep(Duration::from_millis(1010)).await; // the time of a second
    take("b", 60).await;
    assert!(api.overlaps().is_empty());
    take("c", 60).await;
    let overlaps = api.overlaps();
    assert_eq!(overlaps.len(), 1, "{overlaps:#?}");
    assert_eq!(
        (overlaps[0].holder.as_str(), overlaps[0].taken_by.as_str()),
        ("b", "c")
    );
    assert!(overlaps[0].early_by > Duration::from_secs(30));
    // A holder that lets go may be followed at once.
    let patch = json!({"spec": {"holderIdentity": null}});
    merge(&leases, "lock", patch).await.unwrap();
    assert_eq!(api.holder("lock"), None);
    take("d", 60).await;
    assert_eq!(api.overlaps().len(), 1);
}

#[tokio::test]
async fn only_the_metadata_is_shown_to_those_who_ask_for_no_more() {
    let (api, client) = served().await;
    let put = api.put_secret("grant", &[("token", b"one")]);
    let shown = secrets(&client).get_metadata("grant").await.unwrap();
    assert_eq!(shown.metadata.resource_version, Some(put));
    let request = http::Request::get(SECRET)
        .header(
            "accept",
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        )
        .body(Body::empty())
        .unwrap();
    let response = client.send(request).await.unwrap();
    let body = response.into_body().collect_bytes().await.unwrap();
    let shown: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(shown["kind"], "PartialObjectMetadata");
    assert!(shown.get("data").is_none());
    assert_eq!(
        version(&shown),
        version(&api.object(Kind::Secret, "grant").unwrap())
    );
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
