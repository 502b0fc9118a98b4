//! Owns placements in a named header, `Authorization: Bearer` among them.

use std::borrow::Cow;
use std::ops::Range;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::error::{InjectError, Position};
use super::injector::{Injector, Reveal};

/// A header whose value is the placeholder with a fixed text around it.
#[derive(Debug)]
pub struct HeaderPlace {
    name: HeaderName,
    before: String,
    after: String,
    kind: &'static str,
}

impl HeaderPlace {
    /// The placeholder alone, or within `format` where `{}` stands for it.
    pub fn new(name: HeaderName, format: Option<&str>) -> Result<Self, String> {
        let format = format.unwrap_or("{}");
        let wrong = || "the format wants one `{}`, where the placeholder stands".to_owned();
        let (before, after) = format.split_once("{}").ok_or_else(wrong)?;
        if after.contains("{}") {
            return Err(wrong());
        }
        let plain = |b: u8| (b.is_ascii_graphic() || b == b' ') && b != b',';
        if !format.bytes().all(plain) || before.starts_with(' ') || after.ends_with(' ') {
            return Err("the format has a character that no single field value has".to_owned());
        }
        Ok(Self {
            name,
            before: before.to_owned(),
            after: after.to_owned(),
            kind: "header",
        })
    }

    /// `Authorization: Bearer {}` (RFC 6750, section 2.1).
    pub fn bearer() -> Self {
        Self {
            name: AUTHORIZATION,
            before: "Bearer ".to_owned(),
            after: String::new(),
            kind: "bearer",
        }
    }

    /// Where in `value` the placeholder stands, if all of `value` is as it should be.
    fn find(&self, value: &[u8], placeholder: &[u8]) -> Option<Range<usize>> {
        let start = skip(value, self.before.as_bytes())?;
        let end = start + placeholder.len();
        let rest = value.get(start..)?.strip_prefix(placeholder)?;
        (rest == self.after.as_bytes()).then_some(start..end)
    }
}

/// The length of `before` at the beginning of `value`. Scheme names are case-insensitive, and one
/// or more spaces part them from what follows (RFC 9110, section 11.4).
fn skip(value: &[u8], before: &[u8]) -> Option<usize> {
    let word = before.trim_ascii_end();
    let head = value.get(..word.len())?;
    if !head.eq_ignore_ascii_case(word) {
        return None;
    }
    let spaces = value[word.len()..]
        .iter()
        .take_while(|b| **b == b' ')
        .count();
    match (before.len() > word.len(), spaces) {
        (true, 1..) => Some(word.len() + spaces),
        (false, 0) => Some(word.len()),
        _ => None,
    }
}

impl Injector for HeaderPlace {
    fn position(&self) -> Position {
        Position::Header(self.name.clone())
    }

    fn standing<'h>(&self, head: &'h Parts) -> Result<Option<Cow<'h, [u8]>>, InjectError> {
        Ok(single(&head.headers, &self.name)?.map(Cow::Borrowed))
    }

    fn swap(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<bool, InjectError> {
        let Some(value) = single(&head.headers, &self.name)? else {
            return Ok(false);
        };
        let Some(at) = self.find(value, reveal.placeholder()) else {
            return Ok(false);
        };
        let secret = reveal.secret(self.kind)?;
        let parts = [&value[..at.start], secret.expose(), &value[at.end..]];
        let value = sealed(&parts, reveal)?;
        head.headers.insert(&self.name, value);
        Ok(true)
    }

    fn put(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<(), InjectError> {
        let secret = reveal.secret(self.kind)?;
        let parts = [
            self.before.as_bytes(),
            secret.expose(),
            self.after.as_bytes(),
        ];
        let value = sealed(&parts, reveal)?;
        head.headers.insert(&self.name, value);
        Ok(())
    }

    fn strip(&self, head: &mut Parts) -> Result<(), InjectError> {
        head.headers.remove(&self.name);
        Ok(())
    }
}

/// The value of a field that may be there once. Nothing if it is empty.
pub fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h [u8]>, InjectError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || is_list(value.as_bytes()) {
        return Err(InjectError::Duplicate {
            position: Position::Header(name.clone()),
        });
    }
    let value = value.as_bytes();
    Ok((!value.is_empty()).then_some(value))
}

/// Whether two values were joined into one field. Commas between `name=value` parameters of one
/// scheme (`Digest`, `AWS4-HMAC-SHA256`) are no list (RFC 9110, section 11.4).
fn is_list(value: &[u8]) -> bool {
    if !value.contains(&b',') {
        return false;
    }
    let Some(space) = value.iter().position(|b| *b == b' ') else {
        return true;
    };
    let is_parameter = |part: &[u8]| {
        let part = part.trim_ascii();
        let name = part.iter().take_while(|b| is_token(**b)).count();
        name > 0 && part.get(name) == Some(&b'=')
    };
    !value[space..].split(|b| *b == b',').all(is_parameter)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A field value that HPACK never indexes and `Debug` never shows.
pub fn sealed(parts: &[&[u8]], reveal: &Reveal<'_>) -> Result<HeaderValue, InjectError> {
    let bytes = Zeroizing::new(parts.concat());
    let mut value = HeaderValue::from_bytes(&bytes)
        .map_err(|_| reveal.unavailable("its value has a character that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surrounds_the_placeholder_is_matched_and_kept() {
        let token = HeaderPlace::new(AUTHORIZATION, Some("token {}")).unwrap();
        let quoted = HeaderPlace::new(AUTHORIZATION, Some("Token token=\"{}\"")).unwrap();
        let alone = HeaderPlace::new(AUTHORIZATION, None).unwrap();
        for (place, value, found) in [
            (&HeaderPlace::bearer(), "Bearer PLACE", Some(7..12)),
            (&HeaderPlace::bearer(), "bEARER   PLACE", Some(9..14)),
            (&HeaderPlace::bearer(), "BearerPLACE", None),
            (&HeaderPlace::bearer(), "Bearer PLACE ", None),
            (&HeaderPlace::bearer(), "Bearer xPLACE", None),
            (&HeaderPlace::bearer(), "Bearer", None),
            (&HeaderPlace::bearer(), "token PLACE", None),
            (&token, "Token PLACE", Some(6..11)),
            (&quoted, "Token token=\"PLACE\"", Some(13..18)),
            (&alone, "PLACE", Some(0..5)),
            (&alone, " PLACE", None),
            (&alone, "Bearer PLACE", None),
        ] {
            assert_eq!(place.find(value.as_bytes(), b"PLACE"), found, "{value}");
        }
    }

    #[test]
    fn lists_are_told_from_parameters() {
        for (value, list) in [
            ("a, b", true),
            ("Bearer a,Bearer b", true),
            ("Bearer a, b", true),
            ("a,", true),
            ("Bearer abc==", false),
            (r#"Digest username="u", realm="r""#, false),
            (
                "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c",
                false,
            ),
        ] {
            assert_eq!(is_list(value.as_bytes()), list, "{value}");
        }
    }

    #[test]
    fn formats_have_one_place_for_the_secret() {
        for bad in ["", "token", "{} {}", "a, {}", " {}", "{}\n"] {
            assert!(
                HeaderPlace::new(AUTHORIZATION, Some(bad)).is_err(),
                "{bad:?}"
            );
        }
    }
}
