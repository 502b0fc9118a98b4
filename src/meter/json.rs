//! Owns walking through a JSON text (RFC 8259) once, without building a tree of it, and knowing where
//! each value stands.
//!
//! Bodies of half a megabyte are walked for a dozen fields, so strings are passed over and not copied;
//! and the ranges of values are needed to change one of them and no other byte. The grammar is the strict
//! one. Alone an unpaired surrogate (`"\ud83d"`) passes, which clients send and origins judge.

use std::borrow::Cow;
use std::ops::Range;

/// Objects and arrays in each other, at most. Request bodies hold JSON schemas, which stay far below.
pub const MAX_DEPTH: usize = 128;

/// Why a text is no JSON text that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// The grammar forbids the octet here, or the text ends too early.
    #[error("the JSON text breaks off or is wrong at octet {0}")]
    Syntax(usize),
    /// The value is whole, and something follows it.
    #[error("something follows the JSON value at octet {0}")]
    Trailing(usize),
    /// Deeper than [`MAX_DEPTH`].
    #[error("objects and arrays stand more than {MAX_DEPTH} deep in each other at octet {0}")]
    TooDeep(usize),
}

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// `-` or a digit.
    Number,
    /// `t` or `f`
    Bool,
    /// `n`
    Null,
}

/// A place in a JSON text.
pub struct Walker<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

/// A string as it is written, without its quotes.
#[derive(Clone, Copy, Debug)]
pub struct Text<'t> {
    raw: &'t str,
    escaped: bool,
}

impl<'t> Text<'t> {
    /// As it is written; its length bounds what it says.
    pub fn raw(&self) -> &'t str {
        self.raw
    }

    /// What it says; unpaired surrogates become U+FFFD, which no name contains.
    pub fn said(&self) -> Cow<'t, str> {
        match self.escaped {
            false => Cow::Borrowed(self.raw),
            true => Cow::Owned(unescape(self.raw)),
        }
    }
}

