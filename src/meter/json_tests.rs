use proptest::prelude::*;

use super::*;

fn whole(text: &str) -> Result<(), JsonFault> {
    let mut walker = Walker::new(text);
    walker.skip()?;
    walker.end()
}

#[test]
fn the_grammar_is_the_strict_one() {
    for good in [
        "0",
        "-0",
        "1.5e-7",
        "[]",
        "{}",
        " [1 , 2]\n",
        r#"{"a":{"b":[true,false,null]}}"#,
        r#""\"\\\/\b\f\n\r\t\u00e9""#,
        r#""é😀""#,
        r#""\ud83d""#,
    ] {
        assert_eq!(whole(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        " ",
        "01",
        "+1",
        "1.",
        ".5",
        "1e",
        "-",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":1,}"#,
        "{a:1}",
        "'a'",
        "\"a",
        "\"\n\"",
        r#""\x""#,
        r#""\u12g4""#,
        "nul",
        "NaN",
        "truth",
        "// a\n1",
        "[",
        "{",
        "\u{feff}1",
        "\"\u{1}\"",
    ] {
        assert!(whole(bad).is_err(), "{bad}");
    }
    assert_eq!(whole("{} {}"), Err(JsonFault::Trailing(3)));
}

#[test]
fn a_depth_that_would_exhaust_the_stack_is_refused() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(whole(&nested(MAX_DEPTH)), Ok(()));
    assert_eq!(
        whole(&nested(MAX_DEPTH + 1)),
        Err(JsonFault::TooDeep(MAX_DEPTH))
    );
    assert!(whole(&"[".repeat(1_000_000)).is_err());
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|all| format!("[{}]", all.join(" ,"))),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|all| {
                let members = all
                    .into_iter()
                    .map(|(k, v)| format!("{}:{v}", serde_json::Value::from(k)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn it_accepts_what_serde_accepts(text in json(), at in any::<prop::sample::Index>(), with in "[\\[\\]{}\",:\\\\0a ]?") {
        prop_assert_eq!(whole(&text), Ok(()));
        let mut broken: Vec<char> = text.chars().collect();
        let at = at.index(broken.len());
        broken.splice(at..=at, with.chars());
        let broken: String = broken.into_iter().collect();
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&broken);
        prop_assert_eq!(whole(&broken).is_ok(), theirs.is_ok(), "{}", broken);
    }

    #[test]
    fn strings_say_what_serde_reads(said in any::<String>()) {
        let escaped: String = said.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        for text in [serde_json::Value::from(said.as_str()).to_string(), format!("\"{escaped}\"")] {
            prop_assert_eq!(&*Walker::new(&text).string().unwrap().said(), said.as_str());
        }
    }

    #[test]
    fn specials_are_found_wherever_they_stand(
        bytes in prop::collection::vec(prop_oneof![30 => b'a'..=b'z', 1 => any::<u8>()], 0..150),
    ) {
        let expected = bytes.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
        prop_assert_eq!(plain(&bytes), expected.unwrap_or(bytes.len()));
    }
}
