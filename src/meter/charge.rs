//! Owns what an answer is charged at, however it ended.
//!
//! | it ended | prompt | answer |
//! |---|---|---|
//! | with the provider's final count | as counted | as counted |
//! | before it, the prompt having been told | as told | as reported or seen, at most what was granted |
//! | without any count, part of it having been seen | as reserved | as seen, at most what was granted |
//! | early, and was no stream, or may have been thought out unseen | as told or reserved | as granted |
//! | unreadable | as reserved | as reserved |
//! | with an error of the provider before anything else | not | not |
//!
//! An answer that is not a success costs nothing; it does not come here.

use std::sync::Arc;

use jiff::Timestamp;

use super::bound;
use super::call::Call;
use super::price::Price;
use super::price_table::PriceTable;
use super::reading::Reading;
use super::yocto::YoctoUsd;
use crate::types::charge::{Charge, Need};
use crate::types::model_api::ModelApi;
use crate::types::money::NanoUsd;
use crate::types::usage::{ModelUse, TokenClass, Usage};

/// What one call is charged at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// By model; at least one, but for what came to nothing.
    pub charges: Vec<Charge>,
    /// Whether anything of it is an estimate rather than the provider's count at a listed price.
    pub estimated: bool,
}

impl Bill {
    /// What all of it costs.
    pub fn total(&self) -> NanoUsd {
        let costs = self.charges.iter().map(|charge| charge.cost.0);
        NanoUsd(costs.fold(0, u64::saturating_add))
    }
}

/// What `reading` of the answer to `call`, which began at `at`, is charged at.
///
/// `reserved_at` is the price that the reservation was made at ([`PriceTable::for_call`], or that of the
/// model which stands in for unknown ones); a model that the table does not know is charged at it.
/// `granted` is all that was reserved in the end. Together the charges are rounded up once.
pub fn charges(
    prices: &PriceTable,
    reserved_at: Option<&Price>,
    call: &Call,
    reading: Reading,
    granted: &Need,
    at: Timestamp,
) -> Bill {
    let desk = Desk {
        prices,
        reserved_at,
        call,
        granted,
        at,
    };
    match reading {
        // A final count without a single entry is no count.
        Reading::Exact(uses) if !uses.is_empty() => desk.counted(uses),
        Reading::Partial(uses) if prompt_of(&uses) > 0 => desk.told(uses),
        Reading::Partial(uses) => desk.seen(
            uses.iter()
                .map(|u| u.usage.total_output())
                .fold(0, u64::saturating_add),
        ),
        Reading::Unknown { produced } => desk.seen(produced),
        Reading::Failed => Bill::default(),
        Reading::Exact(_) => desk.seen(0),
    }
}

fn prompt_of(uses: &[ModelUse]) -> u64 {
    let prompts = uses.iter().map(|one| one.usage.total_input());
    prompts.fold(0, u64::saturating_add)
}

struct Desk<'a> {
    prices: &'a PriceTable,
    reserved_at: Option<&'a Price>,
    call: &'a Call,
    granted: &'a Need,
    at: Timestamp,
}

impl Desk<'_> {
    /// Everything as the provider counted it.
    fn counted(&self, uses: Vec<ModelUse>) -> Bill {
        let mut sum = YoctoUsd::default();
        let mut estimated = false;
        let mut charges = Vec::with_capacity(uses.len());
        for one in uses {
            let model = one.model.clone().unwrap_or_else(|| self.call.model.clone());
            let (cost, listed) = self.cost(&model, &one);
            estimated |= !listed;
            // Rounded together: what each adds to the rounded sum.
            let before = sum.ceil();
            sum = sum.plus(cost);
            charges.push(Charge {
                model,
                usage: one.usage,
                fees: one.fees,
                cost: NanoUsd(sum.ceil().0 - before.0),
            });
        }
        Bill { charges, estimated }
    }

    /// The prompt as told, of the answer what is granted at most.
    fn told(&self, mut uses: Vec<ModelUse>) -> Bill {
        let mut left = self.granted.output;
        for one in &mut uses {
            for class in [TokenClass::Output, TokenClass::AudioOutput] {
                one.usage[class] = one.usage[class].min(left);
                left -= one.usage[class];
            }
        }
        if !self.call.shows_what_it_costs()
            && let Some(main) = uses.first_mut()
        {
            main.usage[TokenClass::Output] = main.usage[TokenClass::Output].saturating_add(left);
        }
        let mut bill = self.counted(uses);
        bill.estimated = true;
        bill
    }

    /// The prompt as reserved; of the answer what was seen, or all where nothing was.
    fn seen(&self, produced: u64) -> Bill {
        let output = match produced {
            _ if !self.call.shows_what_it_costs() => self.granted.output,
            0 => self.granted.output,
            seen => seen.min(self.granted.output),
        };
        let mut usage = Usage::default();
        usage[TokenClass::Input] = self.granted.input;
        usage[TokenClass::Output] = output;
        let unused = self.reserved_at.map_or_else(YoctoUsd::default, |price| {
            let classes = bound::classes(self.call);
            let upper = price.upper(&self.call.terms, self.granted.input, &classes);
            upper.output.times(self.granted.output - output)
        });
        let cost = YoctoUsd::from_nano(self.granted.cost).minus(unused).ceil();
        Bill {
            charges: vec![Charge {
                model: self.call.model.clone(),
                usage,
                fees: Vec::new(),
                cost,
            }],
            estimated: true,
        }
    }

    /// What one model's part costs, and whether that model has a price of its own.
    fn cost(&self, model: &Arc<str>, one: &ModelUse) -> (YoctoUsd, bool) {
        let at = |price: &Price| price.cost(&one.usage, &one.fees, &one.terms);
        if let Some(price) = self.prices.find(self.call.api, model, self.at) {
            return (at(price), true);
        }
        let Some(price) = self.reserved_at else {
            return (YoctoUsd::default(), false);
        };
        if self.is_asked_for(model) {
            return (at(price), true);
        }
        (dearest(price, one), false)
    }

    /// Whether a name that an answer gives is that of the listed model which was asked for. Bedrock's
    /// answers name Claude as Anthropic does: what was asked for as `us.anthropic.claude-sonnet-4-6`
    /// answers as `claude-sonnet-4-6`.
    fn is_asked_for(&self, answered: &str) -> bool {
        let asked = &*self.call.model;
        self.call.api == ModelApi::Bedrock
            && asked.contains(answered)
            && self.prices.find(self.call.api, asked, self.at).is_some()
    }
}

/// What a part costs at the price that was reserved at, or at the dearest of the models that may work on
/// the request.
fn dearest(price: &Price, one: &ModelUse) -> YoctoUsd {
    let own = price.cost(&one.usage, &one.fees, &one.terms);
    let others = price.beside.iter().map(|other| dearest(other, one));
    others.fold(own, YoctoUsd::max)
}

#[cfg(test)]
#[path = "charge_tests.rs"]
mod tests;
