//! Owns which requests to a model API cost something, and how their bodies are to be read.
//!
//! Only spellings that providers document are known. An origin may decode, fold or tidy a path before it
//! looks at it, so whatever is written another way (`%2F`, `//`, `..`, `;x`, `/V1/`) is
//! [`Endpoint::Unmetered`], never free.

use std::borrow::Cow;

use http::header::UPGRADE;
use http::{HeaderMap, HeaderName, Method};

use super::path::{Model, Verb, is_version, name, segments};
use crate::types::model_api::ModelApi;

/// What a request to a model API is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// It costs nothing: model lists, token counting.
    Free,
    /// What it costs can be read.
    Metered(Operation),
    /// It may cost something that cannot be read here: batches, files, realtime, unknown paths.
    Unmetered,
}

/// How the bodies of a metered request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Anthropic Messages; the model is in the body.
    Messages,
    /// Anthropic Messages on Vertex AI (`rawPredict`, `streamRawPredict`); the model is in the path.
    RawPredict,
    /// OpenAI Chat Completions.
    ChatCompletions,
    /// OpenAI Responses.
    Responses,
    /// OpenAI embeddings.
    Embeddings,
    /// Gemini `generateContent` and `streamGenerateContent`; the model is in the path.
    GenerateContent,
    /// Gemini `embedContent`, `batchEmbedContents`; the model is in the path.
    EmbedContent,
    /// Bedrock Converse; the model is in the path.
    Converse,
    /// Bedrock ConverseStream.
    ConverseStream,
    /// Bedrock InvokeModel: the body is the model's own.
    InvokeModel,
    /// Bedrock InvokeModelWithResponseStream.
    InvokeModelStream,
    /// Ollama `/api/chat` and `/api/generate`.
    OllamaGenerate,
    /// Ollama `/api/embed`, `/api/embeddings`.
    OllamaEmbed,
}

impl Operation {
    /// The API in whose words its clients are told of errors: some hosts have endpoints that speak another's
    /// (`/openai/` at Gemini, Bedrock and Azure, `/v1/messages` at Ollama, Anthropic's models at Vertex AI).
    pub fn words(self, host: ModelApi) -> ModelApi {
        match self {
            Self::Messages | Self::RawPredict => ModelApi::Anthropic,
            Self::ChatCompletions | Self::Responses | Self::Embeddings => ModelApi::OpenAI,
            Self::GenerateContent
            | Self::EmbedContent
            | Self::Converse
            | Self::ConverseStream
            | Self::InvokeModel
            | Self::InvokeModelStream
            | Self::OllamaGenerate
            | Self::OllamaEmbed => host,
        }
    }
}

/// Fields with which some origins let a request have another method than its request line says.
const METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// What a request is, its query and fields considered: an upgrade leaves HTTP, and origins that let a
/// field or a parameter name the method or the content type do not do what the request line says.
pub fn classify_request(
    api: ModelApi,
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Endpoint {
    let another = headers.contains_key(UPGRADE) || overridden(query, headers).is_some();
    match another {
        true => Endpoint::Unmetered,
        false => classify(api, method, path),
    }
}

/// What a request with this method and path, as it stands in the request line, is.
pub fn classify(api: ModelApi, method: &Method, path: &str) -> Endpoint {
    route(api, method, path).0
}

/// The model that the path of a metered request names, decoded.
pub fn model_of_path(api: ModelApi, path: &str) -> Option<Cow<'_, str>> {
    route(api, &Method::POST, path).1
}

/// What lets an origin take a request for another one than it is read as here.
///
/// Google's parameters: <https://cloud.google.com/apis/docs/system-parameters>.
pub(super) fn overridden(query: Option<&str>, headers: &HeaderMap) -> Option<&'static str> {
    if METHOD_OVERRIDES
        .iter()
        .any(|name| headers.contains_key(name))
    {
        return Some("a field that names another method");
    }
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        let name = name(parameter.split('=').next().unwrap_or_default());
        let harmless = ["$alt", "$key", "$prettyprint", "$.xgafv", "$unique"];
        if name.starts_with('$') && !harmless.contains(&&*name) {
            return Some("a `$` parameter that changes what the request means");
        }
        if name == "x-http-method-override" || name == "_method" {
            return Some("a parameter that names another method");
        }
    }
    None
}

type Route<'p> = (Endpoint, Option<Model<'p>>);

