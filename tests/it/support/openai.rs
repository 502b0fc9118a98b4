//! Stands in for api.openai.com: strict about the credential, answers as Codex and the SDKs want it.

use std::time::Duration;

use serde_json::{Value, json};

use super::origin::{Exchange, Origin};
use super::proxy::{ProxyBuilder, proxy};
use super::reply::{self, Reply};

/// The key that only the proxy may know.
pub const REAL_KEY: &str =
    "sk-proj-REALn5Vq8XzLw3KtRy7MbPc2HdJf9GaUeOi4SlTkYjWhNxBvEmQr6ZsDgFuAIwKeREAL";
/// The text of every answer.
pub const FINAL_TEXT: &str = "Hello from the model.";

const PACE: Duration = Duration::from_millis(15);

pub async fn openai() -> Origin {
    Origin::tls(&["api.openai.com"], answer).await
}

/// A proxy that lets agents reach it with a placeholder.
pub fn in_front_of(origin: &Origin) -> ProxyBuilder {
    proxy()
        .origin(origin)
        .policy(
            "
            - hosts: [api.openai.com]
              credentials: [openai]
              route: openai
            ",
        )
        .credential_file(
            "openai",
            REAL_KEY,
            "
            hosts: [api.openai.com]
            placements: [{bearer: {}}]
            placeholder: {shape: \"sk-proj-[A-Za-z0-9_-:60]\", env: [OPENAI_API_KEY, CODEX_API_KEY]}
            ",
        )
}

async fn answer(mut exchange: Exchange) -> Reply {
    let body = exchange.json().await;
    let head = &exchange.head;
    if head.header("authorization") != Some(&format!("Bearer {REAL_KEY}")) {
        let message = "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.";
        return error(401, "invalid_request_error", "invalid_api_key", message);
    }
    let stream = body["stream"].as_bool() == Some(true);
    match (head.method.as_str(), head.path()) {
        ("GET", "/v1/responses") => error(
            426,
            "invalid_request_error",
            "upgrade_required",
            "no WebSocket here",
        ),
        ("POST", "/v1/responses") if stream => reply::sse(response_events(&body), PACE),
        ("POST", "/v1/responses") => reply::json(200, &response(&body, "completed")),
        ("POST", "/v1/chat/completions") if stream => chat_stream(&body),
        ("POST", "/v1/chat/completions") => reply::json(200, &chat(&body)),
        ("GET", "/v1/models") => reply::json(
            200,
            &json!({"object": "list", "data": [{"id": "gpt-test", "object": "model", "created": 1, "owned_by": "test"}]}),
        ),
        _ => error(
            404,
            "invalid_request_error",
            "unknown_url",
            "Unknown request URL",
        ),
    }
}

/// A whole answer, in the events of the responses API.
pub fn streamed() -> Reply {
    reply::sse(response_events(&json!({"model": "gpt-test"})), PACE)
}

fn error(status: u16, kind: &str, code: &str, message: &str) -> Reply {
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    reply::json(status, &body)
}

fn item() -> Value {
    json!({
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": FINAL_TEXT, "annotations": []}],
    })
}

fn response(body: &Value, status: &str) -> Value {
    json!({
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": body["model"],
        "output": [item()],
        "parallel_tool_calls": false,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 16,
        },
    })
}

fn response_events(body: &Value) -> Vec<(String, Value)> {
    let mut created = response(body, "in_progress");
    created["output"] = json!([]);
    let mut opening = item();
    opening["content"] = json!([]);
    let mut events = vec![
        json!({"type": "response.created", "response": created}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": opening}),
    ];
    events.extend(FINAL_TEXT.split_inclusive(' ').map(|word| {
        json!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word})
    }));
    events.extend([
        json!({"type": "response.output_item.done", "output_index": 0, "item": item()}),
        json!({"type": "response.completed", "response": response(body, "completed")}),
    ]);
    events
        .into_iter()
        .enumerate()
        .map(|(number, mut event)| {
            event["sequence_number"] = number.into();
            (event["type"].as_str().unwrap().to_owned(), event)
        })
        .collect()
}

fn chat(body: &Value) -> Value {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": FINAL_TEXT}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
    })
}

fn chat_stream(body: &Value) -> Reply {
    let mut text = String::new();
    for word in FINAL_TEXT.split_inclusive(' ') {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}],
        });
        text.push_str(&format!("data: {chunk}\n\n"));
    }
    text.push_str("data: [DONE]\n\n");
    reply::with_body(200, "text/event-stream", text)
}
