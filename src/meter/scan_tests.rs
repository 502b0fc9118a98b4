use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::meter::call::CacheUse;
use crate::meter::json::{JsonFault, MAX_DEPTH};

fn header(name: &'static str, value: &'static str) -> HeaderMap {
    let name = HeaderName::from_static(name);
    HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
}

fn at(api: ModelApi, operation: Operation, path: &str, body: &[u8]) -> Result<Call, ScanError> {
    read(api, operation, path, None, &HeaderMap::new(), body)
}

fn messages(body: &str) -> Result<Call, ScanError> {
    at(
        ModelApi::Anthropic,
        Operation::Messages,
        "/v1/messages",
        body.as_bytes(),
    )
}

fn chat(body: Value) -> Result<Call, ScanError> {
    let path = "/v1/chat/completions";
    at(
        ModelApi::OpenAI,
        Operation::ChatCompletions,
        path,
        body.to_string().as_bytes(),
    )
}

fn responses(body: Value) -> Result<Call, ScanError> {
    let path = "/v1/responses";
    at(
        ModelApi::OpenAI,
        Operation::Responses,
        path,
        body.to_string().as_bytes(),
    )
}

fn gemini(body: Value) -> Result<Call, ScanError> {
    let path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent";
    at(
        ModelApi::Gemini,
        Operation::GenerateContent,
        path,
        body.to_string().as_bytes(),
    )
}

/// A Messages request with these fields besides a model.
fn with(fields: Value) -> Call {
    let mut body = json!({"model": "claude-x", "max_tokens": 1, "messages": []});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    messages(&body.to_string()).unwrap()
}

#[test]
fn a_request_of_claude_code_is_read() {
    let call = messages(
        r#"{"model":"claude-sonnet-4-5","max_tokens":32000,"stream":true,"messages":[
            {"role":"user","content":[{"type":"text","text":"say \"hi\"\n","cache_control":{"type":"ephemeral"}}]}],
            "system":[{"type":"text","text":"x","cache_control":{"type":"ephemeral","ttl":"1h"}}],
            "tools":[{"name":"WebFetch","input_schema":{"type":"object","properties":{"url":{"type":"string"}}}}],
            "metadata":{"user_id":"u"},"thinking":{"type":"enabled","budget_tokens":31999}}"#,
    )
    .unwrap();
    assert_eq!(&*call.model, "claude-sonnet-4-5");
    assert_eq!(
        (call.max_output, call.answers, call.stream),
        (Some(32_000), 1, true)
    );
    assert_eq!((call.cache, call.reaches_out), (CacheUse::Hour, false));
    assert!(call.tools.is_empty() && call.others.is_empty());
    assert_eq!(call.terms, Terms::default());
}

/// LiteLLM PR 27509: it took the whole headroom of the budget. Without a limit the model's own one counts.
#[test]
fn complaint_5_no_max_tokens_is_no_number_at_all() {
    let plain = json!({"model": "gpt-x", "messages": []});
    assert_eq!(chat(plain).unwrap().max_output, None);
    let null = json!({"model": "gpt-x", "messages": [], "max_tokens": null, "max_completion_tokens": null});
    assert_eq!(chat(null).unwrap().max_output, None);
    assert_eq!(
        responses(json!({"model": "gpt-x", "input": ""}))
            .unwrap()
            .max_output,
        None
    );
    assert_eq!(gemini(json!({"contents": []})).unwrap().max_output, None);
}

