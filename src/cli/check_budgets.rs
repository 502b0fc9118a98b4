//! Owns what `tollgate check` says of budgets: how many there are, and which names in them are likely misspelt.

use super::finding::{Finding, State, finding};
use crate::app::books::Books;
use crate::app::settings::Settings;
use crate::budget::limit::Pattern;
use crate::config::suggest::did_you_mean;
use crate::types::agent::Agent;

/// A line for all of them, and one for each that only names agents which are none, or models that are nearly one.
pub(super) fn check_budgets(settings: &Settings, books: &Books) -> Vec<Finding> {
    let budgets = books.budgets.budgets();
    if budgets.is_empty() {
        return Vec::new();
    }
    let limits = budgets.iter().map(|budget| budget.limits.len()).sum();
    let message = format!(
        "{} with {}",
        counted(budgets.len(), "budget"),
        counted(limits, "limit")
    );
    let mut findings = vec![finding("budgets", State::Ok, message, None)];
    let agents = agents(settings);
    let models: Vec<&str> = books.prices.sources().map(|(_, model, _)| model).collect();
    for budget in budgets {
        let selector = &budget.selector;
        let agent = unmet(&selector.agents, &agents);
        // A model without a price may be one of somebody's own.
        let model = unmet(&selector.models, &models).filter(|(_, guess)| guess.is_some());
        let unknown = [
            ("agent of `spec.identity`", agent),
            ("model with a price", model),
        ];
        for (what, unmet) in unknown {
            findings.extend(unmet.map(|(pattern, guess)| {
                let message = format!("budget `{}`: no {what} is called `{pattern}`", budget.name);
                finding("budgets", State::Warning, message, guess)
            }));
        }
    }
    findings
}

/// The first of some patterns, and what may have been meant, if no name fits any of them.
fn unmet<'p>(patterns: &'p [Pattern], known: &[&str]) -> Option<(&'p Pattern, Option<String>)> {
    let fits = |pattern: &Pattern| known.iter().any(|name| pattern.matches(name));
    let first = patterns.first()?;
    if patterns.iter().any(fits) {
        return None;
    }
    let alike: Vec<String> = known
        .iter()
        .map(|name| match first {
            Pattern::Exact(_) => (*name).to_owned(),
            // Of a beginning, the beginnings of the names are its like.
            Pattern::Prefix(written) => {
                let beginning = name.get(..written.len()).unwrap_or(name);
                format!("{beginning}*")
            }
        })
        .collect();
    let guess = did_you_mean(&first.to_string(), alike.iter().map(String::as_str));
    Some((first, guess))
}

/// The names that agents may have here.
fn agents(settings: &Settings) -> Vec<&str> {
    let identity = &settings.root.spec.identity;
    let named = identity.agents.iter().map(|agent| &*agent.name.value);
    let fixed = identity.fixed.as_ref().map(|name| &*name.value);
    let mut agents: Vec<&str> = named.chain(fixed).collect();
    if agents.is_empty() {
        agents.push(Agent::DEFAULT_NAME);
    }
    agents
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
