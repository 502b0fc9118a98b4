//! Owns how answers with embeddings report usage: those of OpenAI, Gemini and Ollama. They make no tokens.

use std::sync::Arc;

use serde::Deserialize;

use super::answer::{Answer, Ending, Piece, Seen, SoFar, model_name};
use super::call::Call;
use super::count::Count;
use crate::types::usage::{ModelUse, Terms, TokenClass, Usage};

/// An answer with embeddings.
#[derive(Debug)]
pub(super) struct EmbeddingsAnswer {
    asked: Terms,
    model: Option<Arc<str>>,
    prompt: Count,
    seen: Seen,
    complete: bool,
}

/// A whole answer: `usage` of OpenAI, `usageMetadata` of Gemini, `prompt_eval_count` of Ollama.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    model: Option<Box<str>>,
    usage: Option<OpenAIUsage>,
    #[serde(rename = "usageMetadata")]
    usage_metadata: Option<GeminiUsage>,
    prompt_eval_count: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct OpenAIUsage {
    prompt_tokens: Count,
    total_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GeminiUsage {
    prompt_token_count: Count,
    total_token_count: Count,
}

impl Answer for EmbeddingsAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event { data, .. } | Piece::Object(data) => self.body(data),
            Piece::Closed => self.complete = true,
            Piece::Lost(octets) => self.seen.lost(octets),
        }
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            input: self.prompt.known().map(|prompt| {
                let mut usage = Usage::default();
                usage[TokenClass::Input] = prompt;
                usage
            }),
            complete: self.complete,
            ..SoFar::default()
        }
    }

    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        Ending {
            uses: so_far.input.map(|usage| {
                vec![ModelUse {
                    model: self.model.clone(),
                    usage,
                    fees: Vec::new(),
                    terms: self.asked.clone(),
                }]
            }),
            is_final: self.complete && self.seen.is_counted(),
            so_far,
        }
    }
}

impl EmbeddingsAnswer {
    pub(super) fn new(call: &Call) -> Self {
        Self {
            asked: call.terms.clone(),
            model: None,
            prompt: Count::default(),
            seen: Seen::default(),
            complete: false,
        }
    }

    fn body(&mut self, data: &[u8]) {
        let Some(body) = self.seen.read::<Body>(data) else {
            return;
        };
        if self.model.is_none() {
            self.model = body.model.as_deref().and_then(model_name);
        }
        let openai = body.usage.unwrap_or_default();
        let gemini = body.usage_metadata.unwrap_or_default();
        for count in [
            body.prompt_eval_count,
            openai.prompt_tokens,
            openai.total_tokens,
            gemini.prompt_token_count,
            gemini.total_token_count,
        ] {
            self.prompt.merge(count);
        }
        self.seen.counted();
    }
}
