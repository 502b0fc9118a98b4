use ModelApi::{Anthropic, Azure, Bedrock, Gemini, Ollama, OpenAI, Vertex};
use Operation::{
    ChatCompletions, Converse, ConverseStream, EmbedContent, Embeddings, GenerateContent,
    InvokeModel, InvokeModelStream, Messages, OllamaEmbed, OllamaGenerate, RawPredict, Responses,
};
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const VERTEX: &str = "/v1/projects/p-1/locations/us-east5/publishers";

fn of(api: ModelApi, method: &str, path: &str) -> Endpoint {
    classify(api, &method.parse().unwrap(), path)
}

/// Every documented call, and the model in its path.
fn metered() -> Vec<(ModelApi, String, Operation, Option<&'static str>)> {
    let fixed = [
        (Anthropic, "/v1/messages", Messages, None),
        (OpenAI, "/v1/chat/completions", ChatCompletions, None),
        (OpenAI, "/chat/completions", ChatCompletions, None),
        (OpenAI, "/openai/v1/chat/completions", ChatCompletions, None),
        (
            OpenAI,
            "/api/paas/v4/chat/completions",
            ChatCompletions,
            None,
        ),
        (OpenAI, "/v1/responses", Responses, None),
        (OpenAI, "/v1/responses/compact", Responses, None),
        (OpenAI, "/backend-api/codex/responses", Responses, None),
        (OpenAI, "/v1/embeddings", Embeddings, None),
        (
            Gemini,
            "/v1beta/models/gemini-2.5-pro:generateContent",
            GenerateContent,
            Some("gemini-2.5-pro"),
        ),
        (
            Gemini,
            "/v1/models/gemini-2.5-pro:streamGenerateContent",
            GenerateContent,
            Some("gemini-2.5-pro"),
        ),
        (
            Gemini,
            "/v1beta/models/e-1:embedContent",
            EmbedContent,
            Some("e-1"),
        ),
        (
            Gemini,
            "/v1beta/models/e-1:batchEmbedContents",
            EmbedContent,
            Some("e-1"),
        ),
        (
            Gemini,
            "/v1beta/openai/chat/completions",
            ChatCompletions,
            None,
        ),
        (
            Bedrock,
            "/model/anthropic.claude-v2%3A1/converse",
            Converse,
            Some("anthropic.claude-v2:1"),
        ),
        (
            Bedrock,
            "/model/anthropic.claude-v2:1/converse-stream",
            ConverseStream,
            Some("anthropic.claude-v2:1"),
        ),
        (
            Bedrock,
            "/model/us.amazon.nova-pro-v1%3a0/invoke",
            InvokeModel,
            Some("us.amazon.nova-pro-v1:0"),
        ),
        (
            Bedrock,
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/invoke-with-response-stream",
            InvokeModelStream,
            Some("arn:aws:bedrock:us-east-1:1:inference-profile/x"),
        ),
        (
            Bedrock,
            "/openai/v1/chat/completions",
            ChatCompletions,
            None,
        ),
        (
            Azure,
            "/openai/deployments/my-gpt/chat/completions",
            ChatCompletions,
            Some("my-gpt"),
        ),
        (
            Azure,
            "/openai/deployments/my-e/embeddings",
            Embeddings,
            Some("my-e"),
        ),
        (Azure, "/openai/v1/responses", Responses, None),
        (Azure, "/openai/v1/chat/completions", ChatCompletions, None),
        (Ollama, "/api/chat", OllamaGenerate, None),
        (Ollama, "/api/generate", OllamaGenerate, None),
        (Ollama, "/api/embed", OllamaEmbed, None),
        (Ollama, "/v1/chat/completions", ChatCompletions, None),
        (Ollama, "/v1/messages", Messages, None),
    ];
    let vertex = [
        (
            "anthropic/models/claude-x@20250514:rawPredict",
            RawPredict,
            "claude-x@20250514",
        ),
        (
            "anthropic/models/claude-x%4020250514:streamRawPredict",
            RawPredict,
            "claude-x@20250514",
        ),
        (
            "google/models/gemini-x:generateContent",
            GenerateContent,
            "gemini-x",
        ),
        (
            "google/models/gemini-x:streamGenerateContent",
            GenerateContent,
            "gemini-x",
        ),
    ];
    let fixed = fixed.map(|(api, path, operation, model)| (api, path.to_owned(), operation, model));
    let vertex = vertex.map(|(path, operation, model)| {
        (Vertex, format!("{VERTEX}/{path}"), operation, Some(model))
    });
    fixed.into_iter().chain(vertex).collect()
}

