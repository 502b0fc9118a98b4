//! Owns what was read of one answer: how far it has come while it streams, and what it used in the end.

use crate::types::usage::{ModelUse, Usage};

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The prompt's tokens by class, once the provider has told them.
    pub input: Option<Usage>,
    /// Tokens of the answer so far: what was reported, or what was seen and estimated, whichever is more.
    pub produced: u64,
    /// The same without what is packed, of no known shape, or not yet whole.
    pub read: u64,
    /// No fewer tokens of the answer than these were made, as far as it shows: what any tokenizer would count.
    pub at_least: u64,
    /// Whether the answer is whole by its own rules (`message_stop`, `[DONE]`, the closing brace).
    pub complete: bool,
}

/// What an answer used, as far as it said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The provider's own final count; zeros are zeros.
    Exact(Vec<ModelUse>),
    /// It ended before the final count: the prompt's tokens are known, of the answer's what was reported
    /// or seen so far.
    Partial(Vec<ModelUse>),
    /// It is an error of the provider, before anything of an answer.
    Failed,
    /// Nothing usable was said; this many tokens of an answer were seen.
    Unknown {
        /// Tokens of the answer by estimate.
        produced: u64,
    },
}
