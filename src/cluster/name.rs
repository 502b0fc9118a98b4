//! Owns the names of Kubernetes objects: checked once, then safe in an address and in a message.

use std::fmt;

/// An object of some kind in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    namespace: String,
    name: String,
}

impl ObjectName {
    /// Checks both: an RFC 1123 label and an RFC 1123 subdomain.
    pub fn parse(namespace: &str, name: &str) -> Result<Self, BadName> {
        if !is_label(namespace) {
            return Err(BadName::Namespace(namespace.to_owned()));
        }
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(BadName::Object(name.to_owned()));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The namespace it is in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in namespace {}", self.name, self.namespace)
    }
}

/// A key under `data` of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKey(String);

impl DataKey {
    /// Checks it as `IsConfigMapKey` of Kubernetes does.
    pub fn parse(key: &str) -> Result<Self, BadName> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let dots = key == "." || key.starts_with("..");
        if key.is_empty() || key.len() > 253 || dots || !key.bytes().all(legal) {
            return Err(BadName::Key(key.to_owned()));
        }
        Ok(Self(key.to_owned()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that Kubernetes does not take for a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadName {
    /// Not an RFC 1123 label.
    #[error(
        "{0:?} is no namespace: at most 63 lowercase letters, digits and '-', beginning and ending with a letter or digit"
    )]
    Namespace(String),
    /// Not an RFC 1123 subdomain.
    #[error(
        "{0:?} is no name of a Kubernetes object: at most 253 lowercase letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
    )]
    Object(String),
    /// Not a key of a Secret.
    #[error("{0:?} is no key of a Secret: at most 253 letters, digits, '-', '_' and '.'")]
    Key(String),
}

fn is_label(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_its_place_in_an_address_is_no_name() {
        assert!(ObjectName::parse("egress-system", "tollgate.oauth-1").is_ok());
        for (namespace, name) in [
            ("", "a"),
            ("a.b", "a"),
            ("A", "a"),
            ("a", ""),
            ("a", ".."),
            ("a", "x/y"),
            ("a", "x?dryRun=All"),
            ("a", "-x"),
            ("a/../b", "x"),
        ] {
            assert!(
                ObjectName::parse(namespace, name).is_err(),
                "{namespace} {name}"
            );
        }
    }

    #[test]
    fn a_key_of_a_secret_is_what_kubernetes_takes() {
        assert!(DataKey::parse(".credentials.json").is_ok());
        assert!(DataKey::parse("claude_code").is_ok());
        for key in ["", ".", "..", "..x", "a/b", "a b", "ä"] {
            assert!(DataKey::parse(key).is_err(), "{key}");
        }
    }
}
