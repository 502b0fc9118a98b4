//! What compiling finds wrong with documents.

use crate::config::error::ConfigError;

use super::fixture::{errors, with_login};

/// What is said about a rule, with the text that stands under the caret.
fn said(rule: &str) -> Vec<String> {
    let policy = format!(
        "egress:
- {{{rule}}}
"
    );
    let found = errors(&[&policy]);
    let lines = policy.lines().collect::<Vec<_>>();
    let one = |error: &ConfigError| {
        let place = error.place.as_ref().unwrap();
        let line = lines[place.line as usize - 1].chars();
        let under = line
            .skip(place.column as usize - 1)
            .take(place.length as usize);
        let label = error.label.as_ref().map(|label| format!(" ({label})"));
        format!(
            "{} {} {}{}",
            error.code,
            under.collect::<String>(),
            error.message,
            label.unwrap_or_default()
        )
    };
    found.iter().map(one).collect()
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (rule, error) in [
        ("http: []", "TG0501 { a rule names no hosts"),
        (
            "preset: claud",
            "TG0501 claud the preset `claud` is not resolved",
        ),
        (
            "hosts: [https://a.com]",
            "TG0502 https://a.com write the host alone, without scheme, port or path (not a host pattern)",
        ),
        (
            "hosts: ['*.com']",
            "TG0502 '*.co `*.com` covers names that strangers can register; write a wildcard below a registrable domain (not a host pattern)",
        ),
        (
            "hosts: [a.com], http: [{paths: [v1]}]",
            "TG0503 v1 a path pattern begins with `/` (not a path pattern)",
        ),
        (
            "hosts: [a.com], http: [{paths: [/a%2fb]}]",
            "TG0503 /a%2fb the pattern has an encoded slash (`%2F`), so it does not name one resource (not a path pattern)",
        ),
        (
            "hosts: [a.com], http: [{methods: [get]}]",
            "TG0504 get `get` is not a method (did you mean `GET`?)",
        ),
        (
            "hosts: [a.com], http: [{methods: [PSOT]}]",
            "TG0504 PSOT `PSOT` is not a method (did you mean `POST`?)",
        ),
        (
            "hosts: [a.com], http: [{methods: ['G T']}]",
            "TG0504 'G  `G T` is not a method (did you mean `GET`?)",
        ),
        (
            "hosts: [a.com], http: [{methods: [purge]}]",
            "TG0504 purge `purge` is not a method",
        ),
        (
            "hosts: [api.github.com], credentials: [gihub]",
            "TG0505 gihub no credential is named `gihub` (did you mean `github`?)",
        ),
        (
            "hosts: [api.github.com], credentials: [x]",
            "TG0505 x no credential is named `x`",
        ),
        (
            "hosts: [github.com], credentials: [github]",
            "TG0506 github the credential `github` may not go to github.com (this rule is for more hosts than the credential)",
        ),
        (
            "hosts: ['*.npmjs.org'], credentials: [npm]",
            "TG0506 npm the credential `npm` may not go to *.npmjs.org (this rule is for more hosts than the credential)",
        ),
        (
            "hosts: [api.github.com], ports: [8443], credentials: [github]",
            "TG0506 8443 the credential `github` may not go to port 8443",
        ),
        (
            "hosts: [a.com], route: A/b",
            "TG0508 A/b `A/b` cannot name a route (use a to z, 0 to 9 and `-`)",
        ),
        (
            "hosts: [a.com, b.com], route: a",
            "TG0508 a a route wants exactly one host without a wildcard",
        ),
        (
            "hosts: ['*.a.com'], route: a",
            "TG0508 a a route wants exactly one host without a wildcard",
        ),
        (
            "hosts: [a.com], tls: Passthrough, http: [{methods: [GET]}]",
            "TG0509 { `tls: Passthrough` cannot have `http`",
        ),
        (
            "hosts: [api.github.com], tls: Passthrough, credentials: [github]",
            "TG0509 { `tls: Passthrough` cannot have `credentials`",
        ),
        (
            "hosts: [api.github.com], action: Deny, credentials: [github]",
            "TG0509 { a rule that refuses cannot have `credentials`",
        ),
        (
            "hosts: [a.com], action: Deny, route: a",
            "TG0509 { a rule that refuses cannot have `route`",
        ),
        (
            "hosts: [a.com], tls: Intercept, sni: Optional",
            "TG0509 { a rule that ends TLS cannot have `sni`",
        ),
        ("hosts: [a.com], ports: [0]", "TG0511 0 0 is not a port"),
    ] {
        assert_eq!(said(rule), [error], "{rule}");
    }
}

