//! Owns what Chat Completions says, whole and in chunks: <https://platform.openai.com/docs/api-reference/chat>.

use serde_json::{Value, json};

use super::conduct::{Asked, Conduct, Tells, portions, text};
use super::piece::{Piece, said_twice};
use super::truth::Used;

/// What a request asks for, or what is wrong with it.
pub fn asked(body: &Value, octets: u64) -> Result<Asked, String> {
    let model = body["model"]
        .as_str()
        .ok_or("you must provide a model parameter")?;
    body["messages"]
        .as_array()
        .ok_or("Missing required parameter: 'messages'.")?;
    let stream = body["stream"].as_bool().unwrap_or(false);
    let options = &body["stream_options"];
    if !stream && !options.is_null() {
        return Err(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.".to_owned(),
        );
    }
    let most = body["max_completion_tokens"].as_u64();
    Ok(Asked {
        model: model.to_owned(),
        most: most.or_else(|| body["max_tokens"].as_u64()),
        stream,
        option: options["include_usage"].as_bool().unwrap_or(false),
        octets,
    })
}

pub fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", "invalid_api_key"),
        404 => ("invalid_request_error", "unknown_url"),
        429 => ("requests", "rate_limit_exceeded"),
        500.. => ("server_error", "server_error"),
        _ => ("invalid_request_error", "invalid_value"),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// A whole answer.
pub fn completion(conduct: &Conduct, used: &Used) -> String {
    let shown = text(used.output.saturating_sub(conduct.hidden));
    let mut completion = json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": used.model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": shown}}],
    });
    match conduct.tells {
        Tells::Nothing => {}
        Tells::Null => completion["usage"] = Value::Null,
        Tells::Nonsense => {
            completion["usage"] = json!({"prompt_tokens": "many", "completion_tokens": -1})
        }
        _ => completion["usage"] = usage(conduct, used),
    }
    match conduct.tells {
        Tells::Twice => said_twice(
            &completion,
            "usage",
            "{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}",
        ),
        _ => completion.to_string(),
    }
}

/// The same in chunks. Usage comes in one of its own, and only if it was asked for.
pub fn chunks(asked: &Asked, conduct: &Conduct, used: &Used) -> Vec<Piece> {
    let told = usage(conduct, used);
    let mut pieces = Vec::new();
    let mut say = |mut chunk: Value, usage: Value, produced: u64| {
        if asked.option && conduct.tells != Tells::Nothing {
            chunk["usage"] = usage;
        }
        let data = match conduct.tells {
            Tells::Twice => said_twice(
                &chunk,
                "usage",
                "{\"prompt_tokens\":1,\"completion_tokens\":1}",
            ),
            _ => chunk.to_string(),
        };
        pieces.push(Piece::event(None, &data, conduct.newline, produced));
    };
    let delta = |delta: Value, finish: Value| {
        chunk(
            used,
            json!([{"index": 0, "delta": delta, "finish_reason": finish}]),
        )
    };
    let first = match conduct.tells {
        Tells::Shrinking => told.clone(),
        _ => Value::Null,
    };
    say(
        delta(json!({"role": "assistant", "content": ""}), Value::Null),
        first,
        0,
    );
    let mut spoken = conduct.hidden.min(used.output);
    for portion in portions(used.output - spoken, conduct.piece) {
        spoken += portion;
        let content = json!({"content": text(portion)});
        say(delta(content, Value::Null), Value::Null, spoken);
    }
    let (with_finish, last) = match conduct.tells {
        Tells::Late => (told, Value::Null),
        Tells::Null | Tells::Shrinking => (Value::Null, Value::Null),
        Tells::Nonsense => (
            Value::Null,
            json!({"prompt_tokens": "many", "completion_tokens": -1}),
        ),
        _ => (Value::Null, told),
    };
    say(delta(json!({}), "stop".into()), with_finish, used.output);
    if asked.option && conduct.tells != Tells::Nothing {
        say(chunk(used, json!([])), last, used.output);
    }
    let done = Piece::event(None, "[DONE]", conduct.newline, used.output);
    pieces.push(done);
    pieces
}

fn chunk(used: &Used, choices: Value) -> Value {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": used.model,
        "choices": choices,
    })
}

/// Cached tokens are a part of the prompt's, reasoning a part of the answer's.
fn usage(conduct: &Conduct, used: &Used) -> Value {
    let prompt = used.input + used.read;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": used.output,
        "total_tokens": prompt + used.output,
        "prompt_tokens_details": {"cached_tokens": used.read},
        "completion_tokens_details": {"reasoning_tokens": conduct.hidden.min(used.output)},
    })
}
