//! Owns the budgets that one call falls under, taken together: the strictest wins.

use std::sync::Arc;

use http::Method;

use super::limit::{Limit, Unit};
use super::terms::{Budget, FixedPrice, OnStoreUnavailable, UnknownModel};
use crate::config::budget::StreamMode;
use crate::types::money::NanoUsd;

/// What covers one call.
#[derive(Clone, Debug, Default)]
pub struct Covering {
    /// Every limit, sorted by id: the order in which all callers take them.
    pub limits: Vec<Arc<Limit>>,
    /// The budgets that these limits are of, and those that only have a rate, sorted by key.
    pub budgets: Vec<Arc<Budget>>,
}

/// What becomes of a model without a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpriced {
    /// A budget refuses it.
    Refused(Arc<str>),
    /// It costs what the dearest of these models costs.
    PricedAs(Vec<Arc<str>>),
    /// No budget needs a price.
    Free,
}

impl Covering {
    /// Whether nothing covers the call.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty()
    }

    /// Whether some limit must know what the call uses, so that its body is read.
    pub fn measures(&self) -> bool {
        self.limits.iter().any(|limit| limit.unit != Unit::Requests)
    }

    /// The limits that count a call whose use is not known and needs not be.
    pub fn request_limits(&self) -> Vec<Arc<Limit>> {
        let of_requests = |limit: &&Arc<Limit>| limit.unit == Unit::Requests;
        self.limits.iter().filter(of_requests).cloned().collect()
    }

    /// The budget that a limit is of.
    pub fn budget_of(&self, limit: &Limit) -> Option<&Arc<Budget>> {
        let own = |budget: &&Arc<Budget>| budget.limits.iter().any(|own| own.id == limit.id);
        self.budgets.iter().find(own)
    }

    /// Whether some budget would rather have a shorter answer than none.
    pub fn lowers(&self) -> bool {
        self.budgets.iter().any(|budget| budget.lower_to.is_some())
    }

    /// How much is reserved for an answer in pieces: all of it if one budget wants that.
    pub fn stream_mode(&self) -> StreamMode {
        let strict = self.budgets.iter().any(|budget| {
            budget.is_hard() && budget.measures() && budget.streams == StreamMode::Strict
        });
        match strict {
            true => StreamMode::Strict,
            false => StreamMode::Tranche,
        }
    }

    /// What becomes of a model without a price. Soft budgets refuse nothing.
    pub fn unpriced(&self) -> Unpriced {
        let mut models = Vec::new();
        for budget in self.budgets.iter().filter(|budget| budget.counts_money()) {
            match &budget.unknown_model {
                UnknownModel::Deny if budget.is_hard() => {
                    return Unpriced::Refused(budget.name.clone());
                }
                UnknownModel::Deny => {}
                UnknownModel::PriceAs(model) if models.contains(model) => {}
                UnknownModel::PriceAs(model) => models.push(model.clone()),
            }
        }
        match models.is_empty() {
            true => Unpriced::Free,
            false => Unpriced::PricedAs(models),
        }
    }

    /// What a request counts whose use cannot be read: the most that a budget names for it. A hard budget
    /// with a limit in money or tokens that does not name it refuses it, and is the error.
    pub fn fixed_price(&self, method: &Method, path: &str) -> Result<FixedPrice, &Arc<Budget>> {
        let mut price = FixedPrice::default();
        for budget in self.budgets.iter().filter(|budget| budget.measures()) {
            match budget.fixed_price(method, path) {
                Some(named) => price = price.max(named),
                None if budget.is_hard() => return Err(budget),
                None => {}
            }
        }
        Ok(price)
    }

    /// How much may be reserved together while the ledger cannot be written; nothing unless every hard
    /// budget with limits allows it.
    pub fn without_store(&self) -> NanoUsd {
        let hard = |budget: &&Arc<Budget>| budget.is_hard() && !budget.limits.is_empty();
        let allowed =
            self.budgets
                .iter()
                .filter(hard)
                .map(|budget| match budget.on_store_unavailable {
                    OnStoreUnavailable::Deny => NanoUsd(0),
                    OnStoreUnavailable::AllowUpTo(most) => most,
                });
        allowed.min().unwrap_or(NanoUsd(u64::MAX))
    }
}