fn route<'p>(api: ModelApi, method: &Method, path: &'p str) -> (Endpoint, Option<Cow<'p, str>>) {
    let unmetered = (Endpoint::Unmetered, None);
    if path == "/" {
        let free = method == Method::HEAD || (method == Method::GET && api == ModelApi::Ollama);
        return (
            if free {
                Endpoint::Free
            } else {
                Endpoint::Unmetered
            },
            None,
        );
    }
    let Some(segments) = segments(path) else {
        return unmetered;
    };
    let plain = segments.iter().all(|segment| !segment.contains('%'));
    if method == Method::HEAD {
        return (
            if plain {
                Endpoint::Free
            } else {
                Endpoint::Unmetered
            },
            None,
        );
    }
    let get = method == Method::GET;
    if !get && method != Method::POST {
        return unmetered;
    }
    if get && (!plain || !is_free_reading(api, &segments)) {
        return unmetered;
    }
    if get {
        return (Endpoint::Free, None);
    }
    let (endpoint, model) = match api {
        ModelApi::Anthropic => (anthropic(&segments), None),
        ModelApi::OpenAI => (openai(&segments), None),
        ModelApi::Gemini => gemini(&segments),
        ModelApi::Bedrock => bedrock(&segments),
        ModelApi::Vertex => vertex(&segments),
        ModelApi::Azure => azure(&segments),
        ModelApi::Ollama => (ollama(&segments), None),
    };
    let model = match model.map(Model::decoded) {
        None => None,
        Some(Some(model)) => Some(model),
        // A model's name that reads in two ways.
        Some(None) => return unmetered,
    };
    // What is not a model's name has one spelling only, and a free request has nothing else.
    let spelled = segments
        .iter()
        .filter(|segment| segment.contains('%'))
        .count();
    let slash = model.as_ref().is_some_and(|model| model.contains('/'));
    if spelled > usize::from(model.is_some()) || (slash && endpoint == Endpoint::Free) {
        return unmetered;
    }
    (endpoint, model)
}

/// GETs that cost nothing.
fn is_free_reading(api: ModelApi, segments: &[&str]) -> bool {
    match (api, segments) {
        (ModelApi::Anthropic, ["v1", "models"] | ["v1", "models", _] | ["v1", "mcp_servers"]) => {
            true
        }
        // What Claude Code asks for beside its model: settings, flags, its account.
        (ModelApi::Anthropic, ["api", "ws", ..]) => false,
        (ModelApi::Anthropic, ["api", ..] | ["mcp-registry", ..]) => true,
        (ModelApi::OpenAI, ["backend-api", "codex", "models"]) => true,
        (ModelApi::OpenAI, ["backend-api", "plugins", "export", "curated"]) => true,
        // What Codex asks about the account it is logged in with.
        (ModelApi::OpenAI, ["backend-api", "wham", rest @ ..]) => matches!(
            rest,
            ["usage" | "environments" | "workspace-messages" | "rate-limit-reset-credits"]
                | ["config", "bundle"]
                | ["settings", "user"]
                | ["profiles", "me"]
                | ["accounts", "check"]
        ),
        (ModelApi::OpenAI, [prefix @ .., "models"] | [prefix @ .., "models", _]) => {
            is_prefix(prefix)
        }
        (ModelApi::OpenAI, ["v1", "responses", rest @ ..]) => is_stored_response(rest),
        (ModelApi::Azure, ["openai", "v1", "responses", rest @ ..]) => is_stored_response(rest),
        (ModelApi::Azure, ["openai", "responses", rest @ ..]) => is_stored_response(rest),
        (ModelApi::Azure, ["openai", "v1", "models"] | ["openai", "v1", "models", _]) => true,
        (ModelApi::Azure, ["openai", "models"] | ["openai", "models", _]) => true,
        (ModelApi::Gemini, [version, "models"]) => is_version(version),
        (ModelApi::Gemini, [version, "models", id]) => is_version(version) && !id.contains(':'),
        (ModelApi::Gemini, [version, "openai", "models"]) => is_version(version),
        (ModelApi::Vertex, [version, "publishers", _, "models"]) => is_version(version),
        (ModelApi::Vertex, [version, "publishers", _, "models", id]) => {
            is_version(version) && !id.contains(':')
        }
        (ModelApi::Ollama, ["api", "tags" | "ps" | "version"]) => true,
        (ModelApi::Ollama, ["v1", "models"] | ["v1", "models", _]) => true,
        _ => false,
    }
}

/// `GET /v1/responses/{id}` reads what a request with a budget of its own has paid for; one in the
/// background, which would be paid for unseen, is refused when it is asked for.
fn is_stored_response(rest: &[&str]) -> bool {
    match rest {
        [id] | [id, "input_items"] => id.starts_with("resp_"),
        _ => false,
    }
}

fn anthropic(segments: &[&str]) -> Endpoint {
    match segments {
        ["v1", "messages"] => Endpoint::Metered(Operation::Messages),
        ["v1", "messages", "count_tokens"] => Endpoint::Free,
        // Claude Code's flags, telemetry, feedback and account.
        [
            "api",
            "eval" | "event_logging" | "claude_code" | "claude_cli" | "oauth",
            ..,
        ] => Endpoint::Free,
        ["api", one] if one.starts_with("claude_code_") || one.starts_with("claude_cli_") => {
            Endpoint::Free
        }
        _ => Endpoint::Unmetered,
    }
}

