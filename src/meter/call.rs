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
    /// Octets of the body, decoded.
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
