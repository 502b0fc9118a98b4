//! Helper programs and variables that give no secret, and helpers that do more than they should.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::support::echo::{self, PLACEHOLDER, REAL_KEY};
use super::support::operator::{PATIENCE, until};
use super::support::proxy::{ProxyBuilder, proxy};
use super::support::visitor::{Visitor, get};

/// What helpers print; it must be seen nowhere.
const SENTINEL: &str = "sentinel-3e9a71";

/// Name, output, script, and what is said of it.
const FLAWS: &[(&str, &str, &str, &str)] = &[
    (
        "hangs",
        "text",
        "exec sleep 600",
        "did not finish within 2s and was killed",
    ),
    (
        "fails",
        "text",
        "echo SENTINEL; echo SENTINEL >&2; exit 3",
        "ended with exit code 3",
    ),
    ("garbage", "json", "echo '{SENTINEL'", "no ExecCredential"),
    ("silent", "json", "true", "printed nothing"),
    (
        "lines",
        "text",
        "echo SENTINEL; echo SENTINEL",
        "more than one line",
    ),
    ("floods", "text", "yes SENTINEL", "printed more than 64 KiB"),
    (
        "stubborn",
        "text",
        "trap '' PIPE TERM; while :; do echo SENTINEL; done 2>&1",
        "printed more than 64 KiB",
    ),
    (
        "expired",
        "json",
        r#"echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
           "status":{"token":"SENTINEL","expirationTimestamp":"2020-01-01T00:00:00Z"}}'"#,
        "already expired",
    ),
    (
        "killed",
        "text",
        "echo SENTINEL; kill -9 $$",
        "ended by a signal",
    ),
];

#[tokio::test]
async fn helpers_that_give_no_secret_are_told_apart_and_nothing_they_print_is_shown() {
    let echo = echo::echo().await;
    let mut described = proxy().origin(&echo.origin).secret(SENTINEL);
    let mut rules = "- hosts: [echo.example.com]\n  credentials:\n".to_owned();
    for (name, output, script, _) in FLAWS {
        writeln!(rules, "    - {name}").unwrap();
        let script = script.replace("SENTINEL", SENTINEL);
        described = helper(
            described,
            name,
            &script,
            &format!("output: {output}, timeout: 2s"),
        );
    }
    for (name, program) in [("absent", "/no/such/helper"), ("mute", "/etc/passwd")] {
        writeln!(rules, "    - {name}").unwrap();
        described = credential(
            described,
            name,
            &format!("{{exec: {{command: [{program}]}}}}"),
        );
    }
    let proxy = described
        .policy(&rules)
        .env("TOLLGATE_LOG", "trace")
        .start()
        .await;
    let readyz = proxy.readyz().await;
    assert_eq!(readyz.status, 503);
    let own = [("absent", "was not found"), ("mute", "may not be executed")];
    let all = FLAWS
        .iter()
        .map(|(name, _, _, said)| (*name, *said))
        .chain(own);
    for (name, said) in all {
        let reason = readyz.json()["blocked"][format!("credential {name}")].to_string();
        assert!(reason.contains(said), "{name}: {reason}");
        assert!(proxy.output().contains(said), "{name}: {}", proxy.output());
        let (status, text) = get(&proxy.bare_door(), &format!("placeholder-of-{name}"), "/").await;
        assert_eq!(status, 503, "{name}: {text}");
        assert!(text.contains(said), "{name}: {text}");
    }
    assert!(echo.origin.requests().is_empty());
    let listed = proxy.cli(&["creds", "list"]).await;
    for text in [
        &readyz.text,
        &listed.stdout,
        &listed.stderr,
        &proxy.output(),
    ] {
        assert!(!text.contains(SENTINEL), "{text}");
    }
}