fn openai(segments: &[&str]) -> Endpoint {
    match segments {
        ["backend-api", "codex", "responses"]
        | ["backend-api", "codex", "responses", "compact"] => {
            Endpoint::Metered(Operation::Responses)
        }
        [prefix @ .., "chat", "completions"] if is_prefix(prefix) => {
            Endpoint::Metered(Operation::ChatCompletions)
        }
        // Compacting a conversation takes a model and is answered with its usage.
        [prefix @ .., "responses"] | [prefix @ .., "responses", "compact"] if is_prefix(prefix) => {
            Endpoint::Metered(Operation::Responses)
        }
        [prefix @ .., "embeddings"] if is_prefix(prefix) => {
            Endpoint::Metered(Operation::Embeddings)
        }
        _ => Endpoint::Unmetered,
    }
}

/// What stands before `/chat/completions` at providers that speak OpenAI's API: nothing, `/v1`,
/// `/api/v1` (OpenRouter), `/openai/v1` (Groq), `/inference/v1` (Fireworks), `/api/paas/v4` (Z.ai).
fn is_prefix(prefix: &[&str]) -> bool {
    match prefix {
        [] => true,
        [before @ .., version] => before.len() <= 3 && is_version(version),
    }
}

fn gemini<'p>(segments: &[&'p str]) -> Route<'p> {
    match segments {
        [version, "models", last] if is_version(version) => google_verb(Verb::split(last)),
        [version, "openai", rest @ ..] if is_version(version) => (openai(rest), None),
        _ => (Endpoint::Unmetered, None),
    }
}

fn google_verb(verb: Option<Verb<'_>>) -> Route<'_> {
    let Some(Verb { model, verb }) = verb else {
        return (Endpoint::Unmetered, None);
    };
    let operation = match verb {
        "generateContent" | "streamGenerateContent" => Operation::GenerateContent,
        "embedContent" | "batchEmbedContents" => Operation::EmbedContent,
        "countTokens" => return (Endpoint::Free, None),
        _ => return (Endpoint::Unmetered, None),
    };
    (Endpoint::Metered(operation), Some(model))
}

fn bedrock<'p>(segments: &[&'p str]) -> Route<'p> {
    let (model, operation) = match segments {
        ["model", model, "converse"] => (model, Operation::Converse),
        ["model", model, "converse-stream"] => (model, Operation::ConverseStream),
        ["model", model, "invoke"] => (model, Operation::InvokeModel),
        ["model", model, "invoke-with-response-stream"] => (model, Operation::InvokeModelStream),
        ["model", model, "count-tokens"] => return (Endpoint::Free, Some(Model(model))),
        ["openai", "v1", "chat", "completions"] => {
            return (Endpoint::Metered(Operation::ChatCompletions), None);
        }
        _ => return (Endpoint::Unmetered, None),
    };
    (Endpoint::Metered(operation), Some(Model(model)))
}

fn vertex<'p>(segments: &[&'p str]) -> Route<'p> {
    let (version, rest) = match segments {
        [version, "projects", _, "locations", _, rest @ ..] => (version, rest),
        // Express mode names neither project nor place.
        [version, rest @ ..] => (version, rest),
        [] => return (Endpoint::Unmetered, None),
    };
    if !is_version(version) {
        return (Endpoint::Unmetered, None);
    }
    match rest {
        ["publishers", "google", "models", last] => google_verb(Verb::split(last)),
        // Not a model: it counts the tokens of a prompt.
        [
            "publishers",
            "anthropic",
            "models",
            "count-tokens:rawPredict",
        ] => (Endpoint::Free, None),
        ["publishers", "anthropic", "models", last] => match Verb::split(last) {
            Some(Verb {
                model,
                verb: "rawPredict" | "streamRawPredict",
            }) => (Endpoint::Metered(Operation::RawPredict), Some(model)),
            _ => (Endpoint::Unmetered, None),
        },
        ["endpoints", "openapi", "chat", "completions"] => {
            (Endpoint::Metered(Operation::ChatCompletions), None)
        }
        _ => (Endpoint::Unmetered, None),
    }
}

fn azure<'p>(segments: &[&'p str]) -> Route<'p> {
    let operation = match segments {
        ["openai", "deployments", _, "chat", "completions"] => Operation::ChatCompletions,
        ["openai", "deployments", _, "embeddings"] => Operation::Embeddings,
        ["openai", "v1", rest @ ..] => return (openai(rest), None),
        ["openai", "responses"] => Operation::Responses,
        _ => return (Endpoint::Unmetered, None),
    };
    let deployment = match segments {
        ["openai", "deployments", name, ..] => Some(Model(name)),
        _ => None,
    };
    (Endpoint::Metered(operation), deployment)
}

fn ollama(segments: &[&str]) -> Endpoint {
    match segments {
        ["api", "chat" | "generate"] => Endpoint::Metered(Operation::OllamaGenerate),
        ["api", "embed" | "embeddings"] => Endpoint::Metered(Operation::OllamaEmbed),
        ["api", "show"] => Endpoint::Free,
        ["v1", "messages"] => Endpoint::Metered(Operation::Messages),
        ["v1", rest @ ..] => openai(rest),
        _ => Endpoint::Unmetered,
    }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
