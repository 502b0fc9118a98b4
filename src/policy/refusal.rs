//! Owns the words of a refusal: what is refused, why, and the edit that would allow it.

use std::fmt::Display;

use crate::config::policy::{AmbiguousPaths, TlsMode};
use crate::types::intent::{EgressIntent, RequestLine};

use super::decision::{Denial, DenialReason, RuleRef};
use super::reading::Ambiguity;
use super::rule::Rule;

/// A refusal before it is put into words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal<'e> {
    pub(super) reason: DenialReason,
    /// The rule that refuses, or the one nearest to allowing.
    pub(super) nearest: Option<&'e Rule>,
}

/// The change to a document that would change the decision.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// `add POST to methods`.
    pub(super) what: String,
    /// The rule to change, when it is not a new one.
    pub(super) rule: Option<RuleRef>,
}

impl<'e> Refusal<'e> {
    pub(super) fn new(reason: DenialReason, nearest: Option<&'e Rule>) -> Self {
        Self { reason, nearest }
    }

    /// The refusal as agents and people read it.
    pub(super) fn denial(&self, intent: &EgressIntent<'_>) -> Denial {
        let asked = subject(intent);
        let cause = self.cause(intent);
        Denial {
            reason: self.reason,
            nearest: self.nearest.map(|rule| rule.place.clone()),
            message: format!(
                "{asked} is not allowed for agent {}: {cause}.",
                intent.agent
            ),
            remedy: self.remedy(intent),
        }
    }

    /// The rule that refuses, when one does.
    pub(super) fn decider(&self) -> Option<RuleRef> {
        let refuses = self.reason == DenialReason::DeniedByRule;
        let rule = self.nearest.filter(|_| refuses)?;
        Some(rule.place.clone())
    }

    fn cause(&self, intent: &EgressIntent<'_>) -> String {
        let host = &intent.authority.host;
        match (self.reason, self.nearest) {
            (DenialReason::HostNotAllowed, Some(rule)) => {
                format!("no rule allows {host}, the nearest is {}", rule.place)
            }
            (DenialReason::HostNotAllowed, None) => format!("no rule allows {host}"),
            (DenialReason::IpLiteral, _) => {
                "an address is refused unless a rule names exactly that address".to_owned()
            }
            (DenialReason::NoPolicyForAgent, _) => "no policy selects this agent".to_owned(),
            (DenialReason::AmbiguousPath, _) => {
                let found = intent.request.and_then(|line| Ambiguity::find(line.path));
                let found = found.unwrap_or(Ambiguity::Malformed);
                format!("the path has {found}, which servers read in more than one way")
            }
            (DenialReason::UncountedTunnel, Some(rule)) if rule.tls == TlsMode::Passthrough => {
                format!(
                    "{} passes its bytes unread, and a budget counts its calls",
                    rule.place
                )
            }
            (DenialReason::UncountedTunnel, _) => format!(
                "a budget counts its calls, and the certificate authority may not sign {host} to read them"
            ),
            (reason, Some(rule)) => format!("{} {}", rule.place, nearly(reason, rule, intent)),
            (_, None) => "no rule allows it".to_owned(),
        }
    }

    fn remedy(&self, intent: &EgressIntent<'_>) -> String {
        let plain = match self.reason {
            DenialReason::AmbiguousPath => "Send the path in its plain form",
            DenialReason::IpLiteral => "Use the name of the host",
            _ => "",
        };
        let ask = self.edit(intent).map(|edit| match edit.rule {
            Some(rule) => format!("sk the operator to {} at {rule}", edit.what),
            None => format!("sk the operator to {}", edit.what),
        });
        let advice = match (plain, ask) {
            ("", Some(ask)) => format!("A{ask}."),
            (plain, Some(ask)) => format!("{plain}, or a{ask}."),
            (plain, None) => format!("{plain}."),
        };
        format!("Retrying will not help. {advice}")
    }

