//! Owns the tests of answers of the Messages API.

use super::support::*;
use crate::meter::call::{CacheUse, Call};
use crate::meter::endpoint::Operation;
use crate::meter::reading::Reading;
use crate::types::usage::{Fee, Terms};

const STOP: &str = r#"{"type":"message_stop"}"#;

fn messages() -> Call {
    call(Operation::Messages)
}

fn start(usage: &str) -> String {
    format!(
        r#"{{"type":"message_start","message":{{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"usage":{usage}}}}}"#
    )
}

fn end(usage: &str) -> String {
    format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{usage}}}"#
    )
}

fn text(text: &str) -> String {
    format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#
    )
}

fn stream(data: &[&str]) -> String {
    events(data)
}

/// As the documentation shows it, with a ping and a tool call.
fn documented() -> String {
    stream(&[
        &start(
            r#"{"input_tokens":25,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard","inference_geo":"global"}"#,
        ),
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"ping"}"#,
        &text("Hello"),
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"get_weather","input":{}}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"location\":"}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        &end(r#"{"output_tokens":89}"#),
        STOP,
    ])
}

#[test]
fn a_stream_is_read_to_its_end() {
    let (progress, reading) = progress_and_reading(&messages(), documented());
    assert_eq!(
        reading,
        Reading::Exact(vec![used(
            "claude-sonnet-4-5",
            &[(Input, 25), (Output, 89)]
        )])
    );
    assert!(progress.complete);
    assert_eq!(progress.input, Some(usage(&[(Input, 25)])));
    assert_eq!(progress.produced, 89);
}

#[test]
fn a_message_is_read_whole() {
    let body = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-4-5","content":[{"type":"text","text":"{\"usage\":0}"}],"stop_reason":"end_turn","usage":{"input_tokens":2095,"cache_read_input_tokens":2051,"output_tokens":503,"server_tool_use":{"web_search_requests":3,"code_execution_requests":2},"service_tier":"batch","speed":"fast","inference_geo":"us"}}"#;
    let (progress, reading) = progress_and_reading(&messages(), body);
    let mut expected = with_fee(
        used(
            "claude-opus-4-5",
            &[(Input, 2095), (CacheRead, 2051), (Output, 503)],
        ),
        Fee::WebSearch,
        3,
    );
    expected.fees.push((Fee::CodeExecution, 2));
    expected.terms = Terms {
        service_tier: Some("batch".into()),
        speed: Some("fast".into()),
        geo: Some("us".into()),
        is_only_asked: false,
    };
    assert_eq!(reading, Reading::Exact(vec![expected]));
    assert!(progress.complete);
    let (progress, reading) = progress_and_reading(&messages(), &body[..body.len() - 1]);
    assert!(!progress.complete);
    let produced = (body.len() as u64 - 1).div_ceil(3);
    assert_eq!(reading, Reading::Unknown { produced });
}

#[test]
fn the_path_names_the_model_on_vertex() {
    let reading = read(&call(Operation::RawPredict), documented());
    assert_eq!(
        reading,
        Reading::Exact(vec![used("", &[(Input, 25), (Output, 89)])])
    );
}

