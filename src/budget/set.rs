//! Owns all budgets of one moment, and the way from a call to those that cover it. The way is as long
//! with thirty thousand budgets as with those that could cover the call's agent alone.

use std::sync::Arc;

use super::covering::Covering;
use super::limit::{GroupBy, Labels, WindowKind};
use super::terms::Budget;
use crate::types::agent::Agent;
use crate::types::agent_index::AgentIndex;
use crate::types::host::Host;
use crate::types::model_api::ModelApi;

/// All budgets, compiled. Immutable; a reload makes a new one.
#[derive(Debug, Default)]
pub struct BudgetSet {
    budgets: Vec<Arc<Budget>>,
    agents: AgentIndex<usize>,
}

impl BudgetSet {
    /// Files budgets under the agents they are for.
    pub(super) fn new(mut budgets: Vec<Arc<Budget>>) -> Self {
        budgets.sort_by(|a, b| a.key.cmp(&b.key));
        let mut agents = AgentIndex::default();
        for (index, budget) in budgets.iter().enumerate() {
            if budget.selector.agents.is_empty() {
                agents.everyone(index);
            }
            for pattern in &budget.selector.agents {
                agents.file(&pattern.to_string(), index);
            }
        }
        Self { budgets, agents }
    }

    /// Whether some budget could cover this agent's calls to this host: the cheap question that most
    /// requests end with.
    pub fn concerns(&self, agent: &Agent, host: &Host, api: Option<ModelApi>) -> bool {
        let mut found = self.agents.of(agent);
        found.any(|index| self.budgets[*index].selector.counts(host, api))
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
        let mut found: Vec<usize> = self.agents.of(&labels.agent).copied().collect();
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
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
