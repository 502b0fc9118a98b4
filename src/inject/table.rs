//! Owns what one agent holds: its placeholders, and the search for any of them in what it sends.

use std::borrow::Cow;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::{memchr, memmem};

/// The placeholders of one agent, in the order of the credentials.
#[derive(Debug)]
pub struct AgentTable {
    names: Vec<Arc<str>>,
    placeholders: Vec<String>,
    /// The length of the shortest: most of what an agent sends is shorter, and decoding lengthens nothing.
    shortest: usize,
    search: Option<AhoCorasick>,
}

/// How often text is decoded before it counts as searched: an origin may do so twice.
const DECODINGS: usize = 2;

impl AgentTable {
    /// A table of credentials' names and placeholders.
    pub fn new(held: impl IntoIterator<Item = (Arc<str>, String)>) -> Self {
        let (names, placeholders): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&placeholders)
            .ok();
        let shortest = placeholders.iter().map(String::len).min();
        Self {
            names,
            placeholders,
            shortest: shortest.unwrap_or(usize::MAX),
            search,
        }
    }

    /// The name of credential number `index`.
    pub fn name(&self, index: usize) -> Option<&Arc<str>> {
        self.names.get(index)
    }

    /// The placeholder of credential number `index`.
    pub fn placeholder(&self, index: usize) -> Option<&str> {
        self.placeholders.get(index).map(String::as_str)
    }

    /// The number of the credential whose placeholder stands somewhere in `text`.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        if text.len() < self.shortest {
            return None;
        }
        match &self.search {
            Some(search) => search.find(text).map(|found| found.pattern().as_usize()),
            // Too many patterns for an automaton: slow, but never blind.
            None => {
                let stands = |p: &String| memmem::find(text, p.as_bytes()).is_some();
                self.placeholders.iter().position(stands)
            }
        }
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
        let table = AgentTable::new([
            ("a".into(), "key:alpha".to_owned()),
            ("b".into(), "key:alphabet".to_owned()),
        ]);
        for (text, found) in [
            ("xkey:alphax", Some(0)),
            ("xkey:alphabetx", Some(1)),
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
