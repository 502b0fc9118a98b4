//! The engine against a slow reading of the same words, and against its own explanation.

use proptest::prelude::*;

use crate::policy::compile::compile;
use crate::policy::explain::{Outcome, Verdict};
use crate::policy::path::PathPattern;
use crate::types::host::{Host, HostPattern};

use super::fixture::{ask, bundle, why};

#[derive(Clone, Debug)]
struct Written {
    host: &'static str,
    port: Option<u16>,
    deny: bool,
    http: Option<(Option<&'static str>, Option<&'static str>)>,
}

impl Written {
    fn yaml(&self) -> String {
        let mut rule = format!("- hosts: ['{}']\n", self.host);
        if let Some(port) = self.port {
            rule += &format!("  ports: [{port}]\n");
        }
        if self.deny {
            rule += "  action: Deny\n";
        }
        if let Some((method, path)) = self.http {
            let method = method
                .map(|m| format!("methods: [{m}]"))
                .unwrap_or_default();
            let path = path.map(|p| format!("paths: ['{p}']")).unwrap_or_default();
            let comma = if method.is_empty() || path.is_empty() {
                ""
            } else {
                ", "
            };
            rule += &format!("  http: [{{{method}{comma}{path}}}]\n");
        }
        rule
    }

    fn path(&self) -> PathPattern {
        let path = self.http.and_then(|(_, path)| path);
        path.map_or_else(PathPattern::any, |path| PathPattern::parse(path).unwrap())
    }
}

const HOSTS: [&str; 5] = [
    "*.example.com",
    "*.a.example.com",
    "a.example.com",
    "b.a.example.com",
    "example.org",
];
const METHODS: [&str; 2] = ["GET", "PUT"];
const PATTERNS: [&str; 6] = ["/x", "/x/*", "/x/**", "/*/y", "/**", "/x/y"];
const PATHS: [&str; 6] = ["/", "/x", "/x/y", "/z/y", "/x/y/z", "/%78/y"];

fn written() -> impl Strategy<Value = Written> {
    (
        prop::sample::select(&HOSTS[..]),
        prop::option::of(prop::sample::select(&[443, 80, 8443][..])),
        prop::bool::weighted(0.3),
        prop::option::of((
            prop::option::of(prop::sample::select(&METHODS[..])),
            prop::option::of(prop::sample::select(&PATTERNS[..])),
        )),
    )
        .prop_map(|(host, port, deny, http)| Written {
            host,
            port,
            deny,
            http,
        })
}

/// Semantics read aloud: narrowest host, then port, then the narrowest request match.
fn allowed(rules: &[Written], host: &str, port: u16, method: &str, path: &str) -> bool {
    let host = Host::parse(host).unwrap();
    let named = |rule: &&Written| HostPattern::parse(rule.host).unwrap().matches(&host);
    let narrow = |rule: &Written| HostPattern::parse(rule.host).unwrap().specificity();
    let narrowest = rules.iter().filter(named).map(narrow).max();
    let best = rules
        .iter()
        .filter(named)
        .filter(|rule| Some(narrow(rule)) == narrowest)
        .filter(|rule| {
            rule.port
                .map_or([443, 80].contains(&port), |only| only == port)
        })
        .filter(|rule| rule.path().matches(path.as_bytes()))
        .filter(|rule| {
            rule.http
                .and_then(|(m, _)| m)
                .is_none_or(|only| only == method)
        })
        .max_by_key(|rule| {
            (
                rule.path().rank(),
                rule.http.is_some_and(|(m, _)| m.is_some()),
            )
        });
    best.is_some_and(|rule| !rule.deny)
}

fn hosts() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "example.com",
            "a.example.com",
            "b.a.example.com",
            "c.b.a.example.com",
            "x.example.com",
            "example.org",
        ][..],
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_engine_agrees_with_the_words_and_with_its_explanation(
        rules in prop::collection::vec(written(), 1..6),
        host in hosts(),
        port in prop::sample::select(&[443_u16, 80, 8443][..]),
        method in prop::sample::select(&METHODS[..]),
        path in prop::sample::select(&PATHS[..]),
    ) {
        let policy = format!("egress:\n{}", rules.iter().map(Written::yaml).collect::<String>());
        // Contradictions are told at load; what loads has one answer.
        let Ok(engine) = compile(&bundle(&[&policy])) else { return Ok(()) };
        let asked = format!("{method} https://{host}:{port}{path}");
        let answer = ask(&engine, "agent", &asked);
        prop_assert_eq!(answer.is_ok(), allowed(&rules, host, port, method, path), "{}{}", policy, asked);

        let explanation = why(&engine, "agent", &asked);
        prop_assert_eq!(explanation.verdict == Verdict::Allow, answer.is_ok());
        let deciding = explanation.considered.iter().filter(|one| one.outcome == Outcome::Decides).count();
        prop_assert_eq!(deciding, usize::from(explanation.rule.is_some()), "{}", explanation);
        match answer {
            Ok(permit) => prop_assert_eq!(permit.rule(), explanation.rule.as_ref()),
            Err(denial) => {
                prop_assert_eq!(Some(denial.reason), explanation.reason);
                let matching = explanation.considered.iter().any(|one| one.outcome == Outcome::Matches);
                prop_assert!(!matching || explanation.rule.is_some(), "{}", explanation);
            }
        }

        // A connection stands exactly where some request on it could.
        let connect = ask(&engine, "agent", &format!("CONNECT {host}:{port}"));
        prop_assert!(connect.is_ok() || !allowed(&rules, host, port, method, path));
    }
}
