//! The built-in presets, as a person uses them first: name one, export a key, start the client.

use super::support::agent::Agent;
use super::support::anthropic::{self, Account, REAL_KEY, REAL_OAUTH};
use super::support::chatgpt::chatgpt;
use super::support::desk::{Desk, claude_file, codex_file};
use super::support::proxy::proxy;
use super::support::token_server::server::token_server;
use super::support::{github, openai, telegram};
use super::{claude_code, codex, gh, git};

#[tokio::test]
async fn claude_code_works_with_its_preset_and_a_key() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = proxy()
        .origin(&origin)
        .preset("claude-code", "ANTHROPIC_API_KEY", REAL_KEY)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    claude_code::converse(&claude, &agent).await;
    claude_code::assert_conversed(&origin, Account::ApiKey);
    origin.assert_no_head_mentions(agent.var("ANTHROPIC_API_KEY"));
}

/// With both variables set Claude Code takes the API key: a credential that is not there gives none.
#[tokio::test]
async fn claude_code_works_with_its_preset_and_an_oauth_token_only() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::OAuth).await;
    let proxy = proxy()
        .origin(&origin)
        .preset("claude-code", "CLAUDE_CODE_OAUTH_TOKEN", REAL_OAUTH)
        .start()
        .await;
    let door = proxy.door().await;
    assert!(
        !door.env.contains_key("ANTHROPIC_API_KEY"),
        "{:?}",
        door.env
    );
    let agent = Agent::at(&door);
    claude_code::converse(&claude, &agent).await;
    claude_code::assert_conversed(&origin, Account::OAuth);
    origin.assert_no_head_mentions(agent.var("CLAUDE_CODE_OAUTH_TOKEN"));
}

/// The agent holds placeholders, in a variable or in the file that its client reads.
#[tokio::test]
async fn claude_code_works_with_a_login_that_tollgate_owns() {
    let claude = client!("claude");
    let desk = Desk::claude().await;
    let login = desk.write("login.json", &claude_file(&desk.server.login()));
    desk.run(&format!("creds import {}", login.display()))
        .await
        .ok();
    let placeholders = desk
        .run("creds placeholder claude-login --format claude")
        .await;
    let (server, api, proxy) = desk.start().await;
    let mut door = proxy.door().await;
    claude_code::converse(&claude, &Agent::at(&door)).await;

    door.env.remove("CLAUDE_CODE_OAUTH_TOKEN").unwrap();
    let agent = Agent::at(&door);
    let folder = agent.home().join(".claude");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(".credentials.json"), placeholders.ok()).unwrap();
    claude_code::converse(&claude, &agent).await;
    assert_eq!(
        std::fs::read_to_string(folder.join(".credentials.json")).unwrap(),
        placeholders.ok(),
        "it had no reason to refresh"
    );
    api.assert_no_stale_token();
    assert_eq!(server.truth().refreshes, 0);
}

#[tokio::test]
async fn codex_works_with_a_login_that_tollgate_owns() {
    let program = client!("codex");
    let server = token_server().codex().start().await;
    let login = server.login();
    let origin = chatgpt(&login.access_token, server.account()).await;
    let api = server.protected_api(&["api.example.com"]).await;
    let account = server.account().to_owned();
    let desk = Desk::with(server, api, |builder| {
        builder.origin(&origin).setting("presets: [codex-login]")
    });
    let file = desk.write("auth.json", &codex_file(&login, &account));
    desk.run(&format!("creds import {}", file.display()))
        .await
        .ok();
    let placeholders = desk
        .run("creds placeholder codex-login --format codex")
        .await;
    let (_server, _api, proxy) = desk.start().await;
    let agent = Agent::at(&proxy.door().await);
    let folder = agent.home().join(".codex");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("auth.json"), placeholders.ok()).unwrap();
    codex::converse(&program, &agent).await;
    let asked = origin.requests_for("/backend-api/codex/responses");
    assert!(
        asked.iter().any(|request| request.method == "POST"),
        "{asked:#?}"
    );
    let placeholder = placeholders.json()["tokens"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn codex_works_with_its_preset() {
    let program = client!("codex");
    let origin = openai::openai().await;
    let proxy = proxy()
        .origin(&origin)
        .preset("codex", "OPENAI_API_KEY", openai::REAL_KEY)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    codex::converse(&program, &agent).await;
    codex::assert_conversed(&origin);
    origin.assert_no_head_mentions(agent.var("CODEX_API_KEY"));
}

#[tokio::test]
async fn git_and_gh_work_with_the_github_preset() {
    let (git, gh) = (client!("git"), client!("gh"));
    let github = github::github().await;
    let proxy = proxy()
        .origin(&github.origin)
        .preset("github", "GH_TOKEN", github::REAL_TOKEN)
        .start()
        .await;
    let door = proxy.door().await;
    git::clone_and_push(&git, Agent::at(&door), &github, 1000).await;
    git::assert_asked_as_git_does(&github);
    gh::look_and_clone(&gh, &Agent::at(&door), &github).await;
    github.origin.assert_no_head_mentions(&door.env["GH_TOKEN"]);
}

#[tokio::test]
async fn a_bot_works_with_the_telegram_preset() {
    let curl = client!("curl");
    let origin = telegram::telegram().await;
    let proxy = proxy()
        .origin(&origin)
        .preset("telegram", "TELEGRAM_BOT_TOKEN", telegram::REAL_TOKEN)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let token = agent.var("TELEGRAM_BOT_TOKEN").to_owned();
    for spelling in [token.clone(), token.replace(':', "%3A")] {
        let base = format!("https://api.telegram.org/bot{spelling}");
        let said = super::telegram::send(&curl, &agent, &base).await;
        super::telegram::assert_sent(&origin, &said);
    }
    origin.assert_no_head_mentions(&token);
}
