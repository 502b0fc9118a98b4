//! Owns which language of the model providers a host speaks.

use schemars::JsonSchema;
use serde::Deserialize;

use super::host::Host;

/// The API of a model provider: its paths, its bodies, how it reports usage, and how it words errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum ModelApi {
    /// The Messages API (`api.anthropic.com`).
    Anthropic,
    /// Chat Completions, Responses and embeddings (`api.openai.com`, and the many that speak the same).
    OpenAI,
    /// `generateContent` (`generativelanguage.googleapis.com`).
    Gemini,
    /// InvokeModel and Converse (`bedrock-runtime.*.amazonaws.com`).
    Bedrock,
    /// Publisher models on Vertex AI (`*-aiplatform.googleapis.com`).
    Vertex,
    /// OpenAI's API on Azure (`*.openai.azure.com`).
    Azure,
    /// Ollama's own API.
    Ollama,
}

impl ModelApi {
    /// The word used in prices, logs and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAI => "openai",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Vertex => "vertex",
            Self::Azure => "azure",
            Self::Ollama => "ollama",
        }
    }

    /// A model's name without what this API lets one write around it: `models/` at Gemini, its publisher where
    /// Vertex AI speaks OpenAI's API, all of an ARN at Bedrock but its last part, Ollama's own registry, library
    /// and tag (<https://docs.ollama.com/api>, "Model names"; whose names are the same in any letters).
    pub fn bare_name(self, model: &str) -> &str {
        match self {
            Self::Gemini => model.strip_prefix("models/").unwrap_or(model),
            Self::Vertex => model.strip_prefix("google/").unwrap_or(model),
            Self::Bedrock if model.starts_with("arn:") => model.rsplit('/').next().unwrap_or(model),
            Self::Ollama => {
                let mut bare = model;
                for before in ["https://", "http://", "registry.ollama.ai/", "library/"] {
                    bare = match bare.split_at_checked(before.len()) {
                        Some((head, rest)) if head.eq_ignore_ascii_case(before) => rest,
                        _ => bare,
                    };
                }
                match bare.rsplit_once(':') {
                    Some((name, tag)) if tag.eq_ignore_ascii_case("latest") => name,
                    _ => bare,
                }
            }
            _ => model,
        }
    }

    /// The same model without what only says where or in which version it runs, and may cost another price: the
    /// geography of an inference profile at Bedrock, what follows `@` at Vertex AI. Nothing where that is all there is.
    pub fn base_name(self, bare: &str) -> Option<&str> {
        match self {
            Self::Bedrock => {
                let places = [
                    "global.", "us.", "us-gov.", "eu.", "apac.", "jp.", "au.", "ca.",
                ];
                places.iter().find_map(|place| bare.strip_prefix(place))
            }
            Self::Vertex => bare.split_once('@').map(|(base, _)| base),
            _ => None,
        }
    }

    /// The hosts that [`Self::of_host`] knows by their whole name.
    pub const WELL_KNOWN: [&str; 7] = [
        "api.anthropic.com",
        "api.openai.com",
        "us.api.openai.com",
        "eu.api.openai.com",
        "chatgpt.com",
        "generativelanguage.googleapis.com",
        "aiplatform.googleapis.com",
    ];

    /// The API of a well-known host.
    pub fn of_host(host: &Host) -> Option<Self> {
        let Host::Name(name) = host else {
            return None;
        };
        let name: &str = name.as_ref();
        match name {
            "api.anthropic.com" => return Some(Self::Anthropic),
            "api.openai.com" | "us.api.openai.com" | "eu.api.openai.com" | "chatgpt.com" => {
                return Some(Self::OpenAI);
            }
            "generativelanguage.googleapis.com" => return Some(Self::Gemini),
            "aiplatform.googleapis.com" => return Some(Self::Vertex),
            _ => {}
        }
        let bedrock = ["bedrock-runtime.", "bedrock-runtime-fips."]
            .iter()
            .any(|head| name.starts_with(head));
        if bedrock && (name.ends_with(".amazonaws.com") || name.ends_with(".amazonaws.com.cn")) {
            return Some(Self::Bedrock);
        }
        if name.ends_with("-aiplatform.googleapis.com") {
            return Some(Self::Vertex);
        }
        let azure = [".openai.azure.com", ".openai.azure.us", ".openai.azure.cn"]
            .iter()
            .any(|tail| name.ends_with(tail));
        azure.then_some(Self::Azure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_may_be_written_with_its_place_before_it() {
        for (api, written, bare) in [
            (ModelApi::Gemini, "models/gemini-x", "gemini-x"),
            (ModelApi::Gemini, "gemini-x", "gemini-x"),
            (ModelApi::Vertex, "google/gemini-x", "gemini-x"),
            (ModelApi::Vertex, "meta/llama-x", "meta/llama-x"),
            (
                ModelApi::Bedrock,
                "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x",
                "eu.x",
            ),
            (ModelApi::OpenAI, "models/x", "models/x"),
            (ModelApi::Ollama, "Llama3:Latest", "Llama3"),
            (
                ModelApi::Ollama,
                "registry.ollama.ai/library/llama3:latest",
                "llama3",
            ),
            (ModelApi::Ollama, "llama3:8b", "llama3:8b"),
            (ModelApi::Ollama, "team/llama3", "team/llama3"),
        ] {
            assert_eq!(api.bare_name(written), bare, "{written}");
        }
    }

    #[test]
    fn one_model_runs_in_places_and_versions() {
        let opus = "anthropic.claude-opus-x-v1:0";
        for place in ["global.", "us.", "eu."] {
            let placed = format!("{place}{opus}");
            assert_eq!(ModelApi::Bedrock.base_name(&placed), Some(opus));
        }
        assert_eq!(ModelApi::Bedrock.base_name(opus), None);
        let vertex = |name| ModelApi::Vertex.base_name(name);
        assert_eq!(vertex("claude-x@default"), Some("claude-x"));
        assert_eq!(vertex("claude-x"), None);
    }

    #[test]
    fn hosts_of_model_apis_are_known_by_name_or_by_their_region() {
        for name in ModelApi::WELL_KNOWN {
            assert!(
                ModelApi::of_host(&Host::parse(name).unwrap()).is_some(),
                "{name}"
            );
        }
        for (name, api) in [
            (
                "bedrock-runtime.eu-west-1.amazonaws.com",
                Some(ModelApi::Bedrock),
            ),
            (
                "europe-west4-aiplatform.googleapis.com",
                Some(ModelApi::Vertex),
            ),
            ("team.openai.azure.com", Some(ModelApi::Azure)),
            ("api.anthropic.com.example.com", None),
            ("bedrock-runtime.example.com", None),
            ("s3.eu-west-1.amazonaws.com", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(
                ModelApi::of_host(&Host::parse(name).unwrap()),
                api,
                "{name}"
            );
        }
    }
}
