//! Owns a call as it is to be reserved for, and sending it with a shorter answer allowed where all that it asks for
//! does not fit and its budget says so.

use std::sync::Arc;

use bytes::Bytes;

use super::budget_refusal::Why;
use super::error::ProxyError;
use super::tranche::TOKENS;
use crate::budget::covering::Covering;
use crate::budget::terms::Budget;
use crate::config::budget::StreamMode;
use crate::meter::answer_limit::{fewest, limited_to};
use crate::meter::bound;
use crate::meter::call::Call;
use crate::meter::price::Price;
use crate::types::charge::Need;

/// How often a call is asked to do with less, each time by another of its budgets.
pub const LOWERINGS: u32 = 3;

/// A call that is to be reserved for.
#[derive(Clone)]
pub struct Wanted<'c> {
    /// What counts it.
    pub covering: &'c Covering,
    /// The name its model is counted under.
    pub label: &'c str,
    /// What its models cost, where a budget needs to know.
    pub price: Option<Arc<Price>>,
    /// The call.
    pub call: Call,
    /// Its body, unpacked.
    pub body: Bytes,
    /// The most tokens that its answer is allowed, where those are fewer than were asked for.
    pub lowered: Option<u64>,
}

impl Wanted<'_> {
    /// The same with the longest answer that still fits, if it was refused for more than is left of a budget that
    /// would rather have a shorter one; not if that is shorter than is worth it, to the budget or for what the
    /// request thinks with.
    pub fn lowered(self, refused: &ProxyError) -> Option<Self> {
        let ProxyError::Budget(refusal) = refused else {
            return None;
        };
        let Why::Exhausted(shortage) = &refusal.why else {
            return None;
        };
        let balance = &shortage.balance;
        let price = self.price.as_deref();
        let least = self.covering.budget_of(&balance.limit)?.lower_to?.get();
        let least = least.max(fewest(self.call.operation, &self.body)?);
        let allowing = |tokens: u64| Call {
            max_output: Some(tokens),
            ..self.call.clone()
        };
        let fits = |tokens: u64| {
            let need = needed(self.covering, price, &allowing(tokens));
            balance.limit.reserve(&need) <= balance.remaining()
        };
        let (mut fitting, mut too_many) = (least, bound::longest_answer(price, &self.call));
        if fitting >= too_many || !fits(fitting) {
            return None;
        }
        while too_many - fitting > 1 {
            let middle = fitting + (too_many - fitting) / 2;
            match fits(middle) {
                true => fitting = middle,
                false => too_many = middle,
            }
        }
        let body = limited_to(fitting, self.call.operation, &self.body).ok()?;
        Some(Self {
            call: allowing(fitting),
            body,
            lowered: Some(fitting),
            ..self
        })
    }
}

/// Whether a call's answer is reserved for as it grows: where leaving it, or cutting it, saves what is left of it.
pub fn in_tranches(covering: &Covering, call: &Call) -> bool {
    let strict = |budget: &Arc<Budget>| budget.streams == StreamMode::Strict;
    call.stream
        && !call.hides_reasoning()
        && !call.is_billed_whole()
        && !covering.budgets.iter().any(strict)
}

/// What a call is sure to get by with: to its end, or at first.
pub fn needed(covering: &Covering, price: Option<&Price>, call: &Call) -> Need {
    match in_tranches(covering, call) {
        true => bound::tranche(price, call, None, TOKENS),
        false => bound::strict(price, call),
    }
}