/// A helper may leave something running, even with its output open: the secret counts, the rest is killed.
#[tokio::test]
async fn what_a_helper_leaves_behind_is_killed() {
    let echo = echo::echo().await;
    for leave in ["sleep 600 &", "sleep 600 >/dev/null 2>&1 </dev/null &"] {
        let described = proxy().origin(&echo.origin).secret(REAL_KEY);
        let pid_file = described.file("pid");
        let key = key_file(&described);
        let script = format!("{leave} echo $! > {}; cat {key}", pid_file.display());
        let described = helper(described, "echo", &script, "output: text");
        let proxy = described.policy(RULE).start().await;
        assert_eq!(
            get(&proxy.bare_door(), "placeholder-of-echo", "/").await.0,
            200
        );
        killed(&pid_file).await;
    }
}

#[tokio::test]
async fn a_helper_that_hangs_is_killed_with_all_it_started() {
    let echo = echo::echo().await;
    let described = proxy().origin(&echo.origin);
    let pid_file = described.file("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
    let proxy = helper(described, "echo", &script, "output: text, timeout: 2s").policy(RULE);
    let _proxy = proxy.start().await;
    killed(&pid_file).await;
}

async fn killed(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // A killed orphan stays a zombie until init reaps it.
    let gone = async || std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z"));
    until("the helper's child is gone", PATIENCE, gone).await;
}

/// Each run prints another token that is good for three seconds.
#[tokio::test]
async fn a_helpers_token_is_renewed_ahead_of_its_expiry_and_never_used_after_it() {
    let echo = echo::echo().await;
    let described = proxy().origin(&echo.origin);
    let (runs, broken) = (described.file("runs"), described.file("broken"));
    let script = format!(
        r#"[ ! -e {broken} ] || exit 1
           echo run >> {runs}
           printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
             "status":{{"token":"token-number-%d","expirationTimestamp":"%s"}}}}' \
             $(wc -l < {runs}) $(date -u -d '+3 seconds' +%Y-%m-%dT%H:%M:%S.%NZ)"#,
        broken = broken.display(),
        runs = runs.display(),
    );
    let mut proxy = helper(described, "echo", &script, "output: json")
        .policy(RULE)
        .start()
        .await;
    proxy.forbid("token-number-");
    let mut visitor = Visitor::http2(&proxy.bare_door(), "placeholder-of-echo").await;
    let third = async || {
        assert_eq!(visitor.get("/open/").await.unwrap().0, 200);
        echo.origin.requests().last().unwrap().bearer() == Some("token-number-3")
    };
    until("the third token is used", PATIENCE, third).await;
    let mut used: Vec<String> = echo
        .origin
        .requests()
        .iter()
        .map(|r| r.bearer().unwrap().to_owned())
        .collect();
    used.dedup();
    assert_eq!(used, ["token-number-1", "token-number-2", "token-number-3"]);

    std::fs::write(&broken, "").unwrap();
    let mut last = (0, String::new());
    let refused = async || {
        last = visitor.get("/open/").await.unwrap();
        last.0 != 200
    };
    until("the token expires", PATIENCE, refused).await;
    assert_eq!(last.0, 503, "{}", last.1);
    assert!(
        last.1.contains("it has expired; ") && last.1.contains("exit code 1"),
        "{}",
        last.1
    );
    assert_eq!(proxy.credential("echo").await["state"], "expired");
    assert_eq!(proxy.readyz().await.status, 503);
    let before = echo.origin.requests().len();
    assert_eq!(visitor.get("/open/").await.unwrap().0, 503);
    assert_eq!(echo.origin.requests().len(), before);

    std::fs::remove_file(&broken).unwrap();
    until("ready by itself", PATIENCE, async || {
        proxy.readyz().await.status == 200
    })
    .await;
    assert_eq!(visitor.get("/open/").await.unwrap().0, 200);
}

