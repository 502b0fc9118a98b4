//! Owns how much of a budget an answer under way has reserved, and when it needs more or can give back.

use tokio::sync::OwnedSemaphorePermit;

use crate::budget::ledger::NotReserved;
use crate::config::budget::OnExhausted;
use crate::meter::bound;
use crate::meter::reading::Progress;
use crate::types::charge::Need;
use crate::types::money::NanoUsd;

use super::hold::Hold;

/// Tokens of an answer that are reserved at a time.
pub const TOKENS: u64 = 4096;
/// More is asked for once less than this is left, and the answer goes on meanwhile.
const MARGIN: u64 = 1536;
/// It goes on no further than this: what is seen of an answer may be fewer tokens than it has.
pub const IN_HAND: u64 = 1024;
/// An answer has outrun what its request allows once no fewer tokens than these on top of it were made. Fewer
/// may be long words in a short answer.
const SLACK: u64 = 64;

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
    /// Tokens of the answer that can come at most: no more than these are ever reserved. Of an origin that
    /// does not keep to the request nobody knows them.
    most: Option<u64>,
    /// Whether the prompt's own count has been taken over.
    exact_input: bool,
    on_exhausted: OnExhausted,
    /// Held while the prompt's share is an estimate.
    trust: Option<OwnedSemaphorePermit>,
    /// What was asked for last.
    asked: Asked,
    /// What there is has to do until it is used up: asking before changes nothing.
    waits: bool,
    /// A refusal was final: the answer goes on without more.
    over: bool,
}

/// What a reservation is to grow by.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// The prompt was longer than it was estimated.
    Prompt,
    /// So many tokens more of the answer.
    Answer(u64),
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The answer goes on.
    GoOn,
    /// It is to be cut.
    Cut,
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
            most: Some(most),
            exact_input: false,
            on_exhausted,
            trust,
            asked: Asked::Prompt,
            waits: false,
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
            self.asked = Asked::Prompt;
            return Some(Want::More(Need {
                cost: NanoUsd(need.cost.0.saturating_sub(granted.cost.0)),
                input: need.input.saturating_sub(granted.input),
                output: 0,
            }));
        }
        if self.over || (self.waits && !self.is_used_up(progress)) {
            return None;
        }
        self.most = self.most.filter(|_| !self.is_outrun(progress));
        let short = progress.produced.saturating_add(MARGIN) > self.output;
        if !short || self.most.is_some_and(|most| self.output >= most) {
            return None;
        }
        let wanted = progress.produced.saturating_add(TOKENS);
        let wanted = wanted.min(self.most.unwrap_or(u64::MAX));
        let tokens = wanted.saturating_sub(self.output);
        self.asked = Asked::Answer(tokens);
        let granted = hold.granted();
        Some(Want::More(match self.most {
            Some(_) => bound::extension(price, call, &granted, tokens),
            None => bound::beyond(price, call, &granted, tokens),
        }))
    }

    /// Whether the origin took no notice of how long the answer was to be at most. What it makes beyond that is
    /// reserved as it comes, as in a stream that was not reserved whole.
    fn is_outrun(&self, progress: &Progress) -> bool {
        let most = self.most.map(|most| most.saturating_add(SLACK));
        most.is_none_or(|most| progress.at_least > most)
    }

    /// Whether the answer has come as far as it may with what is reserved.
    pub fn is_used_up(&self, progress: &Progress) -> bool {
        let may_grow = self.most.is_none_or(|most| self.output < most);
        may_grow && progress.produced.saturating_add(IN_HAND) > self.output
    }

    /// What was asked for is reserved.
    pub fn grew(&mut self) {
        self.waits = false;
        if let Asked::Answer(tokens) = self.asked {
            self.output = self.output.saturating_add(tokens);
        }
    }

    /// What was asked for cannot be had, after this much of the answer.
    pub fn refused(&mut self, progress: &Progress, cause: &NotReserved) -> Verdict {
        if self.on_exhausted == OnExhausted::Finish {
            self.over = true;
            return Verdict::GoOn;
        }
        match self.asked {
            Asked::Answer(_) if !self.is_used_up(progress) => {
                self.waits = !matches!(cause, NotReserved::Contended(_));
                Verdict::GoOn
            }
            _ => Verdict::Cut,
        }
    }
}