#[test]
fn each_api_names_its_limit_in_its_own_words() {
    let call =
        chat(json!({"model": "m", "max_tokens": 5, "max_completion_tokens": 7, "n": 3})).unwrap();
    assert_eq!((call.max_output, call.answers), (Some(7), 3));
    let call = responses(json!({"model": "m", "max_output_tokens": 8})).unwrap();
    assert_eq!(call.max_output, Some(8));
    let config = json!({"maxOutputTokens": 9, "candidateCount": 2});
    let call = gemini(json!({"generationConfig": config})).unwrap();
    assert_eq!((call.max_output, call.answers), (Some(9), 2));
    assert!(call.stream);
    assert_eq!(&*call.model, "gemini-2.5-pro");
    let call = gemini(json!({"generation_config": {"max_output_tokens": 9}})).unwrap();
    assert_eq!(call.max_output, Some(9));

    let bedrock = |operation, path, body: Value| {
        at(
            ModelApi::Bedrock,
            operation,
            path,
            body.to_string().as_bytes(),
        )
        .unwrap()
    };
    let call = bedrock(
        Operation::ConverseStream,
        "/model/anthropic.claude-v2%3A1/converse-stream",
        json!({"inferenceConfig": {"maxTokens": 10}, "additionalModelRequestFields": {"max_tokens": 99}}),
    );
    assert_eq!(
        (&*call.model, call.max_output),
        ("anthropic.claude-v2:1", Some(99))
    );
    assert!(call.stream);
    for (body, max) in [
        (json!({"max_tokens": 1}), 1),
        (json!({"max_gen_len": 2}), 2),
        (json!({"textGenerationConfig": {"maxTokenCount": 3}}), 3),
        (json!({"inferenceConfig": {"max_new_tokens": 4}}), 4),
    ] {
        let call = bedrock(Operation::InvokeModel, "/model/m/invoke", body);
        assert_eq!((call.max_output, call.stream), (Some(max), false));
    }
    let ollama = |body: Value| {
        let text = body.to_string();
        at(
            ModelApi::Ollama,
            Operation::OllamaGenerate,
            "/api/chat",
            text.as_bytes(),
        )
        .unwrap()
    };
    let call = ollama(json!({"model": "m", "options": {"num_predict": 11}}));
    assert_eq!((call.max_output, call.stream), (Some(11), true));
    let call = ollama(json!({"model": "m", "stream": false, "options": {"num_predict": -1}}));
    assert_eq!((call.max_output, call.stream), (None, false));
    let body = json!({"model": "e", "input": ["a"]}).to_string();
    let call = at(
        ModelApi::OpenAI,
        Operation::Embeddings,
        "/v1/embeddings",
        body.as_bytes(),
    )
    .unwrap();
    assert_eq!(call.max_output, Some(0));
}

#[test]
fn models_stand_in_the_path_where_the_origin_looks_there() {
    let path =
        "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-x@1:streamRawPredict";
    let body = br#"{"anthropic_version":"vertex-2023-10-16","max_tokens":5,"model":"other"}"#;
    let call = at(ModelApi::Vertex, Operation::RawPredict, path, body).unwrap();
    assert_eq!(&*call.model, "claude-x@1");
    assert_eq!(call.others, [Arc::from("other")]);
    assert!(call.stream);
    assert_eq!(call.terms.geo.as_deref(), Some("us-east5"));
    let path = "/openai/deployments/mine/chat/completions";
    let call = at(ModelApi::Azure, Operation::ChatCompletions, path, b"{}").unwrap();
    assert_eq!(&*call.model, "mine");
    let path = "/v1beta/models/e-1:batchEmbedContents";
    let body = br#"{"requests":[{"model":"models/e-1","content":{"parts":[{"text":"a"}]}},{"model":"models/e-2"}]}"#;
    let call = at(ModelApi::Gemini, Operation::EmbedContent, path, body).unwrap();
    assert_eq!(
        (&*call.model, &*call.others),
        ("e-1", &[Arc::from("e-2")][..])
    );
}

#[test]
fn every_model_that_may_work_on_a_request_is_found() {
    let call = with(json!({
        "fallbacks": [{"model": "claude-b"}, "claude-c"],
        "advisor": {"model": "claude-a"},
        "tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-d"}],
        "metadata": {"model": "no model"},
    }));
    let others: Vec<&str> = call.others.iter().map(|other| &**other).collect();
    assert_eq!(others, ["claude-a", "claude-b", "claude-c", "claude-d"]);
    let call = chat(json!({"model": "m", "models": ["m", "k"]})).unwrap();
    assert_eq!(call.others, [Arc::from("k")]);
    let many: Vec<String> = (0..99).map(|i| format!("m{i}")).collect();
    assert_eq!(
        chat(json!({"model": "m", "models": many})),
        Err(ScanError::TooManyModels)
    );
}

