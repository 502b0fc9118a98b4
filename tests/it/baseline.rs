//! The same clients and origins without Tollgate, through a relay that only forwards bytes: if one of
//! these fails, the fault is not Tollgate's.

use super::support::agent::Agent;
use super::support::anthropic::{self, Account};
use super::support::door::Relay;
use super::support::token_server::server::token_server;
use super::support::{echo, github, openai, telegram};
use super::{claude_code, codex, curl, gh, git, grpc, http, sdks, websocket};

#[tokio::test]
async fn relay_curl_asks_anthropic() {
    let program = client!("curl");
    for protocol in ["--http1.1", "--http2"] {
        let origin = anthropic::anthropic(Account::ApiKey).await;
        let relay = Relay::to(&[&origin]).await;
        let agent = Agent::at(&relay.door());
        let url = "https://api.anthropic.com/v1/messages?beta=true";
        let key = format!("x-api-key: {}", anthropic::REAL_KEY);
        let finished = curl::ask(&program, &agent, url, &[protocol, "-H", &key]).await;
        curl::assert_asked_once(&origin, &finished, "/v1/messages?beta=true");
        let wrong = curl::ask(&program, &agent, url, &["-H", "x-api-key: no"]).await;
        assert_eq!(wrong.json()["error"]["type"], "authentication_error");
        let none = curl::ask(&program, &agent, url, &[]).await;
        assert_eq!(none.json()["error"]["type"], "authentication_error");
    }
}

#[tokio::test]
async fn relay_claude_code_converses() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let relay = Relay::to(&[&origin]).await;
    let agent = Agent::at(&relay.door()).env("ANTHROPIC_API_KEY", anthropic::REAL_KEY);
    claude_code::converse(&claude, &agent).await;
    claude_code::assert_conversed(&origin, Account::ApiKey);

    let origin = anthropic::anthropic(Account::OAuth).await;
    let relay = Relay::to(&[&origin]).await;
    let agent = Agent::at(&relay.door()).env("CLAUDE_CODE_OAUTH_TOKEN", anthropic::REAL_OAUTH);
    claude_code::converse(&claude, &agent).await;
    claude_code::assert_conversed(&origin, Account::OAuth);
}

#[tokio::test]
async fn relay_claude_code_refreshes_its_login() {
    let claude = client!("claude");
    let server = token_server().claude().start().await;
    let api = server.protected_api(&["api.anthropic.com"]).await;
    let relay = Relay::to(&[&server.origin, &api.origin]).await;
    let agent = Agent::at(&relay.door());
    let login = server.login();
    server.revoke_access(&login.access_token);
    claude_code::write_login(&agent, &login.access_token, login.refresh(), 0);
    claude_code::converse(&claude, &agent).await;
    let truth = server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(truth.rotations, 1);
    api.assert_no_stale_token();
    let kept = claude_code::read_login(&agent);
    assert_eq!(kept["refreshToken"], truth.refresh_token());
    assert_eq!(kept["accessToken"], truth.access_token());
}

#[tokio::test]
async fn relay_claude_code_logs_in() {
    let claude = client!("claude");
    let server = token_server().claude().start().await;
    let api = server.protected_api(&["api.anthropic.com"]).await;
    let relay = Relay::to(&[&server.origin, &api.origin]).await;
    let agent = Agent::at(&relay.door());
    claude_code::log_in(&claude, &agent, |url| server.authorize(url).pasted).await;
    let truth = server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(truth.granted["authorization_code"], 1);
    let kept = claude_code::read_login(&agent);
    assert_eq!(kept["refreshToken"], truth.refresh_token());
    assert_eq!(kept["subscriptionType"], "max");
    api.assert_no_stale_token();
}

#[tokio::test]
async fn relay_codex_converses() {
    let program = client!("codex");
    let origin = openai::openai().await;
    let relay = Relay::to(&[&origin]).await;
    let agent = Agent::at(&relay.door()).env("CODEX_API_KEY", openai::REAL_KEY);
    codex::converse(&program, &agent).await;
    codex::assert_conversed(&origin);
}

