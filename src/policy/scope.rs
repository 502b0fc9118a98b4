//! Owns which agents a policy is for, and how strictly it is applied to them.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::policy::Mode;
use crate::types::agent::{Agent, AgentNameError};

/// The agents of one policy.
#[derive(Debug)]
pub(super) struct Scope {
    names: Names,
    /// How strictly the policy is applied.
    pub(super) mode: Mode,
}

#[derive(Debug)]
enum Names {
    Everyone,
    Some {
        exact: BTreeSet<Box<str>>,
        prefixes: Vec<Box<str>>,
    },
}

/// Why a text selects no agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SelectorError {
    #[error("a star stands at the end of an agent selector only, as in `team-a/*`")]
    Star,
    #[error("{0}")]
    Name(#[from] AgentNameError),
}

impl Scope {
    /// Every agent.
    pub(super) fn everyone(mode: Mode) -> Self {
        Self {
            names: Names::Everyone,
            mode,
        }
    }

    /// The agents that one of `selectors` names. `*` alone names every agent.
    pub(super) fn of(selectors: impl IntoIterator<Item = Selector>, mode: Mode) -> Self {
        let mut exact = BTreeSet::new();
        let mut prefixes = Vec::new();
        for selector in selectors {
            match selector {
                Selector::Exact(name) => {
                    exact.insert(name);
                }
                Selector::Prefix(prefix) if prefix.is_empty() => return Self::everyone(mode),
                Selector::Prefix(prefix) => prefixes.push(prefix),
            }
        }
        Self {
            names: Names::Some { exact, prefixes },
            mode,
        }
    }

    /// Whether the policy is for this agent.
    pub(super) fn covers(&self, agent: &Agent) -> bool {
        match &self.names {
            Names::Everyone => true,
            Names::Some { exact, prefixes } => {
                exact.contains(agent.name())
                    || prefixes.iter().any(|p| agent.name().starts_with(&**p))
            }
        }
    }

    /// Whether some agent may be covered by both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (
            Names::Some { exact, prefixes },
            Names::Some {
                exact: e2,
                prefixes: p2,
            },
        ) = (&self.names, &other.names)
        else {
            return true;
        };
        let starts = |names: &BTreeSet<Box<str>>, prefixes: &[Box<str>]| {
            names
                .iter()
                .any(|n| prefixes.iter().any(|p| n.starts_with(&**p)))
        };
        !exact.is_disjoint(e2)
            || starts(exact, p2)
            || starts(e2, prefixes)
            || prefixes.iter().any(|a| {
                p2.iter()
                    .any(|b| a.starts_with(&**b) || b.starts_with(&**a))
            })
    }
}

impl fmt::Display for Scope {
    /// `every agent`, or the first few names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 3;
        let Names::Some { exact, prefixes } = &self.names else {
            return f.write_str("every agent");
        };
        let prefixes = prefixes.iter().map(|prefix| format!("{prefix}*"));
        let all = exact.iter().map(ToString::to_string).chain(prefixes);
        let all = all.collect::<Vec<_>>();
        f.write_str(&all[..all.len().min(MOST)].join(", "))?;
        match all.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// One entry of `agents.names`.
pub(super) enum Selector {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl Selector {
    /// Parses `team-a/scan`, `team-a/*` or `*`.
    pub(super) fn parse(text: &str) -> Result<Self, SelectorError> {
        let Some(prefix) = text.strip_suffix('*') else {
            return match text.contains('*') {
                true => Err(SelectorError::Star),
                false => Ok(Self::Exact(Agent::parse(text)?.name().into())),
            };
        };
        if prefix.contains('*') {
            return Err(SelectorError::Star);
        }
        // A prefix is well formed if some name can follow it.
        Agent::parse(&format!("{prefix}x"))?;
        Ok(Self::Prefix(prefix.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(names: &[&str]) -> Scope {
        Scope::of(
            names.iter().map(|n| Selector::parse(n).unwrap()),
            Mode::Enforce,
        )
    }

    #[test]
    fn a_star_stands_for_the_rest_of_a_name() {
        let covers = |names: &[&str], agent| scope(names).covers(&Agent::parse(agent).unwrap());
        assert!(covers(&["team-a/*"], "team-a/scan") && !covers(&["team-a/*"], "team-b/scan"));
        assert!(covers(&["scan"], "scan") && !covers(&["scan"], "scanner"));
        assert!(covers(&["*"], "anyone") && covers(&["x", "sc*"], "scan"));
        for bad in ["", "a*b", "**", "a b", "a/b/*"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_overlap_when_one_agent_can_be_in_both() {
        for (a, b, overlaps) in [
            (&["a"][..], &["a", "b"][..], true),
            (&["a"], &["b"], false),
            (&["team-a/*"], &["team-a/scan"], true),
            (&["team-a/*"], &["team-b/scan"], false),
            (&["team-*"], &["team-a/*"], true),
            (&["team-a*"], &["team-b*"], false),
            (&["*"], &["x"], true),
        ] {
            assert_eq!(scope(a).overlaps(&scope(b)), overlaps, "{a:?} {b:?}");
            assert_eq!(scope(b).overlaps(&scope(a)), overlaps, "{b:?} {a:?}");
        }
    }
}