#[test]
fn caches_are_found_wherever_they_are_asked_for() {
    assert_eq!(with(json!({})).cache, CacheUse::Unnamed);
    for (control, life) in [
        (json!({"type": "ephemeral"}), CacheUse::Minutes5),
        (
            json!({"type": "ephemeral", "ttl": "5m"}),
            CacheUse::Minutes5,
        ),
        (
            json!({"type": "ephemeral", "ttl": null}),
            CacheUse::Minutes5,
        ),
        (json!({"type": "ephemeral", "ttl": "1h"}), CacheUse::Hour),
        (json!({"type": "ephemeral", "ttl": "1H"}), CacheUse::Hour),
        (json!({"type": "ephemeral", "ttl": 3600}), CacheUse::Hour),
        (json!(null), CacheUse::Unnamed),
    ] {
        for fields in [
            json!({"cache_control": control}),
            json!({"tools": [{"name": "t", "cache_control": control}]}),
            json!({"messages": [{"content": [{"type": "tool_result", "content": [{"cache_control": control}]}]}]}),
            json!({"tools": [{"name": "t", "input_schema": {"x": {"cache_control": control}}}]}),
            json!({"unknown": [{"Cache-Control": control}]}),
        ] {
            assert_eq!(with(fields.clone()).cache, life, "{fields}");
        }
    }
    assert_eq!(
        with(json!({"system": [{"cachePoint": {"ttl": "1h"}}]})).cache,
        CacheUse::Hour
    );
}

#[test]
fn prompts_that_hold_more_than_the_body_reach_out() {
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let picture = |octets: usize| {
        let data = "A".repeat(octets);
        part(
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}),
        )
    };
    for fields in [
        part(json!({"type": "image", "source": {"type": "url", "url": "https://e.com/x.png"}})),
        part(json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}})),
        part(
            json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}}),
        ),
        part(
            json!({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}),
        ),
        part(json!({"type": "container_upload", "file_id": "file_1"})),
        json!({"mcp_servers": [{"type": "url", "url": "https://e.com"}]}),
        json!({"container": "container_1"}),
        json!({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
        json!({"tools": [{"type": "a_tool_of_tomorrow_20300101"}]}),
    ] {
        assert!(with(fields.clone()).reaches_out, "{fields}");
    }
    for fields in [
        json!({"mcp_servers": [ ], "container": null}),
        part(
            json!({"type": "tool_use", "name": "WebFetch", "input": {"url": "https://e.com", "file_id": "1"}}),
        ),
        part(
            json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}),
        ),
        part(json!({"type": "text", "text": "file_id"})),
        json!({"tools": [{"type": "bash_20250124", "name": "bash"}, {"type": "custom"}, {"name": "t"}]}),
        picture(400),
        picture(200_000),
    ] {
        let call = with(fields.clone());
        assert!(!call.reaches_out && call.tools.is_empty(), "{fields}");
    }
    let bound = |octets| with(picture(octets)).body_bytes - with(picture(0)).body_bytes;
    // A small one may have more tokens than octets, a large one has not.
    assert_eq!(
        [bound(0), bound(400), bound(5000), bound(200_000)],
        [0, 0, 0, 195_000]
    );
    for body in [
        json!({"model": "m", "previous_response_id": "resp_1"}),
        json!({"model": "m", "conversation": {"id": "conv_1"}}),
        json!({"model": "m", "input": [{"type": "item_reference", "id": "msg_1"}]}),
        json!({"model": "m", "input": [{"content": [{"type": "input_image", "image_url": "https://e.com"}]}]}),
        json!({"model": "m", "input": [{"content": [{"type": "input_file", "file_data": "data:..."}]}]}),
        json!({"model": "m", "tools": [{"type": "mcp", "server_url": "https://e.com"}]}),
    ] {
        assert!(responses(body.clone()).unwrap().reaches_out, "{body}");
    }
    let item = json!({"type": "function_call_output", "output": "https://e.com"});
    let body = json!({"model": "m", "input": [item], "tools": [{"type": "function", "name": "f"}, {"type": "custom"}]});
    assert!(!responses(body).unwrap().reaches_out);
    for body in [
        json!({"cachedContent": "cachedContents/1"}),
        json!({"contents": [{"parts": [{"fileData": {"fileUri": "https://youtu.be/x"}}]}]}),
        json!({"contents": [{"parts": [{"inline_data": {"mime_type": "video/mp4", "data": "AA"}}]}]}),
        json!({"tools": [{"urlContext": {}}]}),
    ] {
        assert!(gemini(body.clone()).unwrap().reaches_out, "{body}");
    }
}

