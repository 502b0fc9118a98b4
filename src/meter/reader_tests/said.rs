//! What answers say of themselves besides their counts: why they ended, and how much of them was reasoning.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::support::*;
use crate::meter::call::Call;
use crate::meter::endpoint::Operation;
use crate::meter::reader::{AnswerHead, Memory, Reader};
use crate::net::room::Room;

/// What is said in an answer, whole and octet by octet.
fn said(call: &Call, answer: &str) -> (Vec<&'static str>, Option<u64>) {
    let headers = HeaderMap::new();
    let head = AnswerHead {
        status: StatusCode::OK,
        headers: &headers,
    };
    let [whole, octets] = [answer.len(), 1].map(|size| {
        let mut reader = Reader::new(call, &head, Memory::of(&Arc::new(Room::of(u64::MAX))));
        let pieces = answer.as_bytes().chunks(size);
        pieces.for_each(|piece| reader.feed(piece));
        let said = reader.conclude().1;
        (said.stops().collect::<Vec<_>>(), said.reasoning())
    });
    assert_eq!(whole, octets, "{answer}");
    whole
}

#[test]
fn every_provider_says_in_its_own_words_why_an_answer_ended() {
    for (operation, answer, stops, reasoning) in [
        (
            Operation::Messages,
            r#"{"type":"message","stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":2}}"#.to_owned(),
            &["tool_use"][..],
            None,
        ),
        (
            Operation::Messages,
            events(&[
                r#"{"type":"message_start","message":{"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":2}}"#,
                r#"{"type":"message_stop"}"#,
            ]),
            &["max_tokens"],
            None,
        ),
        (
            Operation::ChatCompletions,
            r#"{"choices":[{"finish_reason":"stop"},{"finish_reason":"length"},{"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":7}}}"#.to_owned(),
            &["stop", "length"],
            Some(7),
        ),
        (
            Operation::ChatCompletions,
            events(&[
                r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"made_up"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":0}}}"#,
                "[DONE]",
            ]),
            &["_OTHER"],
            Some(0),
        ),
        (
            Operation::Responses,
            r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":1,"output_tokens":9,"output_tokens_details":{"reasoning_tokens":8}}}"#.to_owned(),
            &["max_output_tokens"],
            Some(8),
        ),
        (
            Operation::Responses,
            events(&[
                r#"{"type":"response.created","response":{"status":"in_progress"}}"#,
                r#"{"type":"response.completed","response":{"status":"completed","incomplete_details":null,"usage":{"input_tokens":1,"output_tokens":9}}}"#,
            ]),
            &["completed"],
            None,
        ),
        (
            Operation::GenerateContent,
            r#"{"candidates":[{"finishReason":"SAFETY"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2,"thoughtsTokenCount":5,"totalTokenCount":8}}"#.to_owned(),
            &["SAFETY"],
            Some(5),
        ),
        (
            Operation::Converse,
            r#"{"output":{},"stopReason":"guardrail_intervened","usage":{"inputTokens":1,"outputTokens":2}}"#.to_owned(),
            &["guardrail_intervened"],
            None,
        ),
        (
            Operation::InvokeModel,
            r#"{"type":"message","stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}"#.to_owned(),
            &["end_turn"],
            None,
        ),
        (
            Operation::OllamaGenerate,
            r#"{"done":true,"done_reason":"length","prompt_eval_count":1,"eval_count":2}"#.to_owned(),
            &["length"],
            None,
        ),
        (
            Operation::Embeddings,
            r#"{"data":[],"usage":{"prompt_tokens":1}}"#.to_owned(),
            &[],
            None,
        ),
    ] {
        let told = said(&call(operation), &answer);
        assert_eq!((&told.0[..], told.1), (stops, reasoning), "{answer}");
    }
}

#[test]
fn an_answer_that_was_cut_says_nothing_of_its_end() {
    let cut = r#"{"type":"message","stop_reason":"end_turn","usage":{"input_"#;
    assert_eq!(said(&call(Operation::Messages), cut), (Vec::new(), None));
}
