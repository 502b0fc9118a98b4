//! Which budgets a call falls under, and what they say together.

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::budget::covering::Unpriced;
use crate::budget::fixture::{labels, set};
use crate::config::budget::StreamMode;
use crate::types::money::NanoUsd;

const CAP: &str = "limits: [{ unit: usd, max: 5, window: { calendar: day } }]";
const CALLS: &str = "limits: [{ unit: requests, max: 5, window: total }]";

fn host(name: &str) -> (Host, Option<ModelApi>) {
    let host = Host::parse(name).unwrap();
    let api = ModelApi::of_host(&host);
    (host, api)
}

/// The names of the budgets that cover a call.
fn names(set: &BudgetSet, agent: &str, model: &str, at: &str) -> Vec<String> {
    let (host, api) = host(at);
    let labels = labels(agent, model);
    let covering = set.covering(&labels, &host, api);
    let concerned = set.concerns(&labels.agent, &host, api);
    assert!(concerned || covering.is_empty());
    let ids: Vec<_> = covering
        .limits
        .iter()
        .map(|limit| limit.id.clone())
        .collect();
    assert!(ids.is_sorted());
    covering
        .budgets
        .iter()
        .map(|b| b.name.to_string())
        .collect()
}

#[test]
fn every_budget_that_matches_covers_a_call() {
    let with = |matches: &str| format!("match: {{ {matches} }}, {CAP}");
    let set = set(&[
        ("name: all", CAP),
        (
            "name: scan",
            &with("agents: [team-a/scan, team-a/s*, team-a/*]"),
        ),
        ("name: team", &with("agents: [team-a/*]")),
        ("name: star", &with("agents: ['*'], models: [gpt-*]")),
        (
            "name: claude",
            &with("agents: [team-a/scan], models: [claude-*, o3]"),
        ),
        ("name: gateway", &with("hosts: ['*.example.com']")),
    ]);
    for (agent, model, at, expected) in [
        (
            "other",
            "claude-opus-4-8",
            "api.anthropic.com",
            &["all"][..],
        ),
        (
            "team-a/fix",
            "claude-opus-4-8",
            "api.anthropic.com",
            &["all", "scan", "team"],
        ),
        (
            "team-a/scan",
            "claude-opus-4-8",
            "api.anthropic.com",
            &["all", "claude", "scan", "team"],
        ),
        (
            "team-a/scan",
            "gpt-5.2",
            "api.openai.com",
            &["all", "scan", "star", "team"],
        ),
        ("other", "gpt-5.2", "llm.example.com", &["gateway"]),
        ("other", "", "api.github.com", &[]),
        // An endpoint that names no model may use any.
        ("other", "", "api.openai.com", &["all", "star"]),
    ] {
        assert_eq!(
            names(&set, agent, model, at),
            expected,
            "{agent} {model} {at}"
        );
    }
    assert!(names(&BudgetSet::default(), "a", "m", "api.openai.com").is_empty());
}

#[test]
fn models_that_may_step_in_are_covered_as_well() {
    let set = set(&[(
        "name: dear",
        &format!("match: {{ models: [claude-opus-*] }}, {CAP}"),
    )]);
    let (host, api) = host("api.anthropic.com");
    let labels = labels("a", "claude-haiku-4-5");
    assert!(set.covering(&labels, &host, api).is_empty());
    let others = ["claude-opus-4-8".into()];
    assert!(!set.covering_any(&labels, &others, &host, api).is_empty());
}

