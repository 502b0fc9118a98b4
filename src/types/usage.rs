//! Owns what one call of a model used: tokens by class, counted fees, and the terms it was served on.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// A kind of token with a price of its own. Classes are disjoint: a token is in exactly one, and what a
/// provider reports as a part of another count (reasoning, cached prompt tokens) is taken apart first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenClass {
    /// Prompt tokens that came from no cache and went into none.
    Input,
    /// Prompt tokens written to a cache that lives five minutes, or to one of unnamed life.
    CacheWrite5m,
    /// Prompt tokens written to a cache that lives an hour.
    CacheWrite1h,
    /// Prompt tokens read from a cache.
    CacheRead,
    /// Tokens that the model made, its hidden reasoning among them.
    Output,
    /// Audio in the prompt.
    AudioInput,
    /// Audio that the model made.
    AudioOutput,
}

impl TokenClass {
    /// Every class, in the order of the ledger's columns.
    pub const ALL: [Self; 7] = [
        Self::Input,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::CacheRead,
        Self::Output,
        Self::AudioInput,
        Self::AudioOutput,
    ];

    /// The word used in documents, prices, metrics and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::CacheRead => "cache_read",
            Self::Output => "output",
            Self::AudioInput => "audio_input",
            Self::AudioOutput => "audio_output",
        }
    }

    /// Whether it is part of the prompt, and so of the context that long-context prices ask for.
    pub fn is_input(self) -> bool {
        !matches!(self, Self::Output | Self::AudioOutput)
    }
}

/// Token counts by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage([u64; TokenClass::ALL.len()]);

impl Index<TokenClass> for Usage {
    type Output = u64;
    fn index(&self, class: TokenClass) -> &u64 {
        &self.0[class as usize]
    }
}

impl IndexMut<TokenClass> for Usage {
    fn index_mut(&mut self, class: TokenClass) -> &mut u64 {
        &mut self.0[class as usize]
    }
}

impl Usage {
    /// Tokens of the prompt, whatever their class.
    pub fn total_input(&self) -> u64 {
        let input = TokenClass::ALL.into_iter().filter(|class| class.is_input());
        input.fold(0, |sum, class| sum.saturating_add(self[class]))
    }

    /// Tokens of the answer.
    pub fn total_output(&self) -> u64 {
        self[TokenClass::Output].saturating_add(self[TokenClass::AudioOutput])
    }

    /// The counts and their classes.
    pub fn iter(&self) -> impl Iterator<Item = (TokenClass, u64)> + '_ {
        TokenClass::ALL
            .into_iter()
            .map(|class| (class, self[class]))
    }

    /// Class by class, the larger count: later reports of a stream never lower an earlier one.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        let mut larger = *self;
        for (class, count) in other.iter() {
            larger[class] = larger[class].max(count);
        }
        larger
    }

    /// Class by class, the sum.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = *self;
        for (class, count) in other.iter() {
            sum[class] = sum[class].saturating_add(count);
        }
        sum
    }

    /// Whether nothing was used.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// Something a provider bills by the piece besides tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fee {
    /// A web search that the provider ran.
    WebSearch,
    /// A search in files that the provider holds.
    FileSearch,
    /// A container that the provider ran code in.
    CodeExecution,
    /// A prompt that was grounded in search results.
    Grounding,
    /// A search that was made to ground a prompt. A model's price has either this or the one for the prompt.
    GroundedSearch,
}

impl Fee {
    /// Every fee.
    pub const ALL: [Self; 5] = [
        Self::WebSearch,
        Self::FileSearch,
        Self::CodeExecution,
        Self::Grounding,
        Self::GroundedSearch,
    ];

    /// The word used in prices and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSearch => "web_search",
            Self::FileSearch => "file_search",
            Self::CodeExecution => "code_execution",
            Self::Grounding => "grounding",
            Self::GroundedSearch => "grounded_search",
        }
    }
}

/// The terms of one call that change its price, in the provider's own words; nothing means standard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// `batch`, `priority`, `flex`.
    pub service_tier: Option<Box<str>>,
    /// `fast`.
    pub speed: Option<Box<str>>,
    /// Where it must be served (`us`), or a Bedrock or Vertex region.
    pub geo: Option<Box<str>>,
    /// Whether the tier is only what the request asked for: the answer tells none. It may have been served at the
    /// standard price.
    pub is_only_asked: bool,
}

/// What one model did for one request. A request has several where a provider lets more than one work
/// on it (compaction, advisors, fallbacks), each at its own price.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelUse {
    /// The model that the answer names; nothing means the one that was asked for.
    pub model: Option<Arc<str>>,
    /// Its tokens.
    pub usage: Usage,
    /// Its fees, by count.
    pub fees: Vec<(Fee, u64)>,
    /// Its terms.
    pub terms: Terms,
}
