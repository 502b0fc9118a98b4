//! Owns the edit that would allow what was refused, as YAML to paste: narrow, so that what was asked is
//! allowed and little else.

use http::Method;
use serde::Serialize;

use crate::config::policy::{AmbiguousPaths, Mode, TlsMode};
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, RequestLine, Scheme};

use super::decision::{DenialReason, RuleRef};
use super::engine::Engine;
use super::rule::{DEFAULT_PORTS, Rule};

/// Requests of one agent to one host, all refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Who asked.
    pub agent: &'a Agent,
    /// Where to.
    pub authority: &'a Authority,
    /// Cleartext or TLS.
    pub scheme: Scheme,
    /// Methods and paths; none where a connection was refused. A segment that was redacted is
    /// `[redacted]`.
    pub requests: &'a [(Method, String)],
}

/// An edit that would allow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct YamlEdit {
    /// What to do with `yaml`, in words: `add below http: of the rule at scan.yaml:14`.
    pub what: String,
    /// The rule to change; nothing where `yaml` is a document of its own.
    pub rule: Option<RuleRef>,
    /// The field of the rule that `yaml` belongs to: `http`, `ports`, `tls`, `ambiguousPaths`.
    pub field: Option<&'static str>,
    /// The lines.
    pub yaml: String,
}

/// What stands in a path where something was taken out.
const REDACTED: &str = "[redacted]";

/// How the policy in force sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It would pass: somebody has changed the policy since.
    Allowed,
    /// It is refused for this reason, and this edit would allow it, if one can be given.
    Refused(DenialReason, Option<YamlEdit>),
}

/// What the policy in force says of it, and the edit that would allow all of it.
pub fn standing(engine: &Engine, refused: &Refused<'_>) -> Standing {
    let lines: Vec<Option<RequestLine<'_>>> = match refused.requests {
        [] => vec![None],
        requests => requests
            .iter()
            .map(|(method, path)| Some(RequestLine { method, path }))
            .collect(),
    };
    let decide = |request| {
        let intent = EgressIntent {
            agent: refused.agent,
            authority: refused.authority,
            scheme: refused.scheme,
            request,
        };
        match engine.decide(&intent) {
            Ok(_) if engine.authorize(&intent).is_ok() => None,
            Ok(_) => Some((DenialReason::NoPolicyForAgent, None)),
            Err(refusal) => Some((refusal.reason, refusal.nearest)),
        }
    };
    let mut refusals = lines.into_iter().filter_map(decide);
    let Some((reason, nearest)) = refusals.next() else {
        return Standing::Allowed;
    };
    // An agent that no policy is for is told so first, whatever rules there are for others.
    let reason = match engine.covers(refused.agent) {
        true => reason,
        false => DenialReason::NoPolicyForAgent,
    };
    Standing::Refused(reason, edit(engine, refused, reason, nearest))
}

fn edit(
    engine: &Engine,
    refused: &Refused<'_>,
    reason: DenialReason,
    nearest: Option<&Rule>,
) -> Option<YamlEdit> {
    // A preset is part of the program: what it lacks stands in a rule of one's own.
    let own = nearest.filter(|rule| !rule.place.file.starts_with('<') && rule.place.line > 0);
    let in_rule = |rule: &Rule, field: &'static str, what: String, yaml: String| YamlEdit {
        what,
        rule: Some(rule.place.clone()),
        field: Some(field),
        yaml,
    };
    match (reason, own) {
        (DenialReason::MethodNotAllowed | DenialReason::PathNotAllowed, Some(rule)) => {
            let place = &rule.place;
            let what = format!("add below `http:` of the rule at {place}");
            Some(in_rule(rule, "http", what, http_items(refused)?))
        }
        (DenialReason::PortNotAllowed, Some(rule)) => {
            let ports = rule.ports.iter().copied().chain([refused.authority.port]);
            let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
            let what = format!("set in the rule at {}", rule.place);
            let yaml = format!("ports: [{}]", ports.join(", "));
            Some(in_rule(rule, "ports", what, yaml))
        }
        (DenialReason::UncountedTunnel, Some(rule)) if rule.tls == TlsMode::Passthrough => {
            let what = format!("set in the rule at {}", rule.place);
            Some(in_rule(rule, "tls", what, "tls: Intercept".to_owned()))
        }
        (DenialReason::AmbiguousPath, Some(rule))
            if rule.ambiguous_paths == AmbiguousPaths::Refuse =>
        {
            let what = format!("set in the rule at {}", rule.place);
            let yaml = "ambiguousPaths: Pass".to_owned();
            Some(in_rule(rule, "ambiguousPaths", what, yaml))
        }
        (
            DenialReason::DeniedByRule
            | DenialReason::AmbiguousPath
            | DenialReason::UncountedTunnel,
            _,
        ) => None,
        _ => Some(YamlEdit {
            what: "add this document, or its rule below `egress:` of a policy of yours".to_owned(),
            rule: None,
            field: None,
            yaml: document(engine, refused, nearest)?,
        }),
    }
}

