//! Owns percent-encoding (RFC 3986, section 2.1) with every byte accounted for, and the exchange of
//! a part of the request target for another.

use std::ops::Range;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::error::{InjectError, Position};

/// What is encoded in a query value: all but the unreserved characters.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// What is encoded in a path segment: `:` and `@` may stand there as they are, and Telegram's
/// clients write the colon so.
const SEGMENT: &AsciiSet = &QUERY.remove(b':').remove(b'@');

/// `secret` as it stands in a query value.
pub fn for_query(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(percent_encode(secret, QUERY).collect())
}

/// `secret` as it stands in a path segment.
pub fn for_segment(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(percent_encode(secret, SEGMENT).collect())
}

/// A decoded text that knows where each of its bytes came from.
#[derive(Debug)]
pub struct Decoded {
    /// The bytes.
    pub bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Decoded {
    /// Decodes `raw`; a `%` that begins no escape stands for itself.
    pub fn new(raw: &[u8]) -> Self {
        let mut decoded = Self {
            bytes: Vec::with_capacity(raw.len()),
            starts: Vec::with_capacity(raw.len() + 1),
        };
        let mut at = 0;
        while at < raw.len() {
            decoded.starts.push(at);
            let escape = raw[at..].first_chunk::<3>().and_then(unescape);
            decoded.bytes.push(escape.unwrap_or(raw[at]));
            at += if escape.is_some() { 3 } else { 1 };
        }
        decoded.starts.push(raw.len());
        decoded
    }

    /// The raw bytes that `range` of the decoded ones came from.
    pub fn raw(&self, range: Range<usize>) -> Range<usize> {
        self.starts[range.start]..self.starts[range.end]
    }
}

fn unescape(escape: &[u8; 3]) -> Option<u8> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    match escape {
        [b'%', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Exchanges `range` of the path and query for `with`; every other byte stays.
pub fn splice(
    head: &mut Parts,
    range: Range<usize>,
    with: &str,
    position: &Position,
) -> Result<(), InjectError> {
    let malformed = || InjectError::Malformed {
        position: position.clone(),
        what: "cannot be rewritten",
    };
    let old = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let (before, after) = (&old[..range.start], &old[range.end..]);
    let target = Zeroizing::new([before, with, after].concat());
    let target = PathAndQuery::try_from(target.as_str()).map_err(|_| malformed())?;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(target);
    head.uri = Uri::from_parts(parts).map_err(|_| malformed())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_decoded_and_located() {
        let decoded = Decoded::new(b"a%3Ab%zz%");
        assert_eq!(decoded.bytes, b"a:b%zz%");
        assert_eq!(decoded.raw(1..2), 1..4);
        assert_eq!(decoded.raw(0..7), 0..9);
    }

    proptest! {
        #[test]
        fn decoding_agrees_with_the_library_and_undoes_encoding(raw in "[a-c%0-9A-F]{0,40}", secret: Vec<u8>) {
            let library: Vec<u8> = percent_encoding::percent_decode_str(&raw).collect();
            prop_assert_eq!(Decoded::new(raw.as_bytes()).bytes, library);
            prop_assert_eq!(Decoded::new(for_query(&secret).as_bytes()).bytes, secret.clone());
            prop_assert_eq!(Decoded::new(for_segment(&secret).as_bytes()).bytes, secret);
        }
    }
}