    /// The edit that would allow it; none where no edit should.
    pub(super) fn edit(&self, intent: &EgressIntent<'_>) -> Option<Edit> {
        let host = &intent.authority.host;
        let line = intent.request;
        let what = match self.reason {
            DenialReason::HostNotAllowed | DenialReason::IpLiteral => {
                return Some(Edit {
                    what: format!("add a rule with `hosts: [\"{host}\"]`"),
                    rule: None,
                });
            }
            DenialReason::NoPolicyForAgent => {
                return Some(Edit {
                    what: format!("add {} to `agents.names` of a policy", intent.agent),
                    rule: None,
                });
            }
            DenialReason::UncountedTunnel
                if self
                    .nearest
                    .is_some_and(|rule| rule.tls == TlsMode::Passthrough) =>
            {
                "write `tls: Intercept`".to_owned()
            }
            DenialReason::UncountedTunnel => {
                return Some(Edit {
                    what: format!(
                        "add a rule with `hosts: [\"{host}\"]`, and make a new authority with `tollgate ca init --force`"
                    ),
                    rule: None,
                });
            }
            DenialReason::PortNotAllowed => format!("add {} to ports", intent.authority.port),
            DenialReason::MethodNotAllowed => format!("add {} to methods", method(line?)),
            DenialReason::PathNotAllowed => match shown_path(line?.path) {
                Shown::Whole(path) => format!("add {path} to paths"),
                Shown::Cut(_) => "add the path to paths".to_owned(),
            },
            // Where it is passed already, the path climbs, and no rule should let it.
            DenialReason::AmbiguousPath
                if self.nearest?.ambiguous_paths == AmbiguousPaths::Pass =>
            {
                return None;
            }
            DenialReason::AmbiguousPath => "set `ambiguousPaths: Pass`".to_owned(),
            DenialReason::DeniedByRule => "remove or narrow the rule".to_owned(),
        };
        let place = &self.nearest?.place;
        // A preset is part of the program: what it lacks stands in a rule of one's own.
        if place.file.starts_with('<') {
            let what = format!("add a rule for `{host}` besides the preset's");
            return Some(Edit { what, rule: None });
        }
        Some(Edit {
            what,
            rule: Some(place.clone()),
        })
    }
}

/// How a rule that names the host fails to allow an intent: `matches the host but allows only GET`.
pub(super) fn nearly(reason: DenialReason, rule: &Rule, intent: &EgressIntent<'_>) -> String {
    let verb = if rule.allows() { "allows" } else { "refuses" };
    let only = match (reason, intent.request) {
        (DenialReason::PortNotAllowed, _) => {
            let ports = list(rule.ports.iter());
            format!(
                "{} {ports}",
                if rule.ports.len() == 1 {
                    "port"
                } else {
                    "ports"
                }
            )
        }
        (DenialReason::MethodNotAllowed, Some(line)) => {
            let path = line.path.as_bytes();
            let requests = rule.requests.iter().filter(|r| r.path.matches(path));
            list(requests.flat_map(|request| request.methods.iter()))
        }
        (DenialReason::PathNotAllowed, Some(_)) => {
            list(rule.requests.iter().map(|request| &request.path))
        }
        _ if rule.allows() => return "allows it".to_owned(),
        _ => return "refuses it".to_owned(),
    };
    format!("matches the host but {verb} only {only}")
}

/// What was asked: `POST https://api.github.com/x`, `CONNECT api.github.com:443`.
pub(super) fn subject(intent: &EgressIntent<'_>) -> String {
    let authority = intent.authority;
    let Some(line) = intent.request else {
        return format!("CONNECT {authority}");
    };
    let (method, scheme) = (method(line), intent.scheme.as_str());
    let (Shown::Whole(path) | Shown::Cut(path)) = shown_path(line.path);
    match authority.port == intent.scheme.default_port() {
        true => format!("{method} {scheme}://{}{path}", authority.host),
        false => format!("{method} {scheme}://{authority}{path}"),
    }
}

/// Longest part of a path that is repeated to whom it may concern.
const LONGEST_PATH: usize = 200;

enum Shown {
    Whole(String),
    Cut(String),
}

/// A path as it may be repeated: short, and without anything that moves a cursor or forges a line.
fn shown_path(path: &str) -> Shown {
    let mut printable = path.chars().map(|c| match c {
        ' '..='~' => c,
        _ => '?',
    });
    let head = printable.by_ref().take(LONGEST_PATH).collect::<String>();
    match printable.next() {
        None => Shown::Whole(head),
        Some(_) => {
            let cut = head.chars().take(LONGEST_PATH - 3).collect::<String>();
            Shown::Cut(format!("{cut}..."))
        }
    }
}

/// Agents may send any token as a method; this much of one is enough to recognize it.
fn method(line: RequestLine<'_>) -> &str {
    let method = line.method.as_str();
    method.get(..32).unwrap_or(method)
}

/// `GET, HEAD and PUT`; long lists are cut.
fn list(items: impl Iterator<Item = impl Display>) -> String {
    const MOST: usize = 6;
    let mut words = Vec::new();
    for item in items.map(|item| item.to_string()) {
        if !words.contains(&item) {
            words.push(item);
        }
    }
    let more = words.len().saturating_sub(MOST);
    words.truncate(MOST);
    let last = match more {
        0 => words.pop().unwrap_or_default(),
        more => format!("{more} more"),
    };
    match words.is_empty() {
        true => last,
        false => format!("{} and {last}", words.join(", ")),
    }
}
