//! Owns the first look at limits that have counted nothing: one whose window or group was edited takes up what
//! was spent before when somebody looks at it, and not only with its next call.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::budget::limit::{GroupBy, Labels, Limit, WindowKind};
use crate::budget::set::BudgetSet;
use crate::budget::sqlite_report::Standing;
use crate::types::agent::Agent;

/// So many groups are looked up at a time. What is left over is with the next look, or a call.
const MOST: usize = 200;

/// What to ask the balance of, so that the ledger adds up what agents spent before under limits that no call has
/// met yet.
pub fn unmet(
    budgets: &BudgetSet,
    standing: &[Standing],
    agents: &[Agent],
) -> Vec<(Labels, Arc<Limit>)> {
    let mut looks = Vec::new();
    if standing.is_empty() {
        return looks;
    }
    let met: HashSet<&str> = standing.iter().map(|row| &*row.limit).collect();
    let limits = budgets.budgets().iter().flat_map(|budget| &budget.limits);
    let mut limits = limits
        .filter(|limit| !met.contains(&*limit.id) && is_of_agents(limit))
        .peekable();
    if limits.peek().is_none() {
        return looks;
    }
    let agents = on_record(standing, agents);
    for limit in limits {
        let mut scopes = BTreeSet::new();
        for agent in &agents {
            let labels = Labels {
                agent: agent.clone(),
                execution: None,
                host: "".into(),
                model: "".into(),
            };
            if limit.selector.names(agent.name()) && scopes.insert(limit.scope(&labels)) {
                looks.push((labels, limit.clone()));
            }
        }
    }
    looks.truncate(MOST);
    looks
}

/// Whether the name of an agent tells the group. Models and executions are known by their calls alone.
fn is_of_agents(limit: &Limit) -> bool {
    let by_agent = |group: &GroupBy| matches!(group, GroupBy::Agent | GroupBy::Namespace);
    limit.window != WindowKind::Execution && limit.group_by.iter().all(by_agent)
}

/// Agents of whom some limit knows calls; where none counts agents apart, those that may call.
fn on_record(standing: &[Standing], agents: &[Agent]) -> Vec<Agent> {
    let named = |row: &Standing| {
        let name = row.scope.strip_prefix("agent=")?;
        Agent::parse(name.split(',').next()?).ok()
    };
    let mut found: Vec<Agent> = standing.iter().filter_map(named).collect();
    if found.is_empty() {
        found = agents.to_vec();
    }
    found.sort_by(|a, b| a.name().cmp(b.name()));
    found.dedup();
    found
}
