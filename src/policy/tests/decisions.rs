//! What the engine answers.

use std::time::Duration;

use crate::config::policy::{Mode, SniMode};
use crate::policy::decision::{DenialReason, Timeouts, Treatment};
use crate::types::agent::Agent;
use crate::types::host::HostPattern;

use super::fixture::{ask, engine, table, verdict};

#[test]
fn a_host_that_no_rule_names_is_refused() {
    let policy = "egress:\n- hosts: [example.com, '*.github.com']\n";
    table(
        &[policy],
        &[
            ("CONNECT example.com:443", "tunnel a.yaml:2"),
            ("CONNECT example.com:80", "tunnel a.yaml:2"),
            ("CONNECT EXAMPLE.com.:443", "tunnel a.yaml:2"),
            ("CONNECT example.com:22", "deny port_not_allowed"),
            ("CONNECT www.example.com:443", "deny host_not_allowed"),
            ("CONNECT evilexample.com:443", "deny host_not_allowed"),
            ("CONNECT example.com.evil.io:443", "deny host_not_allowed"),
            ("CONNECT a.b.github.com:443", "tunnel a.yaml:2"),
            ("CONNECT github.com:443", "deny host_not_allowed"),
            ("CONNECT evilgithub.com:443", "deny host_not_allowed"),
            ("GET http://example.com/a/../b", "tunnel a.yaml:2"),
        ],
    );
}

#[test]
fn a_narrower_host_pattern_silences_every_wider_one() {
    let policy = "egress:
- hosts: ['*.github.com']
- hosts: ['*.api.github.com']
  http: [{methods: [HEAD]}]
- hosts: [api.github.com]
  http: [{methods: [GET]}]
- hosts: [evil.github.com]
  action: Deny
";
    table(
        &[policy],
        &[
            ("GET https://api.github.com/x", "intercept a.yaml:5"),
            ("DELETE https://api.github.com/x", "deny method_not_allowed"),
            ("CONNECT api.github.com:443", "intercept a.yaml:5"),
            ("GET https://x.api.github.com/x", "deny method_not_allowed"),
            ("CONNECT raw.github.com:443", "tunnel a.yaml:2"),
            ("CONNECT evil.github.com:443", "deny denied_by_rule"),
            ("CONNECT x.evil.github.com:443", "tunnel a.yaml:2"),
        ],
    );
}

#[test]
fn ports_do_not_open_the_way_to_a_wider_pattern() {
    let policy = "egress:
- hosts: ['*.github.com']
- hosts: [api.github.com]
  ports: [8443]
";
    table(
        &[policy],
        &[
            ("CONNECT api.github.com:8443", "tunnel a.yaml:3"),
            ("CONNECT api.github.com:443", "deny port_not_allowed"),
        ],
    );
}

