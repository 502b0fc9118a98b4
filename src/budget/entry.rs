//! Owns the rows of the books: one for each model of each try, with what it used and cost.

use std::sync::Arc;

use super::ledger::{Ending, HoldId, Settlement};
use super::limit::Labels;
use crate::types::charge::{Charge, Need};
use crate::types::money::NanoUsd;
use crate::types::usage::{TokenClass, Usage};

/// The words of a try in the books that did not end as a call does.
pub const RETRIED: &str = "retried";

/// One row. No text of a prompt or an answer, ever.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The try.
    pub id: HoldId,
    /// Counts the models that worked on it.
    pub part: u32,
    /// When it was admitted, in milliseconds since the epoch.
    pub at: i64,
    /// When it was settled; 0 before somebody with a clock has seen it.
    pub settled_at: i64,
    /// Who called what.
    pub labels: Arc<Labels>,
    /// What was used, and what it cost.
    pub charge: Charge,
    /// Whether some of it was estimated.
    pub estimated: bool,
    /// How it ended: a word of [`Ending`], or [`RETRIED`].
    pub ending: &'static str,
    /// The prices it was reckoned with.
    pub prices: Option<[u8; 32]>,
    /// The credential that went into it.
    pub credential: Option<Arc<str>>,
}

/// A settlement has no more rows: a call that names more models than anybody works with is an origin's
/// invention.
pub const MOST_ROWS: usize = 64;

/// The model of the row that stands for the rest of them.
pub const OTHERS: &str = "(others)";

impl Entry {
    /// The rows of a settlement: one for each charge, as far as [`MOST_ROWS`] go, and one of nothing where there is none.
    pub fn of(settlement: &Settlement, at: i64, labels: &Arc<Labels>) -> Vec<Self> {
        let row = |(part, charge): (usize, &Charge)| Self {
            id: settlement.id.clone(),
            part: u32::try_from(part).unwrap_or(u32::MAX),
            at,
            settled_at: 0,
            labels: labels.clone(),
            charge: charge.clone(),
            estimated: settlement.estimated,
            ending: settlement.ending.as_str(),
            prices: Some(settlement.prices),
            credential: settlement.credential.clone(),
        };
        if settlement.charges.is_empty() {
            return vec![row((0, &nothing(labels)))];
        }
        let (first, rest) = match settlement.charges.len() > MOST_ROWS {
            true => settlement.charges.split_at(MOST_ROWS - 1),
            false => (&*settlement.charges, &[][..]),
        };
        let rest = together(rest);
        first.iter().chain(&rest).enumerate().map(row).collect()
    }

    /// The row of a try that came to nothing and is made once more.
    pub fn retried(id: HoldId, at: i64, labels: &Arc<Labels>) -> Self {
        Self {
            id,
            part: 0,
            at,
            settled_at: 0,
            labels: labels.clone(),
            charge: nothing(labels),
            estimated: false,
            ending: RETRIED,
            prices: None,
            credential: None,
        }
    }

    /// The row of a call that was under way when the process died: what it had reserved.
    pub fn orphaned(id: HoldId, at: i64, labels: &Arc<Labels>, need: &Need) -> Self {
        let mut usage = Usage::default();
        usage[TokenClass::Input] = need.input;
        usage[TokenClass::Output] = need.output;
        let charge = Charge {
            usage,
            cost: need.cost,
            ..nothing(labels)
        };
        Self {
            charge,
            estimated: true,
            ending: Ending::Orphaned.as_str(),
            ..Self::retried(id, at, labels)
        }
    }

    /// Whether it stands for a request, and not for a part of one or for a try before another.
    fn is_request(&self) -> bool {
        self.part == 0 && self.ending != RETRIED
    }
}

/// What calls of one kind came to, for a limit that is to count them now.
#[derive(Clone, Debug)]
pub struct Past {
    /// When they were admitted; of several, when one of them was.
    pub at: i64,
    /// Who called what.
    pub labels: Arc<Labels>,
    /// What was used, and what it cost.
    pub charge: Charge,
    /// How many requests they were.
    pub requests: u64,
}

impl From<&Entry> for Past {
    fn from(entry: &Entry) -> Self {
        Self {
            at: entry.at,
            labels: entry.labels.clone(),
            charge: entry.charge.clone(),
            requests: u64::from(entry.is_request()),
        }
    }
}

/// What several charges come to.
fn together(charges: &[Charge]) -> Option<Charge> {
    let (first, rest) = charges.split_first()?;
    let mut sum = Charge {
        model: OTHERS.into(),
        ..first.clone()
    };
    for charge in rest {
        sum.usage = sum.usage.plus(&charge.usage);
        sum.cost = NanoUsd(sum.cost.0.saturating_add(charge.cost.0));
        for (fee, count) in &charge.fees {
            match sum.fees.iter_mut().find(|(known, _)| known == fee) {
                Some((_, known)) => *known = known.saturating_add(*count),
                None => sum.fees.push((*fee, *count)),
            }
        }
    }
    Some(sum)
}

fn nothing(labels: &Labels) -> Charge {
    Charge {
        model: labels.model.clone(),
        usage: Usage::default(),
        fees: Vec::new(),
        cost: Default::default(),
    }
}
