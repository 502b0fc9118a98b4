//! Owns finding what is filed under agents by name or by the beginning of one, without asking each in turn.

use std::collections::HashMap;

use super::agent::Agent;

/// Things filed under names of agents, beginnings of names, and everyone. A look takes one step for each
/// length that beginnings have, however much is filed.
#[derive(Debug)]
pub struct AgentIndex<T> {
    names: HashMap<Box<str>, Vec<T>>,
    prefixes: HashMap<Box<str>, Vec<T>>,
    /// The lengths that beginnings have, growing.
    lengths: Vec<usize>,
    everyone: Vec<T>,
}

impl<T> Default for AgentIndex<T> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            prefixes: HashMap::new(),
            lengths: Vec::new(),
            everyone: Vec::new(),
        }
    }
}

impl<T> AgentIndex<T> {
    /// Files something under every agent.
    pub fn everyone(&mut self, item: T) {
        self.everyone.push(item);
    }

    /// Files something under `team-a/scan`, `team-a/*` or `*`.
    pub fn file(&mut self, pattern: &str, item: T) {
        match pattern.strip_suffix('*') {
            None => self.names.entry(pattern.into()).or_default().push(item),
            Some("") => self.everyone(item),
            Some(prefix) => {
                if let Err(place) = self.lengths.binary_search(&prefix.len()) {
                    self.lengths.insert(place, prefix.len());
                }
                self.prefixes.entry(prefix.into()).or_default().push(item);
            }
        }
    }

    /// What is filed under this agent; what was filed under several of its names comes several times.
    pub fn of<'s>(&'s self, agent: &Agent) -> impl Iterator<Item = &'s T> {
        let name = agent.name();
        let exact = self.names.get(name).into_iter().flatten();
        let heads = self.lengths.iter().map_while(|length| name.get(..*length));
        let below = heads.filter_map(|head| self.prefixes.get(head)).flatten();
        exact.chain(below).chain(&self.everyone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_finds_what_is_filed_under_its_name_and_its_beginnings() {
        let mut index = AgentIndex::default();
        for (pattern, item) in [
            ("a/b", 1),
            ("a/*", 2),
            ("a*", 3),
            ("*", 4),
            ("b/*", 5),
            ("a/bc*", 6),
        ] {
            index.file(pattern, item);
        }
        index.everyone(7);
        let of = |name: &str| {
            let agent = Agent::parse(name).unwrap();
            index.of(&agent).copied().collect::<Vec<_>>()
        };
        assert_eq!(of("a/b"), [1, 3, 2, 4, 7]);
        assert_eq!(of("a/bcd"), [3, 2, 6, 4, 7]);
        assert_eq!(of("a"), [3, 4, 7]);
        assert_eq!(of("c"), [4, 7]);
    }
}
