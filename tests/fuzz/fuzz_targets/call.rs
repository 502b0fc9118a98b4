//! Requests to models: what is read is valid JSON to everybody, and says the same model and the same longest
//! answer to a plain reader.
#![no_main]

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate::meter::endpoint::Operation;
use tollgate::meter::json::Walker;
use tollgate::meter::scan::read;
use tollgate::types::model_api::ModelApi;

fuzz_target!(|data: &[u8]| {
    let Some((&which, body)) = data.split_first() else {
        return;
    };
    if let Ok(text) = std::str::from_utf8(body) {
        let mut walker = Walker::new(text);
        let walked = walker.skip().is_ok() && walker.end().is_ok();
        if walked {
            // Numbers that no f64 holds, half a surrogate pair and deep nesting are grammar to us and an error to
            // serde_json.
            let parsed = serde_json::from_str::<Value>(text);
            let known = ["number out of range", "hex escape", "surrogate", "recursion limit"];
            let ours = parsed.as_ref().err().is_none_or(|e| known.iter().any(|k| e.to_string().contains(k)));
            assert!(ours, "{text:?}: {parsed:?}");
        }
    }
    let (api, operation, path, longest) = match which % 3 {
        0 => (ModelApi::Anthropic, Operation::Messages, "/v1/messages", &["max_tokens"][..]),
        1 => (
            ModelApi::OpenAI,
            Operation::ChatCompletions,
            "/v1/chat/completions",
            &["max_tokens", "max_completion_tokens"][..],
        ),
        _ => (ModelApi::OpenAI, Operation::Responses, "/v1/responses", &["max_output_tokens"][..]),
    };
    let Ok(call) = read(api, operation, path, None, &HeaderMap::new(), body) else {
        return;
    };
    let Ok(plain) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    // Google's names are written with it in bodies, and known without it.
    let model = plain.get("model").and_then(Value::as_str);
    let model = model.map(|model| model.strip_prefix("models/").unwrap_or(model));
    assert_eq!(model, Some(&*call.model));
    // A limit that we read must be one that the provider reads: a lower one would reserve too little.
    let written = longest.iter().filter_map(|key| plain.get(key)?.as_u64());
    if let Some(most) = call.max_output {
        let known = written.clone().any(|limit| limit == most);
        assert!(known, "{most} is none of {:?}", written.collect::<Vec<_>>());
    }
});
