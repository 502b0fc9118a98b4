//! Owns the check that an HTTP/1.1 byte stream has one reading only (RFC 9112, sections 2.2, 5.2 and 6.3).
//!
//! The HTTP library repairs ambiguous framing: it drops a `Content-Length` that stands beside a
//! `Transfer-Encoding`, accepts two `Host` fields and bare line feeds. Repairing is what request
//! smuggling lives on, so the bytes are followed here, beside the library, and any stream with a
//! second reading is refused.

use http::Uri;
use memchr::memchr;

use super::violation::{
    LONGEST_BODY, LONGEST_EXTENSIONS, LONGEST_NAME, LONGEST_TARGET, LONGEST_TRAILERS, Violation,
};
use crate::types::limits::RequestLimits;

/// Follows the framing of one connection's requests.
#[derive(Debug, Default)]
pub struct Framing {
    limits: RequestLimits,
    state: State,
    head: Head,
    /// A line that has begun in an earlier read.
    line: Vec<u8>,
    /// Its first word is whole, and a method, if it is a request line.
    named: bool,
    /// Octets that were fed, and of them those up to the end of the last head, line of a body, or data.
    fed: u64,
    sound: u64,
    /// Heads that were read to their end.
    heads: usize,
    /// Lines without anything before the request line that is due.
    empty_lines: u8,
}

/// Old clients send one empty line behind a body, and a server passes over at least one (RFC 9112, section 2.2).
/// The library would gather them without end.
const EMPTY_LINES: u8 = 2;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request line; empty lines are skipped as the library does.
    #[default]
    Start,
    Fields,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// After an upgrade or CONNECT: no longer HTTP.
    Opaque,
}

#[derive(Debug, Default)]
struct Head {
    version_1_0: bool,
    /// CONNECT: what follows the head is not HTTP if it is granted.
    connects: bool,
    /// `Upgrade`: the same for what follows the body.
    upgrades: bool,
    length: Option<u64>,
    lengths: u32,
    encodings: u32,
    hosts: u32,
    /// Of the head, then of the trailers.
    fields: usize,
    bytes: usize,
    /// Octets of chunk extensions.
    extensions: usize,
}

impl Framing {
    /// Follows a connection from its beginning.
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Whether a request's head has begun and not ended. An empty line before it is none of it.
    pub fn within_head(&self) -> bool {
        match self.state {
            State::Fields => true,
            State::Start => !matches!(&*self.line, b"" | b"\r"),
            _ => false,
        }
    }

    /// How many heads were read to their end.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Whether a request's body is on its way.
    pub fn within_body(&self) -> bool {
        matches!(
            self.state,
            State::Body(_)
                | State::ChunkSize
                | State::ChunkData(_)
                | State::ChunkEnd
                | State::Trailers
        )
    }

    /// Octets from the beginning that have one reading, whatever follows. A head has one once it is whole.
    pub fn sound(&self) -> u64 {
        self.sound
    }

    /// Octets that were read.
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// Whether a request, or none, is over, and nothing of the next has come.
    pub fn is_between(&self) -> bool {
        self.state == State::Start && self.line.is_empty() && self.empty_lines == 0
    }

    /// Whether the connection has left HTTP.
    pub fn is_opaque(&self) -> bool {
        self.state == State::Opaque
    }