/// A policy of its own that allows just this. The strictest mode of an agent's policies holds, so it has
/// the one that holds already.
fn document(engine: &Engine, refused: &Refused<'_>, nearest: Option<&Rule>) -> Option<String> {
    let host = &refused.authority.host;
    let name: String = host
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    let mut text = format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{ name: allow-{} }}\nspec:\n",
        &name[..name.len().min(200)].to_ascii_lowercase()
    );
    match engine.mode_for(refused.agent) {
        Mode::Enforce => {}
        Mode::Report => text.push_str("  mode: report\n"),
        Mode::Open => text.push_str("  mode: open\n"),
    }
    text.push_str(&format!(
        "  agents: {{ names: [{}] }}\n  egress:\n    - hosts: [{}]\n",
        quoted(refused.agent.name()),
        quoted(&host.to_string())
    ));
    let port = refused.authority.port;
    if !DEFAULT_PORTS.contains(&port) {
        text.push_str(&format!("      ports: [{port}]\n"));
    }
    if !refused.requests.is_empty() {
        text.push_str("      http:\n");
        for line in http_items(refused)?.lines() {
            text.push_str(&format!("        {line}\n"));
        }
    }
    // A preset's rule for the host: what it gives its requests, the new ones are to get, too.
    let nearest = nearest.filter(|rule| rule.allows() && !rule.credentials.is_empty());
    let same_host = nearest.filter(|rule| engine.names_host(rule, host));
    if let Some(rule) = same_host {
        let names: Vec<String> = rule.credentials.iter().map(|name| quoted(name)).collect();
        text.push_str(&format!("      credentials: [{}]\n", names.join(", ")));
    }
    Some(text)
}

/// `- { methods: [POST], paths: [/v1/messages] }`, one for each set of methods; nothing where a path
/// cannot be written as a pattern.
fn http_items(refused: &Refused<'_>) -> Option<String> {
    let mut by_method: Vec<(&Method, Vec<String>)> = Vec::new();
    for (method, path) in refused.requests {
        let path = pattern(path)?;
        match by_method.iter_mut().find(|(known, _)| *known == method) {
            Some((_, paths)) if paths.contains(&path) => {}
            Some((_, paths)) => paths.push(path),
            None => by_method.push((method, vec![path])),
        }
    }
    let items: Vec<String> = by_method
        .into_iter()
        .map(|(method, paths)| {
            let paths: Vec<String> = paths.iter().map(|path| quoted(path)).collect();
            format!("- {{ methods: [{method}], paths: [{}] }}", paths.join(", "))
        })
        .collect();
    (!items.is_empty()).then(|| items.join("\n"))
}

/// A path as a pattern that matches it, and nothing else where nothing was taken out of it.
fn pattern(path: &str) -> Option<String> {
    let plain = !path.contains(['*', '{', '}', '?', '#']) && path.starts_with('/');
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| if segment == REDACTED { "*" } else { segment })
        .collect();
    plain.then(|| segments.join("/"))
}

/// A text as YAML takes it within a list: quoted unless it is plain beyond doubt.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let lettered = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    match text.chars().all(plain) && lettered && !word {
        true => text.to_owned(),
        // JSON's strings are YAML's double-quoted ones.
        false => serde_json::to_string(text).unwrap_or_default(),
    }
}
