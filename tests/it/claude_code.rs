//! Claude Code holds a conversation with a tool call, and never learns the key.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::support::agent::Agent;
use super::support::anthropic::{self, Account, FINAL_TEXT, REAL_KEY, REAL_OAUTH, TOOL_COMMAND};
use super::support::clients::heavy;
use super::support::origin::Origin;

const ARGS: [&str; 7] = [
    "-p",
    "Say hello with the tool",
    "--output-format",
    "stream-json",
    "--verbose",
    "--allowedTools",
    "Bash",
];

/// A whole turn: question, tool call, tool result, final text.
pub async fn converse(claude: &Path, agent: &Agent) {
    let _one_at_a_time = heavy().await;
    let finished = agent.run(claude, &ARGS).await;
    finished.ok();
    let events = finished.json_lines();
    let result = events.iter().find(|e| e["type"] == "result");
    let result = result.unwrap_or_else(|| panic!("no result: {}", finished.stdout));
    assert_eq!(result["result"], FINAL_TEXT, "{}", finished.stdout);
    assert_eq!(result["is_error"], false);
    assert!(
        !finished.stdout.contains("api_retry"),
        "nothing needed a second try: {}",
        finished.stdout
    );
    // The command wrote down what a child of the agent can see.
    let seen = std::fs::read_to_string(agent.work().join("environment.txt")).unwrap();
    assert!(seen.contains("HOME="));
    agent.assert_harmless("the environment of its children", &seen);
}

/// Gives the agent a login of its own: `~/.claude/.credentials.json`, its end in ms since 1970.
pub fn write_login(agent: &Agent, access: &str, refresh: &str, expires_at: i64) {
    let file = json!({"claudeAiOauth": {
        "accessToken": access,
        "refreshToken": refresh,
        "expiresAt": expires_at,
        "scopes": ["user:profile", "user:inference", "user:sessions:claude_code", "user:mcp_servers", "user:file_upload"],
        "subscriptionType": "max",
    }});
    let folder = agent.home().join(".claude");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(".credentials.json"), file.to_string()).unwrap();
}

/// What the agent keeps of its login.
pub fn read_login(agent: &Agent) -> Value {
    let file = agent.home().join(".claude/.credentials.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    file["claudeAiOauth"].take()
}

/// Logs in as a person would: opens the URL that is shown, and pastes what the page says.
pub async fn log_in(claude: &Path, agent: &Agent, open: impl FnOnce(&str) -> String) {
    let _one_at_a_time = heavy().await;
    let mut child = agent
        .command(claude, &["auth", "login"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let conversation = async {
        let mut line = String::new();
        let url = loop {
            line.clear();
            let length = said.read_line(&mut line).await.unwrap();
            assert!(length > 0, "it ends before it shows a URL");
            if let Some((_, url)) = line.split_once("visit: ") {
                break url.trim();
            }
        };
        let pasted = format!("{}\n", open(url));
        stdin.write_all(pasted.as_bytes()).await.unwrap();
        let mut rest = String::new();
        said.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("Login successful"), "{rest}");
        assert!(child.wait().await.unwrap().success(), "{rest}");
    };
    let ended = tokio::time::timeout(Duration::from_secs(110), conversation).await;
    assert!(ended.is_ok(), "the login did not end");
}

/// The tool's output came back to the model, with the right credential on every request.
pub fn assert_conversed(origin: &Origin, account: Account) {
    let messages = origin.requests_for("/v1/messages");
    let has_result = |r: &&super::support::recorded::Recorded| {
        let text = r.json()["messages"].to_string();
        text.contains("tool_result") && text.contains("hello-from-tool")
    };
    assert!(
        messages.iter().any(|r| has_result(&r)),
        "{TOOL_COMMAND} ran"
    );
    for request in &messages {
        assert!(request.complete);
        match account {
            Account::ApiKey => {
                assert_eq!(request.header("x-api-key"), Some(REAL_KEY));
                assert_eq!(request.header("authorization"), None);
            }
            Account::OAuth => {
                assert_eq!(request.bearer(), Some(REAL_OAUTH));
                assert_eq!(request.header("x-api-key"), None);
                let betas = request.all("anthropic-beta").join(",");
                assert!(betas.contains("oauth-2025-04-20"), "{betas}");
            }
        }
    }
}

#[tokio::test]
async fn claude_code_with_an_api_key_by_the_forward_door() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    converse(&claude, &agent).await;
    assert_conversed(&origin, Account::ApiKey);
    origin.assert_no_head_mentions(&placeholder);
    let records = proxy.access_log(origin.requests().len()).await;
    assert!(
        records
            .iter()
            .any(|r| r.to_string().contains("/v1/messages"))
    );
}

#[tokio::test]
async fn claude_code_with_an_oauth_token_by_the_forward_door() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::OAuth).await;
    let proxy = anthropic::in_front_of(&origin, Account::OAuth)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("CLAUDE_CODE_OAUTH_TOKEN").to_owned();
    converse(&claude, &agent).await;
    assert_conversed(&origin, Account::OAuth);
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn claude_code_with_an_api_key_by_the_base_url_door() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .start()
        .await;
    let agent = by_base_url(&proxy).await;
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    converse(&claude, &agent).await;
    assert_conversed(&origin, Account::ApiKey);
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn claude_code_with_an_oauth_token_by_the_base_url_door() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::OAuth).await;
    let proxy = anthropic::in_front_of(&origin, Account::OAuth)
        .start()
        .await;
    let agent = by_base_url(&proxy).await;
    let placeholder = agent.var("CLAUDE_CODE_OAUTH_TOKEN").to_owned();
    converse(&claude, &agent).await;
    assert_conversed(&origin, Account::OAuth);
    origin.assert_no_head_mentions(&placeholder);
}

/// Its side requests ignore the base URL: they go by the forward door, and nothing goes outside.
async fn by_base_url(proxy: &super::support::proxy::Proxy) -> Agent {
    Agent::at(&proxy.door().await)
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .env("ANTHROPIC_BASE_URL", proxy.base_url("anthropic"))
}

/// `x-should-retry: false` and a 4xx: the model's user learns at once, not after minutes of retries.
#[tokio::test]
async fn claude_code_is_told_of_a_refusal_at_once() {
    let claude = client!("claude");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .policy(
            "
            - hosts: [api.anthropic.com]
              action: Deny
              http: [{methods: [POST], paths: [/v1/messages]}]
            ",
        )
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let _one_at_a_time = heavy().await;
    let finished = agent.run(&claude, &ARGS).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    assert!(
        !finished.stdout.contains("api_retry"),
        "{}",
        finished.stdout
    );
    let events = finished.json_lines();
    let result = events.iter().find(|e| e["type"] == "result").unwrap();
    assert_eq!(result["api_error_status"], 403, "{result}");
    assert!(origin.requests_for("/v1/messages").is_empty());
}
