//! Owns one line of the audit log: how it is sealed and chained to the line before it, and how anybody
//! can check that.
//!
//! A line is one JSON object. Its last two members are `prev`, the hash of the line before, and `hash`.
//! The hash is the SHA-256 of the line's own octets as they stand, without the member `hash`: without the
//! comma, the name, the value, and without the line's end. So
//!
//! ```text
//! sed -n '2s/,"hash":"[0-9a-f]*"}$/}/p' audit.jsonl | tr -d '\n' | sha256sum
//! ```
//!
//! prints what line 2 says its hash is, and what line 3 says its `prev` is.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The SHA-256 of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

/// The end of a chain: the last record's number and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The number of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash; zeros before the first.
    pub hash: Hash,
}

impl Tip {
    /// Before the first record.
    pub const NONE: Self = Self {
        seq: 0,
        hash: Hash([0; 32]),
    };
}

impl Hash {
    /// Of these octets.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(hash)
    }

    /// As 64 lower-case hexadecimal digits.
    fn hex(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, octet) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(octet >> 4)];
            pair[1] = DIGITS[usize::from(octet & 15)];
        }
        text
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        if text.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (octet, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *octet = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.hex()))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Appends the next line of the chain to `text`, and moves `tip` on to it.
///
/// Errors: `event` is no JSON object.
pub fn seal(
    text: &mut Vec<u8>,
    tip: &mut Tip,
    time: SystemTime,
    event: &impl Serialize,
) -> Result<(), serde_json::Error> {
    let seq = tip.seq + 1;
    let start = text.len();
    text.extend_from_slice(b"{\"seq\":");
    serde_json::to_writer(&mut *text, &seq)?;
    text.extend_from_slice(b",\"time\":\"");
    text.extend_from_slice(rfc3339(time).as_bytes());
    text.push(b'"');
    // The event's members go on in this object: flattening it would take each of them apart.
    let members = text.len();
    serde_json::to_writer(&mut *text, event)?;
    let closed = text.pop() == Some(b'}');
    match text.get_mut(members) {
        Some(brace @ b'{') if closed => *brace = b',',
        _ => return Err(serde::ser::Error::custom("an event is a JSON object")),
    }
    text.extend_from_slice(b",\"prev\":\"");
    text.extend_from_slice(&tip.hash.hex());
    text.extend_from_slice(b"\"}");
    let hash = Hash::of(&text[start..]);
    text.pop();
    text.extend_from_slice(SEAL.as_bytes());
    text.extend_from_slice(&hash.hex());
    text.extend_from_slice(b"\"}\n");
    *tip = Tip { seq, hash };
    Ok(())
}

/// What stands before the hash.
const SEAL: &str = ",\"hash\":\"";
/// Octets of a hash with what stands before and after it.
const SEAL_LENGTH: usize = SEAL.len() + 64 + 2;

/// What a line says of its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// Its number.
    pub seq: u64,
    /// When it happened.
    pub time: String,
    /// What happened.
    pub event: String,
    #[serde(rename = "prev")]
    stated_prev: String,
    /// The hash of the line before.
    #[serde(skip, default = "zeros")]
    pub prev: Hash,
    /// Its own hash, which is right.
    #[serde(skip, default = "zeros")]
    pub hash: Hash,
    /// Of a head: which key signed it.
    #[serde(default)]
    pub key: Option<String>,
    /// Of a head: the signature.
    #[serde(default)]
    pub signature: Option<String>,
    /// Of a torn end: how many octets were put aside.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Of a torn end: where.
    #[serde(default)]
    pub kept: Option<serde_json::Value>,
}

fn zeros() -> Hash {
    Tip::NONE.hash
}

/// Why a line is not one that Tollgate wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It does not end in a hash, or is no JSON object with the members every record has.
    #[error("this is no audit record")]
    NoRecord,
    /// Its hash is another one than it says.
    #[error("this record was changed: it says its hash is {said}, and it is {is}")]
    Changed {
        /// What it says.
        said: Hash,
        /// What it is.
        is: Hash,
    },
}

impl Link {
    /// Reads a line, without its end, and checks its own hash.
    pub fn read(line: &[u8]) -> Result<Self, Flaw> {
        let start = line.len().checked_sub(SEAL_LENGTH).ok_or(Flaw::NoRecord)?;
        let (content, seal) = line.split_at(start);
        let said = seal
            .strip_prefix(SEAL.as_bytes())
            .and_then(|rest| rest.strip_suffix(b"\"}"))
            .and_then(|hash| Hash::parse(std::str::from_utf8(hash).ok()?))
            .ok_or(Flaw::NoRecord)?;
        let content = [content, b"}"].concat();
        let is = Hash::of(&content);
        if said != is {
            return Err(Flaw::Changed { said, is });
        }
        let link: Self = serde_json::from_slice(&content).map_err(|_| Flaw::NoRecord)?;
        let prev = Hash::parse(&link.stated_prev).ok_or(Flaw::NoRecord)?;
        Ok(Self {
            prev,
            hash: is,
            ..link
        })
    }

    /// The chain's end, if this is its last record.
    pub fn tip(&self) -> Tip {
        Tip {
            seq: self.seq,
            hash: self.hash,
        }
    }

    /// The chain's end before this record.
    pub fn before(&self) -> Tip {
        Tip {
            seq: self.seq.saturating_sub(1),
            hash: self.prev,
        }
    }
}

/// With milliseconds, in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(count: usize) -> Vec<String> {
        let (mut text, mut tip) = (Vec::new(), Tip::NONE);
        for number in 0..count {
            let event = json!({ "event": "refused", "number": number, "text": "a\"}\n\u{e9}" });
            seal(&mut text, &mut tip, SystemTime::UNIX_EPOCH, &event).unwrap();
        }
        let text = String::from_utf8(text).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn each_line_names_the_one_before_and_has_a_hash_that_others_can_reckon() {
        let lines = lines(3);
        let mut tip = Tip::NONE;
        for line in &lines {
            let link = Link::read(line.as_bytes()).unwrap();
            assert_eq!(link.before(), tip);
            // As the manual says: cut the member off, and hash what is left.
            let (content, _) = line.rsplit_once(",\"hash\":\"").unwrap();
            let content = format!("{content}}}");
            assert_eq!(Hash::of(content.as_bytes()), link.hash);
            tip = link.tip();
        }
        assert_eq!(tip.seq, 3);
    }

    #[test]
    fn every_flipped_octet_is_found() {
        let line = lines(1).remove(0).into_bytes();
        for at in 0..line.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = line.clone();
                changed[at] ^= flip;
                assert!(Link::read(&changed).is_err(), "octet {at} ^ {flip}");
            }
            assert!(Link::read(&line[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = Hash::of(b"x");
        assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
        for bad in ["", "00", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
            assert_eq!(Hash::parse(bad), None, "{bad}");
        }
    }
}