#[test]
fn tools_with_fees_are_counted() {
    let search = |uses: Value| json!({"type": "web_search_20250305", "name": "web_search", "max_uses": uses});
    let tools = |tools: Value| with(json!({"tools": tools})).tools;
    assert_eq!(
        tools(json!([search(json!(3))])),
        [(Fee::WebSearch, Some(3))]
    );
    assert_eq!(
        tools(json!([search(json!(3)), search(json!(4))])),
        [(Fee::WebSearch, Some(7))]
    );
    assert_eq!(
        tools(json!([search(json!(3)), search(json!(null))])),
        [(Fee::WebSearch, None)]
    );
    assert_eq!(
        tools(json!([{"type": "code_execution_20250825"}])),
        [(Fee::CodeExecution, None)]
    );
    let body = json!({"model": "m", "max_tool_calls": 9, "tools": [
        {"type": "web_search_preview"}, {"type": "file_search"}, {"type": "code_interpreter"}]});
    let uses = Some(9);
    assert_eq!(
        responses(body).unwrap().tools,
        [
            (Fee::WebSearch, uses),
            (Fee::FileSearch, uses),
            (Fee::CodeExecution, uses)
        ]
    );
    let call = chat(json!({"model": "m", "web_search_options": {}})).unwrap();
    assert_eq!(call.tools, [(Fee::WebSearch, None)]);
    let call =
        gemini(json!({"tools": [{"google_search": {}}, {"functionDeclarations": []}]})).unwrap();
    let grounded = [(Fee::Grounding, Some(1)), (Fee::GroundedSearch, None)];
    assert_eq!(call.tools, grounded);
    let tool = json!({"type": "web_search_20250305", "max_uses": "3"});
    let body = json!({"model": "m", "tools": [tool]}).to_string();
    assert_eq!(messages(&body).unwrap_err().reason(), "wrong_type");
}

#[test]
fn terms_are_the_providers_words() {
    let terms =
        with(json!({"service_tier": "priority", "speed": "fast", "inference_geo": "US"})).terms;
    assert_eq!(terms.service_tier.as_deref(), Some("priority"));
    assert_eq!(terms.speed.as_deref(), Some("fast"));
    assert_eq!(terms.geo.as_deref(), Some("us"));
    let terms =
        with(json!({"service_tier": "standard_only", "speed": "standard", "inference_geo": null}))
            .terms;
    assert_eq!(terms, Terms::default());
}

#[test]
fn a_header_names_the_tier_of_the_api_whose_it_is() {
    let bedrock = "x-amzn-bedrock-service-tier";
    let vertex = "x-vertex-ai-llm-shared-request-type";
    for (api, operation, own) in [
        (ModelApi::Bedrock, Operation::InvokeModel, Some(bedrock)),
        (ModelApi::Vertex, Operation::GenerateContent, Some(vertex)),
        (ModelApi::Gemini, Operation::GenerateContent, None),
        (ModelApi::Anthropic, Operation::Messages, None),
        (ModelApi::OpenAI, Operation::ChatCompletions, None),
    ] {
        for name in [bedrock, vertex] {
            let path = "/model/m:generateContent/invoke";
            let body = br#"{"model":"m"}"#;
            let call = read(api, operation, path, None, &header(name, "flex"), body);
            let tier = call.unwrap().terms.service_tier;
            let expected = (own == Some(name)).then_some("flex");
            assert_eq!(tier.as_deref(), expected, "{name} to {}", api.as_str());
        }
    }
}

#[test]
fn usage_is_asked_for_or_not() {
    let asks = |options: Value| {
        let body = json!({"model": "m", "stream": true, "stream_options": options});
        chat(body).unwrap().asks_for_usage
    };
    assert!(asks(json!({"include_usage": true})));
    for options in [json!({"include_usage": false}), json!({}), json!(null)] {
        assert!(!asks(options));
    }
}

