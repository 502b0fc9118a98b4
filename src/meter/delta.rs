//! Owns the short way for the events that an answer of the Messages API has most: pieces of text, one after the other.
//!
//! A general reader of JSON takes ten times as long for such an event. What is not written exactly as providers write it
//! goes to that reader, so that nothing is read in two ways.

use super::json::plain;

const HEAD: &[u8] = br#"{"type":"content_block_delta","index":"#;
const KINDS: [&[u8]; 3] = [
    br#","delta":{"type":"text_delta","text":""#,
    br#","delta":{"type":"input_json_delta","partial_json":""#,
    br#","delta":{"type":"thinking_delta","thinking":""#,
];

/// The octets of the text in an event that has nothing else to tell; nothing if it is any other, or has escapes.
pub(super) fn text_of(event: &[u8]) -> Option<u64> {
    let rest = event.strip_prefix(HEAD)?;
    // One digit, as nearly always; of a number of more the first is no zero.
    let digits = rest
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    if digits == 0 || digits > 1 && rest[0] == b'0' {
        return None;
    }
    let rest = &rest[digits..];
    let rest = KINDS.iter().find_map(|kind| rest.strip_prefix(*kind))?;
    let (text, end) = rest.split_at(plain(rest));
    let end = end.strip_prefix(b"\"}")?.trim_ascii_start();
    if end.strip_prefix(b"}")?.trim_ascii_start() != b"" {
        return None;
    }
    std::str::from_utf8(text).ok()?;
    Some(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(kind: &str, field: &str, text: &str) -> String {
        format!(
            r#"{{"type":"content_block_delta","index":12,"delta":{{"type":"{kind}","{field}":"{text}"}}}}"#
        )
    }

    #[test]
    fn pieces_of_text_are_as_long_as_they_are() {
        for (kind, field) in [
            ("text_delta", "text"),
            ("input_json_delta", "partial_json"),
            ("thinking_delta", "thinking"),
        ] {
            for text in ["", "a", "Zürich in the rain", &"x".repeat(1000)] {
                let event = event(kind, field, text);
                assert_eq!(
                    text_of(event.as_bytes()),
                    Some(text.len() as u64),
                    "{event}"
                );
                let padded = event.replace("}}", "}   } ");
                assert_eq!(
                    text_of(padded.as_bytes()),
                    Some(text.len() as u64),
                    "{padded}"
                );
            }
        }
    }

    #[test]
    fn whatever_is_written_otherwise_is_for_the_general_reader() {
        let good = event("text_delta", "text", "abc");
        for bad in [
            good.replace("abc", r"a\n"),
            good.replace("abc", "a\n"),
            good.replace("abc", r#"a","usage":{},"b":""#),
            good.replace(":12,", ":012,"),
            good.replace(":12,", ":,"),
            good.replace(":12,", ": 12,"),
            good.replace("}}", r#"},"usage":{"output_tokens":9}}"#),
            good.replace("}}", "}}x"),
            good.replace("}}", "}"),
            good.replace("}}", "}\u{b}}"),
            event("citations_delta", "citation", "abc"),
            event("text_delta", "thinking", "abc"),
        ] {
            assert_eq!(text_of(bad.as_bytes()), None, "{bad}");
        }
        let mut bad = good.into_bytes();
        let last = bad.len() - r#"c"}}"#.len();
        for octet in [0xFF, 0xC3] {
            bad[last] = octet;
            assert_eq!(text_of(&bad), None, "no UTF-8");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_as_long_as_the_general_reader_finds_it(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            let event = event("text_delta", "text", &written[1..written.len() - 1]);
            let expected = (!written.contains('\\')).then_some(text.len() as u64);
            prop_assert_eq!(text_of(event.as_bytes()), expected);
        }
    }
}
