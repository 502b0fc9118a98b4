//! Owns the names that spans are told in: OpenTelemetry's HTTP and GenAI conventions, and our own below
//! `tollgate.`. HTTP is stable (semantic conventions 1.23 and later); GenAI is in development, in a repository
//! of its own (<https://github.com/open-telemetry/semantic-conventions-genai>).

use super::vocabulary::Item;
use crate::types::model_api::ModelApi;

const GENERAL: &str = "OpenTelemetry general";
const HTTP: &str = "OpenTelemetry HTTP";
const GEN_AI: &str = "OpenTelemetry GenAI";
const GEN_AI_OLD: &str = "OpenTelemetry GenAI before 1.37";
const RESOURCE: &str = "OpenTelemetry resource";
const CLRK: &str = "CLRK";

/// The span of an exchange is a client's: it stands for a request that went to an origin.
pub const KIND_CLIENT: u64 = 3;
/// What made a span.
pub const SCOPE: &str = "tollgate";

/// Declares names, and the list of them all.
macro_rules! names {
    ($list:ident: $($constant:ident = $item:expr;)+) => {
        $(pub(super) const $constant: Item = $item;)+

        /// Every one of them, as the reference page has it.
        pub const $list: &[Item] = &[$($constant),+];
    };
}

names! { ATTRIBUTES:
    METHOD = Item::text("http.request.method", "The method; `_OTHER` for one that is no ordinary word; `CONNECT` for what was passed on unread or refused before a request was seen.").named_by(HTTP);
    URL = Item::text("url.full", "The URL, without what looks like a credential in its path and without the values of its query.").named_by(HTTP);
    SCHEME = Item::text("url.scheme", "`http` or `https`.").named_by(HTTP);
    SERVER = Item::text("server.address", "The origin's name or address.").named_by(HTTP);
    PORT = Item::integer("server.port", "The origin's port.").named_by(HTTP);
    STATUS = Item::integer("http.response.status_code", "The status that the agent got.").named_by(HTTP);
    ERROR = Item::text("error.type", "Why it failed: the reason of a refusal, how it ended, or else the status from 400 on.").named_by(GENERAL);
    PROTOCOL = Item::text("network.protocol.version", "The version of HTTP towards the origin: `1.1`, `2`.").named_by(HTTP);
    RESENT = Item::integer("http.request.resend_count", "1 where the origin was asked twice, the second time with a renewed credential.").named_by(HTTP);
    REQUEST_BODY = Item::integer("http.request.body.size", "Body octets from the agent.").in_unit("By").named_by(HTTP);
    RESPONSE_BODY = Item::integer("http.response.body.size", "Body octets to the agent.").in_unit("By").named_by(HTTP);
    USER_AGENT = Item::text("user_agent.original", "What the agent calls itself, without words that look like a credential.").named_by(HTTP);
    CREDENTIAL_FIELD = Item::texts("http.request.header.<name>", "`[\"[redacted]\"]` for each well-known credential field that the agent sent: `authorization`, `x-api-key` and their like.").named_by(HTTP);

    OPERATION = Item::text("gen_ai.operation.name", "What was asked of a model: `chat`, `generate_content`, `embeddings`.").named_by(GEN_AI);
    PROVIDER = Item::text("gen_ai.provider.name", "Whose API it is: `anthropic`, `openai`, `gcp.gemini`, `aws.bedrock`.").named_by(GEN_AI);
    SYSTEM = Item::text("gen_ai.system", "The same under its older name.").named_by(GEN_AI_OLD);
    MODEL = Item::text("gen_ai.request.model", "The model that was asked for.").named_by(GEN_AI);
    ANSWERED = Item::text("gen_ai.response.model", "The model that answered.").named_by(GEN_AI);
    FINISH = Item::texts("gen_ai.response.finish_reasons", "Why the answer ended, in its provider's words, each once; `_OTHER` for a word that no provider is known to use.").named_by(GEN_AI);
    STREAM = Item::boolean("gen_ai.request.stream", "True where the answer was asked for in pieces.").named_by(GEN_AI);
    CONVERSATION = Item::text("gen_ai.conversation.id", "The session, where the client names it by a UUID (Claude Code, Codex).").named_by(GEN_AI);
    AGENT_NAME = Item::text("gen_ai.agent.name", "The agent.").named_by(GEN_AI);
    FIRST_CHUNK = Item::number("gen_ai.response.time_to_first_chunk", "From the request's head to the first octet of a streamed answer.").in_unit("s").named_by(GEN_AI);
    INPUT = Item::integer("gen_ai.usage.input_tokens", "Tokens of the prompt, those from and into caches included.").in_unit("{token}").named_by(GEN_AI);
    OUTPUT = Item::integer("gen_ai.usage.output_tokens", "Tokens of the answer, its reasoning included.").in_unit("{token}").named_by(GEN_AI);
    REASONING = Item::integer("gen_ai.usage.reasoning.output_tokens", "Those of the answer's that were reasoning, where it says.").in_unit("{token}").named_by(GEN_AI);
    CACHE_READ = Item::integer("gen_ai.usage.cache_read.input_tokens", "Those of the prompt's that came from a cache.").in_unit("{token}").named_by(GEN_AI);
    CACHE_WRITE = Item::integer("gen_ai.usage.cache_creation.input_tokens", "Those of the prompt's that went into a cache.").in_unit("{token}").named_by(GEN_AI);

    INVOCATION = Item::text("invocation.id", "What joins calls: the trace of the agent's `traceparent`, or else the connection and the request's number on it.").named_by(CLRK);
    REQUEST_ID = Item::text("tollgate.request.id", "The id in the access log, and of `x-tollgate-request-id`.");
    KIND = Item::text("tollgate.kind", "`request`, `tunnel`, or `connect` for one that ended before a request was seen.");
    INGRESS = Item::text("tollgate.ingress", "The door: `connect`, `absolute-form`, `base-url`.");
    DECISION = Item::text("tollgate.decision", "`allow`, `deny`, or `report`: let through, though `enforce` would refuse it.");
    REASON = Item::text("tollgate.reason", "Why it was refused, or would have been.");
    RULE = Item::text("tollgate.rule", "The deciding rule, as file and line.");
    POLICY = Item::text("tollgate.policy", "The name of the policy that the rule is in.");
    END = Item::text("tollgate.end", "How it ended, when not well.");
    AGENT = Item::text("tollgate.agent.name", "Who asked.");
    NAMESPACE = Item::text("tollgate.agent.namespace", "The part of that name before the slash, where there is one.");
    EXECUTION = Item::text("tollgate.agent.execution", "The one run of the agent, where that is known.");
    CREDENTIALS = Item::texts("tollgate.credential.names", "The credentials that were put in.");
    VERSIONS = Item::texts("tollgate.credential.versions", "The versions of their values, in the same order.");
    TOKEN_CALL = Item::text("tollgate.token_call", "What became of an agent's own call to a token endpoint.");
    COST = Item::number("tollgate.cost.usd", "What a call of a model cost, for show: the ledger is exact.").in_unit("USD");
    ESTIMATED = Item::boolean("tollgate.cost.estimated", "True where some of that is estimated.");
    BUDGET = Item::text("tollgate.budget.name", "The budget that was nearest its end.");
    BUDGET_LEFT = Item::text("tollgate.budget.remaining", "What was left of it when the call was admitted, in its own unit.");
    BUDGET_RATIO = Item::number("tollgate.budget.remaining_ratio", "The same, as a part of the whole.").in_unit("1");
    BUDGET_STATE = Item::text("tollgate.budget.state", "`open`, `low` below a fifth, or `exhausted`.");
}