#[test]
fn what_is_merely_redundant_is_no_error() {
    for rule in [
        "hosts: [a.com, A.com., a.com]",
        "hosts: [api.github.com, '*.github.com', '*.x.github.com'], credentials: [github, github]",
        "hosts: [api.anthropic.com], ports: [443, 80, 8443], credentials: [anthropic]",
        "hosts: [a.com], http: [{methods: [PROPFIND, GET]}, {methods: [GET]}]",
        "hosts: [a.com], ambiguousPaths: Pass, http: [{paths: ['/@s%2fn', /a//b]}]",
        "hosts: [a.com], tls: Passthrough, route: a, upstream: {caFile: /ca.pem}",
    ] {
        assert_eq!(said(rule), [""; 0], "{rule}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let policy = "agents: {names: [a, 'b*c']}
egress:
- hosts: ['*']
  http: [{methods: [got], paths: [x]}]
- hosts: [a.com]
  route: r
- hosts: [b.com]
  route: r
";
    let codes = errors(&[policy]).iter().map(|e| e.code).collect::<Vec<_>>();
    assert_eq!(codes, ["TG0510", "TG0502", "TG0504", "TG0503", "TG0403"]);
}

const LOGIN: &str = "hosts: [api.anthropic.com]
source:
  oauth:
    client: claude-code
    agentEndpoints: [\"https://platform.claude.com/v1/oauth/token\"]
";

#[test]
fn a_token_endpoint_that_agents_may_not_reach_is_told_with_the_rule_to_add() {
    let found = with_login(
        LOGIN,
        "egress: [{hosts: [api.anthropic.com], credentials: [login]}]",
    );
    let [error] = &*found else {
        panic!("{found:#?}");
    };
    assert_eq!(error.code, "TG0512");
    assert_eq!(error.place.as_ref().map(|place| place.line), Some(5));
    let help = error.help.as_deref().unwrap();
    let rule = help.split('`').nth(1).unwrap();
    assert!(
        help.ends_with("and `platform.claude.com` to the `hosts` of this credential"),
        "{help}"
    );
    // What is advised must work.
    let mended = LOGIN.replace("hosts: [", "hosts: [platform.claude.com, ");
    assert_eq!(with_login(&mended, &format!("egress:\n{rule}")), []);
}

#[test]
fn a_rule_counts_for_a_token_endpoint_only_with_its_credential_method_and_path() {
    let login = LOGIN.replace("hosts: [", "hosts: ['*.claude.com', ");
    let rule = |rest: &str| format!("egress: [{{hosts: [platform.claude.com], {rest}}}]");
    for (rest, count) in [
        ("credentials: [login]", 0),
        ("http: [{paths: [/v1/**]}], credentials: [login]", 0),
        ("http: [{paths: [/v1/**]}]", 1),
        ("http: [{methods: [GET]}], credentials: [login]", 1),
        (
            "http: [{paths: [/v1/oauth/hello]}], credentials: [login]",
            1,
        ),
        ("ports: [8443], credentials: [login]", 1),
    ] {
        let mut login = login.clone();
        if rest.starts_with("ports") {
            login.push_str("ports: [443, 8443]\n");
        }
        let found = with_login(&login, &rule(rest));
        assert_eq!(found.len(), count, "{rest}: {found:#?}");
    }
}
