//! Owns what Ollama says, line by line and whole: <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use serde_json::{Value, json};

use super::conduct::{Asked, Conduct, Tells, portions, text};
use super::piece::Piece;
use super::truth::Used;

/// The content type of its streams.
pub const LINES: &str = "application/x-ndjson";

/// What a request for `/api/chat` asks for, or what is wrong with it. It streams unless told not to.
pub fn asked(body: &Value, octets: u64) -> Result<Asked, String> {
    let model = body["model"].as_str().ok_or("model is required")?;
    body["messages"].as_array().ok_or("messages is required")?;
    Ok(Asked {
        model: model.to_owned(),
        most: body["options"]["num_predict"].as_u64(),
        stream: body["stream"].as_bool().unwrap_or(true),
        option: false,
        octets,
    })
}

/// The same for `/api/embed`.
pub fn asked_to_embed(body: &Value, octets: u64) -> Result<Asked, String> {
    let model = body["model"].as_str().ok_or("model is required")?;
    if body["input"].is_null() {
        return Err("input is required".to_owned());
    }
    Ok(Asked {
        model: model.to_owned(),
        most: Some(0),
        stream: false,
        option: false,
        octets,
    })
}

pub fn error(message: &str) -> Value {
    json!({"error": message})
}

/// A whole answer.
pub fn answer(conduct: &Conduct, used: &Used) -> String {
    last(conduct, used, used.output).to_string()
}

/// The same in lines.
pub fn lines(conduct: &Conduct, used: &Used) -> Vec<Piece> {
    let mut spoken = 0;
    let mut pieces = Vec::new();
    for portion in portions(used.output, conduct.piece) {
        spoken += portion;
        let line = line(used, portion);
        pieces.push(Piece::new(format!("{line}\n"), spoken));
    }
    let last = last(conduct, used, 0);
    pieces.push(Piece::new(format!("{last}\n"), spoken));
    pieces
}

fn line(used: &Used, tokens: u64) -> Value {
    json!({
        "model": used.model,
        "created_at": "2026-11-21T12:00:00Z",
        "message": {"role": "assistant", "content": text(tokens)},
        "done": false,
    })
}

fn last(conduct: &Conduct, used: &Used, tokens: u64) -> Value {
    let mut line = line(used, tokens);
    line["done"] = true.into();
    line["done_reason"] = "stop".into();
    line["total_duration"] = 5_000_000.into();
    if conduct.tells != Tells::Nothing {
        line["prompt_eval_count"] = used.input.into();
        line["eval_count"] = used.output.into();
    }
    line
}

/// Vectors.
pub fn embeddings(used: &Used) -> String {
    let answer = json!({
        "model": used.model,
        "embeddings": [[0.01, -0.02, 0.03]],
        "total_duration": 5_000_000,
        "prompt_eval_count": used.input,
    });
    answer.to_string()
}
