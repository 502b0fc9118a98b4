//! Owns what OpenAI's embeddings say: <https://platform.openai.com/docs/api-reference/embeddings>.

use serde_json::{Value, json};

use super::conduct::Asked;
use super::truth::Used;

/// What a request asks for, or what is wrong with it.
pub fn asked(body: &Value, octets: u64) -> Result<Asked, String> {
    let model = body["model"].as_str();
    if body["input"].is_null() {
        return Err("Missing required parameter: 'input'.".to_owned());
    }
    Ok(Asked {
        model: model.unwrap_or_default().to_owned(),
        most: Some(0),
        stream: false,
        option: false,
        octets,
    })
}

/// Vectors.
pub fn vectors(used: &Used) -> String {
    let answer = json!({
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.01, -0.02, 0.03]}],
        "model": used.model,
        "usage": {"prompt_tokens": used.input, "total_tokens": used.input},
    });
    answer.to_string()
}
