//! Owns how it begins: a person's login becomes Tollgate's, and an agent uses it without seeing it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::super::cast::{Cast, LOGIN, answered};
use super::super::checks::{fingerprint, title};
use super::super::token_server::api::Verdict;

pub fn the_stage(cast: &mut Cast) {
    title("1. The stage");
    let (server, api) = (&cast.server.origin, &cast.api.origin);
    println!(
        "  provider  https://platform.claude.com  stands on {}; each refresh token is good once, a second use ends the login",
        server.addr
    );
    println!(
        "  origin    https://api.anthropic.com    stands on {}; it answers live access tokens only",
        api.addr
    );
    println!("  tollgate  {}", cast.stage.tollgate.ready);
}

pub async fn a_person_hands_the_login_over(cast: &mut Cast) {
    title("2. A person has a login; Tollgate takes it over");
    let listed = cast.stage.operator("creds list").await;
    cast.checks.that(
        "before that, Tollgate says what is missing and which command mends it",
        listed.contains("missing") && listed.contains("tollgate creds import"),
    );
    let login = cast.server.login();
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::try_from(login.lifetime).unwrap();
    let scopes: Vec<&str> = login.scope.split(' ').collect();
    let theirs = json!({"claudeAiOauth": {
        "accessToken": login.access_token, "refreshToken": login.refresh(), "expiresAt": ends.as_millisecond(),
        "scopes": scopes, "subscriptionType": "max", "rateLimitTier": "default_claude_max_5x",
    }});
    let file = cast.stage.path("person/.claude/.credentials.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, theirs.to_string()).unwrap();
    let before = state(&file);
    let imported = cast
        .stage
        .operator("creds import person/.claude/.credentials.json")
        .await;
    cast.checks.that("taken over", imported.ends_with("exit 0"));
    cast.checks
        .that("the person's file is as it was", state(&file) == before);
    let mode = cast.store_mode();
    println!("  {mode:04o} state/oauth/{LOGIN}.json");
    cast.checks
        .that("the store is for Tollgate's user alone", mode == 0o600);
}

pub async fn what_the_agent_holds(cast: &mut Cast) {
    title("3. What the agent holds");
    let held = cast.stage.agent("env | sort").await;
    for line in held
        .lines()
        .filter(|l| l.starts_with("CLAUDE") || l.starts_with("HTTPS_PROXY"))
    {
        println!("  {line}");
    }
    let variable = held
        .lines()
        .find_map(|l| l.strip_prefix("CLAUDE_CODE_OAUTH_TOKEN="));
    cast.placeholder = variable.unwrap_or_default().to_owned();
    let command = format!("creds placeholder {LOGIN} --format claude");
    let printed = cast.stage.operator(&command).await;
    let phantom: Value =
        serde_json::from_str(printed.trim_end_matches("exit 0")).unwrap_or_default();
    let folder = cast.stage.path("agent/.claude");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(".credentials.json"), phantom.to_string()).unwrap();
    let phantom = &phantom["claudeAiOauth"];
    cast.checks.that(
        "a token by its looks, and none of the provider's",
        cast.placeholder.starts_with("sk-ant-oat01-")
            && !cast.server.minted().contains(&cast.placeholder),
    );
    cast.checks.that(
        "the file for Claude Code has the same one, and no refresh token of the provider's",
        phantom["accessToken"] == cast.placeholder.as_str()
            && !cast
                .server
                .minted()
                .iter()
                .any(|t| phantom["refreshToken"] == t.as_str()),
    );
}

pub async fn the_agent_asks(cast: &mut Cast) {
    title("4. The agent asks");
    cast.stage.show("cat ask").await;
    let taken = cast.ask_until_answered().await;
    cast.checks.that(
        "the running Tollgate has found the login by itself, without a restart",
        taken,
    );
    let before = cast.api.seen().len();
    let answer = cast.show_ask().await;
    cast.checks
        .that("200, and the model's words", answered(&answer));
    let seen = cast.api.seen().split_off(before);
    seen.iter().for_each(Cast::tell_seen);
    println!(
        "  agent     held sha256 {}...",
        fingerprint(&cast.placeholder)
    );
    let truth = cast.server.truth();
    cast.checks.that(
        "the origin received the real access token, once",
        seen.len() == 1
            && seen[0].verdict == Verdict::Live
            && seen[0].token.as_deref() == Some(truth.access_token()),
    );
}

/// What it holds, and when it was last changed or renamed.
fn state(file: &Path) -> (Vec<u8>, SystemTime, u64) {
    let data = std::fs::metadata(file).unwrap();
    let bytes = std::fs::read(file).unwrap();
    (bytes, data.modified().unwrap(), data.ino())
}