/// What two parsers read in two ways is sent to neither.
#[test]
fn a_body_with_two_readings_is_refused() {
    let duplicate = Err(ScanError::Duplicate("max_tokens"));
    for body in [
        r#"{"model":"m","max_tokens":1,"max_tokens":32000}"#,
        r#"{"model":"m","max_tokens":1,"max\u005ftokens":32000}"#,
        r#"{"model":"m","\u006dax_tokens":1,"messages":[],"max_tokens":1}"#,
    ] {
        assert_eq!(messages(body), duplicate, "{body}");
    }
    for (body, error) in [
        (
            r#"{"model":"a","model":"b"}"#,
            ScanError::Duplicate("model"),
        ),
        (
            r#"{"model":"a","m\u006fdel":"b"}"#,
            ScanError::Duplicate("model"),
        ),
        (
            r#"{"model":"a","Model":"b"}"#,
            ScanError::Misspelled("model"),
        ),
        (
            r#"{"model":"m","MAX_TOKENS":9}"#,
            ScanError::Misspelled("max_tokens"),
        ),
        (
            r#"{"model":"m","maxTokens":9}"#,
            ScanError::Misspelled("max_tokens"),
        ),
        (
            r#"{"model":"m","max_to\u212aens":9}"#,
            ScanError::Misspelled("max_tokens"),
        ),
        (
            r#"{"model":"m","max_token\u017f":9}"#,
            ScanError::Misspelled("max_tokens"),
        ),
        (
            r#"{"model":"m","max_tokens\u0000x":9}"#,
            ScanError::Misspelled("max_tokens"),
        ),
        (
            r#"{"model":"m","tools":[],"tools":[]}"#,
            ScanError::Duplicate("tools"),
        ),
        (
            r#"{"model":"m","tools":[{"type":"custom","type":"web_search_20250305"}]}"#,
            ScanError::Duplicate("type"),
        ),
        (
            r#"{"model":"m","tools":[{"Type":"web_search_20250305"}]}"#,
            ScanError::Misspelled("type"),
        ),
    ] {
        assert_eq!(messages(body), Err(error), "{body}");
    }
    let both = r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#;
    let path = "/v1beta/models/m:generateContent";
    assert_eq!(
        at(
            ModelApi::Gemini,
            Operation::GenerateContent,
            path,
            both.as_bytes()
        ),
        Err(ScanError::Duplicate("maxOutputTokens"))
    );
    let stream = r#"{"model":"m","stream":false,"stream":true}"#;
    assert_eq!(messages(stream), Err(ScanError::Duplicate("stream")));
    // Where users write what they like, names are theirs.
    let theirs = r#"{"model":"m","metadata":{"Model":1,"model":2,"model":3},
        "messages":[{"content":[{"type":"tool_use","input":{"MAX_TOKENS":1,"type":1,"type":2}}]}]}"#;
    assert!(messages(theirs).is_ok());
}

