//! Measures reading what a request of half a megabyte may cost, beside building a tree of it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark that fails should stop, and says one number of its own"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use serde_json::{Value, json};
use tollgate::meter::call::Call;
use tollgate::meter::endpoint::Operation;
use tollgate::meter::scan;
use tollgate::types::model_api::ModelApi;

const OCTETS: usize = 500_000;

/// A long session of a coding agent: a system prompt, forty tools with schemas, and turns of tool calls
/// and of the files that they read, with a line end about every forty characters.
fn body() -> String {
    let line = "    let value = self.items.get(\"name\").map(|item| item.clone());\n";
    let tool = |number: usize| {
        json!({
            "name": format!("Tool{number}"),
            "description": line.repeat(12),
            "input_schema": {"type": "object", "required": ["file_path"], "properties": {
                "file_path": {"type": "string", "description": "where"},
                "limit": {"type": "number", "description": "how much"},
                "edits": {"type": "array", "items": {"type": "object", "properties": {
                    "old_string": {"type": "string"}, "new_string": {"type": "string"}}}}}},
        })
    };
    let mut messages = Vec::new();
    let mut body = json!({
        "model": "claude-sonnet-4-5", "max_tokens": 32000, "stream": true,
        "system": [{"type": "text", "text": line.repeat(200), "cache_control": {"type": "ephemeral"}}],
        "tools": (0..40).map(tool).collect::<Vec<Value>>(),
        "metadata": {"user_id": "user"},
    });
    let mut length = body.to_string().len();
    for turn in 0.. {
        let input = json!({"file_path": format!("/src/file{turn}.rs"), "limit": 200});
        let call = json!({"role": "assistant", "content": [
            {"type": "text", "text": "I will look at the next file."},
            {"type": "tool_use", "id": format!("toolu_{turn}"), "name": "Read", "input": input}]});
        let result = json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": format!("toolu_{turn}"), "content": line.repeat(60)}]});
        length += call.to_string().len() + result.to_string().len();
        messages.extend([call, result]);
        if length >= OCTETS {
            break;
        }
    }
    body["messages"] = messages.into();
    body.to_string()
}

fn read(body: &str) -> Call {
    let (api, operation) = (ModelApi::Anthropic, Operation::Messages);
    let headers = HeaderMap::new();
    scan::read(
        api,
        operation,
        "/v1/messages",
        None,
        &headers,
        body.as_bytes(),
    )
    .unwrap()
}

fn tree(body: &str) -> Value {
    serde_json::from_slice(body.as_bytes()).unwrap()
}

/// The shortest of many runs, giving the result's memory back included: what the work takes when nothing
/// else is in the way.
fn shortest<T>(mut work: impl FnMut() -> T) -> Duration {
    let runs = (0..100).map(|_| {
        let start = Instant::now();
        drop(black_box(work()));
        start.elapsed()
    });
    runs.min().unwrap_or_default()
}

fn scan(criterion: &mut Criterion) {
    let body = body();
    assert_eq!(read(&body).max_output, Some(32_000));
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("request_of_500_kB", |bencher| {
        bencher.iter(|| read(black_box(&body)));
    });
    group.bench_function("tree_of_500_kB", |bencher| {
        bencher.iter(|| tree(black_box(&body)));
    });
    group.finish();
    let (ours, theirs) = (shortest(|| read(&body)), shortest(|| tree(&body)));
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "ratio: scanning {} octets takes {ours:?}, building a tree of them {theirs:?}: {ratio:.1} times as long",
        body.len()
    );
}

criterion_group!(benches, scan);
criterion_main!(benches);
