//! Owns who may do what at the Kubernetes API: accounts by token, and their Role's rules.

use super::kube_objects::{Key, Kind};

/// One rule of a Role, as RBAC reads it: rules only add, and one that names objects never allows
/// `create`, because the name is not known when it is judged.
#[derive(Clone, Debug)]
pub struct Rule {
    kind: Kind,
    verbs: &'static [&'static str],
    /// `resourceNames`; empty means all.
    names: Vec<String>,
}

impl Rule {
    pub fn all(kind: Kind, verbs: &'static [&'static str]) -> Self {
        Self {
            kind,
            verbs,
            names: Vec::new(),
        }
    }

    pub fn named(kind: Kind, name: &str, verbs: &'static [&'static str]) -> Self {
        Self {
            kind,
            verbs,
            names: vec![name.to_owned()],
        }
    }

    fn allows(&self, verb: &str, key: &Key) -> bool {
        let named = self.names.is_empty() || (verb != "create" && self.names.contains(&key.name));
        self.kind == key.kind && self.verbs.contains(&verb) && named
    }
}

/// Rules that leave nothing out.
pub fn everything() -> Vec<Rule> {
    const VERBS: &[&str] = &["get", "create", "update", "patch"];
    vec![
        Rule::all(Kind::Secret, VERBS),
        Rule::all(Kind::Lease, VERBS),
    ]
}

/// A ServiceAccount with its token.
#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    pub token: String,
    /// Where its Role stands; it may do nothing elsewhere.
    pub namespace: String,
    pub rules: Vec<Rule>,
}

impl Account {
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    pub fn may(&self, verb: &str, key: &Key) -> bool {
        key.namespace == self.namespace && self.rules.iter().any(|rule| rule.allows(verb, key))
    }
}
