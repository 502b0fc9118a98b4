//! Which pairs of rules cannot stand together.

use super::fixture::{engine, errors, verdict};

const HOST: &str = "hosts: [api.github.com]";

/// The codes and labels of the errors of two rules, in one policy each.
fn pair(one: &str, other: &str) -> Vec<String> {
    let policy = |rule: &str| format!("egress:\n- {{{HOST}{rule}}}\n");
    let found = errors(&[&policy(one), &policy(other)]);
    found
        .iter()
        .map(|e| format!("{} {}", e.code, e.label.clone().unwrap_or_default()))
        .collect()
}

#[test]
fn equal_rules_that_contradict_are_errors_naming_both_places() {
    for (one, other, code) in [
        ("", ", action: Deny", "TG0401"),
        ("", ", timeouts: {idle: 1h}", "TG0401"),
        ("", ", allowAddresses: [10.0.0.0/8]", "TG0401"),
        ("", ", upstream: {caFile: /ca.pem}", "TG0401"),
        ("", ", sni: Optional", "TG0401"),
        (
            ", credentials: [github]",
            ", credentials: [github], ambiguousPaths: Pass",
            "TG0401",
        ),
        (
            ", credentials: [github]",
            ", credentials: [github], unknownCodings: Pass",
            "TG0401",
        ),
        (
            ", http: [{paths: [/a/**]}]",
            ", http: [{paths: [/a/**]}], action: Deny",
            "TG0401",
        ),
        (
            ", http: [{paths: [/a/*]}]",
            ", http: [{paths: [/*/b]}], action: Deny",
            "TG0401",
        ),
        (
            ", http: [{methods: [GET, PUT]}]",
            ", http: [{methods: [PUT]}], action: Deny",
            "TG0401",
        ),
        (
            ", http: [{paths: [/%61]}]",
            ", http: [{paths: [/a]}], action: Deny",
            "TG0401",
        ),
        ("", ", http: [{paths: ['/**']}], action: Deny", "TG0401"),
        (", tls: Passthrough", ", tls: Intercept", "TG0402"),
        (", tls: Passthrough", ", credentials: [github]", "TG0402"),
        (
            ", http: [{paths: [/a]}], action: Deny",
            ", tls: Passthrough",
            "TG0402",
        ),
    ] {
        assert_eq!(
            pair(one, other),
            [format!("{code} contradicts a.yaml:2")],
            "{one} | {other}"
        );
        assert_eq!(
            pair(other, one),
            [format!("{code} contradicts a.yaml:2")],
            "{other} | {one}"
        );
    }
}

#[test]
fn rules_that_never_meet_may_differ() {
    for (one, other) in [
        (", http: [{paths: [/a/**]}]", ", action: Deny"),
        (
            ", http: [{methods: [GET]}]",
            ", http: [{methods: [PUT]}], action: Deny",
        ),
        (", http: [{methods: [GET]}]", ", action: Deny"),
        (
            ", http: [{paths: [/a/*]}]",
            ", http: [{paths: [/b/*]}], action: Deny",
        ),
        (", ports: [443]", ", ports: [80], action: Deny"),
        (
            ", tls: Passthrough, ports: [443]",
            ", tls: Intercept, ports: [80]",
        ),
        (
            ", http: [{paths: [/a]}]",
            ", http: [{paths: [/b]}], timeouts: {idle: 1h}",
        ),
        (", credentials: [github]", ""),
        (", tls: Intercept", ""),
        ("", ""),
    ] {
        assert_eq!(pair(one, other), [""; 0], "{one} | {other}");
    }
}

#[test]
fn policies_of_different_agents_may_differ() {
    let policy = |agents: &str, rule: &str| {
        format!("agents: {{names: [{agents}]}}\negress:\n- {{{HOST}{rule}}}\n")
    };
    let apart = [policy("a", ""), policy("b", ", action: Deny")];
    let engine = engine(&[&apart[0], &apart[1]]);
    assert_eq!(
        verdict(&engine, "a", "CONNECT api.github.com:443"),
        "tunnel a.yaml:3"
    );
    assert_eq!(
        verdict(&engine, "b", "CONNECT api.github.com:443"),
        "deny denied_by_rule"
    );
    let meeting = [policy("team-*", ""), policy("team-b", ", action: Deny")];
    assert_eq!(errors(&[&meeting[0], &meeting[1]]).len(), 1);
}

#[test]
fn rules_that_share_many_hosts_are_told_once() {
    let hosts = "hosts: [a.example.com, b.example.com, '*.example.org']";
    let policy = format!("egress:\n- {{{hosts}}}\n- {{{hosts}, action: Deny}}\n");
    let found = errors(&[&policy]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].place.as_ref().map(|place| place.line), Some(3));
}

#[test]
fn a_wildcard_and_an_exact_host_never_contradict() {
    let policy = "egress:\n- hosts: ['*.github.com']\n- {hosts: [api.github.com], action: Deny}\n";
    assert!(errors(&[policy]).is_empty());
}
