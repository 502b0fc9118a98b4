//! Measures how long it takes to find the budgets of a call: with three of them, and with thirty
//! thousand for ten thousand agents, of which the same three cover the call.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that fails should stop"
)]

use std::fmt::Write;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::budget::limit::Labels;
use tollgate::budget::set::BudgetSet;
use tollgate::config::load::load_bundle;
use tollgate::types::agent::Agent;
use tollgate::types::host::Host;
use tollgate::types::model_api::ModelApi;

/// Three budgets for each agent: one by its name, two by the beginning of it.
fn budgets(agents: usize) -> BudgetSet {
    const IN_A_FILE: usize = 150;
    let dir = tempfile::tempdir().unwrap();
    let document = |name: String, pattern: String| {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: {{ name: {name} }}\nspec:\n  match: {{ agents: ['{pattern}'] }}\n  limits: [{{ unit: usd, max: 5, window: {{ calendar: day }} }}]\n"
        )
    };
    let numbers: Vec<usize> = (0..agents).collect();
    for (index, chunk) in numbers.chunks(IN_A_FILE).enumerate() {
        let mut text = String::new();
        for n in chunk {
            text += &document(format!("a{n}"), format!("team-{n:05}/agent"));
            text += &document(format!("b{n}"), format!("team-{n:05}/*"));
            write!(
                text,
                "{}",
                document(format!("c{n}"), format!("team-{n:05}*"))
            )
            .unwrap();
        }
        std::fs::write(dir.path().join(format!("{index}.yaml")), text).unwrap();
    }
    BudgetSet::compile(&load_bundle(&[dir.path().to_owned()], &[]).unwrap()).unwrap()
}

fn budget_lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("budget_lookup");
    for agents in [1, 10_000] {
        let set = budgets(agents);
        let labels = Labels {
            agent: Agent::parse(&format!("team-{:05}/agent", agents / 2)).unwrap(),
            execution: None,
            host: "api.anthropic.com".into(),
            model: "claude-opus-4-8".into(),
        };
        let host = Host::parse("api.anthropic.com").unwrap();
        let api = ModelApi::of_host(&host);
        assert_eq!(set.covering(&labels, &host, api).limits.len(), 3);
        group.bench_function(format!("concerns_{agents}"), |bencher| {
            bencher.iter(|| set.concerns(&labels.agent, &host, api));
        });
        group.bench_function(format!("covering_{agents}"), |bencher| {
            bencher.iter(|| set.covering(&labels, &host, api));
        });
    }
    group.finish();
}

criterion_group!(benches, budget_lookup);
criterion_main!(benches);
