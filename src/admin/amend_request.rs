//! Owns what an operator wants changed about a budget, and which limits and group of calls are meant by
//! it. What could mean two things is refused with the ways to say one.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::amount::Measure;
use crate::budget::limit::{GroupBy, Limit, Pattern, Period, WindowKind};
use crate::budget::terms::Budget;
use crate::config::suggest::did_you_mean;
use crate::types::agent::Agent;

/// `POST /v1/budgets/{name}/raise` and `…/reset`. What only one of them knows is absent in the other.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AmendRequest {
    /// By how much: `5usd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Until when: `18:00`, RFC 3339, `2h`, `never`; the end of the present window when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// For which group of calls, or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// For which agent, where they are counted apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The limit with this window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who asks. The admin token shows that they may; this is their word for who they are.
    #[serde(default)]
    pub who: String,
}

/// A reason or a name longer than this is not one.
const LONGEST: usize = 1000;

impl AmendRequest {
    /// Whether it says why and who.
    pub fn signed(&self) -> Result<(), AimError> {
        for (word, text) in [("reason", &self.reason), ("who", &self.who)] {
            if text.trim().is_empty() {
                return Err(AimError::Wrong(format!(
                    "`{word}` is missing: every change of a budget is kept with who asked for it, and why"
                )));
            }
            if text.len() > LONGEST || text.chars().any(char::is_control) {
                return Err(AimError::Wrong(format!(
                    "`{word}` is one line of at most {LONGEST} bytes"
                )));
            }
        }
        Ok(())
    }
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AimError {
    /// What is named does not exist.
    #[error("{0}")]
    Unknown(String),
    /// It could mean several.
    #[error("{0}")]
    Ambiguous(String),
    /// It means nothing.
    #[error("{0}")]
    Wrong(String),
}

impl AimError {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Ambiguous(_) => StatusCode::CONFLICT,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// The budget of this name.
pub fn find<'b>(budgets: &'b [Arc<Budget>], name: &str) -> Result<&'b Arc<Budget>, AimError> {
    let found = budgets.iter().find(|b| &*b.name == name || &*b.key == name);
    found.ok_or_else(|| {
        let names = budgets.iter().map(|budget| &*budget.name);
        let help = did_you_mean(name, names).unwrap_or_else(|| match budgets.is_empty() {
            true => "there are no budgets".to_owned(),
            false => "`tollgate budget show` lists them".to_owned(),
        });
        AimError::Unknown(format!("there is no budget `{name}`; {help}"))
    })
}

/// The limit that is raised: the one in this unit, with this window where there are several.
pub fn limit<'b>(
    budget: &'b Budget,
    measure: Measure,
    window: Option<&str>,
) -> Result<&'b Arc<Limit>, AimError> {
    let limits = in_window(budget, window)?;
    let own = limits
        .iter()
        .filter(|limit| Measure::of(&limit.unit) == measure);
    let own: Vec<&&Arc<Limit>> = own.collect();
    let unit = measure.as_str();
    match *own {
        [limit] => Ok(limit),
        [] => Err(AimError::Wrong(format!(
            "the budget `{}` has no limit in {unit}; it has: {}",
            budget.name,
            listed(limits.iter().map(|limit| describe(limit)))
        ))),
        _ => Err(AimError::Ambiguous(format!(
            "the budget `{}` has several limits in {unit}; name one by its window: {}",
            budget.name,
            listed(own.iter().map(|limit| window_word(&limit.window)))
        ))),
    }
}

/// The limits that are reset: all of them, or the ones with this window.
pub fn in_window<'b>(
    budget: &'b Budget,
    window: Option<&str>,
) -> Result<Vec<&'b Arc<Limit>>, AimError> {
    let named = |limit: &&Arc<Limit>| {
        window.is_none_or(|window| {
            window == window_word(&limit.window) || window == window_name(&limit.window)
        })
    };
    let limits: Vec<&Arc<Limit>> = budget.limits.iter().filter(named).collect();
    match (limits.is_empty(), window) {
        (false, _) => Ok(limits),
        (true, None) => Err(AimError::Wrong(format!(
            "the budget `{}` limits pace alone, which is raised in its document",
            budget.name
        ))),
        (true, Some(window)) => Err(AimError::Unknown(format!(
            "the budget `{}` has no limit with the window `{window}`; its windows are: {}",
            budget.name,
            listed(budget.limits.iter().map(|limit| window_word(&limit.window)))
        ))),
    }
}

