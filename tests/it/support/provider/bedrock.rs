//! Owns what Amazon Bedrock says, by Converse and by InvokeModel, whole and in event streams:
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::anthropic;
use super::conduct::{Asked, Conduct, Tells, portions, text};
use super::piece::Piece;
use super::truth::Used;

/// The content type of its streams.
pub const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// The model and the operation of `/model/{id}/{operation}`.
fn split(target: &str) -> Option<(String, &str)> {
    let path = target.split('?').next()?;
    let (model, operation) = path.strip_prefix("/model/")?.split_once('/')?;
    let model = percent_decode_str(model).decode_utf8().ok()?;
    Some((model.into_owned(), operation))
}

/// What a request for Converse asks for, or what is wrong with it.
pub fn asked_of_converse(target: &str, body: &Value, octets: u64) -> Result<Asked, String> {
    let (model, operation) = split(target).ok_or("no model")?;
    let messages = body["messages"].as_array().ok_or("messages is missing")?;
    for message in messages {
        if message["content"][0]["text"].as_str().is_none() {
            return Err("content is a list of blocks".to_owned());
        }
    }
    Ok(Asked {
        model,
        most: body["inferenceConfig"]["maxTokens"].as_u64(),
        stream: operation == "converse-stream",
        option: false,
        octets,
    })
}

/// The same for InvokeModel with a model of Anthropic's. What the path says must not be in the body.
pub fn asked_of_invoke(target: &str, body: &Value, octets: u64) -> Result<Asked, String> {
    let (model, operation) = split(target).ok_or("no model")?;
    if body["anthropic_version"] != "bedrock-2023-05-31" {
        return Err("anthropic_version: Field required".to_owned());
    }
    for extra in ["model", "stream"] {
        if !body[extra].is_null() {
            return Err(format!("{extra}: Extra inputs are not permitted"));
        }
    }
    body["messages"]
        .as_array()
        .ok_or("messages: Field required")?;
    let most = body["max_tokens"].as_u64();
    Ok(Asked {
        model,
        most: Some(most.ok_or("max_tokens: Field required")?),
        stream: operation == "invoke-with-response-stream",
        option: false,
        octets,
    })
}

pub fn error(message: &str) -> Value {
    json!({"message": message})
}

/// A whole answer of Converse. It names no model.
pub fn converse(conduct: &Conduct, used: &Used) -> String {
    let mut answer = json!({
        "output": {"message": {"role": "assistant", "content": [{"text": text(used.output)}]}},
        "stopReason": "end_turn",
        "metrics": {"latencyMs": 20},
    });
    if conduct.tells != Tells::Nothing {
        answer["usage"] = usage(used);
    }
    answer.to_string()
}

/// The same as an event stream.
pub fn converse_stream(conduct: &Conduct, used: &Used) -> Vec<Piece> {
    let mut frames = vec![frame("messageStart", &json!({"role": "assistant"}), 0)];
    let mut spoken = 0;
    for portion in portions(used.output, conduct.piece) {
        spoken += portion;
        let delta =
            json!({"contentBlockIndex": 0, "delta": {"text": text(portion)}, "p": "abcdef"});
        frames.push(frame("contentBlockDelta", &delta, spoken));
    }
    frames.push(frame(
        "contentBlockStop",
        &json!({"contentBlockIndex": 0}),
        spoken,
    ));
    frames.push(frame(
        "messageStop",
        &json!({"stopReason": "end_turn"}),
        spoken,
    ));
    let mut metadata = json!({"metrics": {"latencyMs": 20}});
    if conduct.tells != Tells::Nothing {
        metadata["usage"] = usage(used);
    }
    frames.push(frame("metadata", &metadata, spoken));
    frames
}

/// What is read from a cache or written to it is not among the tokens of the prompt.
fn usage(used: &Used) -> Value {
    let prompt = used.input + used.read + used.write_5m + used.write_1h;
    json!({
        "inputTokens": used.input,
        "outputTokens": used.output,
        "totalTokens": prompt + used.output,
        "cacheReadInputTokens": used.read,
        "cacheWriteInputTokens": used.write_5m + used.write_1h,
        "cacheDetails": [
            {"inputTokens": used.write_5m, "ttl": "5m"},
            {"inputTokens": used.write_1h, "ttl": "1h"},
        ],
    })
}

/// A whole answer of a model of Anthropic's: its own.
pub fn invoke(conduct: &Conduct, used: &[Used]) -> String {
    anthropics_own(&anthropic::message(conduct, used), used)
}

/// The same as an event stream: the model's own events, each in a chunk. The last has Bedrock's counts.
pub fn invoke_stream(conduct: &Conduct, used: &[Used]) -> Vec<Piece> {
    let events = anthropic::events(conduct, used);
    let chunks = events.into_iter().map(|event| {
        let text = String::from_utf8(event.octets.to_vec()).unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: "));
        let mut data: Value = serde_json::from_str(data.unwrap()).unwrap();
        if data["type"] == "message_stop" {
            let one = &used[0];
            data["amazon-bedrock-invocationMetrics"] = json!({
                "inputTokenCount": one.input + one.read + one.write_5m + one.write_1h,
                "outputTokenCount": one.output,
                "invocationLatency": 20,
                "firstByteLatency": 10,
            });
        }
        let own = anthropics_own(&data.to_string(), used);
        let chunk = json!({"bytes": STANDARD.encode(own), "p": "abcdefgh"});
        frame("chunk", &chunk, event.produced)
    });
    chunks.collect()
}

/// Answers name a model as Anthropic does, whatever it was asked for as.
fn anthropics_own(answer: &str, used: &[Used]) -> String {
    answer.replace(&used[0].model, "claude-sonnet-4-5-20250929")
}

fn frame(kind: &str, payload: &Value, produced: u64) -> Piece {
    let text = |text: &str| HeaderValue::String(text.to_owned().into());
    let message = Message::new(payload.to_string())
        .add_header(Header::new(":event-type", text(kind)))
        .add_header(Header::new(":content-type", text("application/json")))
        .add_header(Header::new(":message-type", text("event")));
    let mut octets = Vec::new();
    write_message_to(&message, &mut octets).unwrap();
    Piece::new(octets, produced)
}