#[test]
fn the_most_specific_request_match_decides() {
    let policy = "egress:
- hosts: [api.github.com]
  http: [{paths: [/repos/**]}]
- hosts: [api.github.com]
  action: Deny
  http: [{paths: [/repos/*/*/merges]}]
- hosts: [api.github.com]
  http: [{paths: [/repos/acme/web/merges], methods: [POST]}]
- hosts: [api.github.com]
  action: Deny
  http: [{methods: [DELETE]}]
- hosts: [api.github.com]
  action: Deny
  http: [{paths: [/repos/**], methods: [PUT]}]
";
    table(
        &[policy],
        &[
            ("GET https://api.github.com/repos", "intercept a.yaml:2"),
            ("GET https://api.github.com/repos/a/b", "intercept a.yaml:2"),
            (
                "POST https://api.github.com/repos/acme/app/merges",
                "deny denied_by_rule",
            ),
            (
                "POST https://api.github.com/repos/acme/%77eb/merges",
                "intercept a.yaml:7",
            ),
            (
                "POST https://api.github.com/repos/acme/app/%6derges",
                "deny denied_by_rule",
            ),
            (
                "GET https://api.github.com/repos/acme/web/merges",
                "deny denied_by_rule",
            ),
            ("PUT https://api.github.com/repos/a", "deny denied_by_rule"),
            // A path weighs more than a method.
            (
                "DELETE https://api.github.com/repos/a",
                "intercept a.yaml:2",
            ),
            ("DELETE https://api.github.com/user", "deny denied_by_rule"),
            ("delete https://api.github.com/user", "deny denied_by_rule"),
            ("GET https://api.github.com/user", "deny path_not_allowed"),
            ("OPTIONS https://api.github.com*", "deny path_not_allowed"),
            ("CONNECT api.github.com:443", "intercept a.yaml:2"),
        ],
    );
}

#[test]
fn a_host_is_intercepted_when_a_rule_must_read_it() {
    let policy = "egress:
- {hosts: [plain.example.com]}
- {hosts: [through.example.com], tls: Passthrough, sni: Optional}
- {hosts: [ended.example.com], tls: Intercept}
- {hosts: [api.github.com], credentials: [github]}
- {hosts: [refused.example.com], action: Deny, http: [{paths: [/x]}]}
- {hosts: [partly.example.com]}
- {hosts: [partly.example.com], action: Deny, http: [{paths: [/x/**]}]}
";
    let engine = engine(&[policy]);
    for (asked, expected) in [
        ("CONNECT plain.example.com:443", "tunnel a.yaml:2"),
        ("CONNECT through.example.com:443", "tunnel a.yaml:3"),
        ("CONNECT ended.example.com:443", "intercept a.yaml:4"),
        ("CONNECT api.github.com:443", "intercept a.yaml:5"),
        ("GET https://api.github.com/", "intercept a.yaml:5 [github]"),
        ("CONNECT refused.example.com:443", "deny host_not_allowed"),
        ("GET https://refused.example.com/x", "deny denied_by_rule"),
        ("GET https://refused.example.com/y", "deny host_not_allowed"),
        ("CONNECT partly.example.com:443", "intercept a.yaml:7"),
        ("GET https://partly.example.com/y", "intercept a.yaml:7"),
        ("GET https://partly.example.com/x/y", "deny denied_by_rule"),
    ] {
        assert_eq!(verdict(&engine, "agent", asked), expected, "{asked}");
    }
    let sni = |asked| ask(&engine, "agent", asked).unwrap().treatment();
    assert_eq!(
        sni("CONNECT through.example.com:443"),
        Treatment::Tunnel(SniMode::Optional)
    );
    assert_eq!(
        sni("CONNECT plain.example.com:443"),
        Treatment::Tunnel(SniMode::Required)
    );
    let intercepted = engine.intercepted_hosts();
    let names = ["api.github.com", "ended.example.com", "partly.example.com"];
    assert_eq!(
        intercepted,
        names.map(|name| HostPattern::parse(name).unwrap())
    );
    assert_eq!(engine.host_count(), 6);
}

#[test]
fn cleartext_requests_meet_the_same_rules() {
    let policy =
        "egress:\n- hosts: [api.github.com]\n  http: [{methods: [GET]}]\n  credentials: [github]\n";
    table(
        &[policy],
        &[
            ("GET http://api.github.com/", "intercept a.yaml:2 [github]"),
            ("POST http://api.github.com/", "deny method_not_allowed"),
            ("GET http://api.github.com:8080/", "deny port_not_allowed"),
        ],
    );
}

#[test]
fn credentials_of_equal_matches_add_up() {
    let engine = engine(&[
        "egress:
- hosts: ['*.anthropic.com', api.anthropic.com]
  credentials: [anthropic]
  http: [{paths: [/v1/**]}]
",
        "egress:
- hosts: [api.anthropic.com]
  credentials: [spare, anthropic, spare]
  http: [{paths: [/v1/**]}]
- hosts: [api.anthropic.com]
  http: [{paths: [/v1/models]}]
",
    ]);
    let ask = |asked| verdict(&engine, "agent", asked);
    assert_eq!(
        ask("GET https://api.anthropic.com/v1/x"),
        "intercept a.yaml:2 [anthropic spare]"
    );
    assert_eq!(
        ask("GET https://api.anthropic.com/v1/models"),
        "intercept b.yaml:5"
    );
    assert_eq!(ask("CONNECT api.anthropic.com:443"), "intercept a.yaml:2");
}

#[test]
fn only_policies_of_the_agent_count() {
    let policies = [
        "agents: {names: [team-a/*]}\negress:\n- hosts: [api.github.com]\n  http: [{methods: [GET]}]\n",
        "agents: {names: [team-b/scan]}\negress:\n- hosts: ['*.github.com']\n",
    ];
    let engine = engine(&policies);
    for (agent, asked, expected) in [
        (
            "team-a/x",
            "POST https://api.github.com/",
            "deny method_not_allowed",
        ),
        (
            "team-a/x",
            "CONNECT raw.github.com:443",
            "deny host_not_allowed",
        ),
        (
            "team-b/scan",
            "CONNECT api.github.com:443",
            "tunnel b.yaml:3",
        ),
        (
            "team-b/other",
            "CONNECT api.github.com:443",
            "deny no_policy_for_agent",
        ),
        (
            "team-b/other",
            "CONNECT 1.2.3.4:443",
            "deny no_policy_for_agent",
        ),
    ] {
        assert_eq!(verdict(&engine, agent, asked), expected, "{agent} {asked}");
    }
}

#[test]
fn an_address_is_refused_unless_a_rule_names_it() {
    let policy = "mode: open
egress:
- hosts: [10.0.0.7, '[fd00::1]']
  allowAddresses: [10.0.0.0/8, fd00::/8]
- {hosts: [10.0.0.9], action: Deny}
";
    table(
        &[policy],
        &[
            ("CONNECT 10.0.0.7:443", "tunnel a.yaml:3"),
            ("CONNECT [::ffff:10.0.0.7]:443", "tunnel a.yaml:3"),
            ("CONNECT [fd00:0::1]:443", "tunnel a.yaml:3"),
            ("CONNECT 10.0.0.8:443", "deny ip_literal"),
            ("CONNECT 10.0.0.9:443", "deny denied_by_rule"),
            ("CONNECT 10.0.0.7:22", "deny port_not_allowed"),
            ("GET http://169.254.169.254/", "deny ip_literal"),
            ("CONNECT [::1]:443", "deny ip_literal"),
        ],
    );
}

#[test]
fn ambiguous_paths_are_refused_where_they_could_undo_something() {
    let policy = "egress:
- hosts: [api.github.com]
  credentials: [github]
- hosts: [paths.example.com]
  http: [{paths: [/public/**]}]
- hosts: [methods.example.com]
  http: [{methods: [GET]}]
";
    for path in [
        "/public/../secret",
        "/public/%2e%2e/secret",
        "/public/..%2fsecret",
        "/public/x%2Fy",
        "//public",
        "/public/%252e",
        "/public\\x",
        "/public/..;/secret",
    ] {
        table(
            &[policy],
            &[
                (
                    &format!("GET https://api.github.com{path}"),
                    "deny ambiguous_path",
                ),
                (
                    &format!("GET https://paths.example.com{path}"),
                    "deny ambiguous_path",
                ),
                (
                    &format!("GET https://methods.example.com{path}"),
                    "intercept a.yaml:6",
                ),
            ],
        );
    }
}

#[test]
fn a_rule_can_pass_ambiguous_paths_but_not_the_ones_that_climb_out_of_it() {
    let policy = "egress:
- hosts: [registry.npmjs.org]
  credentials: [npm]
  ambiguousPaths: Pass
- hosts: [gitlab.com]
  ambiguousPaths: Pass
  http: [{paths: [/api/**]}]
- hosts: [gitlab.com]
  action: Deny
  http: [{paths: [/api/admin/**]}]
- hosts: [gitlab.com]
  http: [{paths: [/public/**]}]
";
    table(
        &[policy],
        &[
            (
                "GET https://registry.npmjs.org/@anthropic-ai%2fclaude-code",
                "intercept a.yaml:2 [npm]",
            ),
            (
                "GET https://registry.npmjs.org/a/../b",
                "intercept a.yaml:2 [npm]",
            ),
            (
                "GET https://gitlab.com/api/v4/projects/group%2Fproject",
                "intercept a.yaml:5",
            ),
            ("GET https://gitlab.com/api//v4", "intercept a.yaml:5"),
            (
                "GET https://gitlab.com/api/../secret",
                "deny ambiguous_path",
            ),
            (
                "GET https://gitlab.com/api/x%2f..%2f..%2fsecret",
                "deny ambiguous_path",
            ),
            (
                "GET https://gitlab.com/api/%252e%252e%252fsecret",
                "deny ambiguous_path",
            ),
            (
                "GET https://gitlab.com/api/%2525252525252e",
                "deny ambiguous_path",
            ),
            ("GET https://gitlab.com/public/x%2fy", "deny ambiguous_path"),
            // A refused path stays refused under each of its names.
            ("GET https://gitlab.com/api/admin/x", "deny denied_by_rule"),
            (
                "GET https://gitlab.com/api/%61dmin/x",
                "deny denied_by_rule",
            ),
            ("GET https://gitlab.com/api//admin/x", "deny ambiguous_path"),
            (
                "GET https://gitlab.com/api/admin%2fx",
                "deny ambiguous_path",
            ),
            (
                "GET https://gitlab.com/api%5Cadmin/x",
                "deny ambiguous_path",
            ),
            (
                "GET https://gitlab.com/api/%2561dmin/x",
                "deny ambiguous_path",
            ),
        ],
    );
}

#[test]
fn report_lets_pass_what_it_would_refuse_and_injects_for_listed_hosts_only() {
    let rules = "egress:
- hosts: [api.github.com]
  credentials: [github]
  http: [{methods: [GET], paths: [/a/**]}]
- hosts: [refused.github.com]
  action: Deny
";
    table(
        &[&format!("mode: report\n{rules}")],
        &[
            (
                "GET https://api.github.com/a",
                "intercept a.yaml:3 [github]",
            ),
            (
                "POST https://api.github.com/a",
                "intercept [github] would deny method_not_allowed",
            ),
            (
                "GET https://api.github.com/b",
                "intercept [github] would deny path_not_allowed",
            ),
            ("GET https://api.github.com/a/../b", "deny ambiguous_path"),
            (
                "GET https://api.github.com:8443/a",
                "tunnel would deny port_not_allowed",
            ),
            (
                "CONNECT api.github.com:8443",
                "tunnel would deny port_not_allowed",
            ),
            (
                "CONNECT refused.github.com:443",
                "tunnel would deny denied_by_rule",
            ),
            (
                "GET https://refused.github.com/",
                "tunnel would deny denied_by_rule",
            ),
            ("GET http://evil.com/", "tunnel would deny host_not_allowed"),
            (
                "GET https://evil.com/a/../b",
                "tunnel would deny host_not_allowed",
            ),
            ("CONNECT evil.com:443", "tunnel would deny host_not_allowed"),
            ("CONNECT 1.1.1.1:443", "deny ip_literal"),
        ],
    );
    table(
        &[&format!("mode: open\n{rules}")],
        &[
            ("POST https://api.github.com/a", "intercept [github]"),
            ("CONNECT evil.com:443", "tunnel"),
            ("GET https://evil.com/", "tunnel"),
        ],
    );
}

#[test]
fn the_strictest_mode_of_an_agent_wins() {
    let engine = engine(&[
        "mode: open\negress: []\n",
        "mode: report\nagents: {names: [b, c]}\negress: []\n",
        "mode: enforce\nagents: {names: [c]}\negress: []\n",
    ]);
    for (agent, mode, expected) in [
        ("a", Mode::Open, "tunnel"),
        ("b", Mode::Report, "tunnel would deny host_not_allowed"),
        ("c", Mode::Enforce, "deny host_not_allowed"),
    ] {
        assert_eq!(engine.mode_for(&Agent::parse(agent).unwrap()), mode);
        assert_eq!(
            verdict(&engine, agent, "CONNECT evil.com:443"),
            expected,
            "{agent}"
        );
    }
}

#[test]
fn an_engine_without_policies_refuses_everyone() {
    let engine = engine(&[]);
    assert_eq!(
        verdict(&engine, "a", "CONNECT a.com:443"),
        "deny no_policy_for_agent"
    );
    assert_eq!(engine.mode_for(&Agent::parse("a").unwrap()), Mode::Enforce);
}

#[test]
fn routes_stand_for_one_host_each_and_for_the_agents_of_their_policy() {
    let engine = engine(&[
        "agents: {names: [a]}
egress:
- {hosts: [api.anthropic.com], route: anthropic, credentials: [anthropic]}
- {hosts: [local.example.com], route: local, ports: [8443, 443]}
",
        "agents: {names: [b]}\negress:\n- {hosts: [api.anthropic.com], route: anthropic}\n",
    ]);
    let route = |agent, name| {
        let agent = Agent::parse(agent).unwrap();
        engine.route(&agent, name).map(ToString::to_string)
    };
    assert_eq!(route("a", "anthropic").unwrap(), "api.anthropic.com:443");
    assert_eq!(route("a", "local").unwrap(), "local.example.com:8443");
    assert_eq!(route("b", "anthropic").unwrap(), "api.anthropic.com:443");
    assert_eq!(route("b", "local"), None);
    assert_eq!(route("a", "none"), None);
    let names = engine.routes().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names, ["anthropic", "local"]);
}

#[test]
fn rules_that_dial_alike_share_one_profile() {
    let engine = engine(&["egress:
- {hosts: [a.example.com]}
- {hosts: [b.example.com]}
- {hosts: [c.example.com], timeouts: {idle: 1h}, allowAddresses: [10.1.2.3/8, 10.0.0.0/8]}
"]);
    let dial = |host: &str| {
        let permit = ask(&engine, "agent", &format!("CONNECT {host}.example.com:443")).unwrap();
        permit.dial().clone()
    };
    assert!(std::sync::Arc::ptr_eq(&dial("a"), &dial("b")));
    assert_eq!(dial("a").timeouts, Timeouts::default());
    assert_eq!(dial("c").timeouts.idle, Duration::from_secs(3600));
    assert_eq!(dial("c").timeouts.connect, Duration::from_secs(10));
    assert_eq!(dial("c").allow_addresses.len(), 1);
    assert_ne!(dial("a"), dial("c"));
}

#[test]
fn a_permit_keeps_what_was_asked() {
    let engine = engine(&["egress:\n- hosts: [a.example.com]\n"]);
    let permit = ask(&engine, "agent", "GET http://A.example.com./x").unwrap();
    assert_eq!(permit.authority().to_string(), "a.example.com:80");
    assert_eq!(permit.scheme().as_str(), "http");
    assert_eq!(&*permit.rule().unwrap().policy, "a");
}

#[test]
fn denials_say_what_and_whose_rule_and_what_to_do() {
    let engine = engine(&["egress:
- hosts: [api.github.com]
  http: [{methods: [GET], paths: [/repos/**]}]
- hosts: ['*.example.com']
"]);
    let text = |asked: &str| ask(&engine, "scan", asked).unwrap_err().to_string();
    assert_eq!(
        text("POST https://api.github.com/repos/acme/web/merges"),
        "POST https://api.github.com/repos/acme/web/merges is not allowed for agent scan: a.yaml:2 matches the host \
         but allows only GET. Retrying will not help. Ask the operator to add POST to methods at a.yaml:2."
    );
    assert_eq!(
        text("GET https://api.github.com/user"),
        "GET https://api.github.com/user is not allowed for agent scan: a.yaml:2 matches the host but allows only \
         /repos/**. Retrying will not help. Ask the operator to add /user to paths at a.yaml:2."
    );
    assert_eq!(
        text("CONNECT example.com:443"),
        "CONNECT example.com:443 is not allowed for agent scan: no rule allows example.com, the nearest is a.yaml:4. \
         Retrying will not help. Ask the operator to add a rule with `hosts: [\"example.com\"]`."
    );
    assert_eq!(
        text("CONNECT api.github.com:22"),
        "CONNECT api.github.com:22 is not allowed for agent scan: a.yaml:2 matches the host but allows only ports 443 \
         and 80. Retrying will not help. Ask the operator to add 22 to ports at a.yaml:2."
    );
    assert_eq!(
        text("GET https://api.github.com/repos/a%2Fb"),
        "GET https://api.github.com/repos/a%2Fb is not allowed for agent scan: the path has an encoded slash (`%2F`), \
         which servers read in more than one way. Retrying will not help. Send the path in its plain form, or ask the \
         operator to set `ambiguousPaths: Pass` at a.yaml:2."
    );
    assert_eq!(
        text("CONNECT 1.2.3.4:443"),
        "CONNECT 1.2.3.4:443 is not allowed for agent scan: an address is refused unless a rule names exactly that \
         address. Retrying will not help. Use the name of the host, or ask the operator to add a rule with \
         `hosts: [\"1.2.3.4\"]`."
    );
}

#[test]
fn denials_never_repeat_long_paths_or_control_characters() {
    let engine = engine(&["egress:\n- hosts: [a.example.com]\n  http: [{paths: [/x]}]\n"]);
    let path = format!("/{}\u{1b}[2J\r\nforged: 1\u{202e}", "y".repeat(150));
    let short = ask(&engine, "scan", &format!("GET https://a.example.com{path}")).unwrap_err();
    assert!(
        short.to_string().chars().all(|c| matches!(c, ' '..='~')),
        "{short}"
    );
    let long = format!("GET https://a.example.com/{}", "y".repeat(5000));
    let long = ask(&engine, "scan", &long).unwrap_err();
    assert_eq!(long.reason, DenialReason::PathNotAllowed);
    assert!(long.message.contains("yyy...") && !long.message.contains(&"y".repeat(200)));
    assert!(!long.remedy.contains("yyy"));
    assert!(!long.to_string().contains('\u{2014}'));
}