/// Whether the agent that is named, if one is, exists: it is one of `agents`, or a call of it was counted.
pub fn agent_exists(
    asked: &AmendRequest,
    agents: &[Agent],
    known: &[Arc<str>],
) -> Result<(), AimError> {
    let of_scope = |scope: &str| {
        let rest = scope.strip_prefix("agent=")?;
        Some(rest.split(',').next().unwrap_or(rest).to_owned())
    };
    let scope = asked.scope.as_deref().and_then(of_scope);
    let Some(name) = asked.agent.clone().or(scope) else {
        return Ok(());
    };
    let counted = known.iter().filter_map(|scope| of_scope(scope));
    let mut names: Vec<String> = agents.iter().map(|agent| agent.name().to_owned()).collect();
    names.extend(counted);
    if names.contains(&name) {
        return Ok(());
    }
    names.sort_unstable();
    names.dedup();
    let help = did_you_mean(&name, names.iter().map(String::as_str)).unwrap_or_else(|| {
        let more = names.len().saturating_sub(LISTED);
        let first = listed(names.iter().take(LISTED).map(|name| printable(name)));
        match more {
            0 => format!("there are: {first}"),
            more => format!("there are: {first} and {more} more"),
        }
    });
    let name = printable(&name);
    Err(AimError::Unknown(format!(
        "there is no agent `{name}`; {help}"
    )))
}

/// The group of calls that a change is for; nothing means every group of the limit. `known` are those
/// that were counted already.
pub fn scope(
    limit: &Limit,
    asked: &AmendRequest,
    known: &[Arc<str>],
) -> Result<Option<Arc<str>>, AimError> {
    match (&asked.scope, &asked.agent) {
        (Some(_), Some(_)) => Err(AimError::Wrong(
            "`scope` and `agent` exclude each other".to_owned(),
        )),
        (Some(scope), None) if scope == "all" => Ok(None),
        (Some(scope), None) => named_scope(limit, scope).map(Some),
        (None, Some(agent)) => agents_scope(limit, agent, known).map(Some),
        (None, None) => only_scope(limit, known).map(Some),
    }
}

/// One that is written out. It may be of calls that nobody made yet.
fn named_scope(limit: &Limit, scope: &str) -> Result<Arc<str>, AimError> {
    let wrong = |why: String| AimError::Wrong(format!("`{scope}` is no group of calls: {why}"));
    if limit.group_by.is_empty() {
        return match scope {
            "" => Ok(scope.into()),
            _ => Err(wrong(together(limit))),
        };
    }
    let mut rest = scope;
    for (index, group) in limit.group_by.iter().enumerate() {
        let key = key(*group);
        let is_last = index + 1 == limit.group_by.len();
        let own = rest
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('='));
        // Only the last may hold a comma: it is the model's name, and agents choose that.
        let parts = own.and_then(|own| match is_last {
            true => Some((own, "")),
            false => own.split_once(','),
        });
        let Some((value, next)) = parts else {
            return Err(wrong(format!("write {}", form(limit))));
        };
        if *group == GroupBy::Agent {
            let agent = Agent::parse(value).map_err(|error| wrong(error.to_string()))?;
            is_covered(limit, &agent)?;
        }
        rest = next;
    }
    Ok(scope.into())
}

/// The one of an agent.
fn agents_scope(limit: &Limit, agent: &str, known: &[Arc<str>]) -> Result<Arc<str>, AimError> {
    let agent = Agent::parse(agent).map_err(|error| AimError::Wrong(error.to_string()))?;
    let name = agent.name();
    if limit.group_by.is_empty() {
        return Err(AimError::Wrong(together(limit)));
    }
    if !limit.group_by.contains(&GroupBy::Agent) {
        return Err(AimError::Wrong(format!(
            "the budget `{}` does not count agents apart; name a group with --scope: {}",
            limit.budget,
            form(limit)
        )));
    }
    is_covered(limit, &agent)?;
    let own = format!("agent={name}");
    if *limit.group_by == [GroupBy::Agent] {
        return Ok(own.into());
    }
    let below = format!("{own},");
    let mut own = known.iter().filter(|scope| scope.starts_with(&below));
    match (own.next(), own.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(AimError::Unknown(format!(
            "no call of `{name}` was counted yet; name the group with --scope: {}",
            form(limit)
        ))),
        (Some(one), Some(other)) => {
            let all = [one, other].into_iter().chain(own);
            Err(several(limit, all))
        }
    }
}

