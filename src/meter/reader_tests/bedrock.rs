//! Owns the tests of answers of Bedrock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::*;
use crate::meter::call::{CacheUse, Call};
use crate::meter::endpoint::Operation;
use crate::meter::frames::tests::message;
use crate::meter::reading::Reading;

const EVENTS: (&str, &str) = ("content-type", "application/vnd.amazon.eventstream");

fn event(kind: &str, payload: &str) -> Vec<u8> {
    let headers = [
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ];
    message(&headers, payload.as_bytes())
}

fn chunk(payload: &str) -> Vec<u8> {
    let payload = STANDARD.encode(payload);
    event(
        "chunk",
        &format!(r#"{{"bytes":"{payload}","p":"abcdefgh"}}"#),
    )
}

fn stream(call: &Call, frames: &[Vec<u8>]) -> (bool, Reading) {
    let answer = frames.concat();
    let (progress, whole) = read_pieces(call, &[EVENTS], &[&answer]);
    let octets: Vec<&[u8]> = answer.chunks(1).collect();
    assert_eq!(
        read_pieces(call, &[EVENTS], &octets),
        (progress, whole.clone())
    );
    (progress.complete, whole)
}

fn converse_frames(usage: &str) -> Vec<Vec<u8>> {
    vec![
        event("messageStart", r#"{"role":"assistant"}"#),
        event(
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"hmm"}}}"#,
        ),
        event(
            "contentBlockDelta",
            r#"{"contentBlockIndex":1,"delta":{"text":"Hello!"}}"#,
        ),
        event(
            "contentBlockStart",
            r#"{"contentBlockIndex":2,"start":{"toolUse":{"toolUseId":"t","name":"ls"}}}"#,
        ),
        event(
            "contentBlockDelta",
            r#"{"contentBlockIndex":2,"delta":{"toolUse":{"input":"{}"}}}"#,
        ),
        event("contentBlockStop", r#"{"contentBlockIndex":2}"#),
        event("messageStop", r#"{"stopReason":"tool_use"}"#),
        event(
            "metadata",
            &format!(
                r#"{{"usage":{usage},"metrics":{{"latencyMs":1275}},"serviceTier":{{"type":"flex"}},"performanceConfig":{{"latency":"optimized"}}}}"#
            ),
        ),
    ]
}

#[test]
fn a_converse_stream_is_read_to_its_metadata() {
    let usage = r#"{"inputTokens":125,"outputTokens":60,"totalTokens":1485,"cacheReadInputTokens":1000,"cacheReadInputTokenCount":1000,"cacheWriteInputTokens":300,"cacheDetails":[{"inputTokens":100,"ttl":"1h"},{"inputTokens":150,"ttl":"5m"}]}"#;
    let mut asked = call(Operation::ConverseStream);
    asked.cache = CacheUse::Hour;
    let mut expected = on_tier(
        used(
            "",
            &[
                (Input, 125),
                (CacheRead, 1000),
                (CacheWrite5m, 150),
                (CacheWrite1h, 150),
                (Output, 60),
            ],
        ),
        "flex",
    );
    expected.terms.speed = Some("optimized".into());
    let frames = converse_frames(usage);
    assert_eq!(
        stream(&asked, &frames),
        (true, Reading::Exact(vec![expected]))
    );
    let cut = stream(&asked, &frames[..7]);
    assert_eq!(
        cut,
        (
            false,
            Reading::Unknown {
                produced: (3 + 6 + 2 + 2_u64).div_ceil(3)
            }
        )
    );
}

#[test]
fn an_exception_in_a_converse_stream_ends_it_early() {
    let mut frames = converse_frames("{}");
    frames.truncate(3);
    frames.push(message(
        &[
            (":message-type", "exception"),
            (":exception-type", "throttlingException"),
        ],
        br#"{"message":"slow down"}"#,
    ));
    let reading = stream(&call(Operation::ConverseStream), &frames);
    assert_eq!(reading, (false, Reading::Unknown { produced: 3 }));
}

#[test]
fn a_damaged_message_is_never_zero() {
    let mut frames = converse_frames(r#"{"inputTokens":1,"outputTokens":0}"#);
    let last = frames.last_mut().unwrap();
    let at = last.len() - 30;
    last[at] ^= 4;
    let reading = stream(&call(Operation::ConverseStream), &frames);
    assert!(
        matches!(reading, (false, Reading::Unknown { produced: 4.. })),
        "{reading:?}"
    );
    for broken in [
        r#"{"inputTokens":-1,"outputTokens":9}"#,
        r#"{"inputTokens":1,"inputTokens":0,"outputTokens":9}"#,
        r#"{"outputTokens":9}"#,
        "null",
    ] {
        let reading = stream(&call(Operation::ConverseStream), &converse_frames(broken)).1;
        assert!(
            matches!(reading, Reading::Unknown { .. }),
            "{broken} {reading:?}"
        );
    }
    let zero = converse_frames(r#"{"inputTokens":0,"outputTokens":0,"totalTokens":0}"#);
    let Reading::Exact(uses) = stream(&call(Operation::ConverseStream), &zero).1 else {
        panic!("zeros are exact");
    };
    assert!(uses[0].usage.is_zero());
}

#[test]
fn a_converse_answer_is_read_whole() {
    let body = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658},"metrics":{"latencyMs":1275}}"#;
    let (progress, reading) = progress_and_reading(&call(Operation::Converse), body);
    assert!(progress.complete);
    let expected = used("", &[(Input, 30), (Output, 628)]);
    assert_eq!(reading, Reading::Exact(vec![expected]));
    let reading = read(&call(Operation::Converse), r#"{"message":"no"}"#);
    assert!(matches!(reading, Reading::Unknown { produced: 1.. }));
}

#[test]
fn an_anthropic_model_streams_its_own_events() {
    let frames = [
        chunk(
            r#"{"type":"message_start","message":{"model":"claude-sonnet-4","usage":{"input_tokens":14,"cache_read_input_tokens":100,"output_tokens":1}}}"#,
        ),
        chunk(
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
        ),
        chunk(
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":12}}"#,
        ),
        chunk(
            r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":114,"outputTokenCount":13,"invocationLatency":593,"firstByteLatency":334}}"#,
        ),
    ];
    let asked = call(Operation::InvokeModelStream);
    let expected = used("", &[(Input, 14), (CacheRead, 100), (Output, 12)]);
    assert_eq!(
        stream(&asked, &frames),
        (true, Reading::Exact(vec![expected]))
    );
    let cut = used("", &[(Input, 14), (CacheRead, 100), (Output, 2)]);
    assert_eq!(
        stream(&asked, &frames[..2]),
        (false, Reading::Partial(vec![cut]))
    );
}

#[test]
fn other_models_streams_are_counted_by_bedrock() {
    let text = r#"{"generation":"Hello","stop_reason":null}"#;
    let frames = [
        chunk(text),
        chunk(
            r#"{"generation":"","stop_reason":"stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":20,"outputTokenCount":9,"cacheReadInputTokenCount":5,"cacheWriteInputTokenCount":6}}"#,
        ),
    ];
    let asked = call(Operation::InvokeModelStream);
    let expected = used(
        "",
        &[(Input, 20), (CacheRead, 5), (CacheWrite5m, 6), (Output, 9)],
    );
    assert_eq!(
        stream(&asked, &frames),
        (true, Reading::Exact(vec![expected]))
    );
    let produced = (text.len() as u64).div_ceil(3);
    assert_eq!(
        stream(&asked, &frames[..1]),
        (false, Reading::Unknown { produced })
    );
}

#[test]
fn the_headers_of_an_invocation_count_what_its_body_does_not() {
    let headers = [
        ("content-type", "application/json"),
        ("x-amzn-bedrock-input-token-count", "20"),
        ("x-amzn-bedrock-output-token-count", "9"),
        ("x-amzn-bedrock-cache-read-input-token-count", "3"),
    ];
    let asked = call(Operation::InvokeModel);
    let (progress, reading) = read_pieces(&asked, &headers, &[br#"{"generation":"Hello"}"#]);
    assert!(progress.complete);
    let counted = Reading::Exact(vec![used("", &[(Input, 20), (CacheRead, 3), (Output, 9)])]);
    assert_eq!(reading, counted);
    let body = br#"{"type":"message","model":"claude","usage":{"input_tokens":17,"cache_read_input_tokens":3,"output_tokens":8}}"#;
    let own = Reading::Exact(vec![used("", &[(Input, 17), (CacheRead, 3), (Output, 8)])]);
    assert_eq!(read_pieces(&asked, &headers, &[body]).1, own);
    let broken = br#"{"type":"message","model":"claude","usage":{"input_tokens":0,"input_tokens":17,"output_tokens":8}}"#;
    assert_eq!(read_pieces(&asked, &headers, &[broken]).1, counted);
    let without = read_pieces(&asked, &headers[..1], &[br#"{"generation":"Hello"}"#]).1;
    assert!(
        matches!(without, Reading::Unknown { produced: 7.. }),
        "{without:?}"
    );
    let twice = [headers[1], headers[1], headers[2]];
    let twice = read_pieces(&asked, &twice, &[b"{}"]).1;
    assert!(
        matches!(twice, Reading::Unknown { produced: 9.. }),
        "{twice:?}"
    );
}

#[test]
fn an_invoked_embedding_makes_no_tokens() {
    let mut asked = call(Operation::InvokeModel);
    asked.model = "amazon.titan-embed-text-v2:0".into();
    let headers = [("x-amzn-bedrock-input-token-count", "20")];
    let body = br#"{"embedding":[0.1,0.2],"inputTextTokenCount":20}"#;
    let (progress, reading) = read_pieces(&asked, &headers, &[body]);
    assert_eq!(progress.produced, 0);
    assert_eq!(reading, Reading::Exact(vec![used("", &[(Input, 20)])]));
}
