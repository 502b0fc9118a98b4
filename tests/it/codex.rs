//! Codex gets its answer over HTTPS after the WebSocket is declined, and never learns the key.

use std::path::Path;

use super::support::agent::Agent;
use super::support::clients::heavy;
use super::support::openai::{self, FINAL_TEXT, REAL_KEY};
use super::support::origin::Origin;

const ARGS: [&str; 6] = [
    "exec",
    "--skip-git-repo-check",
    "--sandbox",
    "read-only",
    "--json",
    "Say hello",
];

pub async fn converse(codex: &Path, agent: &Agent) {
    let _one_at_a_time = heavy().await;
    let finished = agent.run(codex, &ARGS).await;
    finished.ok();
    let said = finished
        .json_lines()
        .iter()
        .any(|event| event["item"]["text"] == FINAL_TEXT);
    assert!(said, "{}\n{}", finished.stdout, finished.stderr);
}

pub fn assert_conversed(origin: &Origin) {
    let requests = origin.requests_for("/v1/responses");
    let posts: Vec<_> = requests.iter().filter(|r| r.method == "POST").collect();
    assert!(!posts.is_empty(), "{requests:#?}");
    for request in &requests {
        assert_eq!(request.bearer(), Some(REAL_KEY));
    }
    for post in posts {
        assert!(post.json()["input"].to_string().contains("Say hello"));
    }
}

#[tokio::test]
async fn codex_by_the_forward_door() {
    let codex = client!("codex");
    let origin = openai::openai().await;
    let proxy = openai::in_front_of(&origin).start().await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("CODEX_API_KEY").to_owned();
    converse(&codex, &agent).await;
    assert_conversed(&origin);
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn codex_by_the_base_url_door() {
    let codex = client!("codex");
    let origin = openai::openai().await;
    let proxy = openai::in_front_of(&origin).start().await;
    let agent = Agent::at(&proxy.door().await).env("NO_PROXY", "127.0.0.1");
    let agent = agent.env("no_proxy", "127.0.0.1");
    use_base_url(&agent, &format!("{}/v1", proxy.base_url("openai")));
    let placeholder = agent.var("CODEX_API_KEY").to_owned();
    converse(&codex, &agent).await;
    assert_conversed(&origin);
    origin.assert_no_head_mentions(&placeholder);
}

/// Codex takes a base URL from its configuration only.
pub fn use_base_url(agent: &Agent, url: &str) {
    let folder = agent.home().join(".codex");
    std::fs::create_dir_all(&folder).unwrap();
    let config = format!(
        "model = \"gpt-test\"\nmodel_provider = \"door\"\n[model_providers.door]\nname = \"door\"\n\
         base_url = \"{url}\"\nenv_key = \"CODEX_API_KEY\"\nwire_api = \"responses\"\nsupports_websockets = false\n"
    );
    std::fs::write(folder.join("config.toml"), config).unwrap();
}
