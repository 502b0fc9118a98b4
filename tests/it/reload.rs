//! Documents that change while the proxy serves: what is in force when, and what goes on under the old
//! ones. What ends with them is in `revocation.rs`.

use std::fs;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::support::door::Door;
use super::support::echo::{self, Echo, PLACEHOLDER, REAL_KEY};
use super::support::operator::{Mount, put, until};
use super::support::proxy::{Proxy, proxy};
use super::support::visitor::{Visitor, get};

/// What is promised for a change of policy.
const IN_FORCE: Duration = Duration::from_secs(5);

const RELOADED: &str = r#"tollgate_policy_reloads_total{result="ok"}"#;
const REFUSED: &str = r#"tollgate_policy_reloads_total{result="error"}"#;

/// A proxy that allows these paths of the echo origin, and the others as well if `rules` says so.
async fn allowing(echo: &Echo, rules: &str) -> Proxy {
    let proxy = proxy()
        .origin(&echo.origin)
        .documents_at("policy.yaml")
        .credential_file("echo", REAL_KEY, CREDENTIAL);
    put(&proxy.file("policy.yaml"), policy(rules));
    proxy.start().await
}

const CREDENTIAL: &str = "
    hosts: [echo.example.com]
    placements: [{bearer: {}}]
    placeholder: {value: echo-placeholder-0001}
    ";

fn policy(rules: &str) -> String {
    format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: p}}\nspec:\n  egress: [{rules}]\n"
    )
}

/// Everything on the echo origin, with its credential.
const ALL: &str = "{hosts: [echo.example.com], credentials: [echo]}";
/// Two paths.
const SOME: &str =
    "{hosts: [echo.example.com], http: [{paths: [/first, /ws, /gated]}], credentials: [echo]}";
/// Nothing but a path that nobody asks for; still intercepted.
const OTHER: &str = "{hosts: [echo.example.com], http: [{paths: [/other]}], credentials: [echo]}";

#[tokio::test]
async fn a_new_rule_is_in_force_soon_after_its_file_changes() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, SOME).await;
    let mut visitor = Visitor::http1(&proxy.bare_door(), PLACEHOLDER).await;
    assert_eq!(visitor.get("/first").await.unwrap().0, 200);
    assert_eq!(visitor.get("/second").await.unwrap().0, 403);
    put(&proxy.file("policy.yaml"), policy(ALL));
    let allowed = async || visitor.get("/second").await.unwrap().0 == 200;
    until("the new rule is in force", IN_FORCE, allowed).await;
    // It is in force before that is told.
    let told = async || proxy.output().contains("policy reloaded: version 2");
    until("the reload is told", IN_FORCE, told).await;
}

#[tokio::test]
async fn sighup_reads_the_documents_again_though_none_has_changed() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, ALL).await;
    for count in 1..=3 {
        proxy.signal("-HUP").await;
        let reloaded = async || proxy.metric(RELOADED).await == Some(f64::from(count));
        until("one reload more", IN_FORCE, reloaded).await;
    }
}

/// A touch is no change.
#[tokio::test]
async fn documents_that_are_written_anew_as_they_were_cause_no_reload() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, ALL).await;
    put(&proxy.file("policy.yaml"), policy(ALL));
    put(&proxy.file("unrelated.yaml"), "not: a document of ours");
    put(&proxy.file("policy.yaml"), policy(SOME));
    until("a real change is seen", IN_FORCE, async || {
        proxy.metric(RELOADED).await >= Some(1.0)
    })
    .await;
    assert_eq!(proxy.metric(RELOADED).await, Some(1.0));
}

#[tokio::test]
async fn a_rule_that_is_removed_stops_requests_on_kept_connections() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, ALL).await;
    let door = proxy.bare_door();
    let mut visitors = [
        Visitor::http1(&door, PLACEHOLDER).await,
        Visitor::http2(&door, PLACEHOLDER).await,
    ];
    for visitor in &mut visitors {
        assert_eq!(visitor.get("/first").await.unwrap().0, 200);
    }
    put(&proxy.file("policy.yaml"), policy(OTHER));
    for visitor in &mut visitors {
        let refused = async || visitor.get("/first").await.unwrap().0 == 403;
        until("the request is refused", IN_FORCE, refused).await;
    }
    let before = echo.origin.requests().len();
    for visitor in &mut visitors {
        assert_eq!(visitor.get("/first").await.unwrap().0, 403);
    }
    assert_eq!(echo.origin.requests().len(), before);
}