#[test]
fn a_limit_is_a_whole_number() {
    for number in [
        "-1",
        "-0",
        "1.0",
        "1e3",
        "1E3",
        "0.5",
        "\"32000\"",
        "true",
        "[]",
        "{}",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        let body = format!(r#"{{"model":"m","max_tokens":{number}}}"#);
        assert_eq!(
            messages(&body).unwrap_err().reason(),
            "wrong_type",
            "{number}"
        );
    }
    let body = r#"{"model":"m","max_tokens":18446744073709551615}"#;
    assert_eq!(messages(body).unwrap().max_output, Some(u64::MAX));
    for stream in ["\"true\"", "1", "[]"] {
        let body = format!(r#"{{"model":"m","stream":{stream}}}"#);
        assert_eq!(
            messages(&body).unwrap_err().reason(),
            "wrong_type",
            "{stream}"
        );
    }
}

#[test]
fn a_model_is_named() {
    for body in [r#"{}"#, r#"{"model":null}"#] {
        assert_eq!(messages(body), Err(ScanError::NoModel));
    }
    for model in ["", "a b", "a\n", "\u{0}", &"m".repeat(257), "models/"] {
        let body = json!({"model": model}).to_string();
        assert_eq!(messages(&body), Err(ScanError::ModelName), "{model}");
    }
    assert_eq!(messages(r#"{"model":"\ud800"}"#), Err(ScanError::ModelName));
    for model in ["1", "[\"m\"]", "{}"] {
        let body = format!(r#"{{"model":{model}}}"#);
        assert_eq!(messages(&body).unwrap_err().reason(), "wrong_type");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        r#"{"model":"m"}"#.encode_utf16().flat_map(order).collect()
    };
    let utf32: Vec<u8> =
        r#"{"model":"m"}"#.chars().flat_map(|c| (c as u32).to_be_bytes()).collect();
    let mut marked = utf16(u16::to_le_bytes);
    marked.splice(0..0, [0xFF, 0xFE]);
    for (body, reason) in [
        (b"".to_vec(), "not_json"),
        (b"model=m&max_tokens=1".to_vec(), "not_json"),
        (b"[]".to_vec(), "not_json"),
        (b"{\"model\":\"m\"".to_vec(), "not_json"),
        (b"{\"model\":\"m\",}".to_vec(), "not_json"),
        (
            b"{\"model\":\"m\"}{\"model\":\"n\"}".to_vec(),
            "trailing_data",
        ),
        (b"{\"model\":\"m\"}\0".to_vec(), "trailing_data"),
        (b"\xEF\xBB\xBF{\"model\":\"m\"}".to_vec(), "byte_order_mark"),
        (b"{\"model\":\"m\",\"x\":\"\xFF\"}".to_vec(), "not_utf8"),
        (
            b"{\"model\":\"m\",\"x\":\"\xED\xA0\x80\"}".to_vec(),
            "not_utf8",
        ),
        (utf16(u16::to_le_bytes), "not_utf8"),
        (utf16(u16::to_be_bytes), "not_utf8"),
        (marked, "not_utf8"),
        (utf32, "not_utf8"),
    ] {
        let error = at(
            ModelApi::Anthropic,
            Operation::Messages,
            "/v1/messages",
            &body,
        )
        .unwrap_err();
        assert_eq!(error.reason(), reason, "{body:?}");
        assert!(!error.to_string().is_empty() && !error.remedy().is_empty());
    }
    let deep = format!(
        r#"{{"model":"m","x":{}{}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    assert!(matches!(
        messages(&deep),
        Err(ScanError::Json(JsonFault::TooDeep(_)))
    ));
    let deep = "{\"a\":".repeat(MAX_DEPTH + 1);
    assert_eq!(messages(&deep).unwrap_err().reason(), "too_deep");
}

#[test]
fn what_would_be_paid_for_unseen_is_refused() {
    let body = |field: &str, value: Value| json!({"model": "m", "input": "", field: value});
    assert_eq!(
        responses(body("background", json!(true))),
        Err(ScanError::Background)
    );
    assert!(responses(body("background", json!(false))).is_ok());
    assert_eq!(
        responses(body("prompt", json!({"id": "pmpt_1"}))),
        Err(ScanError::StoredPrompt)
    );

    let none = HeaderMap::new();
    let google = |query: Option<&str>, headers: &HeaderMap| {
        let path = "/v1beta/models/m:generateContent";
        read(
            ModelApi::Gemini,
            Operation::GenerateContent,
            path,
            query,
            headers,
            b"{}",
        )
    };
    for query in [
        "fields=candidates",
        "key=k&%66ields=x",
        "$fields=x",
        "alt=proto",
        "$alt=media",
        "callback=f",
    ] {
        let error = google(Some(query), &none).unwrap_err();
        assert!(
            matches!(error, ScanError::HidesUsage(_) | ScanError::Overridden(_)),
            "{query}"
        );
    }
    assert!(google(Some("alt=sse&key=k"), &none).is_ok());
    assert!(google(None, &header("x-goog-fieldmask", "candidates")).is_err());
    assert!(google(None, &header("x-http-method-override", "GET")).is_err());
}

#[test]
fn the_content_type_says_json_in_utf_8_or_nothing() {
    let of = |api, value| {
        let headers = header("content-type", value);
        read(
            api,
            Operation::ChatCompletions,
            "/v1/chat/completions",
            None,
            &headers,
            br#"{"model":"m"}"#,
        )
    };
    for good in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/vnd.x+json",
    ] {
        assert!(of(ModelApi::OpenAI, good).is_ok(), "{good}");
    }
    for bad in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/x-protobuf",
        "text/plain",
        "",
    ] {
        assert_eq!(
            of(ModelApi::OpenAI, bad),
            Err(ScanError::ContentType),
            "{bad}"
        );
    }
    assert!(of(ModelApi::Ollama, "application/x-www-form-urlencoded").is_ok());
    let mut twice = header("content-type", "application/json");
    twice.append("content-type", HeaderValue::from_static("text/plain"));
    let call = read(
        ModelApi::OpenAI,
        Operation::Responses,
        "/v1/responses",
        None,
        &twice,
        br#"{"model":"m"}"#,
    );
    assert_eq!(call, Err(ScanError::ContentType));
}

/// A padded body is read as the same call of more octets.
#[test]
fn padding_changes_nothing_but_the_length() {
    let plain = r#"{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"hi"}]}"#;
    let call = messages(plain).unwrap();
    let space = " \n\t\r".repeat(500_000);
    let keys: String = (0..50_000)
        .map(|i| format!(r#""pad{i}":[{{"x":"y"}},null,1.5e9],"#))
        .collect();
    for padded in [
        format!("{space}{plain}{space}"),
        plain.replacen('{', &format!("{{{keys}"), 1),
        plain.replacen(
            '{',
            &format!(r#"{{"pad":"{}","#, "\\u0041".repeat(500_000)),
            1,
        ),
    ] {
        let body_bytes = padded.len() as u64;
        assert_eq!(
            messages(&padded).unwrap(),
            Call {
                body_bytes,
                ..call.clone()
            }
        );
    }
}

/// Bodies with some of everything that is looked for.
fn bodies() -> impl Strategy<Value = Value> {
    let text = || "[a-z\"\\\\\n é😀]{0,12}";
    let part = prop_oneof![
        text().prop_map(|text| json!({"type": "text", "text": text})),
        Just(json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}})),
        Just(json!({"type": "image", "source": {"type": "url", "url": "https://e.com"}})),
        Just(
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}})
        ),
        text().prop_map(
            |text| json!({"type": "tool_use", "id": "1", "input": {"url": text, "model": 1}})
        ),
    ];
    let tool = prop_oneof![
        Just(json!({"name": "t", "input_schema": {"type": "object", "properties": {"model": {}}}})),
        Just(json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 3})),
        Just(
            json!({"type": "code_execution_20250522", "name": "x", "cache_control": {"ttl": "1h"}})
        ),
    ];
    (
        "[a-zé-]{1,12}",
        any::<Option<u32>>(),
        any::<Option<bool>>(),
        prop::collection::vec(part, 0..4),
        prop::collection::vec(tool, 0..3),
        prop::option::of(prop::sample::select(&["priority", "auto", "flex"])),
        prop::collection::vec("[a-c]{1,2}", 0..3),
        prop::collection::btree_map("x[a-z]{1,5}", text(), 0..4),
    )
        .prop_map(
            |(model, max, stream, parts, tools, tier, fallbacks, extra)| {
                let mut body = json!({
                    "model": model, "max_tokens": max, "stream": stream, "tools": tools,
                    "messages": [{"role": "user", "content": parts}],
                    "service_tier": tier, "fallbacks": fallbacks,
                });
                let object = body.as_object_mut().unwrap();
                object.extend(extra.into_iter().map(|(key, value)| (key, value.into())));
                body
            },
        )
}

