//! Owns which fields of which API's request bodies say what a call may cost.
//!
//! Sources: <https://docs.claude.com/en/api/messages>, <https://platform.openai.com/docs/api-reference>,
//! <https://ai.google.dev/api/generate-content>,
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>,
//! <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use super::endpoint::Operation;
use super::field::Field;

/// What a field says.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    Model,
    /// Further models.
    Models,
    MaxOutput,
    /// The same, where a negative number is none.
    MaxOutputOrNone,
    Answers,
    Stream,
    Background,
    AsksForUsage,
    MaxToolCalls,
    ServiceTier,
    Speed,
    Geo,
    /// Anything in it lets the prompt hold more than the body.
    Reach,
    /// A prompt that the provider keeps.
    StoredPrompt,
    WebSearch,
    /// Whether the model thinks before it answers.
    Thinking,
    /// That the answer is spoken as well.
    Sound,
    Prompt,
    /// Pictures in base64.
    Pictures,
    Tools,
    GoogleTools,
    BedrockTools,
    /// Settings of their own, in an object.
    Inside(&'static [Field<Self>]),
    /// The same settings several times, in a list.
    Each(&'static [Field<Self>]),
    /// Schemas and what users like: billed as text.
    Data,
}

const fn one(folded: &'static str, spellings: &'static [&'static str], slot: Slot) -> Field<Slot> {
    Field {
        folded,
        spellings,
        slot,
    }
}

/// The fields at the top of a body.
pub(super) fn of(operation: Operation) -> &'static [Field<Slot>] {
    match operation {
        Operation::Messages | Operation::RawPredict => MESSAGES,
        Operation::ChatCompletions => CHAT,
        Operation::Responses => RESPONSES,
        Operation::Embeddings => EMBEDDINGS,
        Operation::GenerateContent | Operation::EmbedContent => GOOGLE,
        Operation::Converse | Operation::ConverseStream => CONVERSE,
        Operation::InvokeModel | Operation::InvokeModelStream => INVOKE,
        Operation::OllamaGenerate | Operation::OllamaEmbed => OLLAMA,
    }
}

const MESSAGES: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    one("maxtokens", &["max_tokens"], Slot::MaxOutput),
    one("stream", &["stream"], Slot::Stream),
    one("messages", &["messages"], Slot::Prompt),
    one("system", &["system"], Slot::Prompt),
    one("tools", &["tools"], Slot::Tools),
    one("thinking", &["thinking"], Slot::Thinking),
    one("mcpservers", &["mcp_servers"], Slot::Reach),
    one("container", &["container"], Slot::Reach),
    one("servicetier", &["service_tier"], Slot::ServiceTier),
    one("speed", &["speed"], Slot::Speed),
    one("inferencegeo", &["inference_geo"], Slot::Geo),
    one("outputformat", &["output_format"], Slot::Data),
    one("outputconfig", &["output_config"], Slot::Data),
    one("metadata", &["metadata"], Slot::Data),
];

const CHAT: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    // OpenRouter's fallbacks.
    one("models", &["models"], Slot::Models),
    one("maxtokens", &["max_tokens"], Slot::MaxOutput),
    one(
        "maxcompletiontokens",
        &["max_completion_tokens"],
        Slot::MaxOutput,
    ),
    one("n", &["n"], Slot::Answers),
    one("bestof", &["best_of"], Slot::Answers),
    one("stream", &["stream"], Slot::Stream),
    one(
        "streamoptions",
        &["stream_options"],
        Slot::Inside(STREAM_OPTIONS),
    ),
    one("background", &["background"], Slot::Background),
    one("messages", &["messages"], Slot::Prompt),
    one("prediction", &["prediction"], Slot::Prompt),
    one("tools", &["tools"], Slot::Tools),
    one("functions", &["functions"], Slot::Data),
    one("audio", &["audio"], Slot::Sound),
    one("websearchoptions", &["web_search_options"], Slot::WebSearch),
    // OpenRouter's, of which `web` searches.
    one("plugins", &["plugins"], Slot::WebSearch),
    one("servicetier", &["service_tier"], Slot::ServiceTier),
    one("responseformat", &["response_format"], Slot::Data),
    one("metadata", &["metadata"], Slot::Data),
];

