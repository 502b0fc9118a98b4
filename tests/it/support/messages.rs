//! Owns what the Messages API answers, whoever was let in: <https://docs.anthropic.com/en/api/messages>.

use std::time::Duration;

use serde_json::{Value, json};

use super::recorded::Recorded;
use super::reply::{self, Reply};

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

/// Answers `/v1/messages` to one whose credential is right.
pub fn converse(head: &Recorded, body: &Value, account: Account) -> Reply {
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
    let content = next_turn(body);
    match body["stream"].as_bool() {
        Some(true) => reply::sse(events(body, &content), PACE),
        _ => reply::json(200, &message(body, &content)),
    }
}

pub fn error(code: u16, kind: &str, message: &str) -> Reply {
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
