//! Owns the answer to `tollgate why`: the verdict, every rule that was considered, and the edit that would change it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::types::intent::EgressIntent;

use super::decision::{DenialReason, Permit, RuleRef, Treatment};
use super::engine::Engine;
use super::refusal::{self, Edit, Refusal};
use super::rule::Rule;

/// Why a decision is what it is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What the agent gets.
    pub verdict: Verdict,
    /// What was asked: `POST https://api.github.com/x`.
    pub request: String,
    /// Who asked.
    pub agent: String,
    /// The rule that decides; none when no rule does.
    pub rule: Option<RuleRef>,
    /// Why it is refused, or would be in `enforce` mode.
    pub reason: Option<DenialReason>,
    /// The refusal in words.
    pub message: Option<String>,
    /// Names of the credentials that apply.
    pub credentials: Vec<String>,
    /// Whether TLS to the host is ended here.
    pub intercepted: bool,
    /// A budget that counts it, if there is one; others may, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// Every rule that names the host, narrowest host pattern first.
    pub considered: Vec<Considered>,
    /// The edit that would change a refusal: `add POST to methods on line 14`.
    pub fix: Option<String>,
}

/// What the agent gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It passes, because the mode is not `enforce`.
    AllowByMode,
    /// It is refused.
    Deny,
}

/// One rule that names the host.
#[derive(Clone, Debug, Serialize)]
pub struct Considered {
    /// Where it stands.
    pub rule: RuleRef,
    /// The host pattern it was found by.
    pub host: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The same in words, to be read behind the rule's place.
    pub why: String,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It decides.
    Decides,
    /// It matches too, but not as narrowly, or with the same effect.
    Matches,
    /// Its policy is for other agents.
    OtherAgents,
    /// Rules with a narrower host pattern have the say.
    WiderHost,
    /// It is for other ports.
    OtherPorts,
    /// It is for other methods.
    OtherMethods,
    /// It is for other paths.
    OtherPaths,
}

/// Decides as the engine does, and says why.
pub fn explain(engine: &Engine, intent: &EgressIntent<'_>) -> Explanation {
    let decided = engine.decide(intent);
    let refusal = decided.as_ref().err().copied();
    let answer = engine.authorize(intent);
    let permit = answer.as_ref().ok();
    let denial = match (&answer, refusal) {
        (Err(denial), _) => Some(denial.clone()),
        (Ok(_), Some(refusal)) => Some(refusal.denial(intent)),
        (Ok(_), None) => None,
    };
    let reason = denial.as_ref().map(|denial| denial.reason);
    let rule = match &decided {
        Ok(permit) => permit.rule.clone(),
        Err(refusal) => refusal.decider(),
    };
    // Not every refusal is the rules' own: an agent without a policy is refused before them.
    let worded = reason.map(|reason| Refusal {
        reason,
        nearest: refusal.and_then(|refusal| refusal.nearest),
    });
    Explanation {
        verdict: match (permit, &decided) {
            (Some(_), Ok(_)) => Verdict::Allow,
            (Some(_), Err(_)) => Verdict::AllowByMode,
            (None, _) => Verdict::Deny,
        },
        request: refusal::subject(intent),
        agent: intent.agent.name().to_owned(),
        considered: considered(engine, intent, rule.as_ref(), reason),
        rule,
        reason,
        message: denial.map(|denial| denial.message),
        credentials: names(permit),
        intercepted: permit.is_some_and(|permit| permit.treatment() == Treatment::Intercept),
        budget: engine.counted_by(intent).map(ToString::to_string),
        fix: worded.and_then(|refusal| refusal.edit(intent)).map(on_line),
    }
}

fn names(permit: Option<&Permit>) -> Vec<String> {
    let credentials = permit.map(Permit::credentials).unwrap_or_default();
    credentials.iter().map(ToString::to_string).collect()
}

fn on_line(edit: Edit) -> String {
    match edit.rule {
        Some(rule) if rule.line > 0 => format!("{} on line {}", edit.what, rule.line),
        _ => edit.what,
    }
}

