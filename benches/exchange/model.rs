//! Owns calls of Anthropic's Messages API as agents make them, and what the origin answers to each.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::origin::SMALL;

/// A model that the built-in price table knows.
const MODEL: &str = "claude-sonnet-4-5";
/// Text in the body of a call that is answered by events: some twenty turns of a coding agent.
const PROMPT: usize = 100_000;
/// Pieces of text in an answer of events.
const PIECES: usize = 300;
/// How far apart the events are. A model takes longer, and a run has not the time.
pub const PACE: Duration = Duration::from_millis(1);

const STREAM: &[u8] = br#"{"stream":true,"#;

/// What a call wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It calls no model.
    Filler,
    /// One JSON document.
    Message,
    /// Server-sent events.
    Events,
}

impl Wanted {
    /// The type of the answer, where it has one.
    pub fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Filler => None,
            Self::Message => Some("application/json"),
            Self::Events => Some("text/event-stream; charset=utf-8"),
        }
    }

    /// The body of such a call.
    pub fn call(self) -> Bytes {
        static MESSAGE: LazyLock<Bytes> = LazyLock::new(|| call("", 700));
        static EVENTS: LazyLock<Bytes> = LazyLock::new(|| call(r#""stream":true,"#, PROMPT));
        match self {
            Self::Filler => Bytes::new(),
            Self::Message => MESSAGE.clone(),
            Self::Events => EVENTS.clone(),
        }
    }

    /// Octets of the whole answer.
    pub fn answer_length(self) -> u64 {
        static EVENTS: LazyLock<usize> = LazyLock::new(|| events().map(|event| event.len()).sum());
        let length = match self {
            Self::Filler => SMALL,
            Self::Message => message().len(),
            Self::Events => *EVENTS,
        };
        length as u64
    }
}

/// What a call wants, by the first octets of its body.
pub fn wanted(body: Option<&Bytes>) -> Wanted {
    match body {
        Some(body) if body.starts_with(STREAM) => Wanted::Events,
        Some(body) if body.starts_with(b"{") => Wanted::Message,
        _ => Wanted::Filler,
    }
}

fn call(first: &str, length: usize) -> Bytes {
    let turn = "Here is the output of \"cargo test\":\nrunning 3 tests\ntest it_works ... ok\n\t";
    let mut messages = Vec::new();
    let mut written = 0;
    while written < length {
        let text = turn.repeat((length - written).min(5_000).div_ceil(turn.len()));
        written += text.len();
        messages.push(json!({"role": "user", "content": [{"type": "text", "text": text}]}));
    }
    let messages = Value::Array(messages);
    format!(r#"{{{first}"model":"{MODEL}","max_tokens":4096,"messages":{messages}}}"#).into()
}

fn usage(output: usize) -> Value {
    json!({
        "input_tokens": 412, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 21_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output, "service_tier": "standard",
    })
}

/// A whole answer.
pub fn message() -> Bytes {
    static ANSWER: LazyLock<Bytes> = LazyLock::new(|| {
        let answer = json!({
            "id": "msg_01", "type": "message", "role": "assistant", "model": MODEL,
            "content": [{"type": "text", "text": "All of the tests pass. ".repeat(30)}],
            "stop_reason": "end_turn", "stop_sequence": null, "usage": usage(190),
        });
        answer.to_string().into()
    });
    ANSWER.clone()
}

/// A whole answer, event by event.
pub fn events() -> impl Iterator<Item = Bytes> {
    static EVENTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
        let told = |data: Value| (data["type"].as_str().unwrap().to_owned(), data.to_string());
        let mut data = [
            json!({"type": "message_start", "message": {
                "id": "msg_01", "type": "message", "role": "assistant", "model": MODEL, "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": usage(1),
            }}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ]
        .map(told)
        .to_vec();
        for piece in 0..PIECES {
            // With its fields in the provider's order: https://platform.claude.com/docs/en/build-with-claude/streaming
            let delta = format!(
                r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":" piece {piece} of it"}}}}"#
            );
            data.push(("content_block_delta".to_owned(), delta));
        }
        let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
        data.extend(
            [
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "message_delta", "delta": delta, "usage": usage(PIECES * 5)}),
                json!({"type": "message_stop"}),
            ]
            .map(told),
        );
        let event = |(name, data)| format!("event: {name}\ndata: {data}\n\n").into();
        data.into_iter().map(event).collect()
    });
    EVENTS.iter().cloned()
}
