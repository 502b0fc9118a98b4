use proptest::prelude::*;

use super::*;

const FIRST: &str = r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#;
const TEXT: &str = r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"\"choices\":[] }"}}],"usage":null}"#;
const AZURE: &str = r#"data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#;
const LAST: &str = r#"data: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#;
const USAGE: &str = r#"data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}}"#;
const USAGE_FIRST: &str = r#"data:{ "usage" : {"choices":[1]} , "choices" : [ ] }"#;
const DONE: &str = "data: [DONE]";
const COMMENT: &str = ": OPENROUTER PROCESSING";

/// Feeds `stream` in pieces cut at `cuts`.
fn hidden(stream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut filter = HideUsage::new();
    let mut out = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([stream.len()]) {
        let piece = Bytes::copy_from_slice(&stream[from..to]);
        out.extend_from_slice(&filter.feed(piece));
        from = to;
    }
    out.extend_from_slice(&filter.finish());
    out
}

fn join(events: &[&str], end: &str) -> Vec<u8> {
    let events = events.iter().map(|event| format!("{event}{end}{end}"));
    events.collect::<String>().into_bytes()
}

#[test]
fn the_chunk_is_taken_out_at_any_split() {
    for end in ["\n", "\r\n", "\r"] {
        for usage in [
            USAGE,
            USAGE_FIRST,
            &format!("event: x{end}id: 1{end}{USAGE}"),
            &format!("{COMMENT}{end}{USAGE}"),
        ] {
            let stream = join(&[AZURE, FIRST, TEXT, COMMENT, LAST, usage, DONE], end);
            let expected = join(&[AZURE, FIRST, TEXT, COMMENT, LAST, DONE], end);
            for cut in 0..=stream.len() {
                assert_eq!(hidden(&stream, &[cut]), expected, "{end:?} {cut}");
            }
            let every: Vec<usize> = (1..stream.len()).collect();
            assert_eq!(hidden(&stream, &every), expected);
        }
    }
}

#[test]
fn what_only_looks_like_the_chunk_passes() {
    for event in [
        AZURE,
        LAST,
        r#"data: {"choices":[],"usage":null}"#,
        r#"data: {"choices":[],"x":{"usage":{}}}"#,
        r#"data: {"choices":null,"usage":{}}"#,
        r#"data: {"choices":[ 0],"usage":{}}"#,
        r#"data: {"choices":[],"choices":[{}],"usage":{}}"#,
        r#"data: [{"choices":[],"usage":{}}]"#,
        r#"data: {"choices":[],"usage":{}"#,
        r#"data: {"choices":[],"usage":{}} x"#,
        r#"data: "{\"choices\":[],\"usage\":{}}""#,
        r#"datum: {"choices":[],"usage":{}}"#,
        r#"data: {"error":{"message":"choices"}}"#,
        "",
        "data",
        "id: 1",
    ] {
        let stream = join(&[FIRST, event, DONE], "\n");
        assert_eq!(hidden(&stream, &[]), stream, "{event}");
    }
}

#[test]
fn data_over_several_lines_is_one_chunk() {
    let event = "data: {\"choices\"\ndata: :[],\ndata: \"usage\":{}}";
    let stream = join(&[FIRST, event, DONE], "\n");
    assert_eq!(hidden(&stream, &[]), join(&[FIRST, DONE], "\n"));
}

#[test]
fn no_more_is_held_back_than_may_be_the_chunk() {
    let mut filter = HideUsage::new();
    let first = Bytes::from(format!("{FIRST}\n\n"));
    let passed = filter.feed(first.clone());
    // The whole piece, not a copy of it.
    assert_eq!(passed.as_ptr(), first.as_ptr());
    assert_eq!(passed, first);
    assert_eq!(
        filter.feed(Bytes::from_static(b"data: {\"id\":\"c\",\"choices\":[")),
        ""
    );
    let rest = filter.feed(Bytes::from_static(b"{\"delta\":"));
    assert_eq!(rest, "data: {\"id\":\"c\",\"choices\":[{\"delta\":");
    assert_eq!(filter.feed(Bytes::from_static(b"1")), "1");
    assert_eq!(filter.feed(Bytes::from_static(b"}]}\n\n")), "}]}\n\n");

    let endless = Bytes::from(vec![b'x'; 1000]);
    let mut passed = filter.feed(Bytes::from_static(b"data: {\"id\":\"")).len();
    for fed in 1..=100 {
        passed += filter.feed(endless.clone()).len();
        assert!(fed * 1000 + 13 - passed <= MAX_HELD);
    }
    assert_eq!(passed, 100_013);
}

#[test]
fn a_stream_that_breaks_off_loses_nothing() {
    let stream = join(&[FIRST, USAGE], "\n");
    for length in 0..stream.len() {
        let cut = &stream[..length];
        let first = FIRST.len() + 2;
        // Once the object is whole it is the chunk, whether or not the empty line comes.
        let expected = match length {
            _ if length >= first + USAGE.len() => &stream[..first],
            _ => cut,
        };
        assert_eq!(hidden(cut, &[]), expected, "{length}");
    }
}

fn events() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let event = prop::sample::select(&[
        FIRST,
        TEXT,
        AZURE,
        LAST,
        USAGE,
        USAGE_FIRST,
        DONE,
        COMMENT,
        "data:",
        "\u{feff}",
    ]);
    let end = prop::sample::select(&["\n\n", "\r\n\r\n", "\r\r", "\r\n\n", "\n\r\n"]);
    prop::collection::vec((event, end), 0..12)
}

proptest! {
    #[test]
    fn any_split_gives_the_same(events in events(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let text = |events: &mut dyn Iterator<Item = &(&str, &str)>| -> Vec<u8> {
            events.flat_map(|(event, end)| [*event, *end]).collect::<String>().into_bytes()
        };
        let stream = text(&mut events.iter());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let expected = text(&mut events.iter().filter(|(event, _)| !matches!(*event, USAGE | USAGE_FIRST)));
        let hidden = hidden(&stream, &cuts);
        prop_assert_eq!(
            String::from_utf8_lossy(&hidden),
            String::from_utf8_lossy(&expected)
        );
    }

    #[test]
    fn other_octets_pass_as_they_come(stream in "[a-z:{}\\[\\]\",\r\n ]{0,200}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(hidden(stream.as_bytes(), &cuts), stream.as_bytes());
    }
}
