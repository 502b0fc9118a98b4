//! Owns what a budget says besides its limits: what happens to streams, unknown models, endpoints that
//! cannot be metered, and how fast agents may ask.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::limit::{Enforcement, GroupBy, Limit, Selector, Unit};
use crate::config::budget::{OnExhausted, StreamMode};
use crate::policy::path::PathPattern;
use crate::policy::reading::Ambiguity;
use crate::types::money::NanoUsd;

/// One budget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Its name as agents and operators see it: `namespace/name`, or `name`.
    pub name: Arc<str>,
    /// What stays the same when it is renamed: its `metadata.uid`, or else its name.
    pub key: Arc<str>,
    /// Which calls it is for.
    pub selector: Selector,
    /// What is counted together.
    pub group_by: Box<[GroupBy]>,
    /// Whether it refuses anything.
    pub enforcement: Enforcement,
    /// Its limits, by id.
    pub limits: Box<[Arc<Limit>]>,
    /// How much is reserved for answers that come in pieces.
    pub streams: StreamMode,
    /// What happens when such an answer needs more and there is none.
    pub on_exhausted: OnExhausted,
    /// To how few tokens an answer may be cut down beforehand; nothing where that is not wanted.
    pub lower_to: Option<NonZeroU64>,
    /// What happens to a call of a model without a price.
    pub unknown_model: UnknownModel,
    /// What happens while the ledger cannot be written.
    pub on_store_unavailable: OnStoreUnavailable,
    /// Requests with a fixed price.
    pub unmetered: Box<[Unmetered]>,
    /// How many requests may be made in which time.
    pub rate: Option<Rate>,
    /// How many requests may be under way at once.
    pub concurrency: Option<NonZeroU32>,
}

/// What happens to a call of a model without a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownModel {
    /// It is refused.
    Deny,
    /// It costs what this model costs.
    PriceAs(Arc<str>),
}

/// What happens while the ledger cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreUnavailable {
    /// Calls are refused.
    Deny,
    /// They pass until they have reserved this much together.
    AllowUpTo(NanoUsd),
}

/// Requests whose use cannot be read, and what each counts.
#[derive(Clone, Debug)]
pub struct Unmetered {
    /// Methods; empty for every one.
    pub methods: Box<[Method]>,
    /// Paths; at least one.
    pub paths: Box<[PathPattern]>,
    /// What one counts.
    pub price: FixedPrice,
}

/// What a request counts whose use cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixedPrice {
    /// In money.
    pub usd: NanoUsd,
    /// In tokens.
    pub tokens: u64,
}

/// So many requests in a stretch of time, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In which time.
    pub period: Duration,
    /// How many at once.
    pub burst: NonZeroU32,
}

impl Budget {
    /// Whether it must know what a call uses: it has a limit in money or tokens.
    pub fn measures(&self) -> bool {
        self.limits.iter().any(|limit| limit.unit != Unit::Requests)
    }

    /// Whether it limits money.
    pub fn counts_money(&self) -> bool {
        self.limits.iter().any(|limit| limit.unit == Unit::Usd)
    }

    /// Whether it refuses what does not fit.
    pub fn is_hard(&self) -> bool {
        self.enforcement == Enforcement::Hard
    }

    /// What a request counts whose use cannot be read, if the budget names it. A path that servers read
    /// in more than one way is never named: it could stand for a dearer endpoint.
    pub fn fixed_price(&self, method: &Method, path: &str) -> Option<FixedPrice> {
        if self.unmetered.is_empty() || Ambiguity::find(path).is_some() {
            return None;
        }
        let names = |entry: &&Unmetered| {
            (entry.methods.is_empty() || entry.methods.contains(method))
                && entry.paths.iter().any(|own| own.matches(path.as_bytes()))
        };
        let found = self.unmetered.iter().filter(names);
        found.map(|entry| entry.price).reduce(FixedPrice::max)
    }
}

impl FixedPrice {
    /// In each unit, the larger.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            usd: self.usd.max(other.usd),
            tokens: self.tokens.max(other.tokens),
        }
    }
}