/// Writes a value with other white space, other order of names and other escapes.
fn rewrite(value: &Value, dice: &mut impl FnMut() -> u32) -> String {
    let mut space = || {
        " \n\t\r"
            .chars()
            .take(dice() as usize % 5)
            .collect::<String>()
    };
    let (before, after) = (space(), space());
    let text = match value {
        Value::Object(object) => {
            let mut members: Vec<String> = object
                .iter()
                .map(|(key, value)| {
                    let key = rewrite(&Value::from(key.as_str()), dice);
                    format!("{key}:{}", rewrite(value, dice))
                })
                .collect();
            let length = members.len().max(1);
            members.rotate_left(dice() as usize % length);
            if dice().is_multiple_of(2) {
                members.reverse();
            }
            format!("{{{}}}", members.join(","))
        }
        Value::Array(array) => {
            let elements: Vec<String> = array.iter().map(|value| rewrite(value, dice)).collect();
            format!("[{}]", elements.join(","))
        }
        Value::String(said) => {
            let mut text = String::from('"');
            for character in said.chars() {
                match dice() % 3 {
                    0 => {
                        let mut units = [0; 2];
                        for unit in character.encode_utf16(&mut units) {
                            text += &format!("\\u{unit:04x}");
                        }
                    }
                    1 if character == '/' => text += "\\/",
                    _ => {
                        text += Value::from(character.to_string())
                            .to_string()
                            .trim_matches_once()
                    }
                }
            }
            text + "\""
        }
        other => other.to_string(),
    };
    format!("{before}{text}{after}")
}