const STREAM_OPTIONS: &[Field<Slot>] =
    &[one("includeusage", &["include_usage"], Slot::AsksForUsage)];

const RESPONSES: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    one("models", &["models"], Slot::Models),
    one("maxoutputtokens", &["max_output_tokens"], Slot::MaxOutput),
    one("maxtoolcalls", &["max_tool_calls"], Slot::MaxToolCalls),
    one("stream", &["stream"], Slot::Stream),
    one("background", &["background"], Slot::Background),
    one("input", &["input"], Slot::Prompt),
    one("instructions", &["instructions"], Slot::Prompt),
    one("prompt", &["prompt"], Slot::StoredPrompt),
    one("previousresponseid", &["previous_response_id"], Slot::Reach),
    one("conversation", &["conversation"], Slot::Reach),
    one("tools", &["tools"], Slot::Tools),
    one("servicetier", &["service_tier"], Slot::ServiceTier),
    one("text", &["text"], Slot::Data),
    one("metadata", &["metadata"], Slot::Data),
];

const EMBEDDINGS: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    one("input", &["input"], Slot::Prompt),
];

/// Protobuf's JSON takes both spellings (<https://protobuf.dev/programming-guides/json>).
const GOOGLE: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    one("contents", &["contents"], Slot::Prompt),
    one("content", &["content"], Slot::Prompt),
    one("requests", &["requests"], Slot::Each(EMBED_REQUEST)),
    one(
        "systeminstruction",
        &["systemInstruction", "system_instruction"],
        Slot::Prompt,
    ),
    one(
        "generationconfig",
        &["generationConfig", "generation_config"],
        Slot::Inside(GENERATION),
    ),
    one("tools", &["tools"], Slot::GoogleTools),
    one("toolconfig", &["toolConfig", "tool_config"], Slot::Data),
    one(
        "cachedcontent",
        &["cachedContent", "cached_content"],
        Slot::Reach,
    ),
    one(
        "servicetier",
        &["serviceTier", "service_tier"],
        Slot::ServiceTier,
    ),
    one("labels", &["labels"], Slot::Data),
];

/// One of the requests of `batchEmbedContents`.
const EMBED_REQUEST: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    one("content", &["content"], Slot::Prompt),
];

const GENERATION: &[Field<Slot>] = &[
    one(
        "maxoutputtokens",
        &["maxOutputTokens", "max_output_tokens"],
        Slot::MaxOutput,
    ),
    one(
        "candidatecount",
        &["candidateCount", "candidate_count"],
        Slot::Answers,
    ),
    one(
        "responseschema",
        &["responseSchema", "response_schema"],
        Slot::Data,
    ),
    one(
        "responsejsonschema",
        &["responseJsonSchema", "response_json_schema"],
        Slot::Data,
    ),
];

const CONVERSE: &[Field<Slot>] = &[
    one("messages", &["messages"], Slot::Prompt),
    one("system", &["system"], Slot::Prompt),
    one(
        "inferenceconfig",
        &["inferenceConfig"],
        Slot::Inside(INFERENCE),
    ),
    one("toolconfig", &["toolConfig"], Slot::BedrockTools),
    // The model's own request, which may say all that Converse says.
    one(
        "additionalmodelrequestfields",
        &["additionalModelRequestFields"],
        Slot::Inside(INVOKE),
    ),
    one(
        "performanceconfig",
        &["performanceConfig"],
        Slot::Inside(PERFORMANCE),
    ),
    one("servicetier", &["serviceTier"], Slot::Inside(BEDROCK_TIER)),
    one("promptvariables", &["promptVariables"], Slot::Reach),
    one("outputconfig", &["outputConfig"], Slot::Data),
    one("requestmetadata", &["requestMetadata"], Slot::Data),
];

const INFERENCE: &[Field<Slot>] = &[
    one("maxtokens", &["maxTokens", "max_tokens"], Slot::MaxOutput),
    one("maxnewtokens", &["max_new_tokens"], Slot::MaxOutput),
];

const PERFORMANCE: &[Field<Slot>] = &[one("latency", &["latency"], Slot::Speed)];

