//! Stands in for api.anthropic.com: strict about the credential, answers as Claude Code and the SDKs want it.

use std::time::Duration;

use serde_json::{Value, json};

use super::origin::{Exchange, Origin};
use super::proxy::{ProxyBuilder, proxy};
use super::recorded::Recorded;
use super::reply::{self, Reply};

/// The key that only the proxy may know.
pub const REAL_KEY: &str = "sk-ant-api03-REAL7uQmZk2vXo9TtYwBnCeHs4Lp1RdGfJa8KiVbNxMzEq6WyUo3ShTcPl5DgFvRjXmQaZwSxEdCrFvTgByHnUjMiKREALAA";
/// The OAuth token that only the proxy may know.
pub const REAL_OAUTH: &str = "sk-ant-oat01-REALp4Lw8ZsXn2CvBq7MtKyRf1HdJe6GaUiOo9PlTkYjWhNxVbEmQc3SzDrFgAu5IwKeXoLnRbTyVmPqHsZdJfGcREALAA";
/// What Claude Code is told to run, and what that prints.
pub const TOOL_COMMAND: &str = "echo hello-from-tool; env > environment.txt";
/// The text of the last answer.
pub const FINAL_TEXT: &str = "The tool said hello.";

const PACE: Duration = Duration::from_millis(15);

/// What the account accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    ApiKey,
    /// Bearer, and only with the beta header that says so.
    OAuth,
}

pub async fn anthropic(account: Account) -> Origin {
    Origin::tls(&["api.anthropic.com"], move |exchange| {
        answer(exchange, account)
    })
    .await
}

/// A proxy that lets agents reach it with a placeholder.
pub fn in_front_of(origin: &Origin, account: Account) -> ProxyBuilder {
    let policy = "
        - hosts: [api.anthropic.com]
          credentials: [anthropic]
          route: anthropic
        ";
    let (secret, credential) = match account {
        Account::ApiKey => (
            REAL_KEY,
            "
            hosts: [api.anthropic.com]
            placements: [{header: {name: x-api-key}}, {bearer: {}}]
            placeholder: {shape: \"sk-ant-api03-[A-Za-z0-9_-:93]AA\", env: [ANTHROPIC_API_KEY]}
            ",
        ),
        Account::OAuth => (
            REAL_OAUTH,
            "
            hosts: [api.anthropic.com]
            placements: [{bearer: {}}]
            placeholder: {shape: \"sk-ant-oat01-[A-Za-z0-9_-:93]AA\", env: [CLAUDE_CODE_OAUTH_TOKEN]}
            ",
        ),
    };
    proxy()
        .origin(origin)
        .policy(policy)
        .credential_file("anthropic", secret, credential)
}

async fn answer(mut exchange: Exchange, account: Account) -> Reply {
    let body = exchange.json().await;
    let head = &exchange.head;
    let is_messages = head.path() == "/v1/messages";
    let credentials = credentials(head);
    // Claude Code sends some side requests without a credential; never the wrong one.
    if credentials.iter().any(|c| !right(c, account)) || (is_messages && credentials.is_empty()) {
        return error(401, "authentication_error", "invalid x-api-key");
    }
    if !is_messages {
        return error(404, "not_found_error", "not found");
    }
    if account == Account::OAuth
        && !head
            .all("anthropic-beta")
            .join(",")
            .contains("oauth-2025-04-20")
    {
        return error(
            401,
            "authentication_error",
            "OAuth authentication is currently not supported.",
        );
    }
    if head.method != "POST" || body.is_null() {
        return error(400, "invalid_request_error", "a JSON body is required");
    }
    if head.header("anthropic-version").is_none() {
        return error(
            400,
            "invalid_request_error",
            "anthropic-version: header is required",
        );
    }
    let content = next_turn(&body);
    match body["stream"].as_bool() {
        Some(true) => reply::sse(events(&body, &content), PACE),
        _ => reply::json(200, &message(&body, &content)),
    }
}

/// Both places a key may stand in.
fn credentials(head: &Recorded) -> Vec<String> {
    let key = head
        .all("x-api-key")
        .into_iter()
        .map(|k| format!("key {k}"));
    let bearer = head.all("authorization").into_iter().map(ToOwned::to_owned);
    key.chain(bearer).collect()
}

fn right(credential: &str, account: Account) -> bool {
    match account {
        Account::ApiKey => {
            credential == format!("key {REAL_KEY}") || credential == format!("Bearer {REAL_KEY}")
        }
        Account::OAuth => credential == format!("Bearer {REAL_OAUTH}"),
    }
}

fn error(code: u16, kind: &str, message: &str) -> Reply {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_test"});
    reply::with(reply::json(code, &body), "x-should-retry", "false")
}

/// One content block: a tool call first if the agent has a Bash tool, the final text after its result.
fn next_turn(body: &Value) -> Value {
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    let has_bash = tools.iter().any(|t| t["name"] == "Bash");
    let answered = body["messages"].to_string().contains("\"tool_result\"");
    if has_bash && !answered {
        return json!({
            "type": "tool_use",
            "id": "toolu_01Test",
            "name": "Bash",
            "input": {"command": TOOL_COMMAND, "description": "Say hello"},
        });
    }
    json!({"type": "text", "text": FINAL_TEXT})
}

fn message(body: &Value, content: &Value) -> Value {
    json!({
        "id": "msg_01Test",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [content],
        "stop_reason": stop_reason(content),
        "stop_sequence": null,
        "usage": {"input_tokens": 12, "output_tokens": 7},
    })
}

fn stop_reason(content: &Value) -> &'static str {
    match content["type"].as_str() {
        Some("tool_use") => "tool_use",
        _ => "end_turn",
    }
}

fn events(body: &Value, content: &Value) -> Vec<(String, Value)> {
    let mut start = message(body, content);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = json!({"input_tokens": 12, "output_tokens": 1});
    let (opening, deltas): (Value, Vec<Value>) = match content["type"].as_str() {
        Some("tool_use") => {
            let mut opening = content.clone();
            opening["input"] = json!({});
            let input = content["input"].to_string();
            let (a, b) = input.split_at(input.len() / 2);
            let delta = |part| json!({"type": "input_json_delta", "partial_json": part});
            (opening, vec![delta(a), delta(b)])
        }
        _ => {
            let words = FINAL_TEXT.split_inclusive(' ');
            (
                json!({"type": "text", "text": ""}),
                words
                    .map(|w| json!({"type": "text_delta", "text": w}))
                    .collect(),
            )
        }
    };
    let mut events = vec![
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": opening}),
        json!({"type": "ping"}),
    ];
    events.extend(
        deltas
            .into_iter()
            .map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})),
    );
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop_reason(content), "stop_sequence": null}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ]);
    events
        .into_iter()
        .map(|e| (e["type"].as_str().unwrap().to_owned(), e))
        .collect()
}
