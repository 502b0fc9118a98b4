//! Owns what a call may take of a budget before it is made, and what each model of it cost after.

use std::sync::Arc;

use super::money::NanoUsd;
use super::usage::{Fee, Usage};

/// The most a call can use, before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Money.
    pub cost: NanoUsd,
    /// Prompt tokens, of whatever class.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
}

/// What one model of a call used, and what that costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The model that answered.
    pub model: Arc<str>,
    /// Its tokens.
    pub usage: Usage,
    /// Its fees.
    pub fees: Vec<(Fee, u64)>,
    /// What that costs.
    pub cost: NanoUsd,
}
