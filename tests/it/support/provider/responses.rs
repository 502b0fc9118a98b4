//! Owns what the Responses API says, whole and in events: <https://platform.openai.com/docs/api-reference/responses>.

use serde_json::{Value, json};

use super::conduct::{Asked, Conduct, Tells, portions, text};
use super::piece::{Piece, said_twice};
use super::truth::Used;

/// What a request asks for, or what is wrong with it.
pub fn asked(body: &Value, octets: u64) -> Result<Asked, String> {
    let model = body["model"]
        .as_str()
        .ok_or("Missing required parameter: 'model'.")?;
    if body["input"].is_null() {
        return Err("Missing required parameter: 'input'.".to_owned());
    }
    Ok(Asked {
        model: model.to_owned(),
        most: body["max_output_tokens"].as_u64(),
        stream: body["stream"].as_bool().unwrap_or(false),
        option: false,
        octets,
    })
}

/// A whole answer.
pub fn response(conduct: &Conduct, used: &Used) -> String {
    written(conduct, &object(conduct, used, "completed"))
}

/// The same in events.
pub fn events(conduct: &Conduct, used: &Used) -> Vec<Piece> {
    let mut created = object(conduct, used, "in_progress");
    created["output"] = json!([]);
    match conduct.tells {
        Tells::Nothing => {}
        Tells::Shrinking => created["usage"] = usage(conduct, used),
        _ => created["usage"] = Value::Null,
    }
    let mut opening = item("");
    opening["content"] = json!([]);
    let mut events = vec![
        (json!({"type": "response.created", "response": created}), 0),
        (
            json!({"type": "response.output_item.added", "output_index": 0, "item": opening}),
            0,
        ),
    ];
    let mut spoken = conduct.hidden.min(used.output);
    for portion in portions(used.output - spoken, conduct.piece) {
        spoken += portion;
        let delta = json!({
            "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0,
            "delta": text(portion),
        });
        events.push((delta, spoken));
    }
    let whole = item(&shown(conduct, used));
    events.push((
        json!({"type": "response.output_item.done", "output_index": 0, "item": whole}),
        used.output,
    ));
    events.push((
        json!({"type": "response.completed", "response": object(conduct, used, "completed")}),
        used.output,
    ));
    let numbered = events.into_iter().enumerate();
    let pieces = numbered.map(|(number, (mut event, produced))| {
        event["sequence_number"] = number.into();
        let name = event["type"].as_str().unwrap().to_owned();
        Piece::event(
            Some(&name),
            &written(conduct, &event),
            conduct.newline,
            produced,
        )
    });
    pieces.collect()
}

fn written(conduct: &Conduct, value: &Value) -> String {
    match conduct.tells {
        Tells::Twice => said_twice(
            value,
            "usage",
            "{\"input_tokens\":1,\"output_tokens\":1,\"total_tokens\":2}",
        ),
        _ => value.to_string(),
    }
}

fn shown(conduct: &Conduct, used: &Used) -> String {
    text(used.output.saturating_sub(conduct.hidden))
}

fn item(text: &str) -> Value {
    json!({
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    })
}

fn object(conduct: &Conduct, used: &Used, status: &str) -> Value {
    let mut object = json!({
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": used.model,
        "output": [item(&shown(conduct, used))],
        "parallel_tool_calls": false,
        "tool_choice": "auto",
        "tools": [],
    });
    match conduct.tells {
        Tells::Nothing => {}
        Tells::Null | Tells::Shrinking => object["usage"] = Value::Null,
        Tells::Nonsense => object["usage"] = json!({"input_tokens": "many", "output_tokens": -1}),
        _ => object["usage"] = usage(conduct, used),
    }
    object
}

fn usage(conduct: &Conduct, used: &Used) -> Value {
    let prompt = used.input + used.read;
    json!({
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": used.read},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": conduct.hidden.min(used.output)},
        "total_tokens": prompt + used.output,
    })
}
