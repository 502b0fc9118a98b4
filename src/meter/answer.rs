//! Owns what all formats of answers have in common: the pieces they come in, what was seen of them, and
//! what may be said of their usage in the end.

use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::call::CacheUse;
use super::reading::{Progress, Reading};
use crate::types::said::Said;
use crate::types::usage::{ModelUse, Terms, TokenClass, Usage};

/// The most octets of one piece of an answer that are kept. The largest real ones carry images
/// in base64 (some 5 MB each). A larger piece is counted, and not read.
pub(super) const MAX_PIECE: usize = 32 << 20;

/// A part of an answer that can be read by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A server-sent event, or a message of an AWS event stream.
    Event {
        /// Its kind, where it says one.
        name: &'a [u8],
        /// Its data.
        data: &'a [u8],
    },
    /// An object of JSON text: the whole body, a line of it, or an element of the array that it is.
    Object(&'a [u8]),
    /// The end of a JSON text: its last brace or bracket.
    Closed,
    /// This many octets were too much to keep, or are in no known shape.
    Lost(u64),
}

/// Reads the usage out of the pieces of an answer in one format.
pub(super) trait Answer: Send {
    /// Takes the next piece in.
    fn piece(&mut self, piece: Piece<'_>);

    /// What was seen and told so far.
    fn so_far(&self) -> SoFar;

    /// Why it ended, and what it was made of, as far as it said so.
    fn said(&self) -> Said {
        Said::default()
    }

    /// Whether it is an error of the provider and nothing else.
    fn is_failure(&self) -> bool {
        false
    }

    /// The prompt's and the answer's counts at the end.
    fn ending(self: Box<Self>) -> Ending;
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SoFar {
    /// The prompt's tokens, once they are known.
    pub(super) input: Option<Usage>,
    /// Tokens of the answer that were reported.
    pub(super) reported: u64,
    /// Tokens of the answer that were seen, by estimate.
    pub(super) seen: u64,
    /// No fewer tokens than these are in what was seen.
    pub(super) at_least: u64,
    /// Whether it is whole by its own rules.
    pub(super) complete: bool,
}

impl SoFar {
    /// The same, as the rest of the program sees it; `more` tokens were seen beside the pieces.
    pub(super) fn progress(&self, more: u64) -> Progress {
        Progress {
            input: self.input,
            produced: self.reported.max(self.seen.saturating_add(more)),
            read: self.reported.max(self.seen),
            at_least: self.at_least,
            complete: self.complete,
        }
    }
}

/// What an answer has said in the end.
#[derive(Debug)]
pub(super) struct Ending {
    /// Each model's use, the main one first. Nothing if the prompt's tokens are not known.
    pub(super) uses: Option<Vec<ModelUse>>,
    /// Whether these are the provider's final counts, all of them readable.
    pub(super) is_final: bool,
    /// How far it had come.
    pub(super) so_far: SoFar,
}

impl Ending {
    /// The reading; `more` tokens were seen beside the pieces.
    pub(super) fn reading(self, more: u64) -> Reading {
        let produced = self.so_far.progress(more).produced;
        let Some(mut uses) = self.uses else {
            return Reading::Unknown { produced };
        };
        if self.is_final {
            return Reading::Exact(uses);
        }
        let told = uses.iter().fold(0_u64, |sum, one| {
            sum.saturating_add(one.usage.total_output())
        });
        if let Some(main) = uses.first_mut() {
            let output = &mut main.usage[TokenClass::Output];
            *output = output.saturating_add(produced.saturating_sub(told));
        }
        Reading::Partial(uses)
    }
}

/// What was seen of an answer besides its counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    octets: u64,
    /// Of these, the octets of text as the model wrote it.
    text: u64,
    hinted: u64,
    unread: bool,
    counted: bool,
    begun: bool,
    failed: bool,
}

impl Seen {
    /// That many octets of the answer itself went by.
    pub(super) fn visible(&mut self, octets: u64) {
        self.unknown(octets);
        self.text = self.text.saturating_add(octets);
    }

    /// That many octets went by that may be of the answer.
    pub(super) fn unknown(&mut self, octets: u64) {
        self.octets = self.octets.saturating_add(octets);
        self.counted &= octets == 0;
    }

    /// The provider hinted at that many tokens that do not show.
    pub(super) fn hint(&mut self, tokens: u64) {
        self.hinted = self.hinted.saturating_add(tokens);
        self.counted &= tokens == 0;
    }