#[tokio::test]
async fn a_variable_that_is_missing_or_no_secret_is_named() {
    let echo = echo::echo().await;
    for (value, said) in [
        (None, "`ECHO_SECRET` is not set"),
        (Some(""), "`ECHO_SECRET` is set but empty"),
        (
            Some("sentinel-3e9a71\nsecond line"),
            "`ECHO_SECRET` has more than one line",
        ),
    ] {
        let mut described = proxy().origin(&echo.origin).policy(RULE).secret(SENTINEL);
        described = credential(described, "echo", "{env: {name: ECHO_SECRET}}");
        if let Some(value) = value {
            described = described.env("ECHO_SECRET", value);
        }
        let proxy = described.start().await;
        assert!(proxy.output().contains("NOT ready"), "{}", proxy.output());
        assert!(proxy.output().contains(said), "{}", proxy.output());
        let readyz = proxy.readyz().await;
        assert_eq!(readyz.status, 503);
        assert!(
            readyz.text.contains(said) && !readyz.text.contains(SENTINEL),
            "{readyz:?}"
        );
        let (status, text) = get(&proxy.bare_door(), "placeholder-of-echo", "/").await;
        assert!(status == 503 && text.contains(said), "{status} {text}");
    }
    assert!(echo.origin.requests().is_empty());
}

/// The start waits for a helper; an end does not.
#[tokio::test]
async fn a_reload_that_waits_for_a_helper_does_not_delay_the_end() {
    let echo = echo::echo().await;
    let mut proxy = echo::in_front_of(&echo).setting(LATER).start().await;
    let started = proxy.file("started");
    let script = format!("touch {}; exec sleep 600", started.display());
    let slow = helper(
        super::support::proxy::proxy(),
        "slow",
        &script,
        "output: text, timeout: 60s",
    );
    add_documents(&proxy.file("documents.yaml"), &slow);
    until("the helper runs", PATIENCE, async || started.exists()).await;
    proxy.terminate().await;
    tokio::time::timeout(Duration::from_secs(15), proxy.ended())
        .await
        .unwrap();
}

/// A new credential that is slow comes after the policy, not before it.
#[tokio::test]
async fn a_slow_helper_does_not_delay_a_new_policy() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).setting(LATER).start().await;
    let gate = proxy.file("gate");
    let mut slow = super::support::proxy::proxy();
    let key = key_file(&slow);
    let gate_path = gate.display();
    let script = format!("until [ -e {gate_path} ]; do sleep 0.05; done; cat {key}");
    slow = helper(slow, "slow", &script, "output: text, timeout: 60s");
    slow = slow
        .policy("- {hosts: [echo.example.com], http: [{paths: [/slow/**]}], credentials: [slow]}");
    add_documents(&proxy.file("documents.yaml"), &slow);
    let (door, key) = (proxy.bare_door(), "placeholder-of-slow");
    let mut got = (0, String::new());
    let known = async || {
        got = get(&door, key, "/slow/x").await;
        got.0 == 503
    };
    until(
        "the new rule knows its credential",
        Duration::from_secs(5),
        known,
    )
    .await;
    assert!(got.1.contains("not fetched yet"), "{}", got.1);
    assert_eq!(get(&door, PLACEHOLDER, "/others").await.0, 200);
    std::fs::write(&gate, "").unwrap();
    let used = async || get(&door, key, "/slow/x").await.0 == 200;
    until("the helper's secret is used", PATIENCE, used).await;
}

/// Helpers may come with later documents.
const LATER: &str = "hardening: {programs: Always}";

const RULE: &str = "- {hosts: [echo.example.com], credentials: [echo]}";

/// Secrets are never literal in a document; a helper has them from somewhere.
fn key_file(described: &ProxyBuilder) -> String {
    let file = described.file("key");
    std::fs::write(&file, REAL_KEY).unwrap();
    file.display().to_string()
}

fn add_documents(file: &Path, more: &ProxyBuilder) {
    let old = std::fs::read_to_string(file).unwrap();
    super::support::operator::put(file, format!("{old}{}", more.documents()));
}

fn helper(described: ProxyBuilder, name: &str, script: &str, rest: &str) -> ProxyBuilder {
    let script = serde_json::Value::from(script);
    let source = format!("{{exec: {{command: [/bin/sh, -c, {script}], {rest}}}}}");
    credential(described, name, &source)
}

fn credential(described: ProxyBuilder, name: &str, source: &str) -> ProxyBuilder {
    let spec = format!(
        "
        hosts: [echo.example.com]
        source: {source}
        placements: [{{bearer: {{}}}}]
        placeholder: {{value: placeholder-of-{name}}}
        "
    );
    described.document("EgressCredential", name, &spec)
}
