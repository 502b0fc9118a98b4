//! Owns the short forms of tests: budgets from text, and who calls what.

use std::fmt::Write;

use super::limit::Labels;
use super::set::BudgetSet;
use crate::config::bundle::Bundle;
use crate::config::error::ConfigError;
use crate::config::load::load_bundle;
use crate::types::agent::Agent;

/// Budgets of these names, each with this `spec`.
pub(super) fn bundle(budgets: &[(&str, &str)]) -> Bundle {
    let mut text = String::new();
    for (metadata, spec) in budgets {
        writeln!(
            text,
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: {{ {metadata} }}\nspec: {{ {spec} }}"
        )
        .unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("budgets.yaml");
    std::fs::write(&file, &text).unwrap();
    load_bundle(&[file], &[]).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"))
}

pub(super) fn compiled(budgets: &[(&str, &str)]) -> Result<BudgetSet, Vec<ConfigError>> {
    BudgetSet::compile(&bundle(budgets))
}

pub(super) fn set(budgets: &[(&str, &str)]) -> BudgetSet {
    compiled(budgets).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

pub(super) fn labels(agent: &str, model: &str) -> Labels {
    Labels {
        agent: Agent::parse(agent).unwrap(),
        execution: None,
        host: "api.anthropic.com".into(),
        model: model.into(),
    }
}
