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
        let bytes = self.text.as_bytes();
        let (start, mut escaped) = (self.at, false);
        loop {
            self.at += plain(&bytes[self.at..]);
            match bytes.get(self.at..) {
                Some([b'"', ..]) => break,
                // Texts of programs have one of these in every line.
                Some(
                    [
                        b'\\',
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                        ..,
                    ],
                ) => {
                    escaped = true;
                    self.at += 2;
                }
                Some([b'\\', b'u', hex @ ..]) if is_four_hex(hex) => {
                    escaped = true;
                    self.at += 6;
                }
                _ => return Err(JsonFault::Syntax(self.at)),
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
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

fn is_four_hex(text: &[u8]) -> bool {
    let hex = text.get(..4);
    hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
}

/// How many octets from the beginning of `bytes` stand for themselves in a string. Eight at a time.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut passed = 0;
    while let Some(octets) = bytes.get(passed..).and_then(<[u8]>::first_chunk) {
        match first_special(*octets) {
            Some(at) => return passed + at,
            None => passed += octets.len(),
        }
    }
    let is_special = |octet: &u8| *octet < 0x20 || *octet == b'"' || *octet == b'\\';
    let rest = bytes.get(passed..).unwrap_or_default();
    passed + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Where the first quote, backslash or control character of eight octets stands.
#[inline]
fn first_special(octets: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 128;
    // Marks octets below `limit`; the lowest mark is right, a borrow can only put false ones above it.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let word = u64::from_le_bytes(octets);
    // With this bit turned over, the quote (0x22) comes next to the control characters (below 0x20).
    let control_or_quote = below(word ^ (ONES * 2), 0x21);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    let special = control_or_quote | backslash;
    (special != 0).then(|| special.trailing_zeros() as usize / 8)
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
