//! Owns what a request to a model says about what it may cost.

use std::sync::Arc;

use super::endpoint::Operation;
use crate::types::model_api::ModelApi;
use crate::types::usage::{Fee, Terms};

/// A metered request, read once before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whose API.
    pub api: ModelApi,
    /// How its bodies are written.
    pub operation: Operation,
    /// The model that is asked for.
    pub model: Arc<str>,
    /// Other models that the request lets work on it (fallbacks, advisors).
    pub others: Vec<Arc<str>>,
    /// The most tokens of an answer that the request allows, if it says so.
    pub max_output: Option<u64>,
    /// How many answers are asked for (`n`, `best_of`, `candidateCount`); at least 1.
    pub answers: u64,
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Octets of the body, decoded, and as many more as tokens of its pictures may go beyond theirs: its prompt has
    /// no more tokens.
    pub body_bytes: u64,
    /// The longest-lived cache that the prompt may be written to.
    pub cache: CacheUse,
    /// Whether the prompt may contain what the body does not: files, URLs, earlier responses, tools' answers.
    pub reaches_out: bool,
    /// What the provider's own tools may be used, and how often at most, where that is said.
    pub tools: Vec<(Fee, Option<u64>)>,
    /// Terms that change its price.
    pub terms: Terms,
    /// Chat Completions: whether the request itself asks for usage in a stream.
    pub asks_for_usage: bool,
    /// Whether it asks Claude or Nova to think, without being told in the stream how much that is, or for speech, whose
    /// tokens are more than those of its text.
    pub thinks_unseen: bool,
    /// Whether it leaves it to the model to think, and would not be told how much.
    pub may_think_unseen: bool,
}

impl Call {
    /// The same call of models that think where they are not told not to.
    #[must_use]
    pub fn of_thinkers(mut self) -> Self {
        self.thinks_unseen |= self.may_think_unseen;
        self
    }

    /// Whether its answer may be thought out where nothing of it is seen: then no count of what passes
    /// tells how much was produced.
    pub fn hides_reasoning(&self) -> bool {
        // Any of the models that may work on it.
        let any_but = |aloud: &[&str]| {
            let mut models = std::iter::once(&self.model).chain(&self.others);
            models.any(|model| !aloud.iter().any(|head| model.starts_with(head)))
        };
        match self.operation {
            Operation::ChatCompletions | Operation::Responses => {
                self.thinks_unseen || any_but(&["gpt-4", "gpt-3.5", "chatgpt-4o"])
            }
            // Thoughts are counted in the first piece, which comes after them.
            Operation::GenerateContent => any_but(&["gemini-1", "gemini-2.0", "gemma-"]),
            _ => self.thinks_unseen,
        }
    }

    /// Whether all of an answer is made, and billed, that nobody reads any more: on Bedrock and Vertex AI leaving
    /// it saves nothing (<https://github.com/BerriAI/litellm/pull/33736>).
    pub fn is_billed_whole(&self) -> bool {
        matches!(self.api, ModelApi::Bedrock | ModelApi::Vertex)
    }

    /// Whether what was seen of an answer that broke off says how much of it was produced. One that is no
    /// stream was whole before its first octet was sent; Gemini counts its thoughts as it goes.
    pub fn shows_what_it_costs(&self) -> bool {
        let counts = self.operation == Operation::GenerateContent;
        self.stream && !self.is_billed_whole() && (counts || !self.hides_reasoning())
    }
}

/// The longest-lived cache that a prompt may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheUse {
    /// The request names none; a provider may still cache by itself.
    #[default]
    Unnamed,
    /// Five minutes.
    Minutes5,
    /// An hour.
    Hour,
}
