//! Owns all budgets of one moment, and the way from a call to those that cover it. The way is as long
//! with thirty thousand budgets as with those that could cover the call's agent alone.

use std::collections::HashMap;
use std::sync::Arc;

use super::covering::Covering;
use super::limit::{GroupBy, Labels, Pattern, WindowKind};
use super::terms::Budget;
use crate::types::agent::Agent;
use crate::types::host::Host;
use crate::types::model_api::ModelApi;

/// All budgets, compiled. Immutable; a reload makes a new one.
#[derive(Debug, Default)]
pub struct BudgetSet {
    budgets: Vec<Arc<Budget>>,
    by_name: HashMap<Box<str>, Vec<usize>>,
    by_prefix: HashMap<Box<str>, Vec<usize>>,
    /// The lengths that prefixes have, each once.
    lengths: Vec<usize>,
    everyone: Vec<usize>,
}

impl BudgetSet {
    /// Files budgets under the agents they are for.
    pub(super) fn new(mut budgets: Vec<Arc<Budget>>) -> Self {
        budgets.sort_by(|a, b| a.key.cmp(&b.key));
        let mut set = Self::default();
        for (index, budget) in budgets.iter().enumerate() {
            let agents = &budget.selector.agents;
            if agents.is_empty() {
                set.everyone.push(index);
            }
            for pattern in agents {
                let filed = match pattern {
                    Pattern::Prefix(prefix) if prefix.is_empty() => &mut set.everyone,
                    Pattern::Prefix(prefix) => set.by_prefix.entry(prefix.clone()).or_default(),
                    Pattern::Exact(name) => set.by_name.entry(name.clone()).or_default(),
                };
                if filed.last() != Some(&index) {
                    filed.push(index);
                }
            }
        }
        set.lengths = set.by_prefix.keys().map(|prefix| prefix.len()).collect();
        set.lengths.sort_unstable();
        set.lengths.dedup();
        set.budgets = budgets;
        set
    }

    /// Whether some budget could cover this agent's calls to this host: the cheap question that most
    /// requests end with.
    pub fn concerns(&self, agent: &Agent, host: &Host, api: Option<ModelApi>) -> bool {
        self.of(agent)
            .any(|index| self.budgets[index].selector.counts(host, api))
    }

    /// What covers a call.
    pub fn covering(&self, labels: &Labels, host: &Host, api: Option<ModelApi>) -> Covering {
        self.covering_any(labels, &[], host, api)
    }

    /// What covers a call that lets `others` work on it besides its own model.
    pub fn covering_any(
        &self,
        labels: &Labels,
        others: &[Arc<str>],
        host: &Host,
        api: Option<ModelApi>,
    ) -> Covering {
        let mut found: Vec<usize> = self.of(&labels.agent).collect();
        found.sort_unstable();
        found.dedup();
        let covers = |budget: &&Arc<Budget>| {
            let selector = &budget.selector;
            let model = selector.takes(&labels.model) || others.iter().any(|m| selector.takes(m));
            model && selector.counts(host, api)
        };
        let budgets = found.into_iter().map(|index| &self.budgets[index]);
        let budgets: Vec<_> = budgets.filter(covers).cloned().collect();
        let limits = budgets.iter().flat_map(|budget| &*budget.limits);
        let mut limits: Vec<_> = limits.cloned().collect();
        limits.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Covering { limits, budgets }
    }

    /// Every budget, sorted by key.
    pub fn budgets(&self) -> &[Arc<Budget>] {
        &self.budgets
    }

    /// A budget that tells executions apart, if there is one.
    pub fn wants_executions(&self) -> Option<&Arc<Budget>> {
        self.budgets.iter().find(|budget| {
            let groups = budget.group_by.contains(&GroupBy::Execution);
            groups
                || budget
                    .limits
                    .iter()
                    .any(|limit| limit.window == WindowKind::Execution)
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty()
    }

    /// The budgets that are for this agent; one may come more than once.
    fn of<'s>(&'s self, agent: &'s Agent) -> impl Iterator<Item = usize> + 's {
        let name = agent.name();
        let exact = self.by_name.get(name).into_iter().flatten();
        let heads = self.lengths.iter().map_while(|length| name.get(..*length));
        let below = heads.filter_map(|head| self.by_prefix.get(head)).flatten();
        exact.chain(below).chain(&self.everyone).copied()
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