/// The one that there is, where none is named.
fn only_scope(limit: &Limit, known: &[Arc<str>]) -> Result<Arc<str>, AimError> {
    if limit.group_by.is_empty() {
        return Ok("".into());
    }
    if let ([GroupBy::Agent], [Pattern::Exact(agent)]) = (&*limit.group_by, &*limit.selector.agents)
    {
        return Ok(format!("agent={agent}").into());
    }
    match known {
        [only] => Ok(only.clone()),
        [] => Err(AimError::Ambiguous(format!(
            "the budget `{}` counts each group by itself, and has counted none yet; name one with --scope \
             ({}), or all of them with `--scope all`",
            limit.budget,
            form(limit)
        ))),
        several_ => Err(several(limit, several_)),
    }
}

/// So many groups are listed in an error.
const LISTED: usize = 8;

fn several<'s>(limit: &Limit, scopes: impl IntoIterator<Item = &'s Arc<str>>) -> AimError {
    let mut scopes: Vec<String> = scopes.into_iter().map(|s| printable(s)).collect();
    scopes.sort_unstable();
    let more = scopes.len().saturating_sub(LISTED);
    scopes.truncate(LISTED);
    let mut list = listed(scopes);
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    AimError::Ambiguous(format!(
        "the budget `{}` counts each group by itself: {list}; name one with --agent or --scope, or all of them \
         with `--scope all`",
        limit.budget
    ))
}

fn together(limit: &Limit) -> String {
    format!(
        "the budget `{}` counts all calls together; leave --agent and --scope out",
        limit.budget
    )
}

fn is_covered(limit: &Limit, agent: &Agent) -> Result<(), AimError> {
    let agents = &limit.selector.agents;
    match agents.is_empty() || agents.iter().any(|own| own.matches(agent.name())) {
        true => Ok(()),
        false => Err(AimError::Unknown(format!(
            "the budget `{}` is not for the agent `{}`",
            limit.budget,
            agent.name()
        ))),
    }
}

/// `agent=NAME,model=NAME`.
fn form(limit: &Limit) -> String {
    let keys = limit.group_by.iter().map(|group| key(*group));
    let keys: Vec<String> = keys.map(|key| format!("{key}=NAME")).collect();
    keys.join(",")
}

fn key(group: GroupBy) -> &'static str {
    match group {
        GroupBy::Agent => "agent",
        GroupBy::Namespace => "namespace",
        GroupBy::Execution => "execution",
        GroupBy::Model => "model",
    }
}

fn describe(limit: &Limit) -> String {
    let measure = Measure::of(&limit.unit);
    let window = window_name(&limit.window);
    format!("{} ({window})", measure.show(limit.max))
}

fn listed(words: impl IntoIterator<Item = String>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// A name that an agent may have chosen, with nothing in it that a terminal obeys.
pub fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        // Marks that turn the direction of writing, and other invisible ones.
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .map(|c| if obeyed(c) { '\u{fffd}' } else { c })
        .collect()
}

/// The window in one word: `day`, `6h`, `total`.
pub fn window_word(window: &WindowKind) -> String {
    match window {
        WindowKind::Calendar(Period::Hour, _) => "hour".to_owned(),
        WindowKind::Calendar(Period::Day, _) => "day".to_owned(),
        WindowKind::Calendar(Period::Week, _) => "week".to_owned(),
        WindowKind::Calendar(Period::Month, _) => "month".to_owned(),
        WindowKind::Fixed(length) | WindowKind::Rolling(length) => length_word(*length),
        WindowKind::Total => "total".to_owned(),
        WindowKind::Execution => "execution".to_owned(),
    }
}

/// The same in full: `day Europe/Berlin`, `fixed 6h`, `rolling 1h`, `total`.
pub fn window_name(window: &WindowKind) -> String {
    let word = window_word(window);
    match window {
        WindowKind::Calendar(_, zone) => {
            format!("{word} {}", super::moment::zone_name(zone))
        }
        WindowKind::Fixed(_) => format!("fixed {word}"),
        WindowKind::Rolling(_) => format!("rolling {word}"),
        WindowKind::Total | WindowKind::Execution => word,
    }
}

fn length_word(length: std::time::Duration) -> String {
    let mut seconds = length.as_secs();
    let mut word = String::new();
    for (size, unit) in [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")] {
        // Days are read in hours up to two, as documents have them.
        if size == 86400 && seconds < 3 * size {
            continue;
        }
        if seconds >= size {
            word.push_str(&format!("{}{unit}", seconds / size));
            seconds %= size;
        }
    }
    word
}

#[cfg(test)]
#[path = "amend_request_tests.rs"]
mod tests;
