//! Owns who is calling: the name every rule, placeholder and log line uses.

use std::fmt;
use std::sync::Arc;

/// The program whose traffic is carried, by its name (`claude`, `team-a/scan`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Agent(Arc<str>);

/// Why a text cannot name an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name an agent: use 1 to 253 letters, digits, `-`, `_`, `.`, and at most one `/`"
)]
pub struct AgentNameError(String);

impl Agent {
    /// The agent of a process that serves one agent only and was given no name.
    pub const DEFAULT_NAME: &'static str = "agent";

    /// Parses `name` or `namespace/name`.
    pub fn parse(name: &str) -> Result<Self, AgentNameError> {
        let letters = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
        let parts = name.split('/').collect::<Vec<_>>();
        let shaped = parts.len() <= 2 && parts.iter().all(|p| !p.is_empty());
        if !letters || !shaped || name.len() > 253 {
            return Err(AgentNameError(name.chars().take(80).collect()));
        }
        Ok(Self(name.into()))
    }

    /// The name as written.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agent({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kubernetes_like() {
        for good in ["claude", "team-a/scan", "a.b_c", "A1"] {
            assert_eq!(Agent::parse(good).unwrap().name(), good);
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "a b",
            "a\nb",
            "ä",
            &"x".repeat(254),
        ] {
            assert!(Agent::parse(bad).is_err(), "{bad:?}");
        }
    }
}