#[test]
fn terms_that_were_asked_for_hold_until_the_answer_names_others() {
    let mut asked = messages();
    asked.terms.speed = Some("fast".into());
    asked.terms.geo = Some("us".into());
    asked.terms.service_tier = Some("auto".into());
    let body = |more: &str| {
        format!(
            r#"{{"type":"message","model":"m","usage":{{"input_tokens":1,"output_tokens":1{more}}}}}"#
        )
    };
    let mut expected = used("m", &[(Input, 1), (Output, 1)]);
    expected.terms.geo = Some("us".into());
    assert_eq!(
        read(&asked, body(r#","speed":"standard""#)),
        Reading::Exact(vec![expected.clone()])
    );
    expected.terms.speed = Some("fast".into());
    assert_eq!(read(&asked, body("")), Reading::Exact(vec![expected]));
}

/// Complaint 10: the provider reported zero, and estimates were billed.
#[test]
fn explicit_zeros_are_exact() {
    let zero = r#"{"input_tokens":0,"output_tokens":0}"#;
    let answer = stream(&[&start(zero), &text("what was seen"), &end(zero), STOP]);
    let expected = Reading::Exact(vec![used("claude-sonnet-4-5", &[])]);
    assert_eq!(read(&messages(), answer), expected);
}

/// Complaint 11: cache writes were charged twice ($0.0913 for $0.0544).
#[test]
fn cache_writes_are_counted_once() {
    let told = r#"{"input_tokens":4,"cache_creation_input_tokens":12000,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":12000,"ephemeral_1h_input_tokens":0},"output_tokens":7}"#;
    let answer = stream(&[&start(told), &text("x"), &end(told), STOP]);
    let expected = used(
        "claude-sonnet-4-5",
        &[(Input, 4), (CacheWrite5m, 12000), (Output, 7)],
    );
    assert_eq!(read(&messages(), answer), Reading::Exact(vec![expected]));
}

/// Complaint 12: cache reads of a stream were charged as plain input.
#[test]
fn cache_reads_of_a_stream_are_cache_reads() {
    let answer = stream(&[
        &start(r#"{"input_tokens":3,"cache_read_input_tokens":18000,"output_tokens":1}"#),
        &text("x"),
        &end(r#"{"output_tokens":20}"#),
        STOP,
    ]);
    let expected = used(
        "claude-sonnet-4-5",
        &[(Input, 3), (CacheRead, 18000), (Output, 20)],
    );
    assert_eq!(read(&messages(), answer), Reading::Exact(vec![expected]));
}

/// Complaint 13: cache writes that live an hour were charged as such of five minutes.
#[test]
fn cache_writes_of_an_hour_are_told_apart() {
    let told = r#"{"input_tokens":1,"cache_creation_input_tokens":1000,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":700},"output_tokens":1}"#;
    let answer = stream(&[&start(told), &end(told), STOP]);
    let mut asked = messages();
    for (cache, minutes, hour) in [
        (CacheUse::Unnamed, 300, 700),
        (CacheUse::Minutes5, 300, 700),
        (CacheUse::Hour, 100, 900),
    ] {
        asked.cache = cache;
        let expected = used(
            "claude-sonnet-4-5",
            &[
                (Input, 1),
                (CacheWrite5m, minutes),
                (CacheWrite1h, hour),
                (Output, 1),
            ],
        );
        assert_eq!(
            read(&asked, &answer),
            Reading::Exact(vec![expected]),
            "{cache:?}"
        );
    }
    let plain = r#"{"input_tokens":1,"cache_creation_input_tokens":1000,"output_tokens":1}"#;
    let reading = read(&asked, stream(&[&start(plain), &end(plain), STOP]));
    let expected = used(
        "claude-sonnet-4-5",
        &[(Input, 1), (CacheWrite1h, 1000), (Output, 1)],
    );
    assert_eq!(reading, Reading::Exact(vec![expected]));
}

/// Complaint 14: what several models had done was priced as the work of one.
#[test]
fn iterations_stand_for_the_whole_answer_each_with_its_model() {
    let told = r#"{"input_tokens":23000,"output_tokens":1000,"server_tool_use":{"web_search_requests":2},"iterations":[
        {"type":"compaction","input_tokens":180000,"output_tokens":3500},
        {"type":"message","input_tokens":23000,"output_tokens":1000},
        {"type":"advisor_message","model":"claude-opus-4-5","input_tokens":823,"cache_creation":{"ephemeral_1h_input_tokens":40},"output_tokens":1612,"service_tier":"priority"},
        {"type":"fallback_message","model":"claude-haiku-4-5","input_tokens":9,"cache_read_input_tokens":22000,"output_tokens":5}]}"#
        .replace('\n', " ");
    let expected = Reading::Exact(vec![
        with_fee(
            used("claude-sonnet-4-5", &[(Input, 180_000), (Output, 3500)]),
            Fee::WebSearch,
            2,
        ),
        used("claude-sonnet-4-5", &[(Input, 23_000), (Output, 1000)]),
        on_tier(
            used(
                "claude-opus-4-5",
                &[(Input, 823), (CacheWrite1h, 40), (Output, 1612)],
            ),
            "priority",
        ),
        used(
            "claude-haiku-4-5",
            &[(Input, 9), (CacheRead, 22_000), (Output, 5)],
        ),
    ]);
    let start = start(r#"{"input_tokens":23000,"output_tokens":1}"#);
    let streamed = stream(&[&start, &text("x"), &end(&told), STOP]);
    assert_eq!(read(&messages(), streamed), expected);
    let whole = format!(r#"{{"type":"message","model":"claude-sonnet-4-5","usage":{told}}}"#);
    assert_eq!(read(&messages(), whole), expected);
}

#[test]
fn more_iterations_than_any_answer_has_are_no_usage() {
    let told = |count: usize| {
        let one = r#"{"input_tokens":1,"output_tokens":2}"#;
        let all = vec![one; count].join(",");
        let answer = format!(
            r#"{{"type":"message","model":"m","usage":{{"input_tokens":1,"output_tokens":2,"iterations":[{all}]}}}}"#
        );
        read(&messages(), answer)
    };
    assert!(matches!(told(64), Reading::Exact(uses) if uses.len() == 64));
    assert!(matches!(told(65), Reading::Unknown { .. }));
}

#[test]
fn iterations_that_tell_less_than_the_total_hide_nothing() {
    let told = r#"{"input_tokens":1000,"output_tokens":500,"iterations":[{"type":"message","model":"claude-haiku-4-5","input_tokens":1,"output_tokens":2}]}"#;
    let body = format!(r#"{{"type":"message","model":"claude-opus-4-5","usage":{told}}}"#);
    assert_eq!(
        read(&messages(), body),
        Reading::Exact(vec![
            used("claude-haiku-4-5", &[(Input, 1), (Output, 2)]),
            used("claude-opus-4-5", &[(Input, 999), (Output, 498)]),
        ])
    );
    let told = told.replace(r#""output_tokens":2"#, r#""output_tokens":-2"#);
    let body = format!(r#"{{"type":"message","model":"claude-opus-4-5","usage":{told}}}"#);
    assert!(matches!(read(&messages(), body), Reading::Partial(_)));
}

/// Complaint 20: 5 of 9,038 tokens were counted, others twice, and a zero overwrote a count.
#[test]
fn later_reports_of_a_stream_never_lower_or_add_to_earlier_ones() {
    let told = r#"{"input_tokens":15,"cache_read_input_tokens":9018,"output_tokens":1}"#;
    for later in [
        r#"{"output_tokens":5}"#,
        r#"{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":5}"#,
        r#"{"input_tokens":null,"cache_read_input_tokens":null,"output_tokens":5}"#,
        r#"{"input_tokens":15,"cache_read_input_tokens":9018,"output_tokens":5}"#,
    ] {
        let answer = stream(&[
            &start(told),
            &end(r#"{"output_tokens":4}"#),
            &end(later),
            STOP,
        ]);
        let expected = used(
            "claude-sonnet-4-5",
            &[(Input, 15), (CacheRead, 9018), (Output, 5)],
        );
        assert_eq!(
            read(&messages(), answer),
            Reading::Exact(vec![expected]),
            "{later}"
        );
    }
    // With the provider's own tools the prompt grows while it answers.
    let answer = stream(&[
        &start(r#"{"input_tokens":2679,"output_tokens":3}"#),
        &end(
            r#"{"input_tokens":10682,"output_tokens":510,"server_tool_use":{"web_search_requests":1}}"#,
        ),
        STOP,
    ]);
    let expected = used("claude-sonnet-4-5", &[(Input, 10682), (Output, 510)]);
    assert_eq!(
        read(&messages(), answer),
        Reading::Exact(vec![with_fee(expected, Fee::WebSearch, 1)])
    );
}

#[test]
fn an_aborted_stream_keeps_its_input_and_what_was_seen() {
    let answer = stream(&[
        &start(r#"{"input_tokens":100,"output_tokens":2}"#),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"","estimated_tokens":50}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"","estimated_tokens":25}}"#,
        &text(&"é".repeat(50)),
    ]);
    let (progress, reading) = progress_and_reading(&messages(), answer);
    assert_eq!((progress.produced, progress.complete), (75 + 34, false));
    assert_eq!(progress.input, Some(usage(&[(Input, 100)])));
    assert_eq!(
        reading,
        Reading::Partial(vec![used(
            "claude-sonnet-4-5",
            &[(Input, 100), (Output, 109)]
        )])
    );
}

#[test]
fn what_is_hinted_at_is_progress_and_no_bill() {
    let answer = stream(&[
        &start(r#"{"input_tokens":100,"output_tokens":2}"#),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","estimated_tokens":5000}}"#,
        &end(r#"{"output_tokens":700}"#),
        STOP,
    ]);
    let (progress, reading) = progress_and_reading(&messages(), answer);
    assert_eq!(progress.produced, 5000);
    let expected = used("claude-sonnet-4-5", &[(Input, 100), (Output, 700)]);
    assert_eq!(reading, Reading::Exact(vec![expected]));
}

#[test]
fn content_after_the_last_count_makes_it_a_guess() {
    let answer = stream(&[
        &start(r#"{"input_tokens":1,"output_tokens":1}"#),
        &end(r#"{"output_tokens":1}"#),
        &text(&"x".repeat(300)),
        STOP,
    ]);
    let expected = used("claude-sonnet-4-5", &[(Input, 1), (Output, 100)]);
    assert_eq!(read(&messages(), answer), Reading::Partial(vec![expected]));
}

#[test]
fn broken_usage_is_never_zero() {
    let good = r#"{"input_tokens":10,"output_tokens":1}"#;
    let said = text(&"x".repeat(30));
    // The prompt's count is broken: nothing is known.
    for broken in [
        r#"{"input_tokens":-10,"output_tokens":1}"#,
        r#"{"input_tokens":10.5,"output_tokens":1}"#,
        r#"{"input_tokens":"10","output_tokens":1}"#,
        r#"{"input_tokens":10,"input_tokens":0,"output_tokens":1}"#,
        r#"{"input_tokens":10,"\u0069nput_tokens":0,"output_tokens":1}"#,
        r#"{"input_tokens":10,"cache_read_input_tokens":[],"output_tokens":1}"#,
        r#"{"output_tokens":1}"#,
        "null",
        "7",
    ] {
        let answer = stream(&[&start(broken), &said, &end(r#"{"output_tokens":20}"#), STOP]);
        let reading = read(&messages(), answer);
        assert!(
            matches!(reading, Reading::Unknown { produced: 20.. }),
            "{broken}: {reading:?}"
        );
    }
    // The answer's count is broken: it is what was seen.
    for broken in [
        r#"{"output_tokens":-5}"#,
        r#"{"output_tokens":1.0}"#,
        r#"{"output_tokens":20,"output_tokens":0}"#,
        r#"{"output_tokens":null}"#,
        r#"{}"#,
        "null",
        "\"5\"",
    ] {
        let answer = stream(&[&start(good), &said, &end(broken), STOP]);
        let Reading::Partial(uses) = read(&messages(), answer) else {
            panic!("{broken}");
        };
        assert_eq!(uses[0].usage[Input], 10, "{broken}");
        assert!(uses[0].usage[Output] >= 10, "{broken}");
    }
}

#[test]
fn an_error_in_a_stream_ends_it_early() {
    let answer = stream(&[
        &start(r#"{"input_tokens":10,"output_tokens":1}"#),
        &text("abc"),
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    ]);
    let (progress, reading) = progress_and_reading(&messages(), answer);
    assert!(!progress.complete);
    let expected = used("claude-sonnet-4-5", &[(Input, 10), (Output, 1)]);
    assert_eq!(reading, Reading::Partial(vec![expected]));
}

#[test]
fn an_event_of_an_unknown_kind_does_no_harm() {
    let answer = stream(&[
        &start(r#"{"input_tokens":10,"output_tokens":1}"#),
        r#"{"type":"new","delta":[1,2],"content_block":"x"}"#,
        &end(r#"{"output_tokens":4}"#),
        STOP,
    ]);
    let expected = used("claude-sonnet-4-5", &[(Input, 10), (Output, 4)]);
    assert_eq!(read(&messages(), answer), Reading::Exact(vec![expected]));
}

#[test]
fn what_is_no_answer_of_this_api_is_unknown() {
    for answer in ["", "<html>", "null", "{}", "data: hello\n\n"] {
        let reading = read(&messages(), answer);
        assert!(
            matches!(reading, Reading::Unknown { .. }),
            "{answer}: {reading:?}"
        );
    }
}

/// Overload is told in a stream that has begun with 200, and clients send the request again.
#[test]
fn an_error_before_anything_else_is_no_answer() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let ping = r#"{"type":"ping"}"#;
    let begun = start(r#"{"input_tokens":100,"output_tokens":2}"#);
    for (answer, fails) in [
        (stream(&[error]), true),
        (stream(&[ping, error]), true),
        (error.to_owned(), true),
        (stream(&[&begun, error]), false),
        (stream(&[&text("something"), error]), false),
        (stream(&[error, &text("something")]), false),
        (stream(&[error]) + "data: {not json, usage", false),
        (stream(&[ping]), false),
        (String::new(), false),
    ] {
        let reading = read(&messages(), &answer);
        assert_eq!(reading == Reading::Failed, fails, "{answer}: {reading:?}");
    }
}
