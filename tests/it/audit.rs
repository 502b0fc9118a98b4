//! The audit log of the real binary: what is in it, that nobody changes it unseen, and what happens when it
//! cannot be written.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tollgate::telemetry::audit_line::Hash;

use crate::support::agent::Finished;
use crate::support::operator::{PATIENCE, finish, until};
use crate::support::proxy::{Proxy, tollgate};
use crate::support::scene::{HOST, PLACEHOLDER, REAL_KEY, Scene, in_front_of, origin};
use crate::support::volume::Volume;

/// The keys of RFC 8410, section 10.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

impl Proxy {
    fn audit_file(&self) -> PathBuf {
        self.file("state/audit/audit.jsonl")
    }

    /// The records there are, once one is of this event.
    async fn audited(&self, event: &str) -> Vec<Value> {
        let mut records = Vec::new();
        until(&format!("a record of {event}"), PATIENCE, async || {
            let text = std::fs::read_to_string(self.audit_file()).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            records = whole
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<Value>>();
            records.iter().any(|record| record["event"] == event)
        })
        .await;
        records
    }

    async fn last(&self, event: &str) -> Value {
        let records = self.audited(event).await;
        let mut of_it = records.into_iter().rev();
        of_it.find(|record| record["event"] == event).unwrap()
    }

    async fn verify(&self, args: &[&str]) -> Finished {
        let mut all = vec!["audit", "verify"];
        all.extend(args);
        self.cli(&all).await
    }
}

fn honest() -> String {
    format!(
        "GET /v1/x?page=2 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
    )
}