    /// Reads the next bytes of the connection, and says how many: all of them, or to the end of a request. After a
    /// violation there is nothing more to read.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut read = 0;
        while read < bytes.len() {
            let bytes = &bytes[read..];
            let taken = match self.state {
                State::Opaque => bytes.len(),
                State::Body(left) | State::ChunkData(left) => {
                    let taken = left.min(bytes.len() as u64);
                    self.state = match (self.state, left - taken) {
                        (State::Body(_), 0) => self.head.after(),
                        (State::Body(_), left) => State::Body(left),
                        (_, 0) => State::ChunkEnd,
                        (_, left) => State::ChunkData(left),
                    };
                    taken as usize
                }
                _ => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        self.fed += bytes.len() as u64;
                        self.begins(bytes)?;
                        return Ok(read + bytes.len());
                    };
                    let line = &bytes[..=end];
                    self.named = false;
                    if self.line.is_empty() {
                        self.line_read(line)?;
                    } else {
                        let mut whole = std::mem::take(&mut self.line);
                        whole.extend_from_slice(line);
                        self.line_read(&whole)?;
                    }
                    line.len()
                }
            };
            self.fed += taken as u64;
            read += taken;
            // An empty line goes on with the request that follows it.
            if self.state != State::Fields && self.empty_lines == 0 {
                self.sound = self.fed;
            }
            if self.is_between() {
                break;
            }
        }
        Ok(read)
    }

    /// Keeps the beginning of a line. Who speaks another protocol here may never end one: its first word tells.
    fn begins(&mut self, piece: &[u8]) -> Result<(), Violation> {
        if self.state == State::Start && !self.named {
            let empty = self.line.is_empty();
            let end = piece.iter().position(|b| !is_token(*b));
            match end.map(|at| (at, piece[at])) {
                None => {}
                Some((0, b'\r')) if empty => self.named = true,
                Some((at, b' ')) if at > 0 || !empty => self.named = true,
                Some(_) => return Err(Violation::RequestLine),
            }
        }
        self.line.extend_from_slice(piece);
        self.fits(self.line.len())
    }

    /// Whether a line of `length` bytes may still follow what was read of the head or the trailers.
    fn fits(&self, length: usize) -> Result<(), Violation> {
        let (before, most) = match self.state {
            State::Fields => (self.head.bytes, self.limits.head_size),
            State::Trailers => (self.head.bytes, self.limits.head_size.min(LONGEST_TRAILERS)),
            _ => (0, self.limits.head_size),
        };
        match (before + length > most, self.state) {
            (false, _) => Ok(()),
            (true, State::Trailers) if most == LONGEST_TRAILERS => Err(Violation::LongTrailers),
            (true, _) => Err(Violation::HeadTooLarge),
        }
    }

    fn line_read(&mut self, line: &[u8]) -> Result<(), Violation> {
        self.fits(line.len())?;
        if matches!(self.state, State::Fields | State::Trailers) {
            self.head.bytes += line.len();
        }
        let line = line.strip_suffix(b"\r\n").ok_or(Violation::LineEnd)?;
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Err(Violation::LineEnd);
        }
        match self.state {
            State::Start if line.is_empty() => {
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES {
                    return Err(Violation::RequestLine);
                }
            }
            State::Start => {
                self.empty_lines = 0;
                self.head = Head::of(line)?;
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => {
                self.state = self.head.finish()?;
                (self.head.bytes, self.head.fields) = (0, 0);
                self.heads += 1;
            }
            State::Fields => self.head.field(line, self.limits.head_fields)?,
            State::ChunkSize => {
                let (state, extension) = chunk_size(line)?;
                self.head.extensions += extension;
                if self.head.extensions > LONGEST_EXTENSIONS {
                    return Err(Violation::LongExtensions);
                }
                self.state = state;
            }
            State::ChunkEnd if line.is_empty() => self.state = State::ChunkSize,
            State::ChunkEnd => return Err(Violation::Chunk),
            State::Trailers if line.is_empty() => self.state = self.head.after(),
            State::Trailers => {
                self.head.one_more(self.limits.head_fields)?;
                field_line(line)?;
            }
            State::Body(_) | State::ChunkData(_) | State::Opaque => {}
        }
        Ok(())
    }
}

