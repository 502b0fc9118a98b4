//! Measures one decision: with one rule, and with ten thousand of which one is for the host.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that fails should stop"
)]

use std::fmt::Write;

use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use tollgate::config::load::load_bundle;
use tollgate::policy::compile::compile;
use tollgate::policy::engine::Engine;
use tollgate::types::agent::Agent;
use tollgate::types::host::Authority;
use tollgate::types::intent::{EgressIntent, RequestLine, Scheme};

/// A policy that names `hosts` hosts with two path rules each.
fn engine(hosts: usize) -> Engine {
    let mut text = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: bench}\nspec:\n  egress:\n".to_owned();
    for index in 0..hosts {
        writeln!(
            text,
            "    - hosts: [h{index}.example.com]\n      http:\n        - {{methods: [POST], paths: [/v1/messages]}}\n        - {{paths: [/v1/**]}}"
        )
        .unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    std::fs::write(&file, text).unwrap();
    compile(&load_bundle(&[file], &[]).unwrap()).unwrap()
}

fn policy_match(criterion: &mut Criterion) {
    let agent = Agent::parse("agent").unwrap();
    let mut group = criterion.benchmark_group("policy_match");
    for hosts in [1, 10_000] {
        let engine = engine(hosts);
        let name = format!("h{}.example.com:443", hosts / 2);
        let authority = Authority::parse(&name, None).unwrap();
        let ask = |path| EgressIntent {
            agent: &agent,
            authority: &authority,
            scheme: Scheme::Https,
            request: Some(RequestLine {
                method: &Method::POST,
                path,
            }),
        };
        group.bench_function(format!("allowed_{hosts}"), |bencher| {
            bencher.iter(|| engine.authorize(&ask("/v1/messages")).unwrap());
        });
        group.bench_function(format!("refused_{hosts}"), |bencher| {
            bencher.iter(|| engine.authorize(&ask("/v2/messages")).unwrap_err());
        });
    }
    group.finish();
}

criterion_group!(benches, policy_match);
criterion_main!(benches);