names! { RESOURCE_ATTRIBUTES:
    SERVICE = Item::text("service.name", "`tollgate`, or what `OTEL_SERVICE_NAME` or the configuration says.").named_by(RESOURCE);
    VERSION = Item::text("service.version", "Tollgate's version.").named_by(RESOURCE);
    SDK_NAME = Item::text("telemetry.sdk.name", "`tollgate`: spans are written without an SDK.").named_by(RESOURCE);
    SDK_LANGUAGE = Item::text("telemetry.sdk.language", "`rust`.").named_by(RESOURCE);
    SDK_VERSION = Item::text("telemetry.sdk.version", "Tollgate's version.").named_by(RESOURCE);
}

/// Fields that hold credentials, and the attribute that says one was sent. A [`super::span_notes::Present`] has a bit
/// for each.
pub(super) const CREDENTIAL_FIELDS: [(&str, &str); 9] = [
    ("authorization", "http.request.header.authorization"),
    ("x-api-key", "http.request.header.x-api-key"),
    ("x-goog-api-key", "http.request.header.x-goog-api-key"),
    ("api-key", "http.request.header.api-key"),
    ("x-auth-token", "http.request.header.x-auth-token"),
    ("private-token", "http.request.header.private-token"),
    (
        "x-amz-security-token",
        "http.request.header.x-amz-security-token",
    ),
    ("cookie", "http.request.header.cookie"),
    (
        "proxy-authorization",
        "http.request.header.proxy-authorization",
    ),
];

/// `gen_ai.provider.name` of an API.
pub fn provider(api: ModelApi) -> &'static str {
    match api {
        ModelApi::Anthropic => "anthropic",
        ModelApi::OpenAI => "openai",
        ModelApi::Gemini => "gcp.gemini",
        ModelApi::Bedrock => "aws.bedrock",
        ModelApi::Vertex => "gcp.vertex_ai",
        ModelApi::Azure => "azure.ai.openai",
        ModelApi::Ollama => "ollama",
    }
}

/// `gen_ai.system` of an API, as the conventions had it up to 1.36.
pub fn system(api: ModelApi) -> &'static str {
    match api {
        ModelApi::Azure => "az.ai.openai",
        other => provider(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_declared_twice() {
        let mut names: Vec<&str> = ATTRIBUTES.iter().map(|item| item.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
