//! Owns what Gemini's `generateContent` says, whole, as events and as one array:
//! <https://ai.google.dev/api/generate-content>.

use serde_json::{Value, json};

use super::conduct::{Asked, Conduct, Tells, portions, text};
use super::piece::{Piece, said_twice};
use super::truth::Used;

/// What a request asks for, or what is wrong with it. The model and the method are in the path.
pub fn asked(target: &str, body: &Value, octets: u64) -> Result<Asked, String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let name = path.rsplit('/').next().unwrap_or_default();
    let (model, method) = name.split_once(':').ok_or("no method")?;
    if body["contents"].is_null() {
        return Err("contents is not specified".to_owned());
    }
    Ok(Asked {
        model: model.to_owned(),
        most: body["generationConfig"]["maxOutputTokens"].as_u64(),
        stream: method == "streamGenerateContent",
        option: query.split('&').any(|pair| pair == "alt=sse"),
        octets,
    })
}

pub fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": message, "status": kind}})
}

/// A whole answer.
pub fn content(conduct: &Conduct, used: &Used) -> String {
    let shown = used.output.saturating_sub(conduct.hidden);
    written(
        conduct,
        &part(conduct, used, shown, used.output, Some("STOP")),
    )
}

/// The same in parts; each tells what was used so far.
pub fn parts(asked: &Asked, conduct: &Conduct, used: &Used) -> Vec<Piece> {
    let mut spoken = conduct.hidden.min(used.output);
    let mut parts = Vec::new();
    for portion in portions(used.output - spoken, conduct.piece) {
        spoken += portion;
        parts.push((part(conduct, used, portion, spoken, None), spoken));
    }
    parts.push((
        part(conduct, used, 0, used.output, Some("STOP")),
        used.output,
    ));
    if asked.option {
        let events = parts.iter().map(|(part, produced)| {
            Piece::event(None, &written(conduct, part), conduct.newline, *produced)
        });
        return events.collect();
    }
    let count = parts.len();
    let elements = parts.iter().enumerate().map(|(number, (part, produced))| {
        let before = if number == 0 { "[" } else { ",\r\n" };
        let after = if number + 1 == count { "]" } else { "" };
        Piece::new(
            format!("{before}{}{after}", written(conduct, part)),
            *produced,
        )
    });
    elements.collect()
}

fn written(conduct: &Conduct, value: &Value) -> String {
    match conduct.tells {
        Tells::Twice => said_twice(
            value,
            "usageMetadata",
            "{\"promptTokenCount\":1,\"candidatesTokenCount\":1}",
        ),
        _ => value.to_string(),
    }
}

fn part(conduct: &Conduct, used: &Used, shown: u64, produced: u64, finish: Option<&str>) -> Value {
    let mut part = json!({
        "candidates": [{"content": {"role": "model", "parts": [{"text": text(shown)}]}, "index": 0}],
        "modelVersion": used.model,
    });
    if let Some(finish) = finish {
        part["candidates"][0]["finishReason"] = finish.into();
    }
    match (conduct.tells, finish) {
        (Tells::Nothing, _) | (Tells::Late, None) => {}
        (Tells::Null, _) => part["usageMetadata"] = Value::Null,
        (Tells::Nonsense, _) => part["usageMetadata"] = json!({"promptTokenCount": "many"}),
        (Tells::Shrinking, Some(_)) => {
            part["usageMetadata"] = json!({"candidatesTokenCount": produced})
        }
        _ => part["usageMetadata"] = usage(conduct, used, produced),
    }
    part
}

/// What is read from a cache is a part of the prompt; thought is told apart from the candidates.
fn usage(conduct: &Conduct, used: &Used, produced: u64) -> Value {
    let prompt = used.input + used.read;
    let thought = conduct.hidden.min(produced);
    let mut usage = json!({
        "promptTokenCount": prompt,
        "candidatesTokenCount": produced - thought,
        "totalTokenCount": prompt + produced,
    });
    if thought > 0 {
        usage["thoughtsTokenCount"] = thought.into();
    }
    if used.read > 0 {
        usage["cachedContentTokenCount"] = used.read.into();
    }
    usage
}
