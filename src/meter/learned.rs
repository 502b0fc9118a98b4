//! Owns what experience says of prompts: how many tokens an octet of a body is, and how many of them at
//! the full price, per agent and model.
//!
//! Most of a coding agent's prompt is read from a cache at a tenth of its price or less, so the strict
//! bound is many times what it costs. An exponentially weighted mean and deviation, as TCP keeps of round
//! trips (RFC 6298, section 2), tell better. They are kept in tokens at the input price, not in dollars:
//! so they hold across price changes, long-prompt prices and factors.

use std::hash::{Hash, Hasher};

use quick_cache::{Equivalent, sync::Cache};

use super::price::Price;
use crate::types::usage::{TokenClass, Usage};

/// How many pairs of agent and model are remembered.
const PAIRS: usize = 10_000;

/// One octet being one token, in the units of what is learned.
const UNIT: u128 = 1 << 20;

/// What experience lets one expect at most of the next prompt, per octet of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Tokens, in 2⁻²⁰.
    tokens: u128,
    /// Tokens at the input price that cost as much, in 2⁻²⁰.
    weighted: u128,
}

impl Learned {
    /// Tokens of a prompt in a body of this size.
    pub fn tokens(&self, body_bytes: u64) -> u64 {
        times(self.tokens, body_bytes)
    }

    /// Tokens at the input price that cost as much as its prompt.
    pub fn weighted(&self, body_bytes: u64) -> u64 {
        times(self.weighted, body_bytes)
    }
}

fn times(per_octet: u128, octets: u64) -> u64 {
    let product = per_octet.saturating_mul(u128::from(octets));
    u64::try_from(product.div_ceil(UNIT)).unwrap_or(u64::MAX)
}

/// What is remembered, the least used pairs forgotten first.
#[derive(Debug)]
pub struct LearnedTable {
    pairs: Cache<Pair, [Trend; 2]>,
}

impl Default for LearnedTable {
    fn default() -> Self {
        Self {
            pairs: Cache::new(PAIRS),
        }
    }
}

impl LearnedTable {
    /// What is known of an agent's prompts for a model.
    pub fn of(&self, agent: &str, model: &str) -> Option<Learned> {
        let [tokens, weighted] = self.pairs.get(&(agent, model))?;
        Some(Learned {
            tokens: tokens.most(),
            weighted: weighted.most(),
        })
    }

    /// Remembers what the prompt in a body turned out to be.
    pub fn note(&self, agent: &str, model: &str, price: &Price, body_bytes: u64, prompt: &Usage) {
        let total = prompt.total_input();
        if body_bytes == 0 || total == 0 {
            return;
        }
        let per_octet = |tokens: u128| tokens.saturating_mul(UNIT) / u128::from(body_bytes);
        let seen = [
            per_octet(u128::from(total)),
            per_octet(weigh(price, prompt)),
        ];
        let trends = match self.pairs.get(&(agent, model)) {
            Some([tokens, weighted]) => [tokens.after(seen[0]), weighted.after(seen[1])],
            None => seen.map(Trend::first),
        };
        let pair = Pair {
            agent: agent.into(),
            model: model.into(),
        };
        self.pairs.insert(pair, trends);
    }
}

/// Tokens at the input price that cost what `prompt` does.
fn weigh(price: &Price, prompt: &Usage) -> u128 {
    let total = prompt.total_input();
    let rates = price.rates(total);
    let input = u128::from(rates.of(TokenClass::Input));
    if input == 0 {
        return u128::from(total);
    }
    let classes = prompt.iter().filter(|(class, _)| class.is_input());
    let pico = classes.map(|(class, count)| u128::from(count) * u128::from(rates.of(class)));
    pico.fold(0, u128::saturating_add).div_ceil(input)
}

/// A mean and the variance around it.
#[derive(Clone, Copy, Debug)]
struct Trend {
    mean: u128,
    variance: u128,
}

impl Trend {
    /// Half of a single value is how far the next may be off (RFC 6298, section 2.2).
    fn first(seen: u128) -> Self {
        let seen = seen.min(u128::from(u32::MAX));
        Self {
            mean: seen,
            variance: (seen / 2).pow(2),
        }
    }

    /// With an eighth of the new one's weight.
    fn after(self, seen: u128) -> Self {
        let seen = seen.min(u128::from(u32::MAX));
        let off = seen.abs_diff(self.mean);
        Self {
            mean: (7 * self.mean + seen).div_ceil(8),
            variance: (7 * self.variance + 7 * off.pow(2) / 8).div_ceil(8),
        }
    }

    /// Two deviations above the mean, and 15 % above it at least.
    fn most(self) -> u128 {
        let far = self.mean + 2 * self.variance.isqrt();
        far.max((self.mean * 115).div_ceil(100))
    }
}

/// An agent and a model.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    agent: Box<str>,
    model: Box<str>,
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&*self.agent, &*self.model).hash(state);
    }
}

impl Equivalent<Pair> for (&str, &str) {
    fn equivalent(&self, pair: &Pair) -> bool {
        *self == (&*pair.agent, &*pair.model)
    }
}

#[cfg(test)]
#[path = "learned_tests.rs"]
mod tests;