#[tokio::test]
async fn a_request_in_flight_goes_on_under_the_policy_it_began_with() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, ALL).await;
    let mut streaming = Visitor::http1(&proxy.bare_door(), PLACEHOLDER).await;
    let answer = streaming.send("/gated").await.unwrap();
    echo.release();
    put(&proxy.file("policy.yaml"), policy(OTHER));
    let refused = async || get(&proxy.bare_door(), PLACEHOLDER, "/first").await.0 == 403;
    until("the rule is gone", IN_FORCE, refused).await;
    echo.release();
    echo.release();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: 3\n\n"), "{body:?}");
}

#[tokio::test]
async fn documents_that_are_broken_leave_the_old_policy_in_force_and_are_told_of() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, SOME).await;
    let file = proxy.file("policy.yaml");
    let broken = policy(ALL).replace("credentials", "credential");
    put(&file, &broken);
    let warned = async || proxy.readyz().await.json()["warnings"]["policy"].is_string();
    until("the reload is refused", IN_FORCE, warned).await;
    let readyz = proxy.readyz().await;
    assert_eq!(
        (readyz.status, readyz.json()["ready"].clone()),
        (200, json!(true))
    );
    let place = format!("{}:5:", file.display());
    for said in [
        "unknown key `credential`",
        "did you mean `credentials`?",
        &place,
    ] {
        assert!(readyz.text.contains(said), "{readyz:?}");
        assert!(proxy.output().contains(said), "{}", proxy.output());
    }
    assert_eq!(proxy.metric(REFUSED).await, Some(1.0));
    let asked = proxy.admin("POST", "/v1/reload").await;
    assert_eq!(asked.status, 422, "{asked:?}");
    let message = asked.json()["error"]["message"].to_string();
    assert!(
        message.contains("unknown key `credential`") && message.contains(&place),
        "{message}"
    );
    assert_eq!(
        proxy
            .admin_with("POST", "/v1/reload", "Bearer wrong")
            .await
            .status,
        401
    );
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/first").await.0, 200);
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/second").await.0, 403);
    assert_eq!(proxy.admin("GET", "/v1/policy").await.json()["version"], 1);

    // A file that is gone is no empty policy.
    fs::remove_file(&file).unwrap();
    let gone = async || proxy.readyz().await.text.contains("does not exist");
    until("the missing file is told of", IN_FORCE, gone).await;
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/first").await.0, 200);

    put(&file, policy(ALL));
    let mended = async || proxy.readyz().await.json()["warnings"] == json!({});
    until("all is well again", IN_FORCE, mended).await;
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/second").await.0, 200);
    let asked = proxy.admin("POST", "/v1/reload").await;
    assert_eq!(asked.status, 200, "{asked:?}");
    assert!(
        asked.json()["result"]
            .to_string()
            .contains("policy reloaded"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_broken_configuration_file_leaves_everything_as_it_is() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, ALL).await;
    let good = fs::read_to_string(&proxy.config).unwrap();
    put(&proxy.config, good.replace("listen:", "lisen:"));
    let warned = async || proxy.readyz().await.text.contains("did you mean `listen`?");
    until("the reload is refused", IN_FORCE, warned).await;
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/first").await.0, 200);
    put(&proxy.config, good);
    let mended = async || proxy.readyz().await.json()["warnings"] == json!({});
    until("all is well again", IN_FORCE, mended).await;
}