fn free() -> Vec<(ModelApi, &'static str, String)> {
    let all = [
        (Anthropic, "POST", "/v1/messages/count_tokens"),
        (Anthropic, "GET", "/v1/models"),
        (Anthropic, "GET", "/v1/models/claude-x"),
        (Anthropic, "GET", "/v1/mcp_servers"),
        (Anthropic, "HEAD", "/api/hello"),
        (Anthropic, "GET", "/api/claude_code/settings"),
        (Anthropic, "GET", "/api/claude_code/policy_limits"),
        (Anthropic, "POST", "/api/eval/sdk-zAZezfDKGoZuXXKe"),
        (Anthropic, "GET", "/api/claude_cli/bootstrap"),
        (Anthropic, "GET", "/api/claude_code_penguin_mode"),
        (Anthropic, "GET", "/api/directory/server-urls"),
        (Anthropic, "GET", "/mcp-registry/v0/servers"),
        (
            Anthropic,
            "GET",
            "/api/claude_code/organizations/metrics_enabled",
        ),
        (Anthropic, "POST", "/api/event_logging/v2/batch"),
        (Anthropic, "GET", "/api/oauth/profile"),
        (
            Anthropic,
            "GET",
            "/api/oauth/organizations/0-1/referral/eligibility",
        ),
        (Anthropic, "GET", "/api/web/domain_info"),
        (OpenAI, "GET", "/v1/models"),
        (OpenAI, "GET", "/v1/models/ft:gpt-4o:org::id"),
        (OpenAI, "GET", "/backend-api/codex/models"),
        (OpenAI, "GET", "/backend-api/wham/usage"),
        (OpenAI, "GET", "/v1/responses/resp_0a1B"),
        (OpenAI, "GET", "/v1/responses/resp_0a1B/input_items"),
        (Gemini, "GET", "/v1beta/models"),
        (Gemini, "GET", "/v1beta/models/gemini-2.5-pro"),
        (Gemini, "POST", "/v1beta/models/gemini-2.5-pro:countTokens"),
        (
            Bedrock,
            "POST",
            "/model/anthropic.claude-v2%3A1/count-tokens",
        ),
        (Azure, "GET", "/openai/v1/models"),
        (Ollama, "GET", "/"),
        (Ollama, "GET", "/api/tags"),
        (Ollama, "POST", "/api/show"),
    ];
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(api, method, path)| (api, method, path.to_owned()))
        .collect();
    for path in [
        "google/models/gemini-x:countTokens",
        "anthropic/models/count-tokens:rawPredict",
    ] {
        all.push((Vertex, "POST", format!("{VERTEX}/{path}")));
    }
    all
}

#[test]
fn documented_calls_are_metered() {
    for (api, path, operation, model) in metered() {
        assert_eq!(
            of(api, "POST", &path),
            Endpoint::Metered(operation),
            "{path}"
        );
        assert_eq!(model_of_path(api, &path).as_deref(), model, "{path}");
        for method in ["GET", "PUT", "DELETE", "PATCH", "CONNECT", "post"] {
            assert_eq!(
                of(api, method, &path),
                Endpoint::Unmetered,
                "{method} {path}"
            );
        }
    }
}

#[test]
fn questions_that_cost_nothing_are_free() {
    for (api, method, path) in free() {
        assert_eq!(of(api, method, &path), Endpoint::Free, "{method} {path}");
    }
}

