//! Claude Code with a login that Tollgate owns: what it does about tokens by itself meets placeholders,
//! and its turns go on.

use futures_util::future::join_all;
use serde_json::json;

use super::claude_code::{converse, log_in, read_login, write_login};
use super::support::agent::Agent;
use super::support::desk::{Desk, claude_file};
use super::support::door::Door;
use super::support::proxy::Proxy;
use super::support::token_server::api::ProtectedApi;
use super::support::token_server::server::TokenServer;

/// What an agent has that is to find a credentials file, or to make one.
fn door_without_variable(mut door: Door) -> Door {
    door.env.remove("CLAUDE_CODE_OAUTH_TOKEN");
    door
}

/// A proxy that has taken over a person's login.
async fn owning() -> (TokenServer, ProtectedApi, Proxy) {
    let desk = Desk::claude().await;
    let file = desk.write("login.json", &claude_file(&desk.server.login()));
    desk.run(&format!("creds import {}", file.display()))
        .await
        .ok();
    desk.start().await
}

/// Nothing of the provider's tokens is in an agent's home, whichever program wrote there.
fn assert_home_holds_no_token(agent: &Agent, server: &TokenServer) {
    let mut folders = vec![agent.home().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for needle in server.needles() {
                assert!(
                    needle.find(&bytes).is_none(),
                    "{} is in {}",
                    needle.name,
                    path.display()
                );
            }
        }
    }
}

#[tokio::test]
async fn an_expired_file_of_placeholders_is_renewed_here_and_the_turn_completes() {
    let claude = client!("claude");
    let (server, api, proxy) = owning().await;
    let told = proxy
        .cli(&["creds", "placeholder", "claude-login", "--format", "claude"])
        .await;
    let file = told.json();
    let placeholder = file["claudeAiOauth"]["accessToken"].as_str().unwrap();
    let agents: Vec<Agent> = join_all((0..3).map(|_| proxy.door()))
        .await
        .into_iter()
        .map(|door| Agent::at(&door_without_variable(door)))
        .collect();
    for agent in &agents {
        write_login(agent, placeholder, "a refresh token of long ago", 0);
    }
    join_all(agents.iter().map(|agent| converse(&claude, agent))).await;

    for agent in &agents {
        let kept = read_login(agent);
        assert_eq!(kept["accessToken"], placeholder);
        assert!(
            kept["expiresAt"].as_i64().unwrap() > 1_700_000_000_000,
            "{kept}"
        );
        assert_home_holds_no_token(agent, &server);
    }
    let truth = server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(
        (truth.refreshes, truth.rotations),
        (0, 0),
        "their own refreshes stayed here"
    );
    api.assert_no_stale_token();
    let refreshes = r#"tollgate_token_calls_total{credential="claude-login",kind="refresh"}"#;
    assert!(proxy.metric(refreshes).await.unwrap() >= 3.0);
}

#[tokio::test]
async fn an_access_token_that_the_provider_ends_does_not_end_the_turn() {
    let claude = client!("claude");
    let (server, api, proxy) = owning().await;
    let agent = Agent::at(&proxy.door().await);
    server.revoke_access(server.truth().access_token());
    converse(&claude, &agent).await;
    let truth = server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(
        truth.rotations, 1,
        "one forced renewal served every request"
    );
    api.assert_no_stale_token();
    assert_home_holds_no_token(&agent, &server);
}

#[tokio::test]
async fn a_login_that_claude_code_runs_stays_here_and_a_second_one_meets_placeholders() {
    let claude = client!("claude");
    let (server, api, proxy) = Desk::claude().await.start().await;
    let placeholder = proxy.cli(&["creds", "placeholder", "claude-login"]).await;
    let placeholder = placeholder.ok().trim().to_owned();
    for (number, asked) in [(1, 1), (2, 1)] {
        let agent = Agent::at(&door_without_variable(proxy.door().await));
        log_in(&claude, &agent, |url| server.authorize(url).pasted).await;
        let kept = read_login(&agent);
        assert_eq!(kept["accessToken"], placeholder, "login {number}");
        assert_eq!(kept["subscriptionType"], "max", "login {number}");
        converse(&claude, &agent).await;
        assert_home_holds_no_token(&agent, &server);
        let truth = server.truth();
        truth.assert_one_clean_grant();
        assert_eq!(truth.granted["authorization_code"], asked, "login {number}");
    }
    api.assert_no_stale_token();
    let listed = proxy.cli(&["creds", "list", "-o", "json"]).await.json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"]),
        (&json!("claude-login"), &json!("ok"))
    );
}
