//! Owns placements in a cookie's value (RFC 6265, section 4.2); other cookies stay as they are.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::error::{InjectError, Position};
use super::header::sealed;
use super::injector::{Injector, Reveal};
use super::percent::for_query;

/// A cookie.
#[derive(Debug)]
pub struct CookiePlace {
    name: Arc<str>,
}

/// Where a cookie stands: which of the fields (HTTP/2 may split them, RFC 9113, section 8.2.3),
/// and where in it.
struct Found {
    field: usize,
    whole: Range<usize>,
    value: Range<usize>,
}

impl CookiePlace {
    /// The cookie of this name.
    pub fn new(name: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&b);
        match !name.is_empty() && name.bytes().all(plain) {
            true => Ok(Self { name: name.into() }),
            false => Err("no cookie has such a name".to_owned()),
        }
    }

    fn find(&self, headers: &HeaderMap) -> Result<Option<Found>, InjectError> {
        let mut found = None;
        for (field, value) in headers.get_all(COOKIE).iter().enumerate() {
            for (whole, value) in cookies(value.as_bytes(), self.name.as_bytes()) {
                let one = Found {
                    field,
                    whole,
                    value,
                };
                if found.replace(one).is_some() {
                    return Err(InjectError::Duplicate {
                        position: self.position(),
                    });
                }
            }
        }
        Ok(found)
    }

    /// The cookie's value with `range` of its field exchanged for `with`.
    fn splice(
        head: &mut Parts,
        found: &Found,
        range: Range<usize>,
        with: &[u8],
        reveal: &Reveal<'_>,
    ) -> Result<(), InjectError> {
        let Some(value) = head.headers.get_all(COOKIE).iter().nth(found.field) else {
            return Ok(());
        };
        let bytes = value.as_bytes();
        let value = sealed(&[&bytes[..range.start], with, &bytes[range.end..]], reveal)?;
        replace_field(&mut head.headers, found.field, Some(value));
        Ok(())
    }
}

/// The places of the cookies called `name` in a field: pair, and value without quotes.
fn cookies<'v>(
    field: &'v [u8],
    name: &'v [u8],
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + 'v {
    let mut start = 0;
    field.split(|b| *b == b';').filter_map(move |pair| {
        let at = start;
        start += pair.len() + 1;
        let sign = pair.iter().position(|b| *b == b'=')?;
        if pair[..sign].trim_ascii() != name {
            return None;
        }
        let value = &pair[sign + 1..];
        let left = value.len() - value.trim_ascii_start().len();
        let value = value.trim_ascii();
        let (left, value) = match value {
            [b'"', inner @ .., b'"'] => (left + 1, inner),
            _ => (left, value),
        };
        let from = at + sign + 1 + left;
        Some((at..at + pair.len(), from..from + value.len()))
    })
}

fn replace_field(headers: &mut HeaderMap, index: usize, with: Option<HeaderValue>) {
    let mut with = with;
    let fields: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for (at, field) in fields.into_iter().enumerate() {
        let field = match at == index {
            true => with.take(),
            false => Some(field),
        };
        if let Some(field) = field {
            headers.append(COOKIE, field);
        }
    }
}

/// Whether a value may stand in a cookie as it is (RFC 6265, `cookie-octet`).
fn is_cookie_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(b))
}

impl Injector for CookiePlace {
    fn position(&self) -> Position {
        Position::Cookie(self.name.clone())
    }

    fn standing<'h>(&self, head: &'h Parts) -> Result<Option<Cow<'h, [u8]>>, InjectError> {
        let Some(found) = self.find(&head.headers)? else {
            return Ok(None);
        };
        let field = head.headers.get_all(COOKIE).iter().nth(found.field);
        let value = field.map(|field| &field.as_bytes()[found.value]);
        Ok(value
            .filter(|v| !v.is_empty())
            .map(|v| percent_decode(v).into()))
    }

    fn swap(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<bool, InjectError> {
        let Some(found) = self.find(&head.headers)? else {
            return Ok(false);
        };
        let Some(field) = head.headers.get_all(COOKIE).iter().nth(found.field) else {
            return Ok(false);
        };
        let value = &field.as_bytes()[found.value.clone()];
        let placeholder = reveal.placeholder();
        let as_it_is = value == placeholder;
        if !as_it_is && !percent_decode(value).eq(placeholder.iter().copied()) {
            return Ok(false);
        }
        let secret = reveal.secret("cookie")?;
        let range = found.value.clone();
        match as_it_is {
            // Encoded by the client, so the origin decodes it.
            false => {
                let encoded = for_query(secret.expose());
                Self::splice(head, &found, range, encoded.as_bytes(), reveal)?;
            }
            true if is_cookie_value(secret.expose()) => {
                Self::splice(head, &found, range, secret.expose(), reveal)?;
            }
            true => return Err(reveal.unavailable(UNFIT)),
        }
        Ok(true)
    }

    fn put(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<(), InjectError> {
        let secret = reveal.secret("cookie")?;
        if !is_cookie_value(secret.expose()) {
            return Err(reveal.unavailable(UNFIT));
        }
        if let Some(found) = self.find(&head.headers)? {
            let range = found.value.clone();
            return Self::splice(head, &found, range, secret.expose(), reveal);
        }
        let fields = head.headers.get_all(COOKIE).iter();
        let mut joined = Zeroizing::new(Vec::new());
        for field in fields.filter(|field| !field.is_empty()) {
            joined.extend_from_slice(field.as_bytes());
            joined.extend_from_slice(b"; ");
        }
        let parts = [
            joined.as_slice(),
            self.name.as_bytes(),
            b"=",
            secret.expose(),
        ];
        let value = sealed(&parts, reveal)?;
        head.headers.insert(COOKIE, value);
        Ok(())
    }

    fn strip(&self, head: &mut Parts) -> Result<(), InjectError> {
        let Some(found) = self.find(&head.headers)? else {
            return Ok(());
        };
        let Some(field) = head.headers.get_all(COOKIE).iter().nth(found.field) else {
            return Ok(());
        };
        let bytes = field.as_bytes();
        // The `;` after it goes with it, or the one before it if it is the last one.
        let (before, after) = match bytes.get(found.whole.end) {
            Some(_) => (
                &bytes[..found.whole.start],
                bytes[found.whole.end + 1..].trim_ascii_start(),
            ),
            None => (
                bytes[..found.whole.start]
                    .strip_suffix(b";")
                    .unwrap_or_default(),
                &b""[..],
            ),
        };
        let gap: &[u8] = match found.whole.start > 0 && !after.is_empty() {
            true => b" ",
            false => b"",
        };
        let rest = [before, gap, after].concat();
        let value = (!rest.is_empty()).then(|| HeaderValue::from_bytes(&rest));
        let value = value.transpose().map_err(|_| InjectError::Malformed {
            position: self.position(),
            what: "cannot be removed",
        })?;
        replace_field(&mut head.headers, found.field, value);
        Ok(())
    }
}

const UNFIT: &str = "its value has a character that no cookie may have";
