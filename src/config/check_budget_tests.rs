//! Budgets in files, good and bad: what is loaded, and what is said.

use tempfile::TempDir;

use crate::config::budget::{GroupBySpec, OnStoreUnavailableSpec, UnknownModelSpec, WindowSpec};
use crate::config::bundle::Bundle;
use crate::config::check_budget::{check_executions, unpriced};
use crate::config::error::ConfigError;
use crate::config::load::load_bundle;
use crate::config::located::Located;
use crate::config::root::{ExecutionSpec, IdentitySpec};

const HEAD: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: { name: b }\n";

fn load(text: &str) -> Result<Bundle, Vec<ConfigError>> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, text).unwrap();
    load_bundle(&[file], &[])
}

/// `code underlined` of every error of a budget with this `spec`.
fn said(spec: &str) -> Vec<String> {
    let errors = load(&format!("{HEAD}spec: {spec}\n"))
        .err()
        .unwrap_or_default();
    let one = |error: &ConfigError| {
        assert!(error.help.is_some() || error.code < "TG07", "{error}");
        let place = error.place.as_ref().unwrap();
        let line = place.file.text.lines().nth(place.line as usize - 1);
        let text = line.unwrap().chars().skip(place.column as usize - 1);
        let text: String = text.take(place.length as usize).collect();
        format!("{} {text}", error.code)
    };
    errors.iter().map(one).collect()
}

#[test]
fn a_cap_is_five_lines() {
    let text = "\
apiVersion: tollgate.dev/v1alpha1
kind: EgressBudget
metadata: { name: daily }
spec:
  limits: [{ unit: usd, max: 5.00, window: { calendar: day } }]
";
    let bundle = load(text).unwrap();
    assert_eq!(bundle.len(), 1);
    let limit = &bundle.budgets[0].spec.limits[0];
    // Not quoted, and yet every digit is there.
    assert_eq!(limit.max.value.0, "5.00");
    assert_eq!(limit.amount(), Some(5_000_000_000));
}