#[test]
fn what_cannot_be_metered_passes_only_where_every_hard_budget_prices_it() {
    let priced = "unmetered: [{ methods: [POST], paths: [/v1/files/**], usd: 0.5, tokens: 10 }, { paths: [/v1/files/big], usd: 2 }]";
    let set = |more: &[(&str, &str)]| {
        let mut all = vec![("name: a", format!("{CAP}, {priced}"))];
        all.extend(more.iter().map(|(name, spec)| (*name, (*spec).to_owned())));
        let all: Vec<_> = all
            .iter()
            .map(|(name, spec)| (*name, spec.as_str()))
            .collect();
        let (host, api) = host("api.openai.com");
        set(&all).covering(&labels("x", ""), &host, api)
    };
    let covering = set(&[
        ("name: calls", CALLS),
        ("name: soft", &format!("{CAP}, enforcement: soft")),
    ]);
    let price = |method, path| {
        covering
            .fixed_price(&method, path)
            .ok()
            .map(|p| p.usd.0 / 100_000_000)
    };
    assert_eq!(price(Method::POST, "/v1/files/x"), Some(5));
    assert_eq!(price(Method::POST, "/v1/files/big"), Some(20));
    assert_eq!(price(Method::GET, "/v1/files/x"), None);
    assert_eq!(price(Method::POST, "/v1/batches"), None);
    // What might be read as another endpoint has no price.
    assert_eq!(price(Method::POST, "/v1/files/%2e%2e/batches"), None);
    let covering = set(&[("name: strict", CAP)]);
    let refused = covering
        .fixed_price(&Method::POST, "/v1/files/x")
        .unwrap_err();
    assert_eq!(&*refused.name, "strict");
}

#[test]
fn the_strictest_budget_decides() {
    let (host, api) = host("api.openai.com");
    let covering = |budgets: &[(&str, &str)]| set(budgets).covering(&labels("x", "m"), &host, api);
    let strict = format!("{CAP}, streams: {{ mode: strict }}");
    let priced =
        format!("{CAP}, unknownModel: {{ priceAs: m1 }}, onStoreUnavailable: {{ allowUpTo: 0.5 }}");
    let soft = format!("{CAP}, enforcement: soft");
    let one = covering(&[("name: a", &priced), ("name: s", &soft)]);
    assert_eq!(one.stream_mode(), StreamMode::Tranche);
    assert_eq!(one.unpriced(), Unpriced::PricedAs(vec!["m1".into()]));
    assert_eq!(one.without_store(), NanoUsd(500_000_000));
    let two = covering(&[("name: a", &priced), ("name: b", &strict)]);
    assert_eq!(two.stream_mode(), StreamMode::Strict);
    assert_eq!(two.unpriced(), Unpriced::Refused("b".into()));
    assert_eq!(two.without_store(), NanoUsd(0));
    let calls = covering(&[("name: c", CALLS), ("name: s", &soft)]);
    assert_eq!(calls.unpriced(), Unpriced::Free);
    assert_eq!(calls.request_limits().len(), 1);
    assert!(calls.measures());
    let found = calls.budget_of(&calls.limits[0]).unwrap();
    assert_eq!(found.limits[0].id, calls.limits[0].id);
}

proptest! {
    /// The index finds what asking every budget in turn finds.
    #[test]
    fn the_index_forgets_no_budget(
        patterns in prop::collection::vec("[ab]{0,3}(/[ab]{1,2})?[*]?", 0..12),
        agent in "[ab]{1,3}(/[ab]{1,2})?",
    ) {
        let patterns: Vec<_> = patterns
            .into_iter()
            .filter(|p| !p.is_empty() && !p.starts_with('/'))
            .collect();
        let specs: Vec<_> = patterns
            .iter()
            .enumerate()
            .map(|(i, p)| (format!("name: b{i}"), format!("match: {{ agents: ['{p}'] }}, concurrency: 1")))
            .collect();
        let specs: Vec<_> = specs.iter().map(|(n, s)| (n.as_str(), s.as_str())).collect();
        prop_assume!(!specs.is_empty());
        let set = set(&specs);
        let (host, api) = host("api.openai.com");
        let labels = labels(&agent, "m");
        let found = set.covering(&labels, &host, api).budgets;
        let expected: Vec<_> = set.budgets().iter().filter(|b| b.selector.names(&agent)).collect();
        prop_assert_eq!(found.len(), expected.len());
        prop_assert!(found.iter().zip(expected).all(|(a, b)| a.key == b.key));
        prop_assert_eq!(set.concerns(&labels.agent, &host, api), !found.is_empty());
    }
}
