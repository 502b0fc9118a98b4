//! Owns what one agent holds: its placeholders, and the search for any of them in what it sends.

use std::borrow::Cow;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::{memchr, memmem};

use crate::oauth::phantom::Phantoms;

/// The placeholders of one agent, in the order of the credentials.
#[derive(Debug)]
pub struct AgentTable {
    held: Vec<Held>,
    /// Every placeholder, and the number of its credential.
    all: Vec<(String, usize)>,
    /// The length of the shortest: most of what an agent sends is shorter, and decoding lengthens nothing.
    shortest: usize,
    search: Option<AhoCorasick>,
}

/// What an agent holds of one credential.
#[derive(Debug)]
pub struct Held {
    /// The credential's name.
    pub name: Arc<str>,
    /// What stands for the secret.
    pub placeholder: String,
    /// What stands for the other tokens of a grant.
    pub phantoms: Option<Phantoms>,
}

/// How often text is decoded before it counts as searched: an origin may do so twice.
const DECODINGS: usize = 2;

impl AgentTable {
    /// A table of what one agent holds.
    pub fn new(held: impl IntoIterator<Item = Held>) -> Self {
        let held: Vec<Held> = held.into_iter().collect();
        let mut all = Vec::new();
        for (number, one) in held.iter().enumerate() {
            let phantoms = one.phantoms.iter().flat_map(|p| [&p.refresh, &p.signature]);
            let texts = std::iter::once(&one.placeholder).chain(phantoms);
            all.extend(texts.map(|text| (text.clone(), number)));
        }
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(all.iter().map(|(text, _)| text))
            .ok();
        let shortest = all.iter().map(|(text, _)| text.len()).min();
        Self {
            held,
            all,
            shortest: shortest.unwrap_or(usize::MAX),
            search,
        }
    }

    /// The name of credential number `index`.
    pub fn name(&self, index: usize) -> Option<&Arc<str>> {
        self.held.get(index).map(|held| &held.name)
    }

    /// The placeholder of credential number `index`.
    pub fn placeholder(&self, index: usize) -> Option<&str> {
        self.held.get(index).map(|held| held.placeholder.as_str())
    }

    /// What stands for the tokens of the grant that is credential number `index`.
    pub fn phantoms(&self, index: usize) -> Option<&Phantoms> {
        self.held.get(index)?.phantoms.as_ref()
    }

    /// The number of the credential of which a placeholder stands somewhere in `text`.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        if text.len() < self.shortest {
            return None;
        }
        let found = match &self.search {
            Some(search) => search.find(text).map(|found| found.pattern().as_usize()),
            // Too many patterns for an automaton: slow, but never blind.
            None => {
                let stands = |(p, _): &(String, usize)| memmem::find(text, p.as_bytes()).is_some();
                self.all.iter().position(stands)
            }
        };
        found
            .and_then(|found| self.all.get(found))
            .map(|(_, number)| *number)
    }

    /// Whether `text` is a placeholder, whole.
    pub fn is_placeholder(&self, text: &[u8]) -> bool {
        let found = self.find(text).and_then(|index| self.placeholder(index));
        found.is_some_and(|placeholder| placeholder.as_bytes() == text)
    }

    /// The same as [`AgentTable::find`], looking through percent-encoding as well. Allocates only where there is some.
    pub fn find_decoded(&self, text: &[u8]) -> Option<usize> {
        if text.len() < self.shortest {
            return None;
        }
        if let Some(index) = self.find(text) {
            return Some(index);
        }
        let mut text = Cow::Borrowed(text);
        for _ in 0..DECODINGS {
            memchr(b'%', &text)?;
            let decoded: Vec<u8> = percent_encoding::percent_decode(&text).collect();
            if let Some(index) = self.find(&decoded) {
                return Some(index);
            }
            text = Cow::Owned(decoded);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_anywhere_and_through_percent_encoding() {
        let held = |name: &str, placeholder: &str| Held {
            name: name.into(),
            placeholder: placeholder.to_owned(),
            phantoms: None,
        };
        let phantoms = Phantoms {
            access: "key:gamma".to_owned(),
            refresh: "refresh:gamma".to_owned(),
            signature: "signed:gamma".to_owned(),
        };
        let table = AgentTable::new([
            held("a", "key:alpha"),
            Held {
                phantoms: Some(phantoms),
                ..held("c", "key:gamma")
            },
            held("b", "key:alphabet"),
        ]);
        for (text, found) in [
            ("xkey:alphax", Some(0)),
            ("xkey:alphabetx", Some(2)),
            ("key:gamma", Some(1)),
            ("x refresh%3Agamma", Some(1)),
            ("a.b.signed:gamma", Some(1)),
            ("/a?b=key%3Aalpha", Some(0)),
            ("/a?b=key%253aalpha", Some(0)),
            ("%6Bey:alpha", Some(0)),
            ("key:alp", None),
            ("%zz%", None),
            ("", None),
        ] {
            assert_eq!(table.find_decoded(text.as_bytes()), found, "{text}");
        }
        assert_eq!(AgentTable::new([]).find_decoded(b"anything"), None);
    }
}
