use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn asking(body: &str) -> Result<String, ScanError> {
    let asking = asking_for_usage(&Bytes::copy_from_slice(body.as_bytes()))?;
    Ok(String::from_utf8(asking.to_vec()).unwrap())
}

#[test]
fn the_option_is_spliced_in_and_nothing_else_is_touched() {
    for (body, expected) in [
        (
            "{ \"model\" : \"m\",\n \"stream\":true}",
            "{\"stream_options\":{\"include_usage\":true}, \"model\" : \"m\",\n \"stream\":true}",
        ),
        ("{}", "{\"stream_options\":{\"include_usage\":true}}"),
        (" { } ", " {\"stream_options\":{\"include_usage\":true} } "),
        (
            r#"{"stream_options":{"include_obfuscation":false},"n":1}"#,
            r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"n":1}"#,
        ),
        (
            r#"{"stream_options":{ }}"#,
            r#"{"stream_options":{"include_usage":true }}"#,
        ),
        (
            r#"{"stream_options": null}"#,
            r#"{"stream_options": {"include_usage":true}}"#,
        ),
        (
            r#"{"a":[1.0],"stream_options":{"x":1, "include_usage" : false },"b":"\u00e9"}"#,
            r#"{"a":[1.0],"stream_options":{"x":1, "include_usage" : true },"b":"\u00e9"}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":null}}"#,
            r#"{"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream_options" : {"include_usage" : true}}"#,
            r#"{"stream_options" : {"include_usage" : true}}"#,
        ),
        // Inside a message it is only text.
        (
            r#"{"x":{"stream_options":{"include_usage":false}}}"#,
            r#"{"stream_options":{"include_usage":true},"x":{"stream_options":{"include_usage":false}}}"#,
        ),
    ] {
        assert_eq!(asking(body).as_deref(), Ok(expected));
    }
}

#[test]
fn what_reads_in_two_ways_is_refused() {
    for (body, reason) in [
        (
            r#"{"stream_options":{},"stream_options":{}}"#,
            "duplicate_field",
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include\u005fusage":false}}"#,
            "duplicate_field",
        ),
        (r#"{"Stream_Options":{}}"#, "misspelled_field"),
        (r#"{"stream_options":true}"#, "wrong_type"),
        (r#"{"stream_options":{"include_usage":1}}"#, "wrong_type"),
        (r#"{"a":1}{"#, "trailing_data"),
        ("[]", "not_json"),
        ("", "not_json"),
    ] {
        assert_eq!(asking(body).unwrap_err().reason(), reason, "{body}");
    }
}

proptest! {
    #[test]
    fn the_result_is_the_same_json_with_the_option(
        before in prop::collection::btree_map("[a-m]{1,4}", "\\PC{0,9}", 0..4),
        options in prop::option::of(prop::option::of((
            prop::option::of(any::<Option<bool>>()),
            prop::collection::btree_map("[a-h]{1,4}", any::<u8>(), 0..3),
        ))),
        after in prop::collection::btree_map("[t-z]{1,4}", any::<i16>(), 0..4),
        pretty in any::<bool>(),
    ) {
        let mut body = json!(before);
        let object = body.as_object_mut().unwrap();
        object.extend(after.into_iter().map(|(key, value)| (key, value.into())));
        if let Some(options) = &options {
            let options = options.as_ref().map(|(asked, other)| {
                let mut options = json!(other);
                if let Some(asked) = asked {
                    options["include_usage"] = json!(asked);
                }
                options
            });
            object.insert("stream_options".into(), json!(options));
        }
        let text = match pretty {
            true => serde_json::to_string_pretty(&body).unwrap(),
            false => body.to_string(),
        };
        let result: Value = serde_json::from_str(&asking(&text).unwrap()).unwrap();
        if !body["stream_options"].is_object() {
            body["stream_options"] = json!({});
        }
        body["stream_options"]["include_usage"] = json!(true);
        prop_assert_eq!(result, body);
    }
}
