//! The providers' SDKs and the usual HTTP libraries, in Python and Node.

use super::support::agent::Agent;
use super::support::anthropic::{self, Account};
use super::support::clients::{home, script};
use super::support::origin::Origin;
use super::support::{echo, openai};

/// The agent runs a script of `tests/clients/`; Node's finds its packages by `TOLLGATE_TEST_CLIENTS`.
pub async fn talk(program: &std::path::Path, agent: Agent, name: &str) -> serde_json::Value {
    let agent = agent.env(
        "TOLLGATE_TEST_CLIENTS",
        home().join("node").display().to_string(),
    );
    agent.run(program, &[script(name)]).await.json()
}

/// One plain and one streamed message, each with the real key only.
pub fn assert_anthropic_talked(origin: &Origin, said: &serde_json::Value) {
    assert_eq!(said["text"], anthropic::FINAL_TEXT);
    assert_eq!(said["streamed"], anthropic::FINAL_TEXT);
    let requests = origin.requests_for("/v1/messages");
    assert_eq!(requests.len(), 2, "{requests:#?}");
    for request in requests {
        assert_eq!(request.bearer(), Some(anthropic::REAL_KEY));
        assert_eq!(request.header("x-api-key"), None);
        assert_eq!(
            request.json()["messages"][0]["content"],
            "Say hello, größer"
        );
    }
}

pub fn assert_openai_talked(origin: &Origin, said: &serde_json::Value) {
    for part in ["chat", "streamed", "response"] {
        assert_eq!(said[part], openai::FINAL_TEXT, "{part}");
    }
    assert_eq!(said["models"], serde_json::json!(["gpt-test"]));
    let requests = origin.requests();
    assert_eq!(requests.len(), 4, "{requests:#?}");
    for request in requests {
        assert_eq!(request.bearer(), Some(openai::REAL_KEY));
    }
}

#[tokio::test]
async fn python_anthropic_by_the_forward_door() {
    let python = client!("python-anthropic");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    let said = talk(&python, agent, "anthropic_talk.py").await;
    assert_anthropic_talked(&origin, &said);
    origin.assert_no_head_mentions(&placeholder);
    proxy.access_log(2).await;
}

#[tokio::test]
async fn python_anthropic_by_the_base_url_door() {
    let python = client!("python-anthropic");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .start()
        .await;
    let agent = Agent::without_proxy(&proxy.door().await)
        .env("ANTHROPIC_BASE_URL", proxy.base_url("anthropic"));
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    let said = talk(&python, agent, "anthropic_talk.py").await;
    assert_anthropic_talked(&origin, &said);
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn python_openai_by_both_doors() {
    let python = client!("python-openai");
    for by_base_url in [false, true] {
        let origin = openai::openai().await;
        let proxy = openai::in_front_of(&origin).start().await;
        let door = proxy.door().await;
        let agent = match by_base_url {
            false => Agent::at(&door),
            true => Agent::without_proxy(&door).env(
                "OPENAI_BASE_URL",
                format!("{}/v1", proxy.base_url("openai")),
            ),
        };
        let placeholder = agent.var("OPENAI_API_KEY").to_owned();
        let said = talk(&python, agent, "openai_talk.py").await;
        assert_openai_talked(&origin, &said);
        origin.assert_no_head_mentions(&placeholder);
    }
}

#[tokio::test]
async fn python_requests_and_httpx_by_the_forward_door() {
    for (library, file) in [
        ("python-requests", "requests_talk.py"),
        ("python-httpx", "httpx_talk.py"),
    ] {
        let python = client!(library);
        let echo = echo::echo().await;
        let proxy = echo::in_front_of(&echo).start().await;
        let said = talk(&python, Agent::at(&proxy.door().await), file).await;
        assert_library_talked(&echo, &said);
        echo.origin.assert_no_head_mentions(echo::PLACEHOLDER);
    }
}

/// An upload, a download and a streamed answer.
pub fn assert_library_talked(echo: &echo::Echo, said: &serde_json::Value) {
    assert_eq!(said["sink"]["bytes"], 300_000);
    assert_eq!(
        said["downloaded"], true,
        "each byte of the download in its place"
    );
    assert_eq!(said["target"], "/x%2Fy?a=1&b=%20");
    let sink = echo.origin.only("/sink");
    assert_eq!(sink.body, echo::pattern(300_000));
    assert_eq!(sink.bearer(), Some(echo::REAL_KEY));
}

#[tokio::test]
async fn node_anthropic_by_the_base_url_door() {
    let node = client!("node-sdks");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .start()
        .await;
    let agent = Agent::without_proxy(&proxy.door().await)
        .env("ANTHROPIC_BASE_URL", proxy.base_url("anthropic"));
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    let said = talk(&node, agent, "anthropic_talk.mjs").await;
    assert_anthropic_talked(&origin, &said);
    origin.assert_no_head_mentions(&placeholder);
}

/// Node 20's own fetch reads no proxy variables; undici's agent does.
#[tokio::test]
async fn node_anthropic_by_the_forward_door() {
    let node = client!("node-sdks");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    let said = talk(&node, agent, "anthropic_talk.mjs").await;
    assert_anthropic_talked(&origin, &said);
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn node_openai_by_the_base_url_door() {
    let node = client!("node-sdks");
    let origin = openai::openai().await;
    let proxy = openai::in_front_of(&origin).start().await;
    let agent = Agent::without_proxy(&proxy.door().await).env(
        "OPENAI_BASE_URL",
        format!("{}/v1", proxy.base_url("openai")),
    );
    let placeholder = agent.var("OPENAI_API_KEY").to_owned();
    let said = talk(&node, agent, "openai_talk.mjs").await;
    assert_openai_talked(&origin, &said);
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn node_fetch_by_the_forward_door() {
    let node = client!("node-sdks");
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let said = talk(&node, Agent::at(&proxy.door().await), "fetch_talk.mjs").await;
    assert_library_talked(&echo, &said);
    echo.origin.assert_no_head_mentions(echo::PLACEHOLDER);
}
