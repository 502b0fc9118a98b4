//! Owns the other names of the models that budgets choose. A call counts under one name whatever its spelling; a
//! budget that names a model by another must find what was spent before under that one, too.

use std::collections::HashMap;
use std::sync::Arc;

use super::limit::{Limit, Pattern, Selector};
use super::set::BudgetSet;
use super::terms::Budget;

/// A name of a model, and the one that its calls are filed under.
pub type Filed = (Arc<str>, Arc<str>);

impl BudgetSet {
    /// The same budgets, each also for the names that the models it chooses are filed under. What a limit is
    /// filed under itself does not change.
    #[must_use]
    pub fn filed_by(self, names: &[Filed]) -> Self {
        let mut known = HashMap::new();
        let budgets = self.budgets().iter().map(|budget| {
            let chosen = &budget.selector.models;
            if chosen.is_empty() {
                return budget.clone();
            }
            let written: Vec<String> = chosen.iter().map(ToString::to_string).collect();
            let more = known
                .entry(written)
                .or_insert_with(|| beyond(&budget.selector, names));
            match more.is_empty() {
                true => budget.clone(),
                false => Arc::new(with(budget, more)),
            }
        });
        Self::new(budgets.collect())
    }
}

/// Names that chosen models are filed under, and that are not chosen themselves.
fn beyond(selector: &Selector, names: &[Filed]) -> Vec<Pattern> {
    let meant = names.iter().filter(|(name, _)| selector.takes(name));
    let mut filed: Vec<&str> = meant.map(|(_, filed)| &**filed).collect();
    // Models that are in no table are filed without the tag that is meant where there is none.
    filed.extend(selector.models.iter().filter_map(|pattern| match pattern {
        Pattern::Exact(name) => name.strip_suffix(":latest"),
        _ => None,
    }));
    filed.retain(|filed| !selector.takes(filed));
    filed.sort_unstable();
    filed.dedup();
    let exact = filed.into_iter().map(|name| Pattern::Exact(name.into()));
    exact.collect()
}

fn with(budget: &Budget, more: &[Pattern]) -> Budget {
    let all = |selector: &Selector| Selector {
        models: [&*selector.models, more].concat().into(),
        ..selector.clone()
    };
    let limits = budget.limits.iter().map(|limit| {
        Arc::new(Limit {
            selector: all(&limit.selector),
            ..(**limit).clone()
        })
    });
    Budget {
        limits: limits.collect(),
        selector: all(&budget.selector),
        ..budget.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::set;
    use super::*;

    const LIMITS: &str = "limits: [{unit: usd, max: \"5\", window: total}]";

    fn filed(pairs: &[(&str, &str)]) -> Vec<Filed> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, filed)| ((*name).into(), (*filed).into()))
            .collect()
    }

    #[test]
    fn a_budget_for_a_model_finds_what_is_filed_under_its_other_name() {
        let names = filed(&[
            ("sonnet", "sonnet-2025"),
            ("opus", "opus-2025"),
            ("gpt-latest", "o7"),
        ]);
        for (models, takes, leaves) in [
            ("[sonnet]", "sonnet-2025", "opus-2025"),
            ("[\"gpt-*\"]", "o7", "sonnet-2025"),
            ("[\"opus*\"]", "opus-2025", "o7"),
            // The tag that Ollama means where there is none.
            ("[\"qwen3:latest\"]", "qwen3", "qwen3:8b"),
        ] {
            let spec = format!("match: {{models: {models}}}, {LIMITS}");
            let before = set(&[("name: cap", &spec)]);
            let id = before.budgets()[0].limits[0].id.clone();
            let after = before.filed_by(&names);
            let budget = &after.budgets()[0];
            assert_eq!(budget.limits[0].id, id, "it is the same limit");
            for selector in [&budget.selector, &budget.limits[0].selector] {
                assert!(selector.takes(takes), "{models} {takes}");
                assert!(!selector.takes(leaves), "{models} {leaves}");
            }
        }
        let all = set(&[("name: cap", LIMITS)]).filed_by(&names);
        assert!(all.budgets()[0].selector.models.is_empty());
    }
}
