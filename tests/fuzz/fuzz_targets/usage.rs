//! Answers of models, as events, as JSON, compressed or not: any split of the octets gives the same reading, and
//! what a plain reading of the JSON says was used is never charged at less.
#![no_main]

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate::meter::call::{CacheUse, Call};
use tollgate::meter::endpoint::Operation;
use tollgate::meter::reader::{AnswerHead, Memory, Reader};
use tollgate::meter::reading::{Progress, Reading};
use tollgate::net::room::Room;
use tollgate::types::model_api::ModelApi;
use tollgate::types::usage::Terms;

const OPERATIONS: [Operation; 5] = [
    Operation::Messages,
    Operation::ChatCompletions,
    Operation::Responses,
    Operation::GenerateContent,
    Operation::Embeddings,
];
const CODINGS: [&str; 5] = ["", "gzip", "br", "zstd", "deflate"];

fn call(operation: Operation) -> Call {
    Call {
        api: ModelApi::OpenAI,
        operation,
        model: Arc::from("asked-for"),
        others: Vec::new(),
        max_output: None,
        answers: 1,
        stream: true,
        body_bytes: 1000,
        cache: CacheUse::Unnamed,
        reaches_out: false,
        tools: Vec::new(),
        terms: Terms::default(),
        asks_for_usage: false,
        thinks_unseen: false,
        may_think_unseen: false,
    }
}

fn read<'a>(operation: Operation, coding: &'static str, pieces: impl Iterator<Item = &'a [u8]>) -> (Progress, Reading) {
    let mut headers = HeaderMap::new();
    if !coding.is_empty() {
        headers.insert("content-encoding", HeaderValue::from_static(coding));
    }
    let head = AnswerHead { status: StatusCode::OK, headers: &headers };
    let mut reader = Reader::new(&call(operation), &head, Memory::of(&Arc::new(Room::of(1 << 20))));
    for piece in pieces {
        reader.feed(piece);
    }
    (reader.progress(), reader.finish())
}

/// Prompt and answer in tokens, as the least that was said.
fn told(reading: &Reading) -> Option<(u64, u64)> {
    match reading {
        Reading::Exact(uses) | Reading::Partial(uses) => Some((
            uses.iter().map(|u| u.usage.total_input()).sum(),
            uses.iter().map(|u| u.usage.total_output()).sum(),
        )),
        // Costs nothing, so it must not have said that anything was used.
        Reading::Failed => Some((0, 0)),
        Reading::Unknown { .. } => None,
    }
}

/// The same as a plain reader of the documentation would have it.
fn plainly(operation: Operation, answer: &Value) -> Option<(u64, u64)> {
    let (input, output) = match operation {
        Operation::Messages | Operation::Responses => ("/usage/input_tokens", "/usage/output_tokens"),
        Operation::ChatCompletions => ("/usage/prompt_tokens", "/usage/completion_tokens"),
        _ => return None,
    };
    let number = |at| answer.pointer(at).and_then(Value::as_u64);
    // Beyond this no answer is believed.
    let fits = |n: &u64| *n < 1 << 40;
    Some((number(input).filter(fits)?, number(output).filter(fits)?))
}

fuzz_target!(|data: &[u8]| {
    let [operation, coding, width, answer @ ..] = data else {
        return;
    };
    let operation = OPERATIONS[usize::from(*operation) % OPERATIONS.len()];
    let coding = CODINGS[usize::from(*coding) % CODINGS.len()];
    let whole = read(operation, coding, std::iter::once(answer));
    let pieces = read(operation, coding, answer.chunks(usize::from(*width) + 1));
    let width = usize::from(*width) + 1;
    assert_eq!(whole.1, pieces.1, "in pieces of {width}");
    // What cannot be decoded, or is in no known shape, is estimated piece by piece.
    if coding.is_empty() && !matches!(whole.1, Reading::Unknown { .. }) {
        assert_eq!(whole.0, pieces.0, "in pieces of {width}");
    }

    // Written anew, so that no key stands twice: which one counts is the provider's secret.
    let Ok(parsed) = serde_json::from_slice::<Value>(answer) else {
        return;
    };
    let Some((input, output)) = plainly(operation, &parsed) else {
        return;
    };
    let plain = serde_json::to_vec(&parsed).unwrap();
    let (_, reading) = read(operation, "", std::iter::once(&plain[..]));
    if let Some((prompt, answer)) = told(&reading) {
        assert!(prompt >= input && answer >= output, "{parsed} is read as {reading:?}");
    }
});
