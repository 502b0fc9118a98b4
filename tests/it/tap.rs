//! `tollgate tap` and the end of `tollgate run`: what an operator sees of exchanges as they happen.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::support::operator::{PATIENCE, until};
use crate::support::proxy::{Proxy, tollgate};
use crate::support::scene::{HOST, PLACEHOLDER, REAL_KEY, Scene};
use crate::support::tunnel;

/// A running `tollgate tap`, and what it has printed.
pub struct Watching {
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
}

impl Watching {
    pub async fn start(proxy: &Proxy, args: &[&str]) -> Self {
        let before = open(proxy).await;
        let mut command = tollgate(&proxy.file(""), &[].into());
        command.args(args).arg("--config").arg(&proxy.config);
        command.arg("--admin").arg(proxy.admin.to_string());
        command
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = Arc::<Mutex<Vec<String>>>::default();
        let into = printed.clone();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                into.lock().unwrap().push(line);
            }
        });
        until("it watches", PATIENCE, async || open(proxy).await > before).await;
        Self { child, printed }
    }

    /// Every line so far.
    pub fn everything(&self) -> String {
        self.printed.lock().unwrap().join("\n")
    }

    async fn line(&self, what: &str) -> String {
        let find = || {
            let printed = self.printed.lock().unwrap();
            printed.iter().find(|line| line.contains(what)).cloned()
        };
        until(&format!("a line with {what}"), PATIENCE, async || {
            find().is_some()
        })
        .await;
        find().unwrap()
    }
}

/// Watches that were begun, as the audit log has them: a watch is recorded once it is open.
async fn open(proxy: &Proxy) -> usize {
    let text = std::fs::read_to_string(proxy.file("state/audit/audit.jsonl")).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains("\"path\":\"/v1/tap\""))
        .count()
}

#[tokio::test]
async fn exchanges_are_shown_as_they_happen_and_the_watch_ends_with_the_proxy() {
    let mut scene = Scene::new().await;
    let mut all = Watching::start(&scene.proxy, &["tap"]).await;
    let mut denied = Watching::start(&scene.proxy, &["tap", "--denied", "--json"]).await;
    let elsewhere = Watching::start(&scene.proxy, &["tap", "--host", "*.example.net"]).await;
    let key = format!("Authorization: Bearer {PLACEHOLDER}");
    let secret = format!(
        "POST /v1/x?key={REAL_KEY} HTTP/1.1\r\nHost: {HOST}\r\n{key}\r\ncontent-length: 0\r\n\r\n"
    );
    scene.ask(HOST, &secret).await;
    scene
        .ask(
            HOST,
            &format!("GET /plain?q=1 HTTP/1.1\r\nHost: {HOST}\r\n{key}\r\n\r\n"),
        )
        .await;
    let line = all.line("/plain").await;
    let words: Vec<&str> = line.split(' ').collect();
    let path = format!("{HOST}/plain?q=[redacted]");
    assert_eq!(words[1..5], ["+", "GET", &path, "200"], "{line}");
    assert_eq!(words[6], "agent", "{line}");
    assert_eq!(words[0].len(), "10:02:11".len(), "{line}");
    tunnel::connect(&scene.door, "none.example.com:443").await;
    let line = all.line("none.example.com").await;
    assert!(
        line.contains(" - CONNECT none.example.com:443 403 ") && line.ends_with("host_not_allowed"),
        "{line}"
    );
    let record: Value = serde_json::from_str(&denied.line("none.example.com").await).unwrap();
    assert_eq!(
        (&record["decision"], &record["reason"]),
        (&"deny".into(), &"host_not_allowed".into())
    );
    scene.proxy.terminate().await;
    scene.proxy.ended().await;
    for watching in [&mut all, &mut denied] {
        let status = tokio::time::timeout(PATIENCE, watching.child.wait())
            .await
            .unwrap();
        assert_eq!(status.unwrap().code(), Some(0));
    }
    let printed = |watching: &Watching| watching.printed.lock().unwrap().join("\n");
    assert!(!printed(&denied).contains("/plain"), "{}", printed(&denied));
    assert_eq!(printed(&elsewhere), "");
    assert!(!printed(&all).contains(REAL_KEY), "{}", printed(&all));
}

#[tokio::test]
async fn a_watcher_who_does_not_read_stops_nobody() {
    use tokio::io::AsyncWriteExt as _;
    let scene = Scene::new().await;
    let token = std::fs::read_to_string(scene.proxy.file("state/admin.token")).unwrap();
    let mut deaf = tokio::net::TcpStream::connect(scene.proxy.admin)
        .await
        .unwrap();
    let request = format!(
        "GET /v1/tap HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    deaf.write_all(request.as_bytes()).await.unwrap();
    until("it watches", PATIENCE, async || {
        open(&scene.proxy).await == 1
    })
    .await;
    for _ in 0..50 {
        scene.still_serves().await;
    }
    let stranger = scene
        .proxy
        .admin_with("GET", "/v1/tap", "Bearer nobody")
        .await;
    assert_eq!(stranger.status, 401);
}

#[tokio::test]
async fn refusals_are_followed_and_a_new_kind_of_one_comes_with_its_edit() {
    let mut scene = Scene::new().await;
    let mut follow = Watching::start(&scene.proxy, &["denied", "--follow"]).await;
    for _ in 0..2 {
        tunnel::connect(&scene.door, "none.example.com:443").await;
    }
    follow.line("- CONNECT none.example.com:443 403").await;
    follow.line("hosts: [none.example.com]").await;
    scene.proxy.terminate().await;
    scene.proxy.ended().await;
    let status = tokio::time::timeout(PATIENCE, follow.child.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(0));
    let printed = follow.printed.lock().unwrap().join("\n");
    assert_eq!(printed.matches("- CONNECT").count(), 2, "{printed}");
    assert_eq!(
        printed.matches("kind: EgressPolicy").count(),
        1,
        "{printed}"
    );
}