    /// That many octets could not be read, and any count may have been in them.
    pub(super) fn lost(&mut self, octets: u64) {
        self.octets = self.octets.saturating_add(octets);
        self.unread = true;
    }

    /// The provider has begun to work on an answer, whether or not anything of it shows.
    pub(super) fn began(&mut self) {
        self.begun = true;
    }

    /// The provider says that there is an error.
    pub(super) fn failed(&mut self) {
        self.failed = true;
    }

    /// Whether that is all it said.
    pub(super) fn is_failure(&self) -> bool {
        let nothing = self.octets == 0 && self.hinted == 0 && !self.unread;
        self.failed && !self.begun && nothing
    }

    /// The answer's tokens were reported, and nothing of it was seen since.
    pub(super) fn counted(&mut self) {
        self.counted = true;
    }

    /// Whether the last report covers all that was seen, and nothing went by unread.
    pub(super) fn is_counted(&self) -> bool {
        self.counted && !self.unread
    }

    /// Whether anything went by unread.
    pub(super) fn has_lost(&self) -> bool {
        self.unread
    }

    /// Tokens of what was seen: what was hinted at, and one for every three octets begun. Text of the
    /// large tokenizers has about four octets a token; three leaves room for code and other scripts.
    pub(super) fn tokens(&self) -> u64 {
        self.hinted.saturating_add(self.octets.div_ceil(3))
    }

    /// No fewer tokens than these are in the text that was seen: one for every six octets. Prose has one for four
    /// or five, code for fewer; what has longer ones is white space and rules, which no long answer is made of.
    pub(super) fn at_least(&self) -> u64 {
        self.text / 6
    }

    /// Reads a piece, or notes that it could not be read.
    pub(super) fn read<'a, T: Deserialize<'a>>(&mut self, data: &'a [u8]) -> Option<T> {
        if let Ok(read) = serde_json::from_slice(data) {
            return Some(read);
        }
        // An event of a kind yet unknown may use a known name for something else. That does no harm if it
        // is sound JSON that cannot name usage, not even in escapes.
        let may_count = [&b"usage"[..], b"oken", b"\\u"]
            .into_iter()
            .any(|word| memmem::find(data, word).is_some());
        if may_count || serde_json::from_slice::<IgnoredAny>(data).is_err() {
            self.lost(data.len() as u64);
        } else {
            self.unknown(data.len() as u64);
        }
        None
    }
}

/// The name that an answer gives to its model. Longer ones than any real one are no names.
pub(super) fn model_name(name: &str) -> Option<Arc<str>> {
    (!name.is_empty() && name.len() <= 256).then(|| name.into())
}

/// A term of service in a provider's words, unless it is the standard one.
pub(super) fn term(word: &str) -> Option<Box<str>> {
    let standard = [
        "",
        "auto",
        "default",
        "standard",
        "standard_only",
        "on_demand",
        "global",
        "not_available",
    ];
    let word = word.to_ascii_lowercase();
    (!standard.contains(&word.as_str())).then(|| word.into())
}

/// The terms that were asked for, with those that the answer names in their place. A discount that the answer does
/// not confirm is none.
pub(super) fn terms_of(
    asked: &Terms,
    service_tier: Option<&str>,
    speed: Option<&str>,
    geo: Option<&str>,
) -> Terms {
    let either = |told: Option<&str>, asked: &Option<Box<str>>| match told {
        Some(told) => term(told),
        None => asked.as_deref().and_then(term),
    };
    let tier = either(service_tier, &asked.service_tier);
    Terms {
        is_only_asked: service_tier.is_none() && tier.is_some(),
        service_tier: tier,
        speed: either(speed, &asked.speed),
        geo: either(geo, &asked.geo),
    }
}

/// What was written to a cache, by class: `total` tokens, of which those in `minutes` and `hour` are said to live
/// that long. The rest, of which it is not said, lives as long as the longest that the request asked for.
pub(super) fn written_to_cache(total: u64, minutes: u64, hour: u64, cache: CacheUse) -> Usage {
    let rest = total.saturating_sub(minutes.saturating_add(hour));
    let mut usage = Usage::default();
    usage[TokenClass::CacheWrite5m] = minutes;
    usage[TokenClass::CacheWrite1h] = hour;
    let class = match cache {
        CacheUse::Hour => TokenClass::CacheWrite1h,
        CacheUse::Unnamed | CacheUse::Minutes5 => TokenClass::CacheWrite5m,
    };
    usage[class] = usage[class].saturating_add(rest);
    usage
}
