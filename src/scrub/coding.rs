//! Owns which content codings an answer came in, and whether they can be undone here.

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::types::window;

/// More codings on top of each other than that are not undone: each costs a window of memory.
const MOST: usize = 3;
/// A longer name is not repeated.
const LONGEST_NAME: usize = 24;

/// A coding that can be undone (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` (RFC 1952).
    Gzip,
    /// `deflate`: zlib (RFC 1950), or deflate alone (RFC 1951), as some servers do it.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

/// What an answer is coded in cannot be undone here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownCoding(pub String);

impl UnknownCoding {
    /// `kind` of coding with this name, which is repeated only if it looks like one.
    pub fn named(kind: &str, name: &[u8]) -> Self {
        let looks_like_one = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        let shown = name.len() <= LONGEST_NAME && name.iter().all(looks_like_one);
        Self(match std::str::from_utf8(name) {
            Ok(name) if shown => format!("the {kind} `{name}`"),
            _ => format!("a {kind} whose name is no word"),
        })
    }
}

impl Coding {
    /// The memory its window may take, in octets; nothing for one that is small beside everything else that an
    /// exchange has (32 KiB for deflate).
    pub fn window(self) -> u64 {
        match self {
            Self::Gzip | Self::Deflate => 0,
            Self::Brotli => window::LARGEST,
            Self::Zstd => window::ZSTD,
        }
    }

    /// The same once the first octet of what it made is known; nothing if none begins so.
    pub fn window_of(self, first: u8) -> Option<u64> {
        if self != Self::Brotli {
            return Some(self.window());
        }
        window::brotli(first)
    }

    /// The coding of this name, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        const NAMES: [(&[u8], Coding); 5] = [
            (b"gzip", Coding::Gzip),
            (b"x-gzip", Coding::Gzip),
            (b"deflate", Coding::Deflate),
            (b"br", Coding::Brotli),
            (b"zstd", Coding::Zstd),
        ];
        let mut same = NAMES
            .iter()
            .filter(|(known, _)| name.eq_ignore_ascii_case(known));
        same.next().map(|(_, coding)| *coding)
    }
}

/// The codings that an answer's head names, in the order in which they were applied.
pub fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, UnknownCoding> {
    let mut found = Vec::new();
    let values = headers.get_all(CONTENT_ENCODING).iter();
    for name in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let name = name.trim_ascii();
        if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            continue;
        }
        let unknown = || UnknownCoding::named("content coding", name);
        found.push(Coding::of(name).ok_or_else(unknown)?);
    }
    match found.len() > MOST {
        true => Err(UnknownCoding(format!(
            "{} content codings on top of each other",
            found.len()
        ))),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the table in RFC 7932, section 9.1.
    #[test]
    fn a_brotli_stream_tells_its_window_with_its_first_octet() {
        for (first, bits) in [
            (0b0000_0000, 16),
            (0b0000_0001, 17),
            (0b0000_0011, 18),
            (0b0000_1011, 22),
            (0b0000_1111, 24),
            (0b0010_0001, 10),
            (0b0111_0001, 15),
        ] {
            assert_eq!(
                Coding::Brotli.window_of(first),
                Some(1 << bits),
                "{first:#b}"
            );
        }
        for large in [0b0001_0001, 0b1001_0001] {
            assert_eq!(Coding::Brotli.window_of(large), None);
        }
        assert_eq!(Coding::Gzip.window_of(0b0001_0001), Some(0));
    }
}
