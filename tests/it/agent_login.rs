//! Claude Code and Codex log in, refresh and log out behind Tollgate as they do anywhere, and what they
//! keep of it is placeholders.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::claude_code;
use super::support::agent::Agent;
use super::support::lent::{Lent, Login};

impl Lent {
    /// An agent that is given nothing but the proxy.
    async fn agent(&self) -> Agent {
        let mut door = self.proxy.door().await;
        door.env.remove("CLAUDE_CODE_OAUTH_TOKEN");
        Agent::at(&door)
    }

    /// No file of the agent's home holds a token.
    fn assert_clean(&self, folder: &Path) {
        let needles = self.server.needles();
        for entry in walk(folder) {
            let bytes = std::fs::read(&entry).unwrap_or_default();
            for needle in &needles {
                let found = needle.find(&bytes);
                assert!(found.is_none(), "{} is in {}", needle.name, entry.display());
            }
        }
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(walk(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

#[tokio::test]
async fn claude_code_with_an_expired_file_of_placeholders_completes_a_turn() {
    let program = client!("claude");
    let scene = Lent::claude(Login::Held).await;
    let agent = scene.agent().await;
    let placeholder = scene.placeholder("claude-login").await;
    let before = scene.server.truth();
    claude_code::write_login(&agent, &placeholder, "a-refresh-token-of-old", 0);
    claude_code::converse(&program, &agent).await;
    let kept = claude_code::read_login(&agent);
    assert_eq!(kept["accessToken"], placeholder);
    let refresh = kept["refreshToken"].as_str().unwrap();
    assert!(refresh.starts_with("sk-ant-ort01-"), "{kept}");
    assert!(kept["expiresAt"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(
        scene.server.truth(),
        before,
        "the provider heard nothing of it"
    );
    scene.api.assert_no_stale_token();
    scene.assert_clean(agent.home());
    let calls = "tollgate_token_calls_total{credential=\"claude-login\",kind=\"refresh\"}";
    assert!(scene.proxy.metric(calls).await >= Some(1.0));

    // Once more with what it was given, expired again.
    claude_code::write_login(&agent, &placeholder, refresh, 0);
    claude_code::converse(&program, &agent).await;
    assert_eq!(claude_code::read_login(&agent)["refreshToken"], refresh);
}

/// The origin refuses the token that Tollgate holds: Claude Code hears nothing of it.
#[tokio::test]
async fn claude_code_does_not_notice_that_a_token_was_revoked() {
    let program = client!("claude");
    let scene = Lent::claude(Login::Held).await;
    let agent = scene.agent().await;
    let placeholder = scene.placeholder("claude-login").await;
    claude_code::write_login(&agent, &placeholder, "", i64::MAX / 1_000_000);
    let before = scene.server.truth();
    scene.server.revoke_access(before.access_token());
    claude_code::converse(&program, &agent).await;
    let truth = scene.server.truth();
    assert_eq!(truth.rotations, before.rotations + 1);
    truth.assert_one_clean_grant();
    let kept = claude_code::read_login(&agent);
    assert_eq!(kept["accessToken"], placeholder);
}

#[tokio::test]
async fn claude_code_logs_in_and_the_login_is_kept_for_all() {
    let program = client!("claude");
    let scene = Lent::claude(Login::None).await;
    let agent = scene.agent().await;
    let server = &scene.server;
    claude_code::log_in(&program, &agent, |url| server.authorize(url).pasted).await;
    let truth = scene.server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(truth.granted["authorization_code"], 1);
    let placeholder = scene.placeholder("claude-login").await;
    let kept = claude_code::read_login(&agent);
    assert_eq!(kept["accessToken"], placeholder, "{kept}");
    assert!(
        kept["refreshToken"]
            .as_str()
            .unwrap()
            .starts_with("sk-ant-ort01-")
    );
    assert_eq!(
        kept["subscriptionType"], "max",
        "the profile was told: {kept}"
    );
    claude_code::converse(&program, &agent).await;
    scene.api.assert_no_stale_token();
    scene.assert_clean(agent.home());

    // The second agent's login finds it there, and its logout leaves it there.
    let second = scene.agent().await;
    let server = &scene.server;
    claude_code::log_in(&program, &second, |url| server.authorize(url).pasted).await;
    assert_eq!(claude_code::read_login(&second)["accessToken"], placeholder);
    second.run(&program, &["auth", "logout"]).await.ok();
    let truth = scene.server.truth();
    assert_eq!((truth.logins, truth.revocations), (1, 0));
    truth.assert_one_clean_grant();
    scene.assert_clean(second.home());
}

#[tokio::test]
async fn codex_logs_in_on_another_device_and_keeps_placeholders() {
    let program = client!("codex");
    let scene = Lent::codex().await;
    let agent = scene.agent().await;
    let person = async { scene.server.approve(&scene.server.device_polled(1).await) };
    let (finished, ()) = tokio::join!(agent.run(&program, &["login", "--device-auth"]), person);
    finished.ok();
    scene.server.truth().assert_one_clean_grant();
    let kept = std::fs::read(agent.home().join(".codex/auth.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let placeholder = scene.placeholder("codex-login").await;
    assert_eq!(kept["tokens"]["access_token"], placeholder);
    assert_eq!(kept["tokens"]["account_id"], scene.server.account());
    scene.assert_clean(&agent.home().join(".codex"));
    agent.run(&program, &["logout"]).await.ok();
    let truth = scene.server.truth();
    assert_eq!(truth.revocations, 0);
    truth.assert_one_clean_grant();
}