/// Which documents there are may change as well, and those are followed then.
#[tokio::test]
async fn a_document_that_is_named_later_is_followed_too() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, SOME).await;
    let door = proxy.bare_door();
    let config = fs::read_to_string(&proxy.config).unwrap();
    fs::create_dir(proxy.file("more")).unwrap();
    let named = |rules| policy(rules).replace("name: p", "name: more");
    let (second, third) = (
        "{hosts: [echo.example.com], http: [{paths: [/second]}], credentials: [echo]}",
        "{hosts: [echo.example.com], http: [{paths: [/third]}], credentials: [echo]}",
    );
    put(&proxy.file("more/more.yaml"), named(second));
    put(
        &proxy.config,
        config.replace("[policy.yaml", "[more, policy.yaml"),
    );
    let allowed = async || get(&door, PLACEHOLDER, "/second").await.0 == 200;
    until("the new document counts", IN_FORCE, allowed).await;
    put(&proxy.file("more/more.yaml"), named(third));
    let allowed = async || get(&door, PLACEHOLDER, "/third").await.0 == 200;
    until("and its changes do", IN_FORCE, allowed).await;
    assert_eq!(get(&door, PLACEHOLDER, "/second").await.0, 403);
}

/// As Kubernetes mounts a ConfigMap; and as a checkout that is replaced whole.
#[tokio::test]
async fn a_directory_of_documents_is_followed_however_it_is_replaced() {
    let echo = echo::echo().await;
    let described = proxy()
        .origin(&echo.origin)
        .documents_at("mount")
        .documents_at("checkout")
        .credential_file("echo", REAL_KEY, CREDENTIAL);
    let mut mount = Mount::new(described.file("mount"), "policy.yaml", &policy(SOME));
    let checkout = described.file("checkout");
    let fill = |paths: &str| {
        fs::create_dir(&checkout).unwrap();
        let rule = format!(
            "{{hosts: [echo.example.com], http: [{{paths: [{paths}]}}], credentials: [echo]}}"
        );
        fs::write(
            checkout.join("p.yaml"),
            policy(&rule).replace("name: p", "name: q"),
        )
        .unwrap();
    };
    fill("/q1");
    let proxy = described.start().await;
    let door = proxy.bare_door();
    for rule in [OTHER, SOME, OTHER] {
        let (allowed, refused) = if rule == SOME {
            ("/first", "/other")
        } else {
            ("/other", "/first")
        };
        mount.swap(&policy(rule));
        let used = async || get(&door, PLACEHOLDER, allowed).await.0 == 200;
        until("the mounted policy is in force", IN_FORCE, used).await;
        assert_eq!(get(&door, PLACEHOLDER, refused).await.0, 403);
    }
    for path in ["/q2", "/q3"] {
        fs::remove_dir_all(&checkout).unwrap();
        fill(path);
        let used = async || get(&door, PLACEHOLDER, path).await.0 == 200;
        until("the new checkout is in force", IN_FORCE, used).await;
    }
}

#[tokio::test]
async fn fifty_quick_reloads_lose_no_request() {
    let echo = echo::echo().await;
    let proxy = allowing(&echo, ALL).await;
    let stop = CancellationToken::new();
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (door, stop) = (proxy.bare_door(), stop.clone());
        agents.spawn(async move { ask_until(number, &door, &stop).await });
    }
    let wider = "{hosts: [wider.echo.example.com], tls: Intercept}";
    for round in 0..50 {
        let rules = match round % 2 {
            0 => format!("{ALL}, {wider}"),
            _ => ALL.to_owned(),
        };
        put(&proxy.file("policy.yaml"), policy(&rules));
        match round % 5 {
            0 => proxy.signal("-HUP").await,
            _ => assert_eq!(proxy.admin("POST", "/v1/reload").await.status, 200),
        }
    }
    stop.cancel();
    let mut asked = 0;
    while let Some(ended) = agents.join_next().await {
        asked += ended.unwrap();
    }
    assert!(asked >= 6, "{asked} requests");
    assert_eq!(echo.origin.requests().len(), asked);
    assert!(proxy.metric(RELOADED).await >= Some(40.0));
    assert_eq!(proxy.metric(REFUSED).await, Some(0.0));
}