/// LiteLLM #13882, #10238, Bifrost #2873.
#[test]
fn complaint_15_passthrough_routes_do_not_ignore_budgets() {
    for (api, method, path) in [
        (Anthropic, "POST", "/v1/messages/batches"),
        (Anthropic, "GET", "/v1/messages/batches/b/results"),
        (Anthropic, "POST", "/v1/complete"),
        (Anthropic, "POST", "/v1/files"),
        (Anthropic, "POST", "/v1/sessions"),
        (Anthropic, "POST", "/v1/agents"),
        (Anthropic, "POST", "/v1/models"),
        (
            Anthropic,
            "POST",
            "/api/organizations/o/chat_conversations/c/completion",
        ),
        (Anthropic, "GET", "/api/ws/speech_to_text/voice_stream"),
        (Anthropic, "POST", "/"),
        (OpenAI, "POST", "/v1/completions"),
        (OpenAI, "POST", "/v1/batches"),
        (OpenAI, "POST", "/v1/files"),
        (OpenAI, "GET", "/v1/files"),
        (OpenAI, "GET", "/v1/realtime"),
        (OpenAI, "GET", "/v1/responses"),
        (OpenAI, "POST", "/v1/responses/resp_1"),
        (OpenAI, "GET", "/v1/responses/compact"),
        (OpenAI, "POST", "/v1/images/generations"),
        (OpenAI, "POST", "/v1/audio/speech"),
        (OpenAI, "POST", "/v1/assistants"),
        (OpenAI, "POST", "/v1/threads/t/runs"),
        (OpenAI, "POST", "/v1/fine_tuning/jobs"),
        (OpenAI, "POST", "/v1/videos"),
        (OpenAI, "POST", "/v1/moderations"),
        (OpenAI, "POST", "/backend-api/wham/tasks"),
        (OpenAI, "POST", "/backend-api/conversation"),
        (Gemini, "POST", "/v1beta/models/m:batchGenerateContent"),
        (Gemini, "POST", "/v1beta/models/m:predict"),
        (Gemini, "POST", "/v1beta/models/m:predictLongRunning"),
        (Gemini, "POST", "/v1beta/cachedContents"),
        (Gemini, "POST", "/upload/v1beta/files"),
        (
            Gemini,
            "GET",
            "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        ),
        (
            Gemini,
            "POST",
            "/google.ai.generativelanguage.v1beta.GenerativeService/GenerateContent",
        ),
        (Bedrock, "POST", "/model/m/invoke-with-bidirectional-stream"),
        (Bedrock, "POST", "/async-invoke"),
        (Bedrock, "POST", "/guardrail/g/version/1/apply"),
        (Azure, "POST", "/openai/deployments/d/images/generations"),
        (Azure, "POST", "/openai/batches"),
        (Ollama, "POST", "/api/pull"),
        (Ollama, "POST", "/api/create"),
    ] {
        assert_eq!(
            of(api, method, path),
            Endpoint::Unmetered,
            "{method} {path}"
        );
    }
    for path in ["mistralai/models/m:rawPredict", "google/models/m:predict"] {
        let path = format!("{VERTEX}/{path}");
        assert_eq!(of(Vertex, "POST", &path), Endpoint::Unmetered, "{path}");
    }
}

#[test]
fn a_free_path_written_another_way_is_not_free() {
    for path in [
        "/v1/messages/count_tokens/",
        "/v1/messages/count_tokens/..",
        "/v1/messages//count_tokens",
        "//v1/messages/count_tokens",
        "/v1/messages/count%5ftokens",
        "/v1/messages%2Fcount_tokens",
        "/v1/messages/batches/../count_tokens",
        "/v1/messages/./count_tokens",
        "/v1/messages/%2e%2e/messages/count_tokens",
        "/v1/messages;/count_tokens",
        "/v1/messages/count_tokens;x=y",
        "/V1/messages/count_tokens",
        "/v1/messages\\count_tokens",
        "/v1/messages/count_tokens%00",
        "/v1/messages/count_tokens\u{e9}",
        "v1/messages/count_tokens",
        "*",
        "",
        "/api/eval/../../v1/messages",
        "/api/eval/..%2f..%2fv1/messages",
        "/api/eval/x/%2e%2e/%2e%2e/%2e%2e/v1/messages",
        "/api/eval;/../v1/messages",
    ] {
        assert_eq!(of(Anthropic, "POST", path), Endpoint::Unmetered, "{path}");
    }
    for (api, method, path) in [
        (Anthropic, "GET", "/api/../v1/files"),
        (Anthropic, "GET", "/api/%2e%2e/v1/files"),
        (Anthropic, "HEAD", "/api//hello"),
        (Anthropic, "HEAD", "/v1/%6dessages"),
        (OpenAI, "GET", "/v1/models/../files"),
        (OpenAI, "GET", "/v1/models/x%2F..%2F..%2Frealtime"),
        (OpenAI, "GET", "/v1/responses/resp_1%2Fcancel"),
        (
            Gemini,
            "POST",
            "/v1beta/models/m:generateContent:countTokens",
        ),
        (
            Gemini,
            "POST",
            "/v1beta/models/m%3AgenerateContent:countTokens",
        ),
        (Gemini, "POST", "/v1beta/models/m%3AcountTokens"),
        (Bedrock, "POST", "/model/m%2Fconverse%3F/count-tokens"),
        (Bedrock, "POST", "/model/arn%3Aa%2Fconverse/count-tokens"),
        (Bedrock, "POST", "/model/m%252Fx/converse"),
        (Bedrock, "POST", "/model/%2e%2e/converse"),
        (Bedrock, "POST", "/model/arn:x%2F..%2Fy/converse"),
    ] {
        assert_eq!(
            of(api, method, path),
            Endpoint::Unmetered,
            "{method} {path}"
        );
    }
}

#[test]
fn what_an_origin_may_take_for_another_request_is_not_free() {
    let with = |name: &'static str, value: &'static str| {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    };
    let none = HeaderMap::new();
    let path = "/v1beta/models/m:countTokens";
    let of = |query: Option<&str>, headers: &HeaderMap| {
        classify_request(Gemini, &Method::POST, path, query, headers)
    };
    assert_eq!(of(None, &none), Endpoint::Free);
    assert_eq!(
        of(Some("key=k&alt=sse&$prettyPrint=false"), &none),
        Endpoint::Free
    );
    for headers in [
        with("upgrade", "websocket"),
        with("x-http-method-override", "PUT"),
        with("x-method-override", "GET"),
    ] {
        assert_eq!(of(None, &headers), Endpoint::Unmetered);
    }
    for query in [
        "$httpMethod=GET",
        "key=k&%24ct=text/plain",
        "a=b&%24req=x",
        "_method=PUT",
    ] {
        assert_eq!(of(Some(query), &none), Endpoint::Unmetered, "{query}");
    }
}

const APIS: [ModelApi; 7] = [Anthropic, OpenAI, Gemini, Bedrock, Vertex, Azure, Ollama];

proptest! {
    /// Whatever an origin may do to a path before it looks at it, the result is no paid path in disguise.
    #[test]
    fn no_disguise_of_a_paid_path_is_free(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        edit in 0..9_usize,
        api in prop::sample::select(&APIS),
        method in prop::sample::select(&["GET", "POST", "HEAD"]),
    ) {
        let all = metered();
        let (_, path, ..) = &all[which.index(all.len())];
        let at = 1 + at.index(path.len() - 1);
        let (head, tail) = path.split_at(at);
        let disguised = match edit {
            0 => format!("{head}/{tail}"),
            1 => format!("{head}%{:02x}{}", tail.as_bytes()[0], &tail[1..]),
            2 => format!("/api/x/..{path}"),
            3 => format!("/v1/models/..{path}"),
            4 => format!("{path}/"),
            5 => format!("{path};x=/v1/models"),
            6 => format!("/v1/models/..%2f..{path}"),
            7 => format!("{head}/./{tail}"),
            _ => format!("{path}%2f..%2fcount_tokens"),
        };
        // A slash in the middle of a word spells another path, whose reading may be free.
        if !(edit == 0 && method != "POST" && !disguised.contains("//")) {
            let endpoint = of(api, method, &disguised);
            prop_assert_ne!(endpoint, Endpoint::Free, "{} {}", method, disguised);
        }
    }

    #[test]
    fn any_octets_are_classified(path in "\\PC{0,60}", method in prop::sample::select(&["GET", "POST", "HEAD", "PUT"])) {
        for api in APIS {
            let endpoint = of(api, method, &path);
            let odd = path.contains(['%', ';', '\\', '?', '#']) || path.contains("//") || path.contains("..");
            prop_assert!(endpoint != Endpoint::Free || !odd, "{}", path);
        }
    }
}