fn considered(
    engine: &Engine,
    intent: &EgressIntent<'_>,
    decider: Option<&RuleRef>,
    reason: Option<DenialReason>,
) -> Vec<Considered> {
    let host = &intent.authority.host;
    let claim = engine.claim(intent.agent, host).map(|claim| &claim.pattern);
    let judged = match reason {
        Some(DenialReason::AmbiguousPath) => Judged::No,
        Some(DenialReason::UncountedTunnel) => Judged::Unread,
        _ => Judged::Yes,
    };
    let mut considered = Vec::new();
    for rules in engine.matching(host) {
        for rule in &rules.rules {
            let outcome = match outcome(rule, intent) {
                Outcome::OtherAgents => Outcome::OtherAgents,
                _ if claim != Some(&rules.pattern) => Outcome::WiderHost,
                Outcome::Matches if decider == Some(&rule.place) => Outcome::Decides,
                other => other,
            };
            considered.push(Considered {
                rule: rule.place.clone(),
                host: rules.pattern.to_string(),
                why: why(outcome, rule, intent, judged),
                outcome,
            });
        }
    }
    considered
}

/// How far a rule goes along with an intent, other rules aside.
fn outcome(rule: &Arc<Rule>, intent: &EgressIntent<'_>) -> Outcome {
    if !rule.scope.covers(intent.agent) {
        return Outcome::OtherAgents;
    }
    if !rule.ports.contains(&intent.authority.port) {
        return Outcome::OtherPorts;
    }
    let Some(line) = intent.request else {
        return Outcome::Matches;
    };
    let path = line.path.as_bytes();
    let mut named = rule
        .requests
        .iter()
        .filter(|request| request.path.matches(path))
        .peekable();
    if named.peek().is_none() {
        return Outcome::OtherPaths;
    }
    match named.any(|request| request.admits(line.method)) {
        true => Outcome::Matches,
        false => Outcome::OtherMethods,
    }
}

fn why(outcome: Outcome, rule: &Rule, intent: &EgressIntent<'_>, judged: Judged) -> String {
    let verb = if rule.allows() { "allows" } else { "refuses" };
    match outcome {
        Outcome::Decides => format!("{verb} it"),
        Outcome::Matches if intent.request.is_none() => format!("{verb} requests on it"),
        Outcome::Matches if judged == Judged::Unread => format!("{verb} it, could it be counted"),
        Outcome::Matches if judged == Judged::No => format!("{verb} it, were its path plain"),
        Outcome::Matches => format!("{verb} it too, and another rule comes first"),
        Outcome::OtherAgents => format!("is for other agents ({})", rule.scope),
        Outcome::WiderHost => {
            "is not looked at, since rules name the host more narrowly".to_owned()
        }
        Outcome::OtherPorts => refusal::nearly(DenialReason::PortNotAllowed, rule, intent),
        Outcome::OtherMethods => refusal::nearly(DenialReason::MethodNotAllowed, rule, intent),
        Outcome::OtherPaths => refusal::nearly(DenialReason::PathNotAllowed, rule, intent),
    }
}

/// Whether rules had a say, or the path could not be judged by any.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    Yes,
    No,
    /// They let it pass, and it cannot be read.
    Unread,
}

impl fmt::Display for Explanation {
    /// ```text
    /// DENY POST https://api.github.com/repos/acme/web/merges for marketing/scan
    ///   scan.yaml:14 matches the host but allows only GET
    ///   fix: add POST to methods on line 14
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Allow | Verdict::AllowByMode => "ALLOW",
            Verdict::Deny => "DENY",
        };
        write!(f, "{verdict} {} for {}", self.request, self.agent)?;
        if self.verdict == Verdict::AllowByMode {
            write!(f, "\n  only because the mode is not enforce")?;
        }
        for one in &self.considered {
            write!(f, "\n  {} {}", one.rule, one.why)?;
        }
        let said = self
            .considered
            .iter()
            .any(|one| !matches!(one.outcome, Outcome::OtherAgents | Outcome::Matches));
        let by_path = matches!(
            self.reason,
            Some(DenialReason::AmbiguousPath | DenialReason::UncountedTunnel)
        );
        if let Some(message) = self.message.as_deref().filter(|_| !said || by_path) {
            let cause = message.split_once(&format!(" for agent {}: ", self.agent));
            write!(f, "\n  {}", cause.map_or(message, |(_, cause)| cause))?;
        }
        if self.verdict != Verdict::Deny && self.intercepted {
            match self.credentials.as_slice() {
                [] => write!(f, "\n  TLS is ended here")?,
                names => write!(
                    f,
                    "\n  TLS is ended here; credentials: {}",
                    names.join(", ")
                )?,
            }
        }
        if let (true, Some(budget)) = (self.verdict != Verdict::Deny, &self.budget) {
            write!(f, "\n  budget {budget} counts it")?;
        }
        match &self.fix {
            Some(fix) => write!(f, "\n  fix: {fix}"),
            None => Ok(()),
        }
    }
}