#[tokio::test]
async fn the_life_of_a_proxy_is_in_the_chain_and_no_secret_is() {
    let mut scene = Scene::new().await;
    scene.ask(HOST, &honest()).await;
    let used = scene.proxy.last("credential_used").await;
    assert_eq!(used["credentials"][0]["name"], "scene");
    assert_eq!(used["credentials"][0]["version"], 1);
    assert_eq!(used["credentials"][0]["placement"], "bearer");
    assert_eq!(used["authority"], format!("{HOST}:443"));
    assert_eq!(used["target"], "/v1/x?page=[redacted]");
    assert!(
        used["rule"]
            .as_str()
            .unwrap()
            .starts_with("documents.yaml:")
    );
    let line = scene.proxy.access_log(1).await.remove(0);
    assert_eq!((&line["id"], &line["agent"]), (&used["id"], &used["agent"]));
    assert_eq!(line["credential_versions"][0], 1);
    assert!(line["ttft_ms"].as_f64().unwrap() >= line["upstream_ms"].as_f64().unwrap());

    let canary = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Other: {PLACEHOLDER}\r\n\r\n");
    assert_eq!(scene.ask(HOST, &canary).await.status, 403);
    let told = scene.proxy.last("canary").await;
    assert_eq!(told["canary"]["credential"], "scene");
    assert_eq!(
        (&told["canary"]["place"], &told["canary"]["misuse"]),
        (&"header".into(), &"misplaced".into())
    );
    let foreign = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer sk-own-0123456789abcdef\r\n\r\n"
    );
    assert_eq!(scene.ask(HOST, &foreign).await.status, 403);
    let told = scene.proxy.last("refused").await;
    assert_eq!(
        (&told["reason"], &told["status"]),
        (&"foreign_credential".into(), &403.into())
    );

    let documents = std::fs::read_to_string(scene.proxy.file("documents.yaml")).unwrap();
    let more = documents.replace(
        "[tunnel.example.com]",
        "[tunnel.example.com, new.example.com]",
    );
    assert_ne!(documents, more);
    scene.proxy.reload(&more).await;
    let reloaded = scene.proxy.last("policy_reloaded").await;
    assert_eq!(reloaded["changes"]["hosts_added"], 1, "{reloaded}");
    assert_eq!(reloaded["changes"]["policies_changed"], 1, "{reloaded}");
    assert_eq!(reloaded["changes"]["credentials_changed"], 0, "{reloaded}");
    let start = scene.proxy.last("start").await;
    assert_eq!(reloaded["before"], start["policy"]);
    std::fs::write(scene.proxy.file("documents.yaml"), "kind: Nonsense").unwrap();
    assert_eq!(scene.proxy.admin("POST", "/v1/reload").await.status, 422);
    let rejected = scene.proxy.last("policy_rejected").await;
    assert_eq!(rejected["policy"], reloaded["policy"]);
    let stranger = scene
        .proxy
        .admin_with("POST", "/quitquitquit", "Bearer nobody")
        .await;
    assert_eq!(stranger.status, 401);
    until("the stranger is on record", PATIENCE, async || {
        let admin = scene.proxy.last("admin").await;
        admin["path"] == "/quitquitquit" && admin["status"] == 401
    })
    .await;
    std::fs::write(scene.proxy.file("documents.yaml"), documents).unwrap();

    scene.proxy.terminate().await;
    scene.proxy.ended().await;
    let records = scene.proxy.audited("stop").await;
    let events: Vec<&str> = records
        .iter()
        .map(|r| r["event"].as_str().unwrap())
        .collect();
    assert_eq!((events[0], events[1]), ("start", "ca_made"));
    assert_eq!(*events.last().unwrap(), "stop");
    let text = std::fs::read_to_string(scene.proxy.audit_file()).unwrap();
    for secret in [REAL_KEY, PLACEHOLDER, "sk-own", "page=2"] {
        assert!(!text.contains(secret), "{secret}");
    }
    let verified = scene.proxy.verify(&[]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(
        verified
            .stdout
            .starts_with(&format!("verified {} records, head ", records.len())),
        "{verified:?}"
    );
    let listed = scene
        .proxy
        .cli(&["audit", "list", "--event", "canary"])
        .await;
    assert!(
        listed.stdout.contains("reason=canary") && listed.stdout.lines().count() == 1,
        "{listed:?}"
    );
    let none = scene
        .proxy
        .cli(&["audit", "list", "--agent", "nobody", "--since", "1h"])
        .await;
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_killed_proxy_loses_nothing_that_was_written_and_its_torn_line_is_told_of() {
    let mut scene = Scene::new().await;
    for _ in 0..3 {
        let asking = (0..40).map(|_| async {
            // The last ones break off with the proxy.
            let door = scene.door.clone();
            tokio::spawn(async move {
                let (_, status) =
                    crate::support::tunnel::connect(&door, "none.example.com:443").await;
                assert!(status.contains("403"), "{status}");
            })
            .await
            .ok();
        });
        futures_util::future::join_all(asking).await;
        scene.proxy.kill().await;
        let before = std::fs::read(scene.proxy.audit_file()).unwrap();
        let torn = b"{\"seq\":99,\"time\":\"2026-11-21T";
        std::fs::write(scene.proxy.audit_file(), [before.as_slice(), torn].concat()).unwrap();
        let found = scene.proxy.verify(&[]).await;
        assert_eq!(found.code, Some(1));
        assert!(
            found.stderr.contains("the last line is incomplete"),
            "{found:?}"
        );
        scene.proxy.restart().await;
        let after = std::fs::read(scene.proxy.audit_file()).unwrap();
        assert!(after.starts_with(&before), "what was written stays");
        let told = scene.proxy.last("torn").await;
        assert_eq!(told["bytes"], torn.len());
        let kept = scene
            .proxy
            .audit_file()
            .with_file_name(told["kept"].as_str().unwrap());
        assert_eq!(std::fs::read(kept).unwrap(), torn);
        scene.door = scene.proxy.bare_door();
    }
    let verified = scene.proxy.verify(&[]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_eq!(
        verified.stdout.matches("were no whole record").count(),
        3,
        "{verified:?}"
    );
}

#[tokio::test]
async fn a_changed_record_is_named_by_file_and_line() {
    let scene = Scene::new().await;
    scene.ask(HOST, &honest()).await;
    scene.proxy.audited("credential_used").await;
    let text = std::fs::read_to_string(scene.proxy.audit_file()).unwrap();
    let copy = scene.proxy.file("copy.jsonl");
    let line = 1 + text
        .lines()
        .position(|l| l.contains("credential_used"))
        .unwrap();
    std::fs::write(&copy, text.replace("\"version\":1", "\"version\":2")).unwrap();
    // Without any configuration, as on another machine.
    let home = tempfile::tempdir().unwrap();
    let mut command = tollgate(home.path(), &[].into());
    command.args(["audit", "verify"]).arg(&copy);
    let found = finish(command).await;
    assert_eq!(found.code, Some(1));
    let place = format!("copy.jsonl:{line}: this record was changed");
    assert!(found.stderr.contains(&place), "{found:?}");
}

#[tokio::test]
async fn signed_heads_and_a_head_kept_elsewhere_show_what_the_chain_alone_does_not() {
    let origin = origin().await;
    let builder = in_front_of(&origin);
    let file = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(builder.path(name), text).unwrap();
        std::fs::set_permissions(builder.path(name), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        builder.path(name)
    };
    let (key, public) = (file("audit.key", PRIVATE), file("audit.pub", PUBLIC));
    let public = public.display().to_string();
    let audit = format!(
        "audit: {{signingKey: {{file: {{path: {}}}}}, heads: {{records: 3, every: 1h}}}}",
        key.display()
    );
    let mut proxy = builder
        .setting(&audit)
        .secret(PRIVATE.lines().nth(1).unwrap())
        .start()
        .await;
    for _ in 0..7 {
        crate::support::tunnel::connect(&proxy.bare_door(), "none.example.com:443").await;
    }
    proxy.audited("head").await;
    let said = proxy.admin("GET", "/v1/audit").await.json();
    let head = said["head"].as_str().unwrap().to_owned();
    assert!(Hash::parse(&head).is_some(), "{said}");
    proxy.terminate().await;
    proxy.ended().await;
    let whole = proxy
        .verify(&["--key", &public, "--expect-head", &head])
        .await;
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(
        whole.stdout.contains("0 records after the last one"),
        "{whole:?}"
    );

    let text = std::fs::read_to_string(proxy.audit_file()).unwrap();
    assert!(
        text.lines().last().unwrap().contains("\"event\":\"head\""),
        "the end is signed"
    );
    // Cut off down to the second line: the chain alone is whole.
    let cut: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(proxy.audit_file(), cut).unwrap();
    assert_eq!(proxy.verify(&[]).await.code, Some(0));
    let found = proxy.verify(&["--expect-head", &head]).await;
    assert_eq!(found.code, Some(1));
    assert!(
        found.stderr.contains("it was cut off at the end"),
        "{found:?}"
    );
    let found = proxy.verify(&["--key", &public]).await;
    assert_eq!(found.code, Some(1));
    assert!(found.stderr.contains("no head is signed"), "{found:?}");
    let wrong = proxy.verify(&["--expect-head", "7c1e"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[tokio::test]
async fn files_are_rotated_under_traffic_and_every_exchange_is_there_where_all_are_asked_for() {
    let origin = origin().await;
    let builder = in_front_of(&origin);
    let proxy = builder
        .setting("audit: {exchanges: all, rotate: {size: 4KiB, keep: 100}}")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let plain = "GET /plain HTTP/1.1\r\nHost: bare.example.com\r\n\r\n";
    let count = async || {
        let listed = scene
            .proxy
            .cli(&["audit", "list", "--event", "allowed", "--json"])
            .await;
        listed.stdout.lines().count()
    };
    for round in 1..=3 {
        let asking = (0..10).map(|_| scene.ask("bare.example.com", plain));
        for answer in futures_util::future::join_all(asking).await {
            assert_eq!(answer.status, 200);
        }
        // What is handed over at once is written at once, and a file is left between two writes.
        until("its records", PATIENCE, async || {
            count().await == 10 * round
        })
        .await;
    }
    let files = std::fs::read_dir(scene.proxy.file("state/audit")).unwrap();
    let rotated = files.filter(|f| {
        f.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("audit-")
    });
    assert!(rotated.count() >= 1);
    // A command appends beside the running proxy.
    let made = scene.proxy.cli(&["ca", "init", "--force"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(!made.stderr.contains("warning"), "{made:?}");
    let listed = scene
        .proxy
        .cli(&["audit", "list", "--event", "ca_made"])
        .await;
    assert!(listed.stdout.contains("replaces=true"), "{listed:?}");
    scene.ask("none.example.com", "").await;
    let verified = scene.proxy.verify(&[]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn a_full_disk_stops_no_traffic_and_loses_no_record_unless_asked_to_refuse() {
    let Some(volume) = Volume::mounted(256) else {
        return;
    };
    let origin = origin().await;
    let file = volume.file("audit.jsonl");
    let proxy = in_front_of(&origin)
        .setting(&format!("audit: {{file: {}}}", file.display()))
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    volume.fill();
    for _ in 0..20 {
        assert_eq!(scene.ask(HOST, &honest()).await.status, 200);
    }
    until("the trouble is told", PATIENCE, async || {
        let ready = scene.proxy.readyz().await.json();
        let why = ready["warnings"]["audit"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        ready["ready"] == true && why.contains("audit.jsonl")
    })
    .await;
    assert_eq!(scene.proxy.metric("tollgate_audit_ok").await, Some(0.0));
    volume.make_room();
    until("it is written again", PATIENCE, async || {
        scene.proxy.metric("tollgate_audit_ok").await == Some(1.0)
    })
    .await;
    let listed = scene
        .proxy
        .cli(&["audit", "list", "--event", "credential_used"])
        .await;
    assert_eq!(listed.stdout.lines().count(), 20, "{listed:?}");
    let verified = scene.proxy.verify(&[]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let lost = "tollgate_telemetry_dropped_total{reason=\"queue_full\",sink=\"audit_log\"}";
    assert_eq!(scene.proxy.metric(lost).await, Some(0.0));
}

#[tokio::test]
async fn nothing_leaves_with_a_credential_while_it_cannot_be_recorded_where_that_is_asked_for() {
    let Some(volume) = Volume::mounted(256) else {
        return;
    };
    let origin = origin().await;
    let file = volume.file("audit.jsonl");
    let proxy = in_front_of(&origin)
        .setting(&format!(
            "audit: {{file: {}, onFailure: refuse}}",
            file.display()
        ))
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    scene.still_serves().await;
    volume.fill();
    // What is left of the last block may take a record or two.
    until("a refusal", Duration::from_secs(60), async || {
        scene.ask(HOST, &honest()).await.status == 503
    })
    .await;
    let sent = scene.origin.requests().len();
    let answer = scene.ask(HOST, &honest()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer
            .header("proxy-status")
            .unwrap()
            .contains("audit_unavailable"),
        "{answer:?}"
    );
    assert_eq!(
        scene.origin.requests().len(),
        sent,
        "the origin was not asked"
    );
    let bare = "GET /x HTTP/1.1\r\nHost: bare.example.com\r\n\r\n";
    assert_eq!(
        scene.ask("bare.example.com", bare).await.status,
        200,
        "no credential, no wait"
    );
    let sent = scene.origin.requests().len();
    volume.make_room();
    until("it goes on", PATIENCE, async || {
        scene.ask(HOST, &honest()).await.status == 200
    })
    .await;
    assert_eq!(scene.origin.requests().len(), sent + 1);
    let listed = scene
        .proxy
        .cli(&["audit", "list", "--event", "credential_used"])
        .await;
    let with_credential = scene
        .origin
        .requests()
        .iter()
        .filter(|r| r.bearer().is_some())
        .count();
    assert_eq!(listed.stdout.lines().count(), with_credential, "{listed:?}");
    assert_eq!(scene.proxy.verify(&[]).await.code, Some(0));
}

#[tokio::test]
async fn a_moved_access_log_is_followed_on_hangup() {
    let scene = Scene::new().await;
    scene.ask(HOST, &honest()).await;
    scene.proxy.access_log(1).await;
    let (path, old) = (
        scene.proxy.file("access.log"),
        scene.proxy.file("access.log.1"),
    );
    std::fs::rename(&path, &old).unwrap();
    scene.proxy.signal("-HUP").await;
    until("a new file", PATIENCE, async || path.exists()).await;
    scene.ask(HOST, &honest()).await;
    assert_eq!(scene.proxy.access_log(1).await.len(), 1);
    assert_eq!(std::fs::read_to_string(old).unwrap().lines().count(), 1);
}
