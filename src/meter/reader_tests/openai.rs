//! Owns the tests of answers of Chat Completions and Responses.

use super::support::*;
use crate::meter::call::Call;
use crate::meter::endpoint::Operation;
use crate::meter::reading::Reading;
use crate::types::usage::Fee;

fn chat() -> Call {
    call(Operation::ChatCompletions)
}

fn responses() -> Call {
    call(Operation::Responses)
}

fn chunk(content: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","model":"gpt-5-2025-08-07","service_tier":"default","choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":null}}],"usage":{usage}}}"#
    )
}

fn last(usage: &str) -> String {
    format!(r#"{{"id":"c","model":"gpt-5-2025-08-07","choices":[],"usage":{usage}}}"#)
}

const USAGE: &str = r#"{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,"prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":192,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":50}}"#;

#[test]
fn a_chat_is_read_with_its_last_chunk() {
    let answer = events(&[
        &chunk("Hello", "null"),
        &chunk(" you", "null"),
        &last(USAGE),
        "[DONE]",
    ]);
    let (progress, reading) = progress_and_reading(&chat(), answer);
    let expected = used(
        "gpt-5-2025-08-07",
        &[(Input, 86), (CacheRead, 1920), (Output, 300)],
    );
    assert_eq!(reading, Reading::Exact(vec![expected]));
    assert!(progress.complete);
    assert_eq!(progress.produced, 300);
}

#[test]
fn a_completion_is_read_whole() {
    let body = format!(
        r#"{{"id":"c","object":"chat.completion","model":"gpt-5-2025-08-07","service_tier":"flex","choices":[{{"index":0,"message":{{"role":"assistant","content":"}}"}},"finish_reason":"stop"}}],"usage":{USAGE}}}"#
    );
    let (progress, reading) = progress_and_reading(&chat(), &body);
    let expected = used(
        "gpt-5-2025-08-07",
        &[(Input, 86), (CacheRead, 1920), (Output, 300)],
    );
    assert_eq!(reading, Reading::Exact(vec![on_tier(expected, "flex")]));
    assert!(progress.complete);
}

#[test]
fn parts_of_the_prompt_are_taken_apart() {
    for (told, expected) in [
        (
            r#"{"prompt_tokens":1000,"completion_tokens":90,"prompt_tokens_details":{"cached_tokens":300,"cache_write_tokens":200,"audio_tokens":50},"completion_tokens_details":{"audio_tokens":40}}"#,
            vec![
                (Input, 450),
                (CacheRead, 300),
                (CacheWrite5m, 200),
                (AudioInput, 50),
                (Output, 50),
                (AudioOutput, 40),
            ],
        ),
        // DeepSeek
        (
            r#"{"prompt_tokens":100,"completion_tokens":9,"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36}"#,
            vec![(Input, 36), (CacheRead, 64), (Output, 9)],
        ),
        // xAI leaves reasoning out of the completion, and has it in the total.
        (
            r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"completion_tokens_details":{"reasoning_tokens":94}}"#,
            vec![(Input, 32), (Output, 103)],
        ),
        (
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
            vec![],
        ),
    ] {
        let body = format!(r#"{{"model":"m","usage":{told}}}"#);
        let expected = Reading::Exact(vec![used("m", &expected)]);
        assert_eq!(read(&chat(), body), expected, "{told}");
    }
}

#[test]
fn azures_first_chunk_names_no_model_and_has_no_usage() {
    let answer = events(&[
        r#"{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}"#,
        &chunk("Hello", "null"),
        &last(r#"{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}"#),
        "[DONE]",
    ]);
    let expected = used("gpt-5-2025-08-07", &[(Input, 8), (Output, 2)]);
    assert_eq!(read(&chat(), answer), Reading::Exact(vec![expected]));
}

#[test]
fn usage_in_every_chunk_is_cumulative() {
    let answer = events(&[
        &chunk("a", r#"{"prompt_tokens":15,"completion_tokens":1}"#),
        &chunk("b", r#"{"prompt_tokens":15,"completion_tokens":2}"#),
        &chunk("", r#"{"prompt_tokens":0,"completion_tokens":3}"#),
        "[DONE]",
    ]);
    let expected = used("gpt-5-2025-08-07", &[(Input, 15), (Output, 3)]);
    assert_eq!(read(&chat(), answer), Reading::Exact(vec![expected]));
}

#[test]
fn usage_beside_the_reason_to_stop_is_exact_without_done() {
    let last = r#"{"model":"m","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":1}}"#;
    let expected = used("m", &[(Input, 8), (Output, 1)]);
    let answer = events(&[r#"{"choices":[{"delta":{"content":"abcdef"}}]}"#, last]);
    assert_eq!(read(&chat(), answer), Reading::Exact(vec![expected]));
}

#[test]
fn a_last_count_is_exact_without_done_and_an_early_one_is_not() {
    let usage = r#"{"prompt_tokens":8,"completion_tokens":2}"#;
    let expected = used("gpt-5-2025-08-07", &[(Input, 8), (Output, 2)]);
    let (progress, reading) =
        progress_and_reading(&chat(), events(&[&chunk("a", "null"), &last(usage)]));
    assert_eq!(reading, Reading::Exact(vec![expected]));
    assert!(!progress.complete);
    let early = events(&[&last(usage), &chunk(&"x".repeat(30), "null"), "[DONE]"]);
    let expected = used("gpt-5-2025-08-07", &[(Input, 8), (Output, 10)]);
    assert_eq!(read(&chat(), early), Reading::Partial(vec![expected]));
}

#[test]
fn a_chat_without_usage_is_unknown_and_all_its_choices_were_seen() {
    let answer = events(&[
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"abc"}},{"index":1,"delta":{"reasoning_content":"defghi"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"1","function":{"name":"f","arguments":"{\"a\":"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"refusal":"no","audio":{"data":"AAAA","transcript":"hm"}}}]}"#,
        "[DONE]",
    ]);
    let (progress, reading) = progress_and_reading(&chat(), answer);
    assert!(progress.complete);
    assert_eq!(
        reading,
        Reading::Unknown {
            produced: (3 + 6 + 6 + 4_u64).div_ceil(3)
        }
    );
}

#[test]
fn broken_usage_of_a_chat_is_never_zero() {
    for broken in [
        r#"{"prompt_tokens":-1,"completion_tokens":7}"#,
        r#"{"prompt_tokens":9,"prompt_tokens":0,"completion_tokens":7}"#,
        r#"{"completion_tokens":7}"#,
        r#"{"prompt_tokens":9,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":1e1}}"#,
        "[]",
        "null",
    ] {
        let answer = events(&[&chunk("abcdef", "null"), &last(broken), "[DONE]"]);
        let reading = read(&chat(), answer);
        assert!(
            matches!(reading, Reading::Unknown { produced: 2.. }),
            "{broken}: {reading:?}"
        );
        let reading = read(&chat(), format!(r#"{{"model":"m","usage":{broken}}}"#));
        assert!(
            matches!(reading, Reading::Unknown { .. }),
            "{broken}: {reading:?}"
        );
    }
    for broken in [
        r#"{"prompt_tokens":9}"#,
        r#"{"prompt_tokens":9,"completion_tokens":"0"}"#,
        r#"{"prompt_tokens":9,"completion_tokens":0,"total_tokens":-9}"#,
    ] {
        let answer = events(&[&chunk("abcdef", "null"), &last(broken), "[DONE]"]);
        let expected = used("gpt-5-2025-08-07", &[(Input, 9), (Output, 2)]);
        assert_eq!(
            read(&chat(), answer),
            Reading::Partial(vec![expected]),
            "{broken}"
        );
    }
}

#[test]
fn a_search_model_of_chat_searches_once() {
    let mut asked = chat();
    asked.tools.push((Fee::WebSearch, None));
    let body = r#"{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let expected = used("m", &[(Input, 1), (Output, 1)]);
    assert_eq!(
        read(&asked, body),
        Reading::Exact(vec![with_fee(expected, Fee::WebSearch, 1)])
    );
}

const RESPONSE: &str = r#"{"id":"resp_1","object":"response","status":"completed","model":"gpt-5-codex","service_tier":"priority","output":[{"type":"reasoning","id":"r"},{"type":"web_search_call","action":{"type":"search","query":"q"}},{"type":"web_search_call","action":{"type":"open_page"}},{"type":"file_search_call"},{"type":"code_interpreter_call","container_id":"c1"},{"type":"code_interpreter_call","container_id":"c1"},{"type":"message","content":[{"type":"output_text","text":"Hi"}]}],"usage":{"input_tokens":36000,"input_tokens_details":{"cached_tokens":30000},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":36087}}"#;

fn response_uses() -> Reading {
    let one = used(
        "gpt-5-codex",
        &[(Input, 6000), (CacheRead, 30000), (Output, 87)],
    );
    let one = with_fee(one, Fee::WebSearch, 1);
    let one = with_fee(one, Fee::FileSearch, 1);
    let one = with_fee(one, Fee::CodeExecution, 1);
    Reading::Exact(vec![on_tier(one, "priority")])
}

#[test]
fn containers_without_end_take_no_memory_and_are_paid_for() {
    let calls: Vec<String> = (0..3000)
        .map(|n| format!(r#"{{"type":"code_interpreter_call","container_id":"c{n}"}}"#))
        .collect();
    let told = r#""usage":{"input_tokens":1,"output_tokens":2}"#;
    let answer = format!(r#"{{"model":"m","output":[{}],{told}}}"#, calls.join(","));
    let Reading::Exact(uses) = read(&call(Operation::Responses), answer) else {
        panic!("no exact reading");
    };
    assert_eq!(uses[0].fees, [(Fee::CodeExecution, 3000)]);
}

#[test]
fn a_response_is_read_streamed_and_whole() {
    for end in ["completed", "incomplete", "failed"] {
        let answer = events(&[
            r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress","model":"gpt-5-codex","service_tier":"auto","usage":null,"output":[]}}"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"r"}}"#,
            r#"{"type":"response.reasoning_summary_text.delta","delta":"hmm"}"#,
            r#"{"type":"response.output_text.delta","item_id":"m","delta":"Hi","logprobs":[]}"#,
            r#"{"type":"response.output_item.done","item":{"type":"web_search_call","action":{"type":"search"}}}"#,
            &format!(r#"{{"type":"response.{end}","sequence_number":9,"response":{RESPONSE}}}"#),
        ]);
        let (progress, reading) = progress_and_reading(&responses(), answer);
        assert!(progress.complete);
        assert_eq!(reading, response_uses(), "{end}");
    }
    let (progress, reading) = progress_and_reading(&responses(), RESPONSE);
    assert!(progress.complete);
    assert_eq!(reading, response_uses());
}

#[test]
fn a_response_that_was_cut_is_what_was_seen() {
    let answer = events(&[
        r#"{"type":"response.created","response":{"model":"gpt-5-codex","usage":null}}"#,
        r#"{"type":"response.function_call_arguments.delta","delta":"{\"cmd\":\"ls\"}"}"#,
    ]);
    let (progress, reading) = progress_and_reading(&responses(), answer);
    assert!(!progress.complete);
    assert_eq!(reading, Reading::Unknown { produced: 4 });
}

#[test]
fn a_response_without_usage_is_never_zero() {
    for body in [
        r#"{"status":"queued","model":"m","usage":null}"#,
        r#"{"status":"completed","model":"m"}"#,
        r#"{"status":"completed","usage":{"input_tokens":5,"input_tokens":0,"output_tokens":0}}"#,
        r#"{"status":"completed","usage":{"output_tokens":0}}"#,
    ] {
        let reading = read(&responses(), body);
        assert!(
            matches!(reading, Reading::Unknown { .. }),
            "{body}: {reading:?}"
        );
        let answer = events(&[&format!(
            r#"{{"type":"response.failed","response":{body}}}"#
        )]);
        let reading = read(&responses(), answer);
        assert!(
            matches!(reading, Reading::Unknown { .. }),
            "{body}: {reading:?}"
        );
    }
}

#[test]
fn an_error_before_anything_else_is_no_answer() {
    let error = r#"{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"#;
    let azure = r#"{"choices":[],"model":"","prompt_filter_results":[{"prompt_index":0}]}"#;
    for (answer, fails) in [
        (events(&[error]), true),
        (events(&[azure, error, "[DONE]"]), true),
        (error.to_owned(), true),
        (events(&[&chunk("Hello", "null"), error]), false),
        (events(&[&chunk("", "null"), error]), false),
        (events(&[error, &last(USAGE)]), false),
        (events(&["[DONE]"]), false),
    ] {
        let reading = read(&chat(), &answer);
        assert_eq!(reading == Reading::Failed, fails, "{answer}: {reading:?}");
    }
    let told = |kind: &str, response: &str| format!(r#"{{"type":"{kind}","response":{response}}}"#);
    let created = told(
        "response.created",
        r#"{"status":"in_progress","usage":null,"output":[]}"#,
    );
    let failed =
        r#"{"status":"failed","error":{"code":"rate_limit_exceeded"},"usage":null,"output":[]}"#;
    let end = told("response.failed", failed);
    let used = told(
        "response.failed",
        r#"{"status":"failed","error":{"code":"server_error"},"usage":{"input_tokens":10,"output_tokens":20},"output":[]}"#,
    );
    let item = r#"{"type":"response.output_item.added","item":{"type":"reasoning"}}"#;
    for (answer, fails) in [
        (events(&[&created, &end]), true),
        (
            events(&[&created, r#"{"type":"error","code":"server_error"}"#]),
            true,
        ),
        (failed.to_owned(), true),
        (events(&[&created, item, &end]), false),
        (events(&[&created, &used]), false),
        (events(&[&created]), false),
    ] {
        let reading = read(&responses(), &answer);
        assert_eq!(reading == Reading::Failed, fails, "{answer}: {reading:?}");
    }
}
