//! Owns how much of a budget an answer under way has reserved, and when it needs more or can give back.

use tokio::sync::OwnedSemaphorePermit;

use crate::config::budget::OnExhausted;
use crate::meter::bound;
use crate::meter::reading::Progress;
use crate::types::charge::Need;
use crate::types::money::NanoUsd;

use super::hold::Hold;

/// Tokens of an answer that are reserved at a time.
pub const TOKENS: u64 = 4096;
/// More is reserved once less than this is left.
const MARGIN: u64 = 1024;

/// What the reservation of one answer should become.
pub enum Want {
    /// This much is enough.
    Less(Need),
    /// This much on top.
    More(Need),
}

/// The state of one answer's reservation.
#[derive(Debug)]
pub struct Tranche {
    /// Tokens of the answer that are reserved.
    output: u64,
    /// Tokens of the answer that can come at most: no more than these are ever reserved.
    most: u64,
    /// Whether the prompt's own count has been taken over.
    exact_input: bool,
    on_exhausted: OnExhausted,
    /// Held while the prompt's share is an estimate.
    trust: Option<OwnedSemaphorePermit>,
    /// A refusal was final: the answer goes on without more.
    over: bool,
}

impl Tranche {
    /// With `output` tokens reserved of `most` that may come.
    pub fn new(
        output: u64,
        most: u64,
        on_exhausted: OnExhausted,
        trust: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            output,
            most,
            exact_input: false,
            on_exhausted,
            trust,
            over: false,
        }
    }

    /// What the reservation should become after this much of the answer.
    pub fn next(&mut self, progress: &Progress, hold: &Hold) -> Option<Want> {
        let call = hold.call()?;
        let price = hold.price();
        if !self.exact_input
            && let Some(input) = &progress.input
        {
            self.exact_input = true;
            self.trust = None;
            let output = self.output.max(progress.produced);
            hold.learn(input);
            let need = bound::trued_up(price, call, input, output);
            let granted = hold.granted();
            if need.cost <= granted.cost && need.input <= granted.input {
                return Some(Want::Less(need));
            }
            return Some(Want::More(Need {
                cost: NanoUsd(need.cost.0.saturating_sub(granted.cost.0)),
                input: need.input.saturating_sub(granted.input),
                output: 0,
            }));
        }
        let short = progress.produced.saturating_add(MARGIN) > self.output;
        if self.over || !short || self.output >= self.most {
            return None;
        }
        let wanted = progress.produced.saturating_add(TOKENS).min(self.most);
        let tokens = wanted.saturating_sub(self.output);
        self.output = wanted;
        let more = bound::extension(price, call, &hold.granted(), tokens);
        Some(Want::More(more))
    }

    /// No more can be had. Says whether the answer is to be cut.
    pub fn refused(&mut self) -> bool {
        self.over = true;
        self.on_exhausted == OnExhausted::Cut
    }
}
