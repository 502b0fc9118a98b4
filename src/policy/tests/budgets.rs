//! What budgets do to policy: the calls they count are read, and never pass through a tunnel.

use super::fixture::{ask, engine, verdict, why, with_budgets};
use crate::policy::engine::Engine;
use crate::types::host::HostPattern;
use crate::types::model_api::ModelApi;

const CAP: &str = "limits: [{unit: usd, max: 5, window: total}]";
const CALLS: &str = "limits: [{unit: requests, max: 5, window: total}]";

fn engine_with(policies: &[&str], budgets: &[&str]) -> Engine {
    with_budgets(policies, budgets).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn codes(policies: &[&str], budgets: &[&str]) -> Vec<String> {
    let errors = with_budgets(policies, budgets).err().unwrap_or_default();
    let one = |error: &crate::config::error::ConfigError| {
        assert!(error.help.is_some());
        let place = error.place.as_ref().unwrap();
        format!("{} {}:{}", error.code, place.file.name, place.line)
    };
    errors.iter().map(one).collect()
}

fn shown(patterns: &[HostPattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

#[test]
fn the_tls_of_a_counted_host_is_ended_for_the_agents_of_the_budget() {
    let policy = "egress: [{hosts: [api.anthropic.com, files.example.com]}]";
    let budget = format!("match: {{agents: [team-a/*]}}\n{CAP}");
    let engine = engine_with(&[policy], &[&budget]);
    for (agent, asked, expected) in [
        (
            "team-a/x",
            "CONNECT api.anthropic.com:443",
            "intercept a.yaml:1",
        ),
        (
            "team-a/x",
            "POST https://api.anthropic.com/v1/messages",
            "intercept a.yaml:1",
        ),
        (
            "team-a/x",
            "CONNECT files.example.com:443",
            "tunnel a.yaml:1",
        ),
        (
            "team-b/x",
            "CONNECT api.anthropic.com:443",
            "tunnel a.yaml:1",
        ),
    ] {
        assert_eq!(verdict(&engine, agent, asked), expected, "{agent} {asked}");
    }
    assert_eq!(shown(&engine.intercepted_hosts()), ["api.anthropic.com"]);
    assert!(
        super::fixture::engine(&[policy])
            .intercepted_hosts()
            .is_empty()
    );
}

#[test]
fn hosts_that_a_budget_names_are_read_too_and_others_then_are_not() {
    let policy = "egress: [{hosts: [api.anthropic.com, api.example.com, '*.example.org']}]";
    let budget = format!("match: {{hosts: [api.example.com, '*.example.org']}}\n{CALLS}");
    let engine = engine_with(&[policy], &[&budget]);
    for (asked, expected) in [
        ("CONNECT api.example.com:443", "intercept a.yaml:1"),
        ("CONNECT a.example.org:443", "intercept a.yaml:1"),
        ("CONNECT api.anthropic.com:443", "tunnel a.yaml:1"),
    ] {
        assert_eq!(verdict(&engine, "agent", asked), expected, "{asked}");
    }
    assert_eq!(
        shown(&engine.intercepted_hosts()),
        ["api.example.com", "*.example.org"]
    );
}

#[test]
fn a_rule_says_which_api_a_host_speaks() {
    let policy = "egress:\n- {hosts: [llm.example.com], ports: [443], api: OpenAI}\n- {hosts: [llm.example.com], ports: [8443]}\n- {hosts: [api.anthropic.com, a.com]}";
    let engine = engine_with(&[policy], &[CAP]);
    let api = |asked: &str| ask(&engine, "agent", asked).unwrap().api();
    assert_eq!(
        api("POST https://llm.example.com/v1/responses"),
        Some(ModelApi::OpenAI)
    );
    assert_eq!(api("POST https://llm.example.com:8443/v1/responses"), None);
    assert_eq!(
        api("CONNECT api.anthropic.com:443"),
        Some(ModelApi::Anthropic)
    );
    assert_eq!(api("CONNECT a.com:443"), None);
    assert_eq!(
        verdict(&engine, "agent", "CONNECT llm.example.com:443"),
        "intercept a.yaml:2"
    );
    assert_eq!(
        verdict(&engine, "agent", "CONNECT llm.example.com:8443"),
        "tunnel a.yaml:3"
    );
}

#[test]
fn what_only_a_wide_rule_or_an_open_mode_reaches_is_read_if_the_authority_may_sign_it() {
    let wide = "egress: [{hosts: ['*.anthropic.com']}]";
    let open = "mode: open\negress: []";
    for (policy, rule) in [(wide, " a.yaml:1"), (open, "")] {
        let engine = engine_with(&[policy], &[CAP]);
        let asked = "CONNECT api.anthropic.com:443";
        assert_eq!(verdict(&engine, "agent", asked), format!("intercept{rule}"));
        assert!(shown(&engine.signed_hosts()).contains(&"api.anthropic.com".to_owned()));
        // An authority from before the budget.
        let engine = engine.signed_by(|_| false);
        assert_eq!(verdict(&engine, "agent", asked), "deny uncounted_tunnel");
        let request = "POST https://api.anthropic.com/v1/messages";
        assert_eq!(verdict(&engine, "agent", request), "deny uncounted_tunnel");
        // Cleartext needs no certificate.
        let plain = "POST http://api.anthropic.com/v1/messages";
        assert!(!verdict(&engine, "agent", plain).starts_with("deny"));
        assert!(
            !verdict(&engine, "agent", "CONNECT www.anthropic.com:443").starts_with("intercept")
        );
    }
    let report = engine_with(&["mode: report\negress: []"], &[CAP]);
    assert_eq!(
        verdict(&report, "agent", "CONNECT api.openai.com:443"),
        "intercept would deny host_not_allowed"
    );
}

#[test]
fn an_authority_is_asked_to_sign_nothing_that_agents_cannot_reach() {
    let engine = engine_with(&["egress: [{hosts: [a.com]}]"], &[CAP]);
    assert!(engine.signed_hosts().is_empty());
    let other_agents = format!("match: {{agents: [x]}}\n{CAP}");
    let policy = "mode: open\nagents: {names: [y]}\negress: []";
    assert!(
        engine_with(&[policy], &[&other_agents])
            .signed_hosts()
            .is_empty()
    );
}

#[test]
fn what_is_counted_is_never_passed_through() {
    let passed = "egress:\n- {hosts: [api.anthropic.com], tls: Passthrough}";
    assert_eq!(codes(&[passed], &[CAP]), ["TG0404 a.yaml:2"]);
    let others = format!("match: {{agents: [x]}}\n{CAP}");
    let policy = format!("agents: {{names: [y]}}\n{passed}");
    assert_eq!(codes(&[&policy], &[&others]), [""; 0]);
    let elsewhere = format!("match: {{hosts: [a.com]}}\n{CALLS}");
    assert_eq!(codes(&[passed], &[&elsewhere]), [""; 0]);
    // A wide rule may pass other hosts through; the counted one is refused.
    let wide = "egress: [{hosts: ['*.anthropic.com'], tls: Passthrough}]";
    let engine = engine_with(&[wide], &[CAP]);
    let asked = "CONNECT api.anthropic.com:443";
    assert_eq!(verdict(&engine, "agent", asked), "deny uncounted_tunnel");
    assert_eq!(
        verdict(&engine, "agent", "CONNECT www.anthropic.com:443"),
        "tunnel a.yaml:1"
    );
    let denial = ask(&engine, "agent", asked).unwrap_err();
    assert_eq!(
        denial.to_string(),
        "CONNECT api.anthropic.com:443 is not allowed for agent agent: a.yaml:1 passes its bytes unread, and a budget counts its calls. Retrying will not help. Ask the operator to write `tls: Intercept` at a.yaml:1."
    );
}

#[test]
fn a_host_speaks_one_api_and_one_that_can_be_counted() {
    let two = "egress:\n- {hosts: [a.com], api: OpenAI}\n- {hosts: [a.com], api: Ollama, http: [{paths: [/x]}]}";
    assert_eq!(codes(&[two], &[]), ["TG0405 a.yaml:3"]);
    let plain = "egress: [{hosts: [a.com]}]";
    let named = format!("match:\n  hosts: [a.com]\n{CAP}");
    assert_eq!(codes(&[plain], &[&named]), ["TG0406 x.yaml:2"]);
    assert_eq!(
        codes(&["egress: [{hosts: [a.com], api: OpenAI}]"], &[&named]),
        [""; 0]
    );
    let priced = format!("{named}\nunmetered: [{{paths: ['/**'], usd: 1}}]");
    assert_eq!(codes(&[plain], &[&priced]), [""; 0]);
    let useless = "egress: [{hosts: [a.com], api: OpenAI, tls: Passthrough}, {hosts: [b.com], api: OpenAI, action: Deny}]";
    assert_eq!(
        codes(&[useless], &[]),
        ["TG0509 a.yaml:1", "TG0509 a.yaml:1"]
    );
}

#[test]
fn why_tells_which_budget_counts_a_call() {
    let engine = engine_with(&["egress: [{hosts: ['*.anthropic.com']}]"], &[CAP]);
    let asked = "POST https://api.anthropic.com/v1/messages";
    assert_eq!(
        why(&engine, "agent", asked).to_string(),
        "ALLOW POST https://api.anthropic.com/v1/messages for agent\n  a.yaml:1 allows it\n  TLS is ended here\n  budget x counts it"
    );
    let engine = engine.signed_by(|_| false);
    assert_eq!(
        why(&engine, "agent", asked).to_string(),
        "DENY POST https://api.anthropic.com/v1/messages for agent\n  a.yaml:1 allows it, could it be counted\n  a budget counts its calls, and the certificate authority may not sign api.anthropic.com to read them.\n  fix: add a rule with `hosts: [\"api.anthropic.com\"]`, and make a new authority with `tollgate ca init --force`"
    );
    let without = super::fixture::engine(&["egress: [{hosts: ['*.anthropic.com']}]"]);
    assert!(!why(&without, "agent", asked).to_string().contains("budget"));
}

#[test]
fn without_budgets_nothing_is_different() {
    let engine = engine(&["mode: open\negress: [{hosts: [api.openai.com]}]"]);
    assert_eq!(
        verdict(&engine, "agent", "CONNECT api.openai.com:443"),
        "tunnel a.yaml:2"
    );
    assert_eq!(
        verdict(&engine, "agent", "CONNECT api.anthropic.com:443"),
        "tunnel"
    );
    assert!(engine.signed_hosts().is_empty());
}
