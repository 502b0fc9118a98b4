//! Secret files that cannot be used, at the start and later: what is said, what is refused, and how it
//! mends itself.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::support::echo::{self, Echo, PLACEHOLDER, REAL_KEY};
use super::support::operator::{Mount, PATIENCE, put, until};
use super::support::proxy::{ProxyBuilder, proxy};
use super::support::visitor::{Visitor, get};

/// Something of the bad file's own content; it must be seen nowhere.
const SENTINEL: &str = "sentinel-7d1f0c";

/// A way in which a file is no secret, and a part of what is said of it.
type Flaw = (&'static str, fn(&Path));

const FLAWS: &[Flaw] = &[
    ("does not exist", |file| remove(file)),
    ("is empty", |file| fs::write(file, "").unwrap()),
    ("is empty", |file| fs::write(file, "\n\n").unwrap()),
    ("may not be read by this user", |file| {
        fs::write(file, SENTINEL).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
    }),
    ("is a directory", |file| {
        remove(file);
        fs::create_dir(file).unwrap();
    }),
    ("more than one line", |file| {
        fs::write(file, format!("{SENTINEL}\n{SENTINEL}")).unwrap();
    }),
    ("NUL", |file| {
        fs::write(file, format!("{SENTINEL}\0x")).unwrap()
    }),
    ("larger than 64 KiB", |file| {
        fs::write(file, SENTINEL.repeat(5000)).unwrap();
    }),
    ("not UTF-8", |file| {
        fs::write(file, [SENTINEL.as_bytes(), b"\xff"].concat()).unwrap();
    }),
    ("white space", |file| {
        fs::write(file, format!(" {SENTINEL}")).unwrap()
    }),
];

fn remove(file: &Path) {
    fs::remove_file(file).unwrap();
}

/// Whatever stands there, there is a good file afterwards.
fn mend(file: &Path, secret: &str) {
    if file.is_dir() {
        fs::remove_dir(file).unwrap();
    }
    put(file, secret);
}

#[tokio::test]
async fn a_secret_file_that_cannot_be_used_keeps_the_proxy_unready_until_it_is_mended() {
    for (said, spoil) in FLAWS {
        let echo = echo::echo().await;
        let described = echo::in_front_of(&echo)
            .secret(SENTINEL)
            .bound_by_file_modes();
        spoil(&described.file("echo.secret"));
        let proxy = described.start().await;
        let ready_line = proxy.output();
        assert!(
            ready_line.contains("NOT ready (credential echo: "),
            "{said}: {ready_line}"
        );
        assert!(ready_line.contains(said), "{said}: {ready_line}");
        let readyz = proxy.readyz().await;
        assert_eq!(readyz.status, 503);
        let reason = readyz.json()["blocked"]["credential echo"].to_string();
        assert!(reason.contains(said), "{said}: {reason}");
        assert!(!readyz.text.contains(SENTINEL));

        let (status, text) = get(&proxy.bare_door(), PLACEHOLDER, "/before").await;
        assert_eq!(status, 503, "{said}: {text}");
        assert!(
            text.contains("credential `echo`") && text.contains(said),
            "{said}: {text}"
        );
        assert!(!text.contains(SENTINEL), "{text}");
        assert!(echo.origin.requests().is_empty());

        mend(&proxy.file("echo.secret"), REAL_KEY);
        let ready = async || proxy.readyz().await.status == 200;
        until("ready by itself", PATIENCE, ready).await;
        let (status, text) = get(&proxy.bare_door(), PLACEHOLDER, "/after").await;
        assert_eq!(status, 200, "{said}: {text}");
    }
}

#[tokio::test]
async fn a_rotation_that_fails_keeps_the_last_good_value_and_says_so_everywhere() {
    let echo = echo::echo().await;
    let described = echo::in_front_of(&echo)
        .secret(SENTINEL)
        .bound_by_file_modes();
    let proxy = described.start().await;
    let file = proxy.file("echo.secret");
    let series = r#"tollgate_credential_source_failing{credential="echo"}"#;
    assert_eq!(proxy.metric(series).await, Some(0.0));
    for (said, spoil) in FLAWS {
        spoil(&file);
        let warned = async || {
            let warning = proxy.readyz().await.json()["warnings"]["credential echo"].clone();
            warning.as_str().is_some_and(|w| w.contains(said))
        };
        until(said, PATIENCE, warned).await;
        let readyz = proxy.readyz().await;
        assert_eq!(
            (readyz.status, readyz.json()["ready"].clone()),
            (200, json!(true))
        );
        let status = proxy.credential("echo").await;
        assert_eq!(status["state"], "failing", "{status}");
        assert!(
            status["lastError"].as_str().unwrap().contains(said),
            "{status}"
        );
        let table = proxy.cli(&["creds", "list"]).await;
        assert!(
            table.ok().contains("failing") && table.ok().contains(said),
            "{table:?}"
        );
        assert_eq!(proxy.cli(&["creds", "check"]).await.code, Some(1));
        assert_eq!(proxy.metric(series).await, Some(1.0));
        let (status, text) = get(&proxy.bare_door(), PLACEHOLDER, "/meanwhile").await;
        assert_eq!(status, 200, "{said}: {text}");

        mend(&file, REAL_KEY);
        let mended = async || proxy.readyz().await.json()["warnings"] == json!({});
        until("mended", PATIENCE, mended).await;
    }
    assert_eq!(
        proxy.credential("echo").await["version"],
        1,
        "it never changed"
    );
    assert_eq!(proxy.metric(series).await, Some(0.0));
    assert_eq!(proxy.cli(&["creds", "check"]).await.code, Some(0));
}

/// Not renamed into place but written where it stands, by someone who is slow.
#[tokio::test]
async fn a_file_that_is_half_written_is_never_used() {
    let (old, new) = ("old-1f0c7d9e2b3a4455", "new-88aa77bb66cc55dd");
    let echo = echo::echo().await;
    let mut proxy = with_open_key(&echo, old).start().await;
    let door = proxy.bare_door();
    let mut visitor = Visitor::http1(&door, PLACEHOLDER).await;
    let mut file = fs::File::create(proxy.file("echo.secret")).unwrap();
    file.write_all(&new.as_bytes()[..9]).unwrap();
    // The empty file was seen at least; then the half one is there to be seen as well.
    let seen = async || proxy.readyz().await.json()["warnings"] != json!({});
    tokio::time::timeout(Duration::from_secs(1), until("seen", PATIENCE, seen))
        .await
        .ok();
    for _ in 0..20 {
        assert_eq!(visitor.get("/open/meanwhile").await.unwrap().0, 200);
    }
    file.write_all(&new.as_bytes()[9..]).unwrap();
    drop(file);
    let used = async || {
        visitor.get("/open/after").await.unwrap();
        echo.origin.requests().last().unwrap().bearer() == Some(new)
    };
    until("the whole new value is used", PATIENCE, used).await;
    for request in echo.origin.requests() {
        assert!(
            [Some(old), Some(new)].contains(&request.bearer()),
            "{request:?}"
        );
    }
    proxy.forbid(new);
}

#[tokio::test]
async fn a_json_file_that_is_half_written_is_no_secret_yet() {
    let echo = echo::echo().await;
    let described = proxy().origin(&echo.origin);
    let file = described.file("login.json");
    let whole = json!({"oauth": {"token": REAL_KEY}, "more": "data"}).to_string();
    fs::write(&file, &whole[..whole.len() - 4]).unwrap();
    let described = described
        .secret(REAL_KEY)
        .policy("- {hosts: [echo.example.com], credentials: [echo]}")
        .document(
            "EgressCredential",
            "echo",
            "
            hosts: [echo.example.com]
            source: {file: {path: login.json, pointer: /oauth/token}}
            placements: [{bearer: {}}]
            placeholder: {value: echo-placeholder-0001}
            ",
        );
    let proxy = described.start().await;
    let reason = proxy.readyz().await.json()["blocked"]["credential echo"].to_string();
    assert!(
        reason.contains("is not valid JSON (line 1, column "),
        "{reason}"
    );
    put(&file, &whole);
    until("ready by itself", PATIENCE, async || {
        proxy.readyz().await.status == 200
    })
    .await;
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/after").await.0, 200);
}

/// `..data` is swapped under four agents that never stop asking.
#[tokio::test]
async fn a_mounted_secret_is_rotated_under_traffic() {
    let values = ["first-4b1d9e2b3a", "second-7bb66cc55d", "third-0c7d9e2b3a4"];
    let echo = echo::echo().await;
    let described = with_open_key(&echo, values[0]);
    let mut mount = Mount::new(described.file("mount"), "key", values[0]);
    fs::remove_file(described.file("echo.secret")).unwrap();
    std::os::unix::fs::symlink(mount.file(), described.file("echo.secret")).unwrap();
    let mut proxy = described.start().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (door, stop) = (proxy.bare_door(), stop.clone());
        agents.spawn(async move {
            let mut visitor = match number % 2 {
                0 => Visitor::http1(&door, PLACEHOLDER).await,
                _ => Visitor::http2(&door, PLACEHOLDER).await,
            };
            while !stop.is_cancelled() {
                let (status, text) = visitor.get(&format!("/open/{number}")).await.unwrap();
                assert_eq!(status, 200, "{text}");
            }
        });
    }
    for value in &values[1..] {
        mount.swap(value);
        let used = async || {
            (0..4).all(|number| {
                let asked = echo.origin.requests_for(&format!("/open/{number}"));
                asked.last().is_some_and(|r| r.bearer() == Some(value))
            })
        };
        until(
            "the new value is used by all",
            Duration::from_secs(10),
            used,
        )
        .await;
        proxy.forbid(value);
    }
    stop.cancel();
    while let Some(ended) = agents.join_next().await {
        ended.unwrap();
    }
    for number in 0..4 {
        let mut used: Vec<String> = echo
            .origin
            .requests_for(&format!("/open/{number}"))
            .iter()
            .map(|r| r.bearer().unwrap().to_owned())
            .collect();
        used.dedup();
        assert_eq!(used, values, "an old value after a new one");
    }
}

/// The echo origin's `/open/` paths take any key.
fn with_open_key(echo: &Echo, key: &str) -> ProxyBuilder {
    proxy()
        .origin(&echo.origin)
        .policy("- {hosts: [echo.example.com], credentials: [echo]}")
        .credential_file(
            "echo",
            key,
            "
            hosts: [echo.example.com]
            placements: [{bearer: {}}]
            placeholder: {value: echo-placeholder-0001, env: [ECHO_KEY]}
            ",
        )
}
