//! Owns who is calling: what a door knows about its peer becomes an agent, or a refusal. Ordinary
//! request headers never say who an agent is.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::types::agent::Agent;
use crate::types::secret::Secret;

/// How agents are told apart.
pub enum Identifier {
    /// One agent only: a sidecar's pod, a laptop. With it the execution that all its calls are of, if
    /// that was told.
    Fixed(Agent, Option<Arc<str>>),
    /// Agents that name themselves with a token of their own (RFC 9110, section 11.7.2).
    Tokens(TokenTable),
}

/// One agent's token.
struct AgentToken {
    agent: Agent,
    token: Secret,
}

/// Agents by their tokens. A token is looked up by its SHA-256: time tells nothing about which of them an
/// unknown one resembles, and one of ten thousand agents is found as fast as the only one.
#[derive(Default)]
pub struct TokenTable {
    tokens: Vec<AgentToken>,
    by_hash: HashMap<[u8; 32], usize>,
}

impl TokenTable {
    /// Takes one in. A token alone may be shown, without a name: one that another agent has is refused,
    /// and that agent is the error.
    pub fn add(&mut self, agent: Agent, token: Secret) -> Result<(), &Agent> {
        let index = *self
            .by_hash
            .entry(hash(&token))
            .or_insert(self.tokens.len());
        if self.tokens.get(index).is_some_and(|t| t.agent != agent) {
            return Err(&self.tokens[index].agent);
        }
        self.tokens.push(AgentToken { agent, token });
        Ok(())
    }

    fn agent(&self, token: &Secret) -> Option<&Agent> {
        let index = self.by_hash.get(&hash(token))?;
        self.tokens.get(*index).map(|known| &known.agent)
    }
}

fn hash(token: &Secret) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.expose()).as_ref());
    hash
}

/// The caller showed nothing, or nothing that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// No `Proxy-Authorization`.
    #[error("this proxy serves several agents and the request names none")]
    Missing,
    /// One that fits no agent.
    #[error("the agent token is not known")]
    Unknown,
}

impl Identifier {
    /// The agent behind a `Proxy-Authorization` field: `Basic base64(name:token)` or `Bearer token`.
    pub fn identify(
        &self,
        proxy_authorization: Option<&HeaderValue>,
    ) -> Result<Agent, Unidentified> {
        let tokens = match self {
            Self::Fixed(agent, _) => return Ok(agent.clone()),
            Self::Tokens(tokens) => tokens,
        };
        let shown = proxy_authorization.ok_or(Unidentified::Missing)?;
        let (name, token) = parse(shown.as_bytes()).ok_or(Unidentified::Unknown)?;
        let fits = |agent: &&Agent| name.as_deref().is_none_or(|name| name == agent.name());
        let found = tokens.agent(&token).filter(fits);
        found.cloned().ok_or(Unidentified::Unknown)
    }

    /// The agent, where there is only one: it is known before it says anything.
    pub fn only(&self) -> Option<&Agent> {
        match self {
            Self::Fixed(agent, _) => Some(agent),
            Self::Tokens(_) => None,
        }
    }

    /// The one run of an agent that all calls are of, where that is known.
    pub fn execution(&self) -> Option<Arc<str>> {
        match self {
            Self::Fixed(_, execution) => execution.clone(),
            Self::Tokens(_) => None,
        }
    }

    /// Every agent that is known.
    pub fn agents(&self) -> Vec<Agent> {
        match self {
            Self::Fixed(agent, _) => vec![agent.clone()],
            Self::Tokens(table) => table.tokens.iter().map(|t| t.agent.clone()).collect(),
        }
    }

    /// The token of `agent`, for the environment that is printed for it.
    pub fn token_of(&self, agent: &Agent) -> Option<&Secret> {
        match self {
            Self::Fixed(..) => None,
            Self::Tokens(table) => {
                let own = table.tokens.iter().find(|t| t.agent == *agent);
                own.map(|t| &t.token)
            }
        }
    }
}

fn parse(field: &[u8]) -> Option<(Option<String>, Secret)> {
    let field = std::str::from_utf8(field).ok()?;
    let (scheme, rest) = field.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((None, Secret::from(rest.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (name, token) = pair.split_once(':')?;
    Some((Some(name.to_owned()), Secret::from(token.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Identifier {
        let mut table = TokenTable::default();
        for (name, token) in [("a", "token-of-a"), ("b", "token-of-b")] {
            let token = Secret::from(token.to_owned());
            assert_eq!(table.add(Agent::parse(name).unwrap(), token), Ok(()));
        }
        Identifier::Tokens(table)
    }

    #[test]
    fn a_token_that_another_agent_has_is_refused() {
        let Identifier::Tokens(mut table) = two() else {
            unreachable!();
        };
        let mut add = |name: &str, token: &str| {
            let agent = Agent::parse(name).unwrap();
            let added = table.add(agent, Secret::from(token.to_owned()));
            added.map_err(ToString::to_string)
        };
        assert_eq!(add("c", "token-of-a"), Err("a".to_owned()));
        assert_eq!(add("a", "token-of-a"), Ok(()));
        assert_eq!(add("c", "token-of-c"), Ok(()));
    }

    fn identify(field: Option<&str>) -> Result<String, Unidentified> {
        let field = field.map(|f| HeaderValue::from_str(f).unwrap());
        two()
            .identify(field.as_ref())
            .map(|agent| agent.to_string())
    }

    #[test]
    fn a_token_names_its_agent() {
        let basic = format!("Basic {}", STANDARD.encode("b:token-of-b"));
        assert_eq!(identify(Some(&basic)), Ok("b".to_owned()));
        assert_eq!(identify(Some("Bearer token-of-a")), Ok("a".to_owned()));
    }

    #[test]
    fn one_agent_may_be_one_execution() {
        let agent = Agent::parse("a").unwrap();
        let fixed = Identifier::Fixed(agent, Some("run-1".into()));
        assert_eq!(fixed.execution().as_deref(), Some("run-1"));
        assert_eq!(fixed.identify(None).unwrap().name(), "a");
        assert_eq!(two().execution(), None);
    }

    #[test]
    fn anything_else_names_none() {
        let stolen = format!("Basic {}", STANDARD.encode("a:token-of-b"));
        assert_eq!(identify(None), Err(Unidentified::Missing));
        for field in [
            stolen.as_str(),
            "Bearer x",
            "Basic !!",
            "Basic",
            "Digest a",
            "",
        ] {
            assert_eq!(
                identify(Some(field)),
                Err(Unidentified::Unknown),
                "{field:?}"
            );
        }
    }
}
