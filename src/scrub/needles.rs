//! Owns the search for a set of secrets in a text, all forms in one pass.
//!
//! A vectorized search looks for the first octets of every form, three or a few more; what it finds is read character by
//! character. So the searcher, whose memory is not wiped, holds no more of a secret than its beginning, its
//! size does not grow with the secrets or with the number of ways to write them, and text that has no such
//! beginning is passed over as fast as memory is read.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use zeroize::Zeroizing;

use super::needle::Needle;
use super::stand_in::{Fit, StandIn};

/// The shortest secret that is looked for, in octets. A shorter one is found by chance; what an ordinary word
/// is replaced by would tell the agent that the word is the secret.
pub const SHORTEST: usize = 8;

/// The secrets to look for, each with the placeholder that takes its place. It has no `Debug`.
pub struct Needles {
    /// Each with the number of its stand-in.
    needles: Vec<(Needle, usize)>,
    stand_ins: Vec<StandIn>,
    /// The secrets in small letters, as names of header fields would repeat them.
    small: Vec<Zeroizing<Vec<u8>>>,
    beginnings: Option<AhoCorasick>,
    /// The length of the longest of them.
    reach: usize,
    /// The most octets that one secret may be written in.
    longest: usize,
}

/// Whether there is text to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There may be.
    ToCome,
    /// It is all there.
    None,
}

/// What comes next in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// No secret.
    Nothing,
    /// A secret.
    Secret {
        start: usize,
        end: usize,
        /// Which row of which secret.
        needle: usize,
    },
    /// What may become one.
    Perhaps { start: usize },
}

impl Needles {
    /// Looks for the first of each pair, which the second takes the place of. Secrets of fewer than
    /// [`SHORTEST`] octets are left out.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut set = Self {
            needles: Vec::new(),
            stand_ins: Vec::new(),
            small: Vec::new(),
            beginnings: None,
            reach: 0,
            longest: 0,
        };
        let mut beginnings = BTreeSet::new();
        for (secret, placeholder) in pairs {
            if secret.len() < SHORTEST || secret == placeholder {
                continue;
            }
            let number = set.stand_ins.len();
            set.stand_ins.push(StandIn::new(placeholder, secret.len()));
            set.small.push(Zeroizing::new(secret.to_ascii_lowercase()));
            for needle in Needle::of(secret) {
                needle.beginnings(&mut beginnings);
                set.longest = set.longest.max(needle.longest());
                set.needles.push((needle, number));
            }
        }
        set.reach = beginnings.iter().map(Vec::len).max().unwrap_or(0);
        // Only this kind has a vectorized search. What counts is where something begins, which kinds agree on.
        set.beginnings = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(beginnings)
            .ok();
        set
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// The most octets that are held back: one secret, and another that may begin with its last character.
    pub fn most_held(&self) -> usize {
        2 * self.longest
    }

    /// The text without the secrets, and how many stood there; nothing if none did.
    pub fn scrub(&self, text: &[u8], fit: Fit) -> Option<(Vec<u8>, u64)> {
        let mut clean = Vec::new();
        let (mut from, mut hits) = (0, 0);
        while let Next::Secret { start, end, needle } =
            self.next(text, from, text.len(), Rest::None)
        {
            clean.extend_from_slice(&text[from..start]);
            clean.extend(self.stand_in(needle, &text[start..end], fit));
            (from, hits) = (end, hits + 1);
        }
        if hits == 0 {
            return None;
        }
        clean.extend_from_slice(&text[from..]);
        Some((clean, hits))
    }

    /// Whether the name of a header field, which has no capitals, repeats a secret.
    pub(super) fn stand_in_name(&self, name: &str) -> bool {
        let name = name.as_bytes();
        name.len() >= SHORTEST
            && self
                .small
                .iter()
                .any(|secret| memchr::memmem::find(name, secret).is_some())
    }

    /// What the octets of `text` that are a secret are replaced by.
    pub(super) fn stand_in(&self, needle: usize, found: &[u8], fit: Fit) -> Vec<u8> {
        let (needle, number) = &self.needles[needle];
        self.stand_ins[*number].write(needle, found, fit)
    }

    /// The first secret that begins at `from` or behind it and before `until`; of those that begin at one
    /// place the longest.
    pub(super) fn next(&self, text: &[u8], from: usize, until: usize, rest: Rest) -> Next {
        if self.is_empty() {
            return Next::Nothing;
        }
        // Where the quick search may not see all of a beginning, each octet is looked at.
        let tail = match rest {
            Rest::ToCome => text.len().saturating_sub(self.reach - 1),
            Rest::None => text.len(),
        };
        let mut at = from;
        let limit = text.len().min(until + self.reach - 1);
        while at < limit {
            let candidate = self.candidate(text, at, limit);
            let Some(start) = candidate.filter(|start| *start < until.min(tail)) else {
                break;
            };
            match self.at(text, start, rest) {
                Next::Nothing => at = start + 1,
                found => return found,
            }
        }
        for start in at.max(tail)..until {
            // Every form is longer than that: none is whole.
            if let found @ Next::Perhaps { .. } = self.at(text, start, rest) {
                return found;
            }
        }
        Next::Nothing
    }

    fn candidate(&self, text: &[u8], from: usize, limit: usize) -> Option<usize> {
        match &self.beginnings {
            Some(search) => {
                let found = search.find(Input::new(text).range(from..limit));
                found.map(|found| found.start())
            }
            // Too many for a searcher: slow, but never blind.
            None => Some(from),
        }
    }

    fn at(&self, text: &[u8], start: usize, rest: Rest) -> Next {
        let mut longest = Next::Nothing;
        let mut furthest = start;
        for (number, (needle, _)) in self.needles.iter().enumerate() {
            let found = needle.find(text, start);
            if found.open && rest == Rest::ToCome {
                return Next::Perhaps { start };
            }
            if let Some(end) = found.end.filter(|end| *end > furthest) {
                furthest = end;
                longest = Next::Secret {
                    start,
                    end,
                    needle: number,
                };
            }
        }
        match longest {
            Next::Secret { start, end, needle } => self.apart(text, start, end, needle, rest),
            none => none,
        }
    }

    /// What was found, without its last character if another secret begins with that: of a base64 that was cut
    /// short by one character, the first of what follows may have been taken for it.
    fn apart(&self, text: &[u8], start: usize, end: usize, needle: usize, rest: Rest) -> Next {
        let whole = Next::Secret { start, end, needle };
        let Some(last) = self.needles[needle].0.shared(&text[start..end]) else {
            return whole;
        };
        let end = start + last;
        for (other, _) in &self.needles {
            let found = other.find(text, end);
            if found.end.is_some() {
                return Next::Secret { start, end, needle };
            }
            if found.open && rest == Rest::ToCome {
                return Next::Perhaps { start };
            }
        }
        whole
    }
}
