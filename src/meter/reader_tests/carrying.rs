//! Owns the tests of how answers are carried: Ollama's lines, vectors, compression, size, any split.

use std::io::Write as _;
use std::sync::Arc;

use async_compression::codecs::brotli::params::EncoderParams;
use async_compression::codecs::zstd::params::CParameter;
use async_compression::codecs::{
    BrotliEncoder, DeflateEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder,
};
use async_compression::core::Level;
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::support::*;
use crate::meter::answer::MAX_PIECE;
use crate::meter::endpoint::Operation;
use crate::meter::reader::{AnswerHead, Memory, Reader};
use crate::meter::reading::Reading;
use crate::net::room::Room;

#[test]
fn lines_of_ollama_end_with_their_counts() {
    let asked = call(Operation::OllamaGenerate);
    let lines = concat!(
        r#"{"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":"abc","thinking":"de"},"done":false}"#,
        "\n",
        r#"{"model":"llama3.2","message":{"role":"assistant","content":"","tool_calls":[{"function":{}}]},"done":false}"#,
        "\n",
    );
    let last = r#"{"model":"llama3.2","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":1,"prompt_eval_count":26,"eval_count":298}"#;
    let expected = Reading::Exact(vec![used("llama3.2", &[(Input, 26), (Output, 298)])]);
    for answer in [format!("{lines}{last}\n"), last.to_owned()] {
        let (progress, reading) = progress_and_reading(&asked, answer);
        assert!(progress.complete);
        assert_eq!(reading, expected);
    }
    let (progress, reading) = progress_and_reading(&asked, lines);
    assert!(!progress.complete);
    assert_eq!(reading, Reading::Unknown { produced: 8 });
    let no_prompt = last.replace(r#""prompt_eval_count":26,"#, "");
    assert_eq!(
        read(&asked, format!("{lines}{no_prompt}")),
        Reading::Unknown { produced: 298 }
    );
    let no_answer = last.replace(r#","eval_count":298"#, "");
    assert_eq!(
        read(&asked, format!("{lines}{no_answer}")),
        Reading::Partial(vec![used("llama3.2", &[(Input, 26), (Output, 8)])])
    );
}

#[test]
fn embeddings_make_no_tokens() {
    let asked = call(Operation::Embeddings);
    let body = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0023,-0.009]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let (progress, reading) = progress_and_reading(&asked, body);
    assert_eq!((progress.complete, progress.produced), (true, 0));
    let expected = used("text-embedding-3-small", &[(Input, 8)]);
    assert_eq!(reading, Reading::Exact(vec![expected]));
    assert_eq!(read(&asked, &body[..60]), Reading::Unknown { produced: 0 });
    for broken in ["-8", "\"8\"", "8,\"prompt_tokens\":0"] {
        let body = body.replace(
            r#""prompt_tokens":8"#,
            &format!(r#""prompt_tokens":{broken}"#),
        );
        assert_eq!(
            read(&asked, body),
            Reading::Unknown { produced: 0 },
            "{broken}"
        );
    }
    let body = r#"{"model":"all-minilm","embeddings":[[0.1,0.2]],"load_duration":1,"prompt_eval_count":8}"#;
    let expected = Reading::Exact(vec![used("all-minilm", &[(Input, 8)])]);
    assert_eq!(read(&call(Operation::OllamaEmbed), body), expected);
}

#[test]
fn an_answer_that_is_no_success_used_nothing() {
    let headers = HeaderMap::new();
    let head = AnswerHead {
        status: StatusCode::TOO_MANY_REQUESTS,
        headers: &headers,
    };
    let mut reader = Reader::new(
        &call(Operation::Messages),
        &head,
        Memory::of(&Arc::new(Room::of(u64::MAX))),
    );
    reader.feed(br#"{"type":"error"}"#);
    assert!(reader.progress().complete);
    assert_eq!(reader.finish(), Reading::Exact(Vec::new()));
}

#[test]
fn a_body_too_large_to_keep_is_unknown_and_was_seen() {
    let part = vec![b'x'; 1 << 20];
    let mut pieces: Vec<&[u8]> = vec![br#"{"choices":[{"message":{"content":""#];
    pieces.extend(std::iter::repeat_n(&part[..], MAX_PIECE / part.len()));
    pieces.push(br#""}}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#);
    let (progress, reading) = read_pieces(&call(Operation::ChatCompletions), &[], &pieces);
    assert!(progress.complete);
    let Reading::Unknown { produced } = reading else {
        panic!("{reading:?}");
    };
    assert!(produced > MAX_PIECE as u64 / 3);
}

#[test]
fn vectors_of_any_size_do_not_hide_the_count() {
    let part = vec![b'1'; 1 << 20];
    let mut pieces: Vec<&[u8]> = vec![br#"{"data":[{"embedding":["#];
    pieces.extend(std::iter::repeat_n(&part[..], MAX_PIECE / part.len() + 2));
    pieces.push(br#"]}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}"#);
    let reading = read_pieces(&call(Operation::Embeddings), &[], &pieces).1;
    assert_eq!(reading, Reading::Exact(vec![used("m", &[(Input, 8)])]));
}

fn coded(codec: &mut dyn EncodeV2, parts: &[&[u8]]) -> Vec<u8> {
    let mut coded = Vec::new();
    let mut room = vec![0; 1 << 16];
    for part in parts {
        let mut input = PartialBuffer::new(*part);
        loop {
            let mut output = WriteBuffer::new_initialized(&mut room);
            if input.unwritten().is_empty() {
                // As servers do it after each event.
                let flushed = codec.flush(&mut output).unwrap();
                coded.write_all(output.written()).unwrap();
                if flushed {
                    break;
                }
                continue;
            }
            codec.encode(&mut input, &mut output).unwrap();
            coded.write_all(output.written()).unwrap();
        }
    }
    loop {
        let mut output = WriteBuffer::new_initialized(&mut room);
        let done = codec.finish(&mut output).unwrap();
        coded.write_all(output.written()).unwrap();
        if done {
            return coded;
        }
    }
}

fn all_codings(parts: &[&[u8]]) -> Vec<(&'static str, Vec<u8>)> {
    let level = Level::Default.into();
    vec![
        ("gzip", coded(&mut GzipEncoder::new(level), parts)),
        (
            "deflate",
            coded(&mut ZlibEncoder::new(Level::Default.into()), parts),
        ),
        (
            "deflate",
            coded(&mut DeflateEncoder::new(Level::Default.into()), parts),
        ),
        (
            "br",
            coded(&mut BrotliEncoder::new(EncoderParams::default()), parts),
        ),
        ("zstd", coded(&mut ZstdEncoder::new(3), parts)),
    ]
}

const START: &str = r#"{"type":"message_start","message":{"model":"claude-sonnet-4-5","usage":{"input_tokens":25,"output_tokens":1}}}"#;
const DELTA: &str = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello, world, in events"}}"#;
const END: &str =
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":89}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

#[test]
fn compressed_events_are_read_as_they_come() {
    let asked = call(Operation::Messages);
    let start = events(&[START, DELTA]);
    let rest = events(&[END, STOP]);
    let whole = Reading::Exact(vec![used(
        "claude-sonnet-4-5",
        &[(Input, 25), (Output, 89)],
    )]);
    for (coding, octets) in all_codings(&[start.as_bytes(), rest.as_bytes()]) {
        let headers = [("content-encoding", coding)];
        let single: Vec<&[u8]> = octets.chunks(1).collect();
        for chunks in [&[&octets[..]][..], &single] {
            let (progress, reading) = read_pieces(&asked, &headers, chunks);
            assert!(progress.complete, "{coding}");
            assert_eq!(reading, whole, "{coding}");
        }
    }
    // What was flushed can be read before the rest comes.
    for (coding, octets) in all_codings(&[start.as_bytes()]) {
        let headers = [("content-encoding", coding)];
        let cut = &octets[..octets.len() - 1];
        let (progress, _) = read_pieces(&asked, &headers, &[cut]);
        assert_eq!(progress.produced, 8, "{coding}");
    }
}

#[test]
fn parts_of_gzip_and_zstd_in_a_row_are_one_answer() {
    let asked = call(Operation::Messages);
    let (start, rest) = (events(&[START, DELTA]), events(&[END, STOP]));
    let whole = Reading::Exact(vec![used(
        "claude-sonnet-4-5",
        &[(Input, 25), (Output, 89)],
    )]);
    let (first, second) = (
        all_codings(&[start.as_bytes()]),
        all_codings(&[rest.as_bytes()]),
    );
    for ((coding, mut octets), (_, more)) in first.into_iter().zip(second) {
        if !["gzip", "zstd"].contains(&coding) {
            continue;
        }
        octets.extend(more);
        let single: Vec<&[u8]> = octets.chunks(1).collect();
        let headers = [("content-encoding", coding)];
        assert_eq!(
            read_pieces(&asked, &headers, &[&octets]).1,
            whole,
            "{coding}"
        );
        assert_eq!(read_pieces(&asked, &headers, &single).1, whole, "{coding}");
    }
}

#[test]
fn what_cannot_be_decoded_is_unknown_and_grows_as_it_passes() {
    let asked = call(Operation::Messages);
    let text = events(&[START, DELTA, END, STOP]);
    let octets = text.as_bytes();
    for headers in [
        &[("content-encoding", "gzip, br")][..],
        &[("content-encoding", "gzip"), ("content-encoding", "gzip")],
        &[("content-encoding", "compress")],
        &[("content-encoding", "zstd")],
        &[("content-encoding", "gzip")],
    ] {
        let (progress, reading) = read_pieces(&asked, headers, &[octets]);
        assert!(!progress.complete);
        assert_eq!(reading, Reading::Unknown { produced: 0 }, "{headers:?}");
        // All of it, but for what looked like the start of gzip.
        assert!(progress.produced >= octets.len() as u64 - 10, "{headers:?}");
    }
    let identity = [("content-encoding", "identity"), ("content-encoding", "")];
    let reading = read_pieces(&asked, &identity, &[octets]).1;
    assert!(matches!(reading, Reading::Exact(_)));
}

#[test]
fn a_bomb_costs_little_and_is_never_zero() {
    let asked = call(Operation::ChatCompletions);
    let part = vec![b' '; 1 << 20];
    let mut parts: Vec<&[u8]> = vec![b"data: "];
    parts.extend(std::iter::repeat_n(&part[..], 300));
    let last = b"{\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0},\"choices\":[]}\n\ndata: [DONE]\n\n";
    parts.push(last);
    let bomb = coded(&mut ZstdEncoder::new(1), &parts);
    let headers = [("content-encoding", "zstd")];
    let (progress, reading) = read_pieces(&asked, &headers, &[&bomb]);
    assert!(!progress.complete);
    assert!(matches!(reading, Reading::Unknown { .. }), "{reading:?}");
}

/// The end of an answer of Chat Completions, which tells its usage.
fn told() -> String {
    events(&[
        r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}"#,
        "[DONE]",
    ])
}

#[test]
fn what_grows_beyond_a_hundredfold_is_not_decoded_to_its_end() {
    let asked = call(Operation::ChatCompletions);
    let headers = [("content-encoding", "zstd")];
    let last = told();
    let read = |filler: &str| {
        let packed = coded(
            &mut ZstdEncoder::new(1),
            &[filler.as_bytes(), last.as_bytes()],
        );
        (packed.len(), read_pieces(&asked, &headers, &[&packed]).1)
    };
    // Comments, so that nothing but the length keeps the usage from being read.
    let (packed, reading) = read(&format!(": {}\n\n", "x".repeat(1020)).repeat(12 << 10));
    assert!(packed < (12 << 20) / 100, "{packed}");
    assert!(matches!(reading, Reading::Unknown { .. }), "{reading:?}");

    let lines: String = (0..400_000_u32)
        .map(|n| n.wrapping_mul(0x9E37_79B1))
        .map(|n| format!(": {n:x} is a line as servers write them\n\n"))
        .collect();
    assert!(lines.len() > 12 << 20);
    let (_, reading) = read(&lines);
    assert!(matches!(reading, Reading::Exact(_)), "{reading:?}");
}

#[test]
fn a_brotli_answer_with_a_window_beyond_its_coding_is_not_decoded() {
    let asked = call(Operation::ChatCompletions);
    let headers = [("content-encoding", "br")];
    let octets = [0x11, 0x1e, 0x03];
    let (progress, reading) = read_pieces(&asked, &headers, &[&octets]);
    assert_eq!(progress.produced, 3);
    assert_eq!(reading, Reading::Unknown { produced: 0 });
}

/// A decoder must keep as much as the frame's head says (RFC 8878, section 3.1.1.1.2).
#[test]
fn a_zstd_answer_with_a_window_beyond_its_coding_is_not_decoded() {
    let asked = call(Operation::ChatCompletions);
    let headers = [("content-encoding", "zstd")];
    let answer = told();
    for (log, fits) in [(23, true), (24, false), (27, false)] {
        let mut encoder = ZstdEncoder::new_with_params(1, &[CParameter::window_log(log)]);
        let packed = coded(&mut encoder, &[answer.as_bytes()]);
        let (_, reading) = read_pieces(&asked, &headers, &[&packed]);
        assert_eq!(
            matches!(reading, Reading::Exact(_)),
            fits,
            "2^{log}: {reading:?}"
        );
    }
}

/// One answer of every API, with all that may be in it.
fn answers() -> Vec<(Operation, String)> {
    let chat = events(&[
        r#"{"choices":[{"delta":{"content":"a\u00e9"}}]}"#,
        r#"{"model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#,
        "[DONE]",
    ]);
    let response = events(&[
        r#"{"type":"response.output_text.delta","delta":"abc"}"#,
        r#"{"type":"response.completed","response":{"model":"m","output":[{"type":"web_search_call"}],"usage":{"input_tokens":9,"output_tokens":3}}}"#,
    ]);
    let gemini = r#"[{"candidates":[{"content":{"parts":[{"text":"ab"}]}}],"usageMetadata":{"promptTokenCount":3}},{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}]"#;
    let ollama = "{\"message\":{\"content\":\"ab\"},\"done\":false}\n{\"done\":true,\"prompt_eval_count\":3,\"eval_count\":1}\n";
    let message = r#"{"type":"message","model":"m","content":[{"text":"x\"}"}],"usage":{"input_tokens":7,"output_tokens":2}}"#;
    vec![
        (Operation::Messages, events(&[START, DELTA, END, STOP])),
        (Operation::Messages, message.to_owned()),
        (Operation::ChatCompletions, chat),
        (Operation::Responses, response),
        (Operation::GenerateContent, gemini.to_owned()),
        (Operation::OllamaGenerate, ollama.to_owned()),
        (
            Operation::Embeddings,
            r#"{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":4}}"#.to_owned(),
        ),
        (
            Operation::Converse,
            r#"{"usage":{"inputTokens":4,"outputTokens":5}}"#.to_owned(),
        ),
    ]
}

proptest! {
    /// Whatever the split, and wherever the answer was cut, and however it was compressed.
    #[test]
    fn any_split_of_an_answer_gives_the_same_reading(
        which in 0..answers().len(),
        coding in 0..6_usize,
        kept in 0..400_usize,
        sizes in prop::collection::vec(1..40_usize, 1..12),
    ) {
        let (operation, text) = answers().swap_remove(which);
        let (headers, octets) = match coding {
            5 => (vec![], text.into_bytes()),
            coding => {
                let (coding, octets) = all_codings(&[text.as_bytes()]).swap_remove(coding);
                (vec![("content-encoding", coding)], octets)
            }
        };
        let octets = &octets[..kept.min(octets.len())];
        let asked = call(operation);
        let whole = read_pieces(&asked, &headers, &[octets]);
        let mut rest = octets;
        let mut chunks = Vec::new();
        for size in sizes.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, more) = rest.split_at(size.min(rest.len()));
            chunks.push(chunk);
            rest = more;
        }
        prop_assert_eq!(read_pieces(&asked, &headers, &chunks), whole);
    }

    /// Noise in an answer is no panic, and no answer is read as zero that had something in it.
    #[test]
    fn a_damaged_answer_never_reads_as_zero(
        which in 0..answers().len(),
        at in 0..400_usize,
        octet in any::<u8>(),
    ) {
        let (operation, text) = answers().swap_remove(which);
        let mut octets = text.into_bytes();
        let at = at % octets.len();
        octets[at] = octet;
        match read_pieces(&call(operation), &[], &[&octets]).1 {
            Reading::Exact(uses) => prop_assert!(!uses.is_empty()),
            Reading::Partial(uses) => prop_assert!(uses.iter().any(|one| !one.usage.is_zero())),
            Reading::Unknown { .. } => {}
            Reading::Failed => prop_assert!(false, "it is no error"),
        }
    }
}