/// One agent on a kept connection, or on a new one each time; how often it asked.
async fn ask_until(number: usize, door: &Door, stop: &CancellationToken) -> usize {
    let mut kept = match number {
        0 | 1 => Some(Visitor::http1(door, PLACEHOLDER).await),
        2 | 3 => Some(Visitor::http2(door, PLACEHOLDER).await),
        _ => None,
    };
    let mut asked = 0;
    while asked == 0 || !stop.is_cancelled() {
        let (status, text) = match &mut kept {
            Some(visitor) => visitor.get("/busy").await.unwrap(),
            None => get(door, PLACEHOLDER, "/busy").await,
        };
        assert_eq!(status, 200, "{text}");
        asked += 1;
    }
    asked
}

/// A helper may cost a second, or ask a person to touch a key.
#[tokio::test]
async fn a_reload_opens_again_only_the_credentials_whose_source_has_changed() {
    let echo = echo::echo().await;
    let described = proxy().origin(&echo.origin);
    let runs = described.file("runs");
    let exec = |word: &str| {
        let script = format!(
            "echo {word} >> {}; cat {}",
            runs.display(),
            described.file("key").display()
        );
        credential(
            "exec",
            &format!("{{exec: {{command: [/bin/sh, -c, \"{script}\"], output: text}}}}"),
        )
    };
    let file = |name: &str| credential("file", &format!("{{file: {{path: {name}}}}}"));
    let rules = "{hosts: [echo.example.com], credentials: [exec, file]}";
    let documents = |exec: &str, file: &str| format!("{}{exec}{file}", policy(rules));
    fs::write(described.file("key"), REAL_KEY).unwrap();
    fs::write(described.file("one"), "value-number-one").unwrap();
    fs::write(described.file("two"), REAL_KEY).unwrap();
    put(
        &described.file("policy.yaml"),
        documents(&exec("first"), &file("one")),
    );
    let (first, second) = (exec("first"), exec("second"));
    let proxy = described.documents_at("policy.yaml").start().await;
    let ran = || fs::read_to_string(&runs).unwrap();
    let door = proxy.bare_door();
    assert_eq!(ran(), "first\n");
    assert_eq!(
        get(&door, "placeholder-of-file", "/").await.0,
        401,
        "the origin knows another key"
    );

    for _ in 0..3 {
        assert_eq!(proxy.admin("POST", "/v1/reload").await.status, 200);
    }
    put(&proxy.file("policy.yaml"), documents(&first, &file("two")));
    assert_eq!(proxy.admin("POST", "/v1/reload").await.status, 200);
    assert_eq!(get(&door, "placeholder-of-file", "/").await.0, 200);
    assert_eq!(ran(), "first\n");
    assert_eq!(proxy.credential("exec").await["version"], 1);

    // Documents that are refused for another reason run nothing either.
    put(
        &proxy.file("policy.yaml"),
        documents(&second, &file("two")) + "---\nkind: Nonsense\n",
    );
    assert_eq!(proxy.admin("POST", "/v1/reload").await.status, 422);
    assert_eq!(ran(), "first\n");

    put(&proxy.file("policy.yaml"), documents(&second, &file("two")));
    assert_eq!(proxy.admin("POST", "/v1/reload").await.status, 200);
    assert_eq!(ran(), "first\nsecond\n");
    assert_eq!(get(&door, "placeholder-of-exec", "/").await.0, 200);

    // What no document names any more is forgotten everywhere.
    put(
        &proxy.file("policy.yaml"),
        policy("{hosts: [echo.example.com], tls: Intercept}"),
    );
    assert_eq!(proxy.admin("POST", "/v1/reload").await.status, 200);
    assert_eq!(
        proxy.admin("GET", "/v1/credentials").await.json(),
        json!({"credentials": []})
    );
    assert!(
        !proxy
            .admin("GET", "/metrics")
            .await
            .text
            .contains(r#"credential_ok{"#)
    );
    assert_eq!(
        get(&door, "placeholder-of-exec", "/").await.0,
        401,
        "it is just text now"
    );
}

fn credential(name: &str, source: &str) -> String {
    format!(
        "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: [echo.example.com]\n  source: {source}\n  placements: [{{bearer: {{}}}}]\n  \
         placeholder: {{value: placeholder-of-{name}}}\n"
    )
}