impl<'t> Walker<'t> {
    /// Begins before the one value of `text`.
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// The octet that is read next.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What comes next, white space aside.
    pub fn peek(&mut self) -> Result<Kind, JsonFault> {
        self.space();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(JsonFault::Syntax(self.at)),
        }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), JsonFault> {
        self.space();
        match self.byte() {
            None => Ok(()),
            Some(_) => Err(JsonFault::Trailing(self.at)),
        }
    }

    /// Goes through an object; `member` gets each name and must read its value.
    pub fn object<E: From<JsonFault>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'t>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'{')?;
        if self.closes(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            member(self, name)?;
            if self.last(b'}')? {
                return Ok(());
            }
        }
    }

    /// Goes through an array; `element` must read each value.
    pub fn array<E: From<JsonFault>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'[')?;
        if self.closes(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.last(b']')? {
                return Ok(());
            }
        }
    }

    /// Reads a string.
    pub fn string(&mut self) -> Result<Text<'t>, JsonFault> {
        self.space();
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let (length, escaped) =
            string(rest.as_bytes()).map_err(|at| JsonFault::Syntax(self.at + at))?;
        self.at += length + 1;
        let raw = &rest[..length];
        Ok(Text { raw, escaped })
    }

    /// Reads a number, as it is written.
    pub fn number(&mut self) -> Result<&'t str, JsonFault> {
        self.space();
        let start = self.at;
        self.takes(b'-');
        if !self.takes(b'0') && self.digits() == 0 {
            return Err(JsonFault::Syntax(self.at));
        }
        if self.takes(b'.') && self.digits() == 0 {
            return Err(JsonFault::Syntax(self.at));
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _signed = self.takes(b'+') || self.takes(b'-');
            if self.digits() == 0 {
                return Err(JsonFault::Syntax(self.at));
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads `true` or `false`.
    pub fn bool(&mut self) -> Result<bool, JsonFault> {
        self.space();
        match self.byte() {
            Some(b't') => self.word("true").map(|()| true),
            _ => self.word("false").map(|()| false),
        }
    }

    /// Passes over one value, whatever it is.
    pub fn pass<E: From<JsonFault>>(&mut self) -> Result<(), E> {
        self.skip().map(|_| ()).map_err(E::from)
    }

    /// Passes over one value and says where it stands.
    pub fn skip(&mut self) -> Result<Range<usize>, JsonFault> {
        let kind = self.peek()?;
        let start = self.at;
        match kind {
            Kind::Object => self.object(|walker, _| walker.pass())?,
            Kind::Array => self.array(|walker| walker.pass())?,
            Kind::String => drop(self.string()?),
            Kind::Number => drop(self.number()?),
            Kind::Bool => drop(self.bool()?),
            Kind::Null => self.word("null")?,
        }
        Ok(start..self.at)
    }

    fn open(&mut self, bracket: u8) -> Result<(), JsonFault> {
        self.space();
        if self.depth == MAX_DEPTH {
            return Err(JsonFault::TooDeep(self.at));
        }
        self.expect(bracket)?;
        self.depth += 1;
        Ok(())
    }

    fn closes(&mut self, bracket: u8) -> bool {
        self.space();
        let closes = self.takes(bracket);
        self.depth -= usize::from(closes);
        closes
    }

    /// After a member or an element: whether it was the last.
    fn last(&mut self, bracket: u8) -> Result<bool, JsonFault> {
        if self.closes(bracket) {
            return Ok(true);
        }
        self.expect(b',').map(|()| false)
    }

    fn word(&mut self, word: &str) -> Result<(), JsonFault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(JsonFault::Syntax(self.at));
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        digits
    }

    fn takes(&mut self, byte: u8) -> bool {
        let takes = self.byte() == Some(byte);
        self.at += usize::from(takes);
        takes
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonFault> {
        match self.takes(byte) {
            true => Ok(()),
            false => Err(JsonFault::Syntax(self.at)),
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// How long a string is whose first quote was read, and whether it has escapes; or where it breaks the grammar. Eight
/// octets at a time.
fn string(text: &[u8]) -> Result<(usize, bool), usize> {
    let (mut at, mut escaped) = (0, false);
    while at < text.len() {
        if let Some(word) = text[at..].first_chunk() {
            let marks = specials(u64::from_le_bytes(*word));
            if marks == 0 {
                at += word.len();
                continue;
            }
            at += marks.trailing_zeros() as usize / 8;
        }
        match text[at] {
            b'"' => return Ok((at, escaped)),
            b'\\' => {
                at += escape_length(&text[at + 1..]).ok_or(at)?;
                escaped = true;
            }
            0..0x20 => return Err(at),
            _ => at += 1,
        }
    }
    Err(text.len())
}

/// How long an escape is of which this follows the backslash, both together; nothing if it is none.
#[inline]
fn escape_length(escape: &[u8]) -> Option<usize> {
    // Texts of programs have one in every line.
    const SIMPLE: [bool; 256] = {
        let (mut table, mut at) = ([false; 256], 0);
        let names = br#""\/bfnrt"#;
        while at < names.len() {
            table[names[at] as usize] = true;
            at += 1;
        }
        table
    };
    match SIMPLE[usize::from(*escape.first()?)] {
        true => Some(2),
        false => unicode_length(escape),
    }
}

#[inline(never)]
fn unicode_length(escape: &[u8]) -> Option<usize> {
    let hex = escape.strip_prefix(b"u")?.get(..4)?;
    hex.iter().all(u8::is_ascii_hexdigit).then_some(6)
}

/// How many octets from the beginning of `text` stand for themselves in a string.
pub(super) fn plain(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk() {
        let marks = specials(u64::from_le_bytes(*word));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += word.len();
    }
    let is_special = |octet: &u8| *octet < 0x20 || *octet == b'"' || *octet == b'\\';
    let rest = &text[at..];
    at + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// The highest bit of the first octet of a word that is a quote, a backslash or a control character; bits above it
/// say nothing, for a borrow can put false ones there.
#[inline]
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 128;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    // With this bit turned over, the quote (0x22) comes next to the control characters (below 0x20).
    below(word ^ (ONES * 2), 0x21) | below(word ^ (ONES * u64::from(b'\\')), 1)
}

fn unescape(raw: &str) -> String {
    let mut said = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        said.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        let mut length = 2;
        said.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (character, written) = unicode(&rest[at..]);
                length = written;
                character
            }
            other => char::from(other),
        });
        rest = rest.get(at + length..).unwrap_or_default();
    }
    said.push_str(rest);
    said
}

/// The character of `\uXXXX`, or of a pair of them, and the octets it is written in.
fn unicode(escape: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = escape.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(0).unwrap_or(0xD800);
    if let (0xD800..0xDC00, Some(second @ 0xDC00..0xE000)) = (first, unit(6)) {
        let point = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(point).unwrap_or('\u{FFFD}'), 12);
    }
    (char::from_u32(first).unwrap_or('\u{FFFD}'), 6)
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
