//! Owns the hosts of clouds that serve others' models, and a server of one's own: how each is asked, and with what.

use serde_json::{Value, json};

use super::super::proxy::ProxyBuilder;
use super::super::recorded::Recorded;
use super::conduct::Asked;
use super::server::{Api, GEMINI, Provider};
use super::{anthropic, chat, gemini};

pub const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com";
pub const VERTEX: &str = "us-east5-aiplatform.googleapis.com";
pub const AZURE: &str = "team.openai.azure.com";
/// Nothing in its name tells whose API it speaks.
pub const OLLAMA: &str = "ollama.example.com";

/// The keys that only the proxy may know: an API key of Bedrock's, an access token, a key of a resource.
pub const BEDROCK_KEY: &str = "ABSKQmVkcm9ja0FQSUtleS1REAL0123456789abcdefREAL";
pub const VERTEX_TOKEN: &str = "ya29.REAL-c.b0Aaekm1JTZwQv8REAL";
pub const AZURE_KEY: &str = "REAL9f86d081884c7d659a2feaa0c55ad015REAL";

/// Places of Vertex: `{publisher}/models/{model}:{verb}` follows.
pub const PUBLISHERS: &str = "/v1/projects/team/locations/us-east5/publishers";

impl Provider {
    /// A proxy that lets agents reach all of them with placeholders.
    pub fn proxy_of_clouds(&self) -> ProxyBuilder {
        let prices = "
            providers:
            - provider: ollama
              models:
              - model: \"*\"
                prices: [{per_million: {input: \"0.10\", output: \"0.20\"}}]
        ";
        let proxy = self.proxy().policy(&format!(
            "
            - {{hosts: [{BEDROCK}], credentials: [bedrock], route: bedrock}}
            - {{hosts: [{VERTEX}], credentials: [vertex], route: vertex}}
            - {{hosts: [{AZURE}], credentials: [azure], route: azure}}
            - {{hosts: [{OLLAMA}], api: Ollama, route: ollama}}
            "
        ));
        let file = proxy.path("prices.yaml");
        std::fs::write(&file, unindented(prices)).unwrap();
        proxy
            .setting(&format!("prices: {{file: {}}}", file.display()))
            .credential_file(
                "bedrock",
                BEDROCK_KEY,
                &format!(
                    "
                    hosts: [{BEDROCK}]
                    placements: [{{bearer: {{}}}}]
                    placeholder: {{value: ABSK-placeholder-0001, env: [AWS_BEARER_TOKEN_BEDROCK]}}
                    "
                ),
            )
            .credential_file(
                "vertex",
                VERTEX_TOKEN,
                &format!(
                    "
                    hosts: [{VERTEX}]
                    placements: [{{bearer: {{}}}}]
                    placeholder: {{value: ya29-placeholder-0001, env: [VERTEX_ACCESS_TOKEN]}}
                    "
                ),
            )
            .credential_file(
                "azure",
                AZURE_KEY,
                &format!(
                    "
                    hosts: [{AZURE}]
                    placements: [{{header: {{name: api-key}}}}]
                    placeholder: {{value: azure-placeholder-0001, env: [AZURE_OPENAI_API_KEY]}}
                    "
                ),
            )
    }
}

fn unindented(text: &str) -> String {
    let text = text.trim_matches('\n');
    let depth = text.len() - text.trim_start_matches(' ').len();
    let lines = text.lines().map(|line| line.get(depth..).unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether the request shows the key of its cloud; nothing for other hosts.
pub fn may(head: &Recorded, host: &str) -> Option<bool> {
    let has = |name: &str, value: &str| head.all(name) == [value];
    match host {
        BEDROCK => Some(has("authorization", &format!("Bearer {BEDROCK_KEY}"))),
        VERTEX => Some(has("authorization", &format!("Bearer {VERTEX_TOKEN}"))),
        AZURE => Some(has("api-key", AZURE_KEY) && head.header("authorization").is_none()),
        OLLAMA => Some(head.header("authorization").is_none()),
        _ => None,
    }
}

/// How the bodies of a request for this path are written.
pub fn api(host: &str, path: &str) -> Option<Api> {
    let last = path.rsplit('/').next().unwrap_or_default();
    match (host, last) {
        (BEDROCK, "converse" | "converse-stream") => Some(Api::Converse),
        (BEDROCK, "invoke" | "invoke-with-response-stream") => Some(Api::Invoke),
        (VERTEX, _) if path.contains("/publishers/anthropic/") => Some(Api::RawPredict),
        (VERTEX, _) if path.contains("/publishers/google/") => Some(Api::Gemini),
        (AZURE, "completions") => Some(Api::AzureChat),
        (AZURE, "embeddings") => Some(Api::AzureEmbeddings),
        (OLLAMA, "chat") => Some(Api::Ollama),
        (OLLAMA, "embed") => Some(Api::OllamaEmbed),
        _ => None,
    }
}

/// What is asked of a model of Anthropic's on Vertex. The path names it, and the body must not.
pub fn asked_of_raw_predict(target: &str, body: &Value, octets: u64) -> Result<Asked, String> {
    let name = target.rsplit('/').next().unwrap_or_default();
    let (model, verb) = name.split_once(':').ok_or("no method")?;
    if body["anthropic_version"] != "vertex-2023-10-16" {
        return Err("anthropic_version: Field required".to_owned());
    }
    if !body["model"].is_null() {
        return Err("model: Extra inputs are not permitted".to_owned());
    }
    if body["stream"].as_bool().unwrap_or(false) != (verb == "streamRawPredict") {
        return Err("stream does not go with the method".to_owned());
    }
    let mut named = body.clone();
    named["model"] = model.into();
    anthropic::asked(&named, octets)
}

/// What is asked of a deployment.
pub fn asked_of_azure(target: &str, body: &Value, octets: u64) -> Result<Asked, String> {
    let (path, query) = target.split_once('?').ok_or("api-version is missing")?;
    if !query.starts_with("api-version=20") {
        return Err("api-version is missing".to_owned());
    }
    let deployment = path.split('/').nth(3).ok_or("no deployment")?;
    let mut named = body.clone();
    named["model"] = deployment.into();
    match path.ends_with("/embeddings") {
        true => super::embeddings::asked(&named, octets),
        false => chat::asked(&named, octets),
    }
}

/// What Azure says before anything else in a stream: nothing of a model, nothing of usage.
pub fn azure_opening() -> Value {
    json!({
        "choices": [], "created": 0, "id": "", "model": "", "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
    })
}

/// A failure in the words of the cloud; nothing for other hosts.
pub fn error(host: &str, status: u16, message: &str) -> Option<Value> {
    match host {
        BEDROCK => Some(super::bedrock::error(message)),
        VERTEX | GEMINI => Some(gemini::error(status, message)),
        AZURE => Some(chat::error(status, message)),
        OLLAMA => Some(super::ollama::error(message)),
        _ => None,
    }
}
