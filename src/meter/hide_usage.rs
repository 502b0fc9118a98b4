//! Owns taking the chunk with usage out of a Chat Completions stream whose client did not ask for it, and
//! nothing else: every other octet passes as it came.
//!
//! The chunk is the event whose data is an object with `"choices":[]` and an object as `usage`. An event
//! is held back only while what has come of it may still be that; ordinary chunks are let go at their
//! first choice.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// The most octets of an event that are held back; the chunk has a few hundred.
pub const MAX_HELD: usize = 16 << 10;

/// The filter over one stream.
#[derive(Default)]
pub struct HideUsage {
    event: Event,
    /// What has come of the present event in earlier pieces.
    held: BytesMut,
    /// The last octet was CR: an LF after it belongs to the same line end.
    after_cr: bool,
    /// Whether the last event was taken out.
    took: bool,
}

impl HideUsage {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the stream, cut wherever it may be, and gives what may pass.
    pub fn feed(&mut self, data: Bytes) -> Bytes {
        let mut out = Out::default();
        // Before `from`, all is given or taken out; before `event`, all is decided.
        let (mut from, mut event, mut at) = (0, 0, 0);
        while let Some(&octet) = data.get(at) {
            at += 1;
            if std::mem::take(&mut self.after_cr) && octet == b'\n' {
                if !self.event.begun {
                    from += usize::from(self.took);
                    event = at;
                }
                continue;
            }
            self.after_cr = octet == b'\r';
            let ended = self.event.push(octet);
            if self.held.len() + (at - event) > MAX_HELD {
                self.event.chunk.impossible = true;
            }
            if ended {
                self.took = self.event.chunk.is_usage();
                self.event = Event::default();
                match self.took {
                    true => {
                        self.held.clear();
                        out.push(data.slice(from..event));
                        from = at;
                    }
                    false => out.push(self.held.split().freeze()),
                }
                event = at;
            } else if self.event.chunk.impossible {
                out.push(self.held.split().freeze());
                at += self.event.rest_of_line(&data[at..]);
                event = at;
            }
        }
        out.push(data.slice(from..event));
        self.held.extend_from_slice(&data[event..]);
        out.done()
    }

    /// At the end of the stream, what was held back.
    pub fn finish(self) -> Bytes {
        match self.event.chunk.is_usage() {
            true => Bytes::new(),
            false => self.held.freeze(),
        }
    }
}

/// Pieces that pass, joined only where there are several.
#[derive(Default)]
struct Out {
    one: Bytes,
    joined: BytesMut,
}

impl Out {
    fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
        } else if self.one.is_empty() {
            self.one = piece;
        } else {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(&self.one);
            }
            self.joined.extend_from_slice(&piece);
        }
    }

    fn done(self) -> Bytes {
        match self.joined.is_empty() {
            true => self.one,
            false => self.joined.freeze(),
        }
    }
}

/// What has come of one event.
#[derive(Default)]
struct Event {
    begun: bool,
    line: Line,
    chunk: Chunk,
}

/// Where in a line of an event stream the next octet stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Start,
    /// So many octets of `data:` have come.
    Name(usize),
    Data,
    Other,
}

impl Event {
    /// Takes an octet; whether it ends the event.
    fn push(&mut self, octet: u8) -> bool {
        self.begun = true;
        if matches!(octet, b'\n' | b'\r') {
            return std::mem::take(&mut self.line) == Line::Start;
        }
        self.line = match self.line {
            Line::Start => Self::name(0, octet),
            Line::Name(come) => Self::name(come, octet),
            Line::Data => {
                self.chunk.push(octet);
                Line::Data
            }
            Line::Other => Line::Other,
        };
        false
    }

    fn name(come: usize, octet: u8) -> Line {
        let name = b"data:";
        match name.get(come) == Some(&octet) {
            true if come + 1 == name.len() => Line::Data,
            true => Line::Name(come + 1),
            false => Line::Other,
        }
    }

    /// How much of `data` comes before the end of a line of which something has come.
    fn rest_of_line(&self, data: &[u8]) -> usize {
        match self.line {
            Line::Start => 0,
            _ => memchr2(b'\n', b'\r', data).unwrap_or(data.len()),
        }
    }
}

/// What has come of an event's JSON. It is read only as far as telling the one chunk takes.
#[derive(Default)]
struct Chunk {
    impossible: bool,
    depth: usize,
    whole: bool,
    string: bool,
    escaped: bool,
    /// In the outer object: a name is expected or being read.
    names: bool,
    name: Vec<u8>,
    no_choices: bool,
    usage: bool,
}

impl Chunk {
    fn is_usage(&self) -> bool {
        self.whole && self.no_choices && self.usage && !self.impossible
    }

    fn push(&mut self, octet: u8) {
        if self.string {
            return self.in_string(octet);
        }
        match octet {
            b' ' | b'\t' => {}
            b'}' | b']' => self.close(),
            b':' if self.depth == 1 => self.names = false,
            b',' if self.depth == 1 => self.names = true,
            b':' | b',' => {}
            _ => self.begin(octet),
        }
    }

    fn in_string(&mut self, octet: u8) {
        let name = self.names && self.depth == 1;
        match octet {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.string = false,
            // Longer than the names that are looked for.
            _ if name && self.name.len() < 8 => self.name.push(octet),
            _ => {}
        }
    }

    /// A value begins, or a name.
    fn begin(&mut self, octet: u8) {
        let value_of = |name: &[u8]| !self.names && self.name == name;
        let fits = match (self.depth, octet) {
            (0, _) => octet == b'{' && !self.whole,
            (1, _) if value_of(b"choices") => octet == b'[',
            (1, _) if value_of(b"usage") => octet == b'{',
            // A choice.
            (2, _) => !value_of(b"choices"),
            _ => true,
        };
        if !fits {
            self.impossible = true;
            return;
        }
        if self.depth == 1 && value_of(b"choices") {
            self.no_choices = true;
        }
        if self.depth == 1 && value_of(b"usage") {
            self.usage = true;
        }
        match octet {
            b'"' => {
                self.string = true;
                if self.depth == 1 && self.names {
                    self.name.clear();
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.names |= self.depth == 1;
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.whole |= self.depth == 0;
    }
}

#[cfg(test)]
#[path = "hide_usage_tests.rs"]
mod tests;