#[tokio::test]
async fn relay_codex_logs_in_on_another_device() {
    let program = client!("codex");
    let server = token_server().codex().start().await;
    let relay = Relay::to(&[&server.origin]).await;
    let agent = Agent::at(&relay.door());
    let person = async { server.approve(&server.device_polled(1).await) };
    let (finished, ()) = tokio::join!(agent.run(&program, &["login", "--device-auth"]), person);
    finished.ok();
    let truth = server.truth();
    truth.assert_one_clean_grant();
    let kept = std::fs::read(agent.home().join(".codex/auth.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["tokens"]["refresh_token"], truth.refresh_token());
    assert_eq!(kept["tokens"]["account_id"], server.account());
}

#[tokio::test]
async fn relay_python_and_node_sdks_talk() {
    for (client, script) in [
        ("python-anthropic", "anthropic_talk.py"),
        ("node-sdks", "anthropic_talk.mjs"),
    ] {
        let program = client!(client);
        let origin = anthropic::anthropic(Account::ApiKey).await;
        let relay = Relay::to(&[&origin]).await;
        let agent = Agent::at(&relay.door()).env("ANTHROPIC_API_KEY", anthropic::REAL_KEY);
        let said = sdks::talk(&program, agent, script).await;
        sdks::assert_anthropic_talked(&origin, &said);
    }
    for (client, script) in [
        ("python-openai", "openai_talk.py"),
        ("node-sdks", "openai_talk.mjs"),
    ] {
        let program = client!(client);
        let origin = openai::openai().await;
        let relay = Relay::to(&[&origin]).await;
        let agent = Agent::at(&relay.door()).env("OPENAI_API_KEY", openai::REAL_KEY);
        let said = sdks::talk(&program, agent, script).await;
        sdks::assert_openai_talked(&origin, &said);
    }
}

#[tokio::test]
async fn relay_http_libraries_talk() {
    for (client, script) in [
        ("python-requests", "requests_talk.py"),
        ("python-httpx", "httpx_talk.py"),
        ("node-sdks", "fetch_talk.mjs"),
    ] {
        let program = client!(client);
        let echo = echo::echo().await;
        let relay = Relay::to(&[&echo.origin]).await;
        let agent = Agent::at(&relay.door()).env("ECHO_KEY", echo::REAL_KEY);
        let said = sdks::talk(&program, agent, script).await;
        sdks::assert_library_talked(&echo, &said);
    }
}

#[tokio::test]
async fn relay_git_clones_and_pushes() {
    let program = client!("git");
    let github = github::github().await;
    let relay = Relay::to(&[&github.origin]).await;
    let agent = Agent::at(&relay.door()).env("GH_TOKEN", github::REAL_TOKEN);
    git::clone_and_push(&program, agent, &github, 1000).await;
    git::assert_asked_as_git_does(&github);
    for version in ["HTTP/1.1", "HTTP/2"] {
        let github = github::github().await;
        let relay = Relay::to(&[&github.origin]).await;
        let agent = Agent::at(&relay.door()).env("GH_TOKEN", github::REAL_TOKEN);
        git::push_more_than_the_buffer(&program, agent, &github, version).await;
    }
}

#[tokio::test]
async fn relay_claude_code_and_codex_take_a_base_url() {
    let (claude, program) = (client!("claude"), client!("codex"));
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let relay = Relay::to(&[&origin]).await;
    let agent = Agent::at(&relay.door())
        .env("NO_PROXY", "localhost")
        .env("no_proxy", "localhost")
        .env(
            "ANTHROPIC_BASE_URL",
            format!("https://localhost:{}", origin.addr.port()),
        )
        .env("ANTHROPIC_API_KEY", anthropic::REAL_KEY);
    claude_code::converse(&claude, &agent).await;
    claude_code::assert_conversed(&origin, Account::ApiKey);
    let messages = origin.requests_for("/v1/messages");
    assert!(
        messages
            .iter()
            .all(|r| r.sni.as_deref() == Some("localhost"))
    );

    let origin = openai::openai().await;
    let relay = Relay::to(&[&origin]).await;
    let agent = Agent::at(&relay.door())
        .env("NO_PROXY", "localhost")
        .env("no_proxy", "localhost")
        .env("CODEX_API_KEY", openai::REAL_KEY);
    codex::use_base_url(
        &agent,
        &format!("https://localhost:{}/v1", origin.addr.port()),
    );
    codex::converse(&program, &agent).await;
    codex::assert_conversed(&origin);
}

#[tokio::test]
async fn relay_gh_looks_and_clones() {
    let program = client!("gh");
    let github = github::github().await;
    let relay = Relay::to(&[&github.origin]).await;
    let agent = Agent::at(&relay.door()).env("GH_TOKEN", github::REAL_TOKEN);
    gh::look_and_clone(&program, &agent, &github).await;
}

#[tokio::test]
async fn relay_telegram_sends() {
    let program = client!("curl");
    let origin = telegram::telegram().await;
    let relay = Relay::to(&[&origin]).await;
    let agent = Agent::at(&relay.door());
    let base = format!("https://api.telegram.org/bot{}", telegram::REAL_TOKEN);
    for base in [base.clone(), base.replacen(":AA", "%3AAA", 1)] {
        let said = super::telegram::send(&program, &agent, &base).await;
        super::telegram::assert_sent(&origin, &said);
    }
    let said = super::telegram::send(&program, &agent, "https://api.telegram.org/bot1:no").await;
    assert_eq!(said["error_code"], 401);
}

#[tokio::test]
async fn relay_websocket_converses() {
    for echo in [echo::echo().await, echo::echo_http1().await] {
        let relay = Relay::to(&[&echo.origin]).await;
        websocket::by_forward_door(&relay.door(), echo::REAL_KEY).await;
        websocket::assert_conversed(&echo);
    }
}

#[tokio::test]
async fn relay_grpc_calls() {
    let python = client!("python-grpcio");
    let echo = echo::echo().await;
    let relay = Relay::to(&[&echo.origin]).await;
    let agent = Agent::at(&relay.door()).env("ECHO_KEY", echo::REAL_KEY);
    let said = sdks::talk(&python, agent, "grpc_echo.py").await;
    grpc::assert_called(&echo, &said);
}

#[tokio::test]
async fn relay_http_corners() {
    let curl = client!("curl");
    for speaks in http::SPOKEN {
        let echo = echo::echo().await;
        let relay = Relay::to(&[&echo.origin]).await;
        let (door, key) = (relay.door(), echo::REAL_KEY);
        http::events_arrive_one_by_one(&echo, &door, key, speaks).await;
        http::both_directions_flow_at_once(&door, key, speaks).await;
        http::trailers_arrive(&door, key, speaks).await;
        http::request_trailers_arrive(&echo, &door, key, speaks).await;
        http::empty_answers_end_at_once(&door, key, speaks).await;
        http::large_bodies_arrive_whole(&echo, &door, key, speaks).await;
    }
    let echo = echo::echo().await;
    let relay = Relay::to(&[&echo.origin]).await;
    http::expectations_are_met(&curl, &echo, &Agent::at(&relay.door()), echo::REAL_KEY).await;
}
