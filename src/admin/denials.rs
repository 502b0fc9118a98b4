//! Owns what was refused of late as the API tells it: each group with what the policy in force says of it
//! now, and the edit that would allow it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::Admin;
use super::moment::rfc3339;
use super::problem::problem;
use crate::config::units::Span;
use crate::policy::edit::{Refused, Standing, YamlEdit, standing};
use crate::policy::engine::Engine;
use crate::telemetry::denials::{Denial, Denials};
use crate::types::intent::Scheme;

/// Refusals of one agent, for one host and one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DenialGroup {
    /// Who asked; empty where that is not known.
    pub agent: String,
    /// Host and port; absent where none was named, or where an agent asked for more hosts than are kept.
    pub authority: Option<String>,
    /// Why, one word.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// When first (RFC 3339), to five minutes.
    pub first: String,
    /// When last.
    pub last: String,
    /// What was asked, as far as it got: methods and redacted paths.
    pub examples: Vec<Asked>,
    /// The rule that refused, or the one nearest to allowing: `file:line`.
    pub rule: Option<String>,
    /// The budget that refused.
    pub budget: Option<String>,
    /// Whether it passed, since the mode is `report`.
    pub passed: bool,
    /// Whether the policy in force allows it now.
    pub allowed_now: bool,
    /// What would allow it, in a sentence; absent where an edit says it.
    pub advice: Option<String>,
    /// The edit that would allow it.
    pub edit: Option<Edit>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, redacted and without its query.
    pub path: String,
}

/// An edit that would allow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// What to do with the lines.
    pub what: String,
    /// The rule to change, as `file:line`; absent where the lines are a document of their own.
    pub rule: Option<String>,
    /// The rule's field that the lines belong to: `http`, `ports`, `tls`, `ambiguousPaths`.
    pub field: Option<String>,
    /// The lines.
    pub yaml: String,
}

impl From<YamlEdit> for Edit {
    fn from(edit: YamlEdit) -> Self {
        Self {
            what: edit.what,
            rule: edit.rule.map(|rule| rule.to_string()),
            field: edit.field.map(ToOwned::to_owned),
            yaml: edit.yaml,
        }
    }
}

/// `?since=24h&agent=…`.
#[derive(Deserialize)]
pub(super) struct DenialsQuery {
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    agent: Option<String>,
}

/// How far back is looked when nobody says.
pub const SINCE: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn denials(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<DenialsQuery>,
) -> Response {
    let since = query.since.as_deref().map(Span::parse).transpose();
    let since = match since {
        Ok(since) => since.map_or(SINCE, |span| span.0),
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    let since = Timestamp::now() - since;
    let snapshot = admin.snapshots.load_full();
    let mut groups = groups(&admin.ledgers.sinks().denials, since, &snapshot.policy);
    if let Some(agent) = &query.agent {
        groups.retain(|group| group.agent == *agent);
    }
    Json(json!({ "since": rfc3339(since), "denials": groups })).into_response()
}

/// The groups, with what `policy` says of each.
pub fn groups(denials: &Denials, since: Timestamp, policy: &Engine) -> Vec<DenialGroup> {
    let denials = denials.since(since);
    denials.iter().map(|denial| group(denial, policy)).collect()
}

fn group(denial: &Denial, policy: &Engine) -> DenialGroup {
    let stands = is_of_policy(&denial.key.reason)
        .then(|| stands(denial, policy))
        .flatten();
    let (allowed_now, edit) = match stands {
        Some(Standing::Allowed) => (true, None),
        Some(Standing::Refused(_, edit)) => (false, edit.map(Edit::from)),
        None => (false, None),
    };
    let advice = match (&edit, allowed_now) {
        (None, false) => Some(advice(denial)),
        _ => None,
    };
    DenialGroup {
        agent: denial.key.agent.clone(),
        authority: denial.key.authority.as_ref().map(ToString::to_string),
        reason: denial.key.reason.clone(),
        count: denial.count,
        first: rfc3339(denial.first),
        last: rfc3339(denial.last),
        examples: denial
            .examples
            .iter()
            .map(|example| Asked {
                method: example.method.clone(),
                path: example.path.clone(),
            })
            .collect(),
        rule: denial.rule.clone(),
        budget: denial.budget.clone(),
        passed: denial.passed,
        allowed_now,
        advice,
        edit,
    }
}

fn stands(denial: &Denial, policy: &Engine) -> Option<Standing> {
    let agent = denial.agent()?;
    let requests: Vec<(Method, String)> = denial
        .examples
        .iter()
        .filter_map(|example| Some((example.method.parse().ok()?, example.path.clone())))
        .collect();
    let refused = Refused {
        agent: &agent,
        authority: denial.key.authority.as_ref()?,
        scheme: match denial.key.scheme {
            "http" => Scheme::Http,
            _ => Scheme::Https,
        },
        requests: &requests,
    };
    Some(standing(policy, &refused))
}

/// Whether the rules refused it.
fn is_of_policy(reason: &str) -> bool {
    matches!(
        reason,
        "host_not_allowed"
            | "port_not_allowed"
            | "method_not_allowed"
            | "path_not_allowed"
            | "ambiguous_path"
            | "denied_by_rule"
            | "ip_literal"
            | "no_policy_for_agent"
            | "uncounted_tunnel"
    )
}

/// What helps where no edit of a rule does.
fn advice(denial: &Denial) -> String {
    let budget = denial.budget.as_deref().unwrap_or("NAME");
    let text = match denial.key.reason.as_str() {
        "denied_by_rule" => match &denial.rule {
            Some(rule) => return format!("remove or narrow the rule at {rule}"),
            None => "remove or narrow the rule that refuses it",
        },
        "canary" => {
            "look at what the agent did: a placeholder where it does not belong is what a stolen one looks like"
        }
        "foreign_credential" => {
            "give the agent its placeholder (`tollgate env`); `onForeign` lets keys of its own pass"
        }
        "credential_unavailable" => "`tollgate creds list` says what is wrong with the credential",
        "unidentified" => {
            "give the agent the proxy's URL with its token: `tollgate env --agent NAME`"
        }
        "budget_exhausted" => {
            return format!("`tollgate budget raise {budget} --by 5usd --reason …`");
        }
        "audit_unavailable" => "see /readyz: the audit log cannot be written",
        "address_guard" => {
            "list the range in `allowAddresses` of the rule, if the name is meant to lead there"
        }
        _ => "`tollgate why URL --agent NAME` says more; this is no matter of a rule",
    };
    text.to_owned()
}