trait TrimOnce {
    fn trim_matches_once(&self) -> &str;
}

impl TrimOnce for String {
    /// Without the quotes at both ends.
    fn trim_matches_once(&self) -> &str {
        &self[1..self.len() - 1]
    }
}

proptest! {
    #[test]
    fn any_way_of_writing_a_body_is_the_same_call(body in bodies(), seeds in prop::collection::vec(any::<u32>(), 1..200)) {
        let call = messages(&body.to_string()).unwrap();
        let mut at = 0;
        let mut dice = || {
            at += 1;
            seeds[at % seeds.len()]
        };
        let rewritten = rewrite(&body, &mut dice);
        prop_assert_eq!(serde_json::from_str::<Value>(&rewritten).unwrap(), body);
        let read = messages(&rewritten).unwrap();
        // An escape makes a picture longer, which may have no more tokens for that.
        let body_bytes = read.body_bytes;
        prop_assert!(body_bytes >= rewritten.len() as u64);
        prop_assert_eq!(read, Call { body_bytes, ..call }, "{}", rewritten);
    }

    #[test]
    fn any_octets_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _call_or_error = at(ModelApi::Anthropic, Operation::Messages, "/v1/messages", &body);
    }
}

#[test]
fn what_is_spoken_costs_more_than_its_text_shows() {
    let spoken =
        json!({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}});
    for (fields, hides) in [
        (spoken, true),
        (json!({"audio": null}), false),
        (json!({}), false),
    ] {
        let mut body = json!({"model": "gpt-4o-audio-preview", "stream": true, "messages": []});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        assert_eq!(
            chat(body.clone()).unwrap().hides_reasoning(),
            hides,
            "{body}"
        );
    }
}

#[test]
fn thinking_that_the_stream_does_not_count_is_noticed() {
    let on = json!({"thinking": {"type": "enabled", "budget_tokens": 30_000}});
    assert!(with(on.clone()).thinks_unseen && with(on.clone()).hides_reasoning());
    assert!(with(json!({"thinking": {"type": "adaptive", "display": "omitted"}})).thinks_unseen);
    assert!(with(json!({"thinking": {}})).thinks_unseen);
    for off in [
        json!({}),
        json!({"thinking": null}),
        json!({"thinking": {"type": "disabled"}}),
    ] {
        assert!(!with(off.clone()).thinks_unseen, "{off}");
    }
    let twice = r#"{"model":"m","messages":[],"thinking":{"type":"disabled","type":"enabled"}}"#;
    assert!(!messages(twice).is_ok_and(|call| !call.thinks_unseen));

    let body = json!({"model": "m", "max_tokens": 1, "messages": [], "thinking": on["thinking"]});
    let beta = header(
        "anthropic-beta",
        "claude-code-1,thinking-token-count-2026-05-13",
    );
    let thinks = |api, operation, path: &str| {
        let body = body.to_string();
        let call = read(api, operation, path, None, &beta, body.as_bytes());
        call.unwrap().thinks_unseen
    };
    assert!(!thinks(
        ModelApi::Anthropic,
        Operation::Messages,
        "/v1/messages"
    ));
    // Other clouds know no such beta.
    assert!(thinks(
        ModelApi::Bedrock,
        Operation::InvokeModelStream,
        "/model/anthropic.claude-x/invoke-with-response-stream",
    ));
    let nova = json!({"messages": [], "additionalModelRequestFields":
        {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}});
    let path = "/model/amazon.nova-x/converse-stream";
    let nova = nova.to_string();
    let call = at(
        ModelApi::Bedrock,
        Operation::ConverseStream,
        path,
        nova.as_bytes(),
    );
    assert!(call.unwrap().thinks_unseen);
}
