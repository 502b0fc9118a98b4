//! Owns the search for contradictions: within one rule, and between rules that match a request equally well.

use std::sync::Arc;

use crate::config::error::{ConfigError, Place};
use crate::config::policy::{
    Action, AmbiguousPaths, EgressRuleSpec, SniMode, TlsMode, TraceContextMode, UnknownCodings,
};
use crate::types::host::HostPattern;

use super::counted::Counted;
use super::rule::Rule;

/// A compiled rule and where it was written.
pub(super) struct Filed {
    pub(super) rule: Arc<Rule>,
    pub(super) place: Place,
}

/// Fields of a rule that can have no effect beside its others. A field that is accepted has one.
pub(super) fn within(place: &Place, spec: &EgressRuleSpec) -> Vec<ConfigError> {
    let credentials = ("credentials", !spec.credentials.is_empty());
    let http = ("http", !spec.http.is_empty());
    let sni = ("sni", spec.sni == SniMode::Optional);
    let api = ("api", spec.api.is_some());
    let trace_context = ("traceContext", spec.trace_context != TraceContextMode::Drop);
    let unsearched = spec.unknown_codings == UnknownCodings::Pass;
    let unsearched = ("unknownCodings", unsearched);
    let (who, fields) = if spec.action == Action::Deny {
        let fields = vec![
            credentials,
            sni,
            api,
            trace_context,
            unsearched,
            ("route", spec.route.is_some()),
            // `Intercept` says that the refusal is told inside TLS.
            ("tls", spec.tls == TlsMode::Passthrough),
            ("allowAddresses", !spec.allow_addresses.is_empty()),
            ("upstream", spec.upstream.is_some()),
            ("timeouts", spec.timeouts.is_some()),
        ];
        ("a rule that refuses", fields)
    } else if spec.tls == TlsMode::Passthrough {
        let pass = spec.ambiguous_paths == AmbiguousPaths::Pass;
        let fields = vec![
            credentials,
            http,
            api,
            trace_context,
            // On the base-URL door TLS towards the origin is ours all the same.
            ("upstream", spec.upstream.is_some() && spec.route.is_none()),
            ("ambiguousPaths", pass),
            unsearched,
        ];
        ("`tls: Passthrough`", fields)
    } else if spec.tls == TlsMode::Intercept || http.1 || credentials.1 {
        ("a rule that ends TLS", vec![sni])
    } else {
        return Vec::new();
    };
    let written = fields.into_iter().filter(|(_, written)| *written);
    written
        .map(|(field, _)| {
            ConfigError::new("TG0509", format!("{who} cannot have `{field}`"))
                .at(place.clone())
                .help(format!(
                    "remove `{field}`, or write it in a rule of its own"
                ))
        })
        .collect()
}

/// Adds an error for every two rules of a host that contradict each other.
pub(super) fn between(host: &HostPattern, rules: &[Filed], errors: &mut Vec<ConfigError>) {
    for (index, later) in rules.iter().enumerate() {
        for earlier in &rules[..index] {
            if !meet(&earlier.rule, &later.rule) {
                continue;
            }
            let (code, message, help) = if let Some(what) = disagreement(&earlier.rule, &later.rule)
            {
                let message = format!("two rules match the same requests to {host}, and {what}");
                (
                    "TG0401",
                    message,
                    "make one of them narrower, or remove one",
                )
            } else if one_passes_what_the_other_reads(&earlier.rule, &later.rule) {
                let message =
                    format!("one rule passes TLS to {host} through, and another must read it");
                (
                    "TG0402",
                    message,
                    "remove `tls: Passthrough`, or what needs to read requests (`http`, `credentials`, `tls: Intercept`)",
                )
            } else if earlier
                .rule
                .api
                .zip(later.rule.api)
                .is_some_and(|(a, b)| a != b)
            {
                let message = format!("two rules name different model APIs for {host}");
                ("TG0405", message, "name the one that the host speaks")
            } else {
                continue;
            };
            let error = ConfigError::new(code, message)
                .at(later.place.clone())
                .label(format!("contradicts {}", earlier.rule.place))
                .help(help);
            errors.push(error);
        }
    }
}

/// Adds an error for every rule that passes unread what a budget counts.
pub(super) fn with_budgets(
    host: &HostPattern,
    rules: &[Filed],
    counted: &Counted,
    errors: &mut Vec<ConfigError>,
) {
    for filed in rules {
        let rule = &filed.rule;
        if rule.tls == TlsMode::Passthrough && rule.allows() && counted.all_of(rule, host) {
            let message =
                format!("a budget counts the calls to {host}, and this rule passes them unread");
            let error = ConfigError::new("TG0404", message)
                .at(filed.place.clone())
                .help("remove `tls: Passthrough`, or name the budget's agents or hosts in `match` so that these are not among them");
            errors.push(error);
        }
    }
}

/// Two rules that share several hosts contradict each other on each; once is enough.
pub(super) fn without_repetitions(errors: Vec<ConfigError>) -> Vec<ConfigError> {
    let mut kept: Vec<ConfigError> = Vec::new();
    for error in errors {
        let told = kept.iter().any(|known| {
            known.code == error.code
                && known.place == error.place
                && known.label == error.label
                && error.code.starts_with("TG040")
        });
        if !told {
            kept.push(error);
        }
    }
    kept
}

/// Whether some agent and port has both rules.
fn meet(a: &Rule, b: &Rule) -> bool {
    a.ports.iter().any(|port| b.ports.contains(port)) && a.scope.overlaps(&b.scope)
}

fn one_passes_what_the_other_reads(a: &Rule, b: &Rule) -> bool {
    let passes = |rule: &Rule| rule.tls == TlsMode::Passthrough;
    passes(a) && b.intercepts() || passes(b) && a.intercepts()
}

/// How two rules differ on a request that both match in the same rank. Differing credentials add up.
fn disagreement(a: &Rule, b: &Rule) -> Option<&'static str> {
    let differs = if a.action != b.action {
        "one allows them while the other refuses"
    } else if !a.allows() {
        return None;
    } else if a.dial != b.dial {
        "they differ in `allowAddresses`, `upstream` or `timeouts`"
    } else if a.ambiguous_paths != b.ambiguous_paths {
        "they differ in `ambiguousPaths`"
    } else if a.trace_context != b.trace_context {
        "they differ in `traceContext`"
    } else if a.unknown_codings != b.unknown_codings {
        "they differ in `unknownCodings`"
    } else if a.sni != b.sni {
        "they differ in `sni`"
    } else {
        return None;
    };
    let rivals = a
        .requests
        .iter()
        .any(|one| b.requests.iter().any(|other| one.rivals(other)));
    rivals.then_some(differs)
}