const BEDROCK_TIER: &[Field<Slot>] = &[one("type", &["type"], Slot::ServiceTier)];

/// Bodies of the models that Bedrock serves, each of its maker's design.
const INVOKE: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    // Anthropic and Mistral; AI21.
    one("maxtokens", &["max_tokens", "maxTokens"], Slot::MaxOutput),
    one(
        "maxtokenstosample",
        &["max_tokens_to_sample"],
        Slot::MaxOutput,
    ),
    one(
        "maxcompletiontokens",
        &["max_completion_tokens"],
        Slot::MaxOutput,
    ),
    one("maxnewtokens", &["max_new_tokens"], Slot::MaxOutput),
    // Llama.
    one("maxgenlen", &["max_gen_len"], Slot::MaxOutput),
    // Titan.
    one(
        "textgenerationconfig",
        &["textGenerationConfig"],
        Slot::Inside(TITAN),
    ),
    // Nova.
    one(
        "inferenceconfig",
        &["inferenceConfig"],
        Slot::Inside(INFERENCE),
    ),
    one("toolconfig", &["toolConfig"], Slot::BedrockTools),
    one("n", &["n"], Slot::Answers),
    // Cohere; AI21.
    one("numgenerations", &["num_generations"], Slot::Answers),
    one("numresults", &["numResults"], Slot::Answers),
    one("messages", &["messages"], Slot::Prompt),
    one("system", &["system"], Slot::Prompt),
    one("prompt", &["prompt"], Slot::Prompt),
    one("tools", &["tools"], Slot::Tools),
    // Claude, and how Bedrock called it first; Nova.
    one("thinking", &["thinking"], Slot::Thinking),
    one(
        "reasoningconfig",
        &["reasoning_config", "reasoningConfig"],
        Slot::Thinking,
    ),
    one("mcpservers", &["mcp_servers"], Slot::Reach),
    one("container", &["container"], Slot::Reach),
    one("servicetier", &["service_tier"], Slot::ServiceTier),
    one("speed", &["speed"], Slot::Speed),
    one("inferencegeo", &["inference_geo"], Slot::Geo),
    one("outputconfig", &["output_config"], Slot::Data),
    one("metadata", &["metadata"], Slot::Data),
];

const TITAN: &[Field<Slot>] = &[one("maxtokencount", &["maxTokenCount"], Slot::MaxOutput)];

const OLLAMA: &[Field<Slot>] = &[
    one("model", &["model"], Slot::Model),
    one("stream", &["stream"], Slot::Stream),
    one("options", &["options"], Slot::Inside(OLLAMA_OPTIONS)),
    one("messages", &["messages"], Slot::Prompt),
    one("prompt", &["prompt"], Slot::Prompt),
    one("input", &["input"], Slot::Prompt),
    one("images", &["images"], Slot::Pictures),
    one("tools", &["tools"], Slot::Data),
    one("format", &["format"], Slot::Data),
];

/// `num_predict: -1` is no limit, `-2` the rest of the context.
const OLLAMA_OPTIONS: &[Field<Slot>] =
    &[one("numpredict", &["num_predict"], Slot::MaxOutputOrNone)];

#[cfg(test)]
mod tests {
    use super::super::field::Folded;
    use super::super::json::Walker;
    use super::*;

    fn check(table: &[Field<Slot>]) {
        assert!(table.len() <= 64, "Seen has 64 bits");
        for (index, field) in table.iter().enumerate() {
            for spelling in field.spellings {
                let quoted = format!("\"{spelling}\"");
                let folded = Folded::of(Walker::new(&quoted).string().unwrap());
                assert_eq!(folded.as_str(), field.folded);
            }
            assert!(
                table[..index]
                    .iter()
                    .all(|other| other.folded != field.folded)
            );
            if let Slot::Inside(inner) | Slot::Each(inner) = field.slot {
                check(inner);
            }
        }
    }

    #[test]
    fn every_spelling_folds_to_its_field() {
        for table in [
            MESSAGES, CHAT, RESPONSES, EMBEDDINGS, GOOGLE, CONVERSE, INVOKE, OLLAMA,
        ] {
            check(table);
        }
    }
}
