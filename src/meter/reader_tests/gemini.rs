//! Owns the tests of answers of Gemini.

use super::support::*;
use crate::meter::call::Call;
use crate::meter::endpoint::Operation;
use crate::meter::reading::Reading;
use crate::types::usage::Fee;

fn generate() -> Call {
    call(Operation::GenerateContent)
}

const FIRST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hel"},{"text":"lo","thought":true}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":2,"totalTokenCount":1052,"thoughtsTokenCount":50,"cachedContentTokenCount":600},"modelVersion":"gemini-2.5-flash","responseId":"r"}"#;
const LAST: &str = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"ls","args":{"a":1}}}],"role":"model"},"finishReason":"STOP","index":0,"groundingMetadata":{"webSearchQueries":["q","r"]}}],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":30,"totalTokenCount":1180,"thoughtsTokenCount":80,"toolUsePromptTokenCount":70,"cachedContentTokenCount":600,"promptTokensDetails":[{"modality":"TEXT","tokenCount":900},{"modality":"AUDIO","tokenCount":100}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":40}],"candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":10}],"serviceTier":"PRIORITY"},"modelVersion":"gemini-2.5-flash"}"#;

fn expected() -> Reading {
    let one = used(
        "gemini-2.5-flash",
        &[
            (Input, 1000 - 600 - 60 + 70),
            (CacheRead, 600),
            (AudioInput, 60),
            (Output, 100),
            (AudioOutput, 10),
        ],
    );
    let one = with_fee(one, Fee::Grounding, 1);
    let one = with_fee(one, Fee::GroundedSearch, 2);
    Reading::Exact(vec![on_tier(one, "priority")])
}

#[test]
fn a_stream_is_cumulative_and_read_as_events_and_as_an_array() {
    let stream = events(&[FIRST, LAST]).replace('\n', "\r\n");
    let (progress, reading) = progress_and_reading(&generate(), stream);
    assert!(progress.complete);
    assert_eq!(reading, expected());
    let array = format!("[{FIRST}\n,\r\n{LAST}\n]\n");
    let (progress, reading) = progress_and_reading(&generate(), &array);
    assert!(progress.complete);
    assert_eq!(reading, expected());
    let (progress, _) = progress_and_reading(&generate(), format!("[{FIRST}"));
    assert!(!progress.complete);
    let (progress, reading) = progress_and_reading(&generate(), LAST);
    assert!(progress.complete);
    assert_eq!(reading, expected());
}

#[test]
fn a_stream_that_was_cut_is_partial() {
    let (progress, reading) = progress_and_reading(&generate(), events(&[FIRST]));
    assert!(!progress.complete);
    assert_eq!(
        progress.input,
        Some(usage(&[(Input, 400), (CacheRead, 600)]))
    );
    assert_eq!(progress.produced, 52);
    let one = used(
        "gemini-2.5-flash",
        &[(Input, 400), (CacheRead, 600), (Output, 52)],
    );
    assert_eq!(reading, Reading::Partial(vec![one]));
}

#[test]
fn every_answer_of_several_must_end() {
    let mut asked = generate();
    asked.answers = 2;
    let (progress, reading) = progress_and_reading(&asked, events(&[FIRST, LAST]));
    assert!(!progress.complete);
    assert!(matches!(reading, Reading::Partial(_)));
    let (progress, _) = progress_and_reading(&asked, events(&[FIRST, LAST, LAST]));
    assert!(progress.complete);
}

#[test]
fn thoughts_are_added_once() {
    for (told, output) in [
        // beside the candidates
        (
            r#""candidatesTokenCount":10,"thoughtsTokenCount":5,"totalTokenCount":115"#,
            15,
        ),
        // among the candidates
        (
            r#""candidatesTokenCount":10,"thoughtsTokenCount":5,"totalTokenCount":110"#,
            10,
        ),
        // no total
        (r#""candidatesTokenCount":10,"thoughtsTokenCount":5"#, 15),
        // all was thought, and a zero left out
        (r#""thoughtsTokenCount":5,"totalTokenCount":105"#, 5),
        (r#""totalTokenCount":100"#, 0),
    ] {
        let body = format!(
            r#"{{"candidates":[{{"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":100,{told}}}}}"#
        );
        let expected = used("", &[(Input, 100), (Output, output)]);
        assert_eq!(
            read(&generate(), body),
            Reading::Exact(vec![expected]),
            "{told}"
        );
    }
}

#[test]
fn a_refused_prompt_is_whole() {
    let body = r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#;
    let (progress, reading) = progress_and_reading(&generate(), events(&[body]));
    assert!(progress.complete);
    assert_eq!(reading, Reading::Exact(vec![used("", &[(Input, 9)])]));
}

#[test]
fn broken_usage_of_gemini_is_never_zero() {
    for broken in [
        r#"{"promptTokenCount":-1,"candidatesTokenCount":1}"#,
        r#"{"promptTokenCount":7,"promptTokenCount":0,"candidatesTokenCount":1}"#,
        r#"{"promptTokenCount":7,"cachedContentTokenCount":"7","candidatesTokenCount":1}"#,
        r#"{"candidatesTokenCount":1}"#,
        "{}",
        "null",
    ] {
        let body = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"abc"}}]}},"finishReason":"STOP"}}],"usageMetadata":{broken}}}"#
        );
        for answer in [events(&[&body]), body] {
            let reading = read(&generate(), answer);
            assert!(
                matches!(reading, Reading::Unknown { produced: 1.. }),
                "{broken}: {reading:?}"
            );
        }
    }
    let body = r#"{"candidates":[{"content":{"parts":[{"text":"abcdef"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5}}"#;
    let partial = Reading::Partial(vec![used("", &[(Input, 5), (Output, 2)])]);
    assert_eq!(read(&generate(), body), partial);
    let late = events(&[
        FIRST,
        LAST,
        r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#,
    ]);
    assert!(matches!(read(&generate(), late), Reading::Partial(_)));
}

#[test]
fn embeddings_of_gemini_are_counted_if_they_say_so() {
    let asked = call(Operation::EmbedContent);
    let body = r#"{"embeddings":[{"values":[0.1,0.2]}],"usageMetadata":{"promptTokenCount":7,"promptTokenDetails":[{"modality":"TEXT"}]}}"#;
    assert_eq!(
        read(&asked, body),
        Reading::Exact(vec![used("", &[(Input, 7)])])
    );
    let body = r#"{"embedding":{"values":[0.1,0.2]}}"#;
    assert_eq!(read(&asked, body), Reading::Unknown { produced: 0 });
}
