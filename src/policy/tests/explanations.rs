//! What `tollgate why` says.

use crate::policy::explain::{Outcome, Verdict};

use super::fixture::{engine, why};

const POLICIES: [&str; 2] = [
    "egress:
- hosts: ['*.github.com']
- hosts: [api.github.com]
  credentials: [github]
  http: [{methods: [GET]}]
- hosts: [api.github.com]
  action: Deny
  http: [{paths: [/admin/**]}]
",
    "mode: report
agents: {names: [other]}
egress:
- hosts: [api.github.com]
  http: [{methods: [PUT]}]
",
];

#[test]
fn a_refusal_names_the_rules_and_the_edit() {
    let explanation = why(
        &engine(&POLICIES),
        "scan",
        "POST https://api.github.com/repos/acme/web/merges",
    );
    assert_eq!(
        explanation.to_string(),
        "DENY POST https://api.github.com/repos/acme/web/merges for scan
  a.yaml:3 matches the host but allows only GET
  a.yaml:6 matches the host but refuses only /admin/**
  b.yaml:4 is for other agents (other)
  a.yaml:2 is not looked at, since rules name the host more narrowly
  fix: add POST to methods on line 3"
    );
    assert_eq!(explanation.verdict, Verdict::Deny);
    assert_eq!(explanation.rule, None);
}

#[test]
fn the_short_case_is_three_lines() {
    let engine = engine(&["egress:\n- hosts: [api.github.com]\n  http: [{methods: [GET]}]\n"]);
    assert_eq!(
        why(&engine, "marketing/scan", "POST https://api.github.com/x").to_string(),
        "DENY POST https://api.github.com/x for marketing/scan
  a.yaml:2 matches the host but allows only GET
  fix: add POST to methods on line 2"
    );
    assert_eq!(
        why(&engine, "scan", "CONNECT pypi.org:443").to_string(),
        "DENY CONNECT pypi.org:443 for scan
  no rule allows pypi.org.
  fix: add a rule with `hosts: [\"pypi.org\"]`"
    );
}

#[test]
fn a_permit_names_its_rule_and_credentials() {
    let explanation = why(&engine(&POLICIES), "scan", "GET https://api.github.com/x");
    assert_eq!(
        explanation.to_string(),
        "ALLOW GET https://api.github.com/x for scan
  a.yaml:3 allows it
  a.yaml:6 matches the host but refuses only /admin/**
  b.yaml:4 is for other agents (other)
  a.yaml:2 is not looked at, since rules name the host more narrowly
  TLS is ended here; credentials: github"
    );
    assert_eq!(explanation.considered[0].outcome, Outcome::Decides);
}

#[test]
fn a_rule_that_refuses_is_named_before_the_one_it_overrules() {
    let explanation = why(
        &engine(&POLICIES),
        "scan",
        "GET https://api.github.com/admin/x",
    );
    assert_eq!(
        explanation
            .rule
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
        Some("a.yaml:6")
    );
    let outcomes = explanation
        .considered
        .iter()
        .map(|one| one.outcome)
        .collect::<Vec<_>>();
    assert_eq!(
        outcomes,
        [
            Outcome::Matches,
            Outcome::Decides,
            Outcome::OtherAgents,
            Outcome::WiderHost
        ]
    );
    assert_eq!(
        explanation.fix.as_deref(),
        Some("remove or narrow the rule on line 6")
    );
}

#[test]
fn an_ambiguous_path_and_an_unknown_agent_are_explained() {
    let ambiguous = why(
        &engine(&POLICIES),
        "scan",
        "GET https://api.github.com/a%2fb",
    )
    .to_string();
    assert!(
        ambiguous.contains("\n  a.yaml:3 allows it, were its path plain\n"),
        "{ambiguous}"
    );
    assert!(
        ambiguous.contains("\n  the path has an encoded slash (`%2F`)"),
        "{ambiguous}"
    );
    assert!(
        ambiguous.ends_with("\n  fix: set `ambiguousPaths: Pass` on line 3"),
        "{ambiguous}"
    );
    let unknown = why(
        &engine(&POLICIES[1..]),
        "scan",
        "GET https://api.github.com/",
    )
    .to_string();
    assert!(
        unknown.contains("\n  a.yaml:4 is for other agents (other)"),
        "{unknown}"
    );
    assert!(
        unknown.contains("\n  no policy selects this agent"),
        "{unknown}"
    );
}

#[test]
fn a_mode_that_lets_pass_is_said_so() {
    let engine = engine(&["mode: report\negress:\n- hosts: [a.example.com]\n"]);
    let explanation = why(&engine, "scan", "CONNECT b.example.com:443");
    assert_eq!(explanation.verdict, Verdict::AllowByMode);
    assert!(explanation.to_string().starts_with(
        "ALLOW CONNECT b.example.com:443 for scan\n  only because the mode is not enforce\n"
    ));
}

#[test]
fn it_serializes_without_loss() {
    let explanation = why(&engine(&POLICIES), "scan", "POST https://api.github.com/x");
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["verdict"], "deny");
    assert_eq!(json["reason"], "method_not_allowed");
    assert_eq!(json["considered"][0]["rule"]["file"], "a.yaml");
    assert_eq!(json["considered"][0]["outcome"], "other_methods");
}