#[test]
fn everything_that_can_be_written_is_read() {
    let text = "\
apiVersion: tollgate.dev/v1alpha1
kind: EgressBudget
metadata: { name: team-a, namespace: ns, uid: 8f14, labels: { a: b } }
spec:
  match:
    agents: [team-a/*, scan]
    models: [claude-*]
    hosts: [api.anthropic.com, '*.example.com']
    groupBy: [namespace, model]
  limits:
    - { unit: usd, max: '5.000000001', window: { calendar: month, tz: Europe/Berlin }, carryDebt: true }
    - { unit: tokens, max: 20000000, window: { rolling: 1h }, weights: { cache_read: 0.1, cache_write_1h: 2, output: '5' } }
    - { unit: requests, max: 1000, window: { fixed: 6h } }
    - { unit: usd, max: 100, window: total }
    - { unit: usd, max: 1, window: execution }
  enforcement: hard
  exhaustedStatus: 429
  streams: { mode: strict, onExhausted: finish }
  contention: { queue: 5s, waiters: 8 }
  alerts: [10, 100]
  unknownModel: { priceAs: claude-opus-4-8 }
  onStoreUnavailable: { allowUpTo: '0.50' }
  unmetered:
    - { methods: [POST], paths: [/v1/messages/batches], usd: '0.50', tokens: 100000 }
  rate: { requests: 60/min, burst: 20 }
  concurrency: 8
";
    let bundle = load(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let budget = &bundle.budgets[0];
    assert_eq!(budget.uid.as_deref(), Some("8f14"));
    let spec = &budget.spec;
    let amounts: Vec<_> = spec
        .limits
        .iter()
        .map(|limit| limit.amount().unwrap())
        .collect();
    assert_eq!(
        amounts,
        [
            5_000_000_001,
            20_000_000_000,
            1000,
            100_000_000_000,
            1_000_000_000
        ]
    );
    let weights = spec.limits[1].weights.as_ref().unwrap();
    let thousandths = weights
        .classes()
        .map(|weight| weight.map(|w| w.value.thousandths().unwrap()));
    assert_eq!(
        thousandths,
        [None, None, Some(2000), Some(100), Some(5000), None, None]
    );
    assert_eq!(
        spec.limits[4].window.as_ref().unwrap().value,
        WindowSpec::Word("execution".into())
    );
    let groups = spec.selector.group_by.as_ref().unwrap();
    assert_eq!(groups[1].value, GroupBySpec::Model);
    assert!(
        matches!(&spec.unknown_model, UnknownModelSpec::PriceAs(m) if **m == "claude-opus-4-8")
    );
    assert!(
        matches!(&spec.on_store_unavailable, OnStoreUnavailableSpec::AllowUpTo(n) if n.value.nano_usd() == Some(500_000_000))
    );
}

#[test]
fn what_is_wrong_with_a_limit_is_said_where_it_stands() {
    let limit = |limit: &str| said(&format!("{{ limits: [{{ {limit} }}] }}"));
    let day = "window: { calendar: day }";
    for (written, expected) in [
        ("unit: usd, max: \"5,00\", window: total", "TG0702 \"5,00\""),
        ("unit: usd, max: -1, window: total", "TG0702 -1"),
        ("unit: usd, max: 1e3, window: total", "TG0702 1e3"),
        (
            "unit: usd, max: 0.0000000001, window: total",
            "TG0702 0.0000000001",
        ),
        (
            "unit: usd, max: 9999999999999, window: total",
            "TG0702 9999999999999",
        ),
        ("unit: tokens, max: 1.5, window: total", "TG0702 1.5"),
        ("unit: euro, max: 1, window: total", "TG0206 euro"),
        ("unit: usd, max: 1", "TG0703 {"),
        ("unit: usd, max: 1, window: daily", "TG0703 daily"),
        ("unit: usd, max: 1, window: {}", "TG0703 {}"),
        (
            "unit: usd, max: 1, window: { fixed: 1h, rolling: 1h }",
            "TG0703 {",
        ),
        (
            "unit: usd, max: 1, window: { fixed: 1h, tz: UTC }",
            "TG0703 UTC",
        ),
        (
            "unit: usd, max: 1, window: { calendar: fortnight }",
            "TG0206 fortnight",
        ),
        (
            "unit: usd, max: 1, window: { calender: day }",
            "TG0203 calender",
        ),
        (
            "unit: usd, max: 1, window: { calendar: day, tz: Berlin }",
            "TG0704 Berlin",
        ),
        ("unit: usd, max: 1, window: { fixed: 10s }", "TG0705 10s"),
        (
            "unit: usd, max: 1, window: { rolling: 9000h }",
            "TG0705 9000h",
        ),
        (
            "unit: usd, max: 1, window: { fixed: 90500ms }",
            "TG0705 90500ms",
        ),
        (
            "unit: usd, max: 1, window: total, carryDebt: true",
            "TG0703 total",
        ),
        (
            "unit: usd, max: 1, window: { rolling: 1h }, carryDebt: true",
            "TG0703 {",
        ),
        (
            "unit: usd, max: 1, window: total, weights: { input: 1 }",
            "TG0706 {",
        ),
    ] {
        assert_eq!(limit(written), [expected], "{written}");
    }
    for (weights, expected) in [
        ("{ cache_read: 0.0001 }", "TG0706 0.0001"),
        ("{ cacheRead: 0.1 }", "TG0203 cacheRead"),
        ("{ input: 1001 }", "TG0706 1001"),
    ] {
        let written = format!("unit: tokens, max: 1, {day}, weights: {weights}");
        assert_eq!(limit(&written), [expected], "{written}");
    }
    let nothing = "{ input: 0, cache_write_5m: 0, cache_write_1h: 0, cache_read: 0, output: 0, audio_input: 0, audio_output: 0 }";
    let written = format!("unit: tokens, max: 1, {day}, weights: {nothing}");
    assert_eq!(limit(&written), ["TG0706 {"]);
}

#[test]
fn a_model_that_stands_in_for_unknown_ones_has_a_price_itself() {
    let spec = "{limits: [{unit: usd, max: 1, window: total}], unknownModel: {priceAs: nope}}";
    let bundle = load(&format!("{HEAD}spec: {spec}\n")).unwrap();
    assert!(unpriced(&bundle, |model| model == "nope").is_empty());
    let errors = unpriced(&bundle, |_| false);
    let place = errors[0].place.as_ref().unwrap();
    assert_eq!((errors[0].code, place.line), ("TG0716", 4));
}

#[test]
fn what_is_wrong_with_a_budget_is_said_where_it_stands() {
    assert_eq!(said("{}"), ["TG0701 apiVersion"]);
    let some = "limits: [{ unit: requests, max: 1, window: total }]";
    for (written, expected) in [
        ("match: { agents: [\"a b\"] }", "TG0707 \"a b\""),
        ("match: { agents: [\"*a\"] }", "TG0707 \"*a\""),
        ("match: { agents: [a/b/*] }", "TG0707 a/b/*"),
        ("match: { models: [\"\"] }", "TG0707 \"\""),
        ("match: { models: [\"*-4\"] }", "TG0707 \"*-4\""),
        ("match: { hosts: [https://a.com] }", "TG0304 https://a.com"),
        ("match: { groupBy: [none, agent] }", "TG0708 none"),
        ("match: { groupBy: [agent, agent] }", "TG0708 agent"),
        (
            "match: { groupBy: [serviceAccount] }",
            "TG0206 serviceAccount",
        ),
        ("match: { groupBy: [] }", "TG0708 ["),
        ("enforcement: soft\n  rate: { requests: 6/s }", "TG0713 {"),
        ("enforcement: soft\n  concurrency: 1", "TG0713 1"),
        ("alerts: [50, 50]", "TG0709 50"),
        ("alerts: [0]", "TG0709 0"),
        ("alerts: [101]", "TG0709 101"),
        ("unknownModel: { priceAs: x }", "TG0713 x"),
        ("unknownModel: allow", "TG0206 allow"),
        ("onStoreUnavailable: { allowUpTo: 0.5 }", "TG0713 0.5"),
        ("onStoreUnavailable: { allowUpTo: much }", "TG0702 much"),
        ("exhaustedStatus: 401", "TG0715 401"),
        ("exhaustedStatus: 503", "TG0715 503"),
        ("unmetered: [{ usd: 1 }]", "TG0712 {"),
        ("unmetered: [{ paths: [/x], usd: a }]", "TG0702 a"),
        (
            "unmetered: [{ paths: [/x], methods: [post] }]",
            "TG0305 post",
        ),
        ("rate: { requests: 60 }", "TG0207 60"),
        ("rate: { requests: 6/s, burst: 0 }", "TG0711 {"),
        ("concurrency: 0", "TG0711 0"),
        ("lowerMaxTokens: { max: 1024 }", "TG0203 max"),
        ("lowerMaxTokens: { min: 0 }", "TG0207 min"),
    ] {
        assert_eq!(
            said(&format!("\n  {written}\n  {some}")),
            [expected],
            "{written}"
        );
    }
    for (unit, missing) in [("usd", "TG0712"), ("tokens", "TG0712")] {
        let found = said(&format!(
            "{{ limits: [{{ unit: {unit}, max: 1, window: total }}], unmetered: [{{ paths: [/x] }}] }}"
        ));
        assert!(
            found.len() == 1 && found[0].starts_with(missing),
            "{found:?}"
        );
    }
}

#[test]
fn names_are_unique_among_budgets() {
    let one = format!("{HEAD}spec: {{ concurrency: 1 }}\n");
    let errors = load(&format!("{one}---\n{one}")).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].code, "TG0209");
    assert!(errors[0].message.contains("EgressBudget `b`"));
}

#[test]
fn executions_are_told_apart_only_where_something_tells_them() {
    let text = format!(
        "{HEAD}spec:\n  match: {{ groupBy: [execution] }}\n  limits:\n    - {{ unit: usd, max: 1, window: execution }}\n    - {{ unit: usd, max: 1, window: total }}\n"
    );
    let bundle = load(&text).unwrap();
    let mut identity = IdentitySpec::default();
    let errors = check_executions(&bundle, &identity);
    let lines: Vec<_> = errors
        .iter()
        .map(|error| (error.code, error.place.as_ref().unwrap().line))
        .collect();
    assert_eq!(lines, [("TG0714", 5), ("TG0714", 7)]);
    identity.execution = Some(Located::unwritten(ExecutionSpec::Made("run-1".into())));
    assert!(check_executions(&bundle, &identity).is_empty());
}