impl Head {
    /// Reads a request line (RFC 9112, section 3). The target is only split off here.
    fn of(line: &[u8]) -> Result<Self, Violation> {
        let mut words = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Violation::RequestLine);
        };
        let token = !method.is_empty() && method.iter().all(|b| is_token(*b));
        let visible = !target.is_empty() && target.iter().all(|b| is_visible(*b));
        if !token || !visible || !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
            return Err(Violation::RequestLine);
        }
        if target.len() > LONGEST_TARGET {
            return Err(Violation::LongTarget);
        }
        if Uri::try_from(target).is_err() {
            return Err(Violation::Target);
        }
        Ok(Self {
            version_1_0: version == b"HTTP/1.0",
            connects: method == b"CONNECT",
            bytes: line.len() + 2,
            ..Self::default()
        })
    }

    fn one_more(&mut self, most: usize) -> Result<(), Violation> {
        self.fields += 1;
        match self.fields > most {
            true => Err(Violation::TooManyFields),
            false => Ok(()),
        }
    }

    fn field(&mut self, line: &[u8], most: usize) -> Result<(), Violation> {
        self.one_more(most)?;
        let (name, value) = field_line(line)?;
        if let Some(violation) = misspelt(name) {
            return Err(violation);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrades = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.lengths += 1;
                self.length = std::str::from_utf8(value)
                    .ok()
                    .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|v| v.parse().ok())
                    .filter(|length| *length <= LONGEST_BODY);
                if self.length.is_none() || self.lengths > 1 {
                    return Err(Violation::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.encodings += 1;
                if self.encodings > 1 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::TransferEncoding);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&self) -> Result<State, Violation> {
        if self.encodings > 0 && self.lengths > 0 {
            return Err(Violation::LengthAndEncoding);
        }
        if self.encodings > 0 && self.version_1_0 {
            return Err(Violation::TransferEncoding);
        }
        if self.hosts > 1 || (self.hosts == 0 && !self.version_1_0 && !self.connects) {
            return Err(Violation::Host);
        }
        if self.connects && (self.encodings > 0 || self.length.is_some_and(|length| length > 0)) {
            return Err(Violation::ConnectBody);
        }
        Ok(match self.length {
            _ if self.connects => State::Opaque,
            _ if self.encodings > 0 => State::ChunkSize,
            None | Some(0) => self.after(),
            Some(length) => State::Body(length),
        })
    }

    /// What follows the whole request.
    fn after(&self) -> State {
        match self.upgrades {
            true => State::Opaque,
            false => State::Start,
        }
    }
}

/// Splits a line of a head or of trailers (RFC 9112, section 5). It is not empty.
fn field_line(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Violation::Folding);
    }
    let colon = memchr(b':', line).ok_or(Violation::Name)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(Violation::Name);
    }
    if name.len() > LONGEST_NAME {
        return Err(Violation::LongName);
    }
    // Not `any`: without an early end the compiler looks at many bytes at once.
    if value.iter().fold(false, |found, b| found | is_control(*b)) {
        return Err(Violation::LineEnd);
    }
    Ok((name, value.trim_ascii()))
}

/// What is wrong with a field that frames nothing, and that somebody may take for one that does: servers that
/// hand fields over as variables read `_` and `-` alike (RFC 3875, section 4.1.18).
pub fn misspelt(name: &[u8]) -> Option<Violation> {
    let is = |word: &[u8], dash: usize| {
        name[dash] == b'_'
            && name[..dash].eq_ignore_ascii_case(&word[..dash])
            && name[dash + 1..].eq_ignore_ascii_case(&word[dash + 1..])
    };
    match name.len() {
        14 if is(b"content-length", 7) => Some(Violation::ContentLength),
        17 if is(b"transfer-encoding", 8) => Some(Violation::TransferEncoding),
        _ => None,
    }
}

/// What a request target is made of (RFC 9112, section 3.2), and octets beyond ASCII, which are judged later.
fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// What no field value holds (RFC 9110, section 5.5).
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let marks = b"!#$%&'*+-.^_`|~";
        let mut index = 0;
        while index < marks.len() {
            table[marks[index] as usize] = true;
            index += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// `1*HEXDIG [ chunk-ext ]` (RFC 9112, section 7.1): what follows, and how long the extension is.
fn chunk_size(line: &[u8]) -> Result<(State, usize), Violation> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let plain = (1..=16).contains(&digits.len())
        && matches!(extension.trim_ascii_start(), [] | [b';', ..])
        && !extension.iter().any(|b| is_control(*b));
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .filter(|_| plain)
        .ok_or(Violation::Chunk)?;
    let state = match size {
        0 => State::Trailers,
        size => State::ChunkData(size),
    };
    Ok((state, extension.len()))
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
