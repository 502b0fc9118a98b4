//! Owns placements in the path (`/bot{}/`): matched on decoded segments, replaced in the raw path
//! with every other byte kept.

use std::borrow::Cow;
use std::ops::Range;

use http::request::Parts;
use zeroize::Zeroizing;

use super::error::{InjectError, Position};
use super::injector::{Injector, Reveal};
use super::percent::{Decoded, for_segment, splice};

/// The beginning of a path around the placeholder.
#[derive(Debug)]
pub struct PathPlace {
    /// Segments before the one with the placeholder.
    leading: Vec<String>,
    /// What stands before and after the placeholder within its segment.
    around: (String, String),
    /// Segments after it; of the last one the beginning is enough.
    following: Vec<String>,
}

impl PathPlace {
    /// A path's beginning with `{}` where the placeholder stands.
    pub fn new(template: &str) -> Result<Self, String> {
        let wrong =
            || "a path template begins with `/` and has one `{}`, as in `/bot{}/`".to_owned();
        let inner = template.strip_prefix('/').ok_or_else(wrong)?;
        let (before, after) = inner.split_once("{}").ok_or_else(wrong)?;
        let plain = |b: u8| b.is_ascii_graphic() && !b"{}?#%".contains(&b);
        if !before.bytes().chain(after.bytes()).all(plain) {
            return Err(wrong());
        }
        let mut leading: Vec<String> = before.split('/').map(str::to_owned).collect();
        let mut following: Vec<String> = after.split('/').map(str::to_owned).collect();
        let around = (leading.pop().unwrap_or_default(), following.remove(0));
        Ok(Self {
            leading,
            around,
            following,
        })
    }

    /// What stands where the placeholder belongs: its raw place and its decoded bytes.
    fn find(&self, path: &str) -> Option<(Range<usize>, Vec<u8>)> {
        let mut start = 1;
        let mut segments = path.strip_prefix('/')?.split('/').map(|segment| {
            let place = start..start + segment.len();
            start = place.end + 1;
            (place, Decoded::new(segment.as_bytes()))
        });
        for expected in &self.leading {
            let (_, segment) = segments.next()?;
            if segment.bytes != expected.as_bytes() {
                return None;
            }
        }
        let (place, segment) = segments.next()?;
        let (before, after) = (self.around.0.as_bytes(), self.around.1.as_bytes());
        let inner = segment.bytes.strip_prefix(before)?.strip_suffix(after)?;
        let raw = segment.raw(before.len()..before.len() + inner.len());
        for (index, expected) in self.following.iter().enumerate() {
            let (_, segment) = segments.next()?;
            let fits = match index + 1 == self.following.len() {
                true => segment.bytes.starts_with(expected.as_bytes()),
                false => segment.bytes == expected.as_bytes(),
            };
            if !fits {
                return None;
            }
        }
        Some((
            place.start + raw.start..place.start + raw.end,
            inner.to_vec(),
        ))
    }
}

impl Injector for PathPlace {
    fn position(&self) -> Position {
        Position::Path
    }

    fn standing<'h>(&self, head: &'h Parts) -> Result<Option<Cow<'h, [u8]>>, InjectError> {
        let found = self.find(head.uri.path()).map(|(_, inner)| inner);
        Ok(found.filter(|inner| !inner.is_empty()).map(Cow::Owned))
    }

    fn swap(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<bool, InjectError> {
        let Some((range, inner)) = self.find(head.uri.path()) else {
            return Ok(false);
        };
        if inner != reveal.placeholder() {
            return Ok(false);
        }
        let secret = reveal.secret("path")?;
        // `.` and `..` would be another path altogether (RFC 3986, section 5.2.4).
        if matches!(secret.expose(), b"." | b"..") {
            return Err(reveal.unavailable("its value cannot stand in a path"));
        }
        let secret: Zeroizing<String> = for_segment(secret.expose());
        splice(head, range, &secret, &Position::Path)?;
        Ok(true)
    }

    fn put(&self, _: &mut Parts, reveal: &mut Reveal<'_>) -> Result<(), InjectError> {
        Err(reveal.unavailable("a path placement knows no mode `set`"))
    }

    fn strip(&self, _: &mut Parts) -> Result<(), InjectError> {
        // Without it the path would be another one.
        Err(InjectError::Foreign {
            position: Position::Path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_matched_on_decoded_segments() {
        for (template, path, found) in [
            ("/bot{}/", "/bot1:A/send", Some((4..7, "1:A"))),
            ("/bot{}/", "/bot1%3AA/send", Some((4..9, "1:A"))),
            ("/bot{}/", "/b%6Ft1:A/", Some((6..9, "1:A"))),
            ("/bot{}/", "/bot1%2FA/x", Some((4..9, "1/A"))),
            ("/bot{}/", "/bot1:A", None),
            ("/bot{}/", "/x/bot1:A/", None),
            ("/bot{}", "/bot1:A", Some((4..7, "1:A"))),
            ("/bot{}", "/bot1:A/x", Some((4..7, "1:A"))),
            ("/file/bot{}/", "/file/bot1:A/a/b", Some((9..12, "1:A"))),
            ("/file/bot{}/", "/bot1:A/a/b", None),
            ("/a/{}.json/b/c", "/a/1:A.json/b/cd", Some((3..6, "1:A"))),
            ("/a/{}.json/b/c", "/a/1:A.json/bb/c", None),
            ("/{}", "/", Some((1..1, ""))),
            ("/bot{}/", "*", None),
        ] {
            let place = PathPlace::new(template).unwrap();
            let seen = place
                .find(path)
                .map(|(at, inner)| (at, String::from_utf8(inner).unwrap()));
            assert_eq!(
                seen,
                found.map(|(at, text)| (at, text.to_owned())),
                "{template} {path}"
            );
        }
    }

    #[test]
    fn templates_have_one_place_in_an_absolute_path() {
        for bad in ["", "bot{}", "/bot", "/{}/{}", "/a%2F{}", "/{}?x", "/ {}"] {
            assert!(PathPlace::new(bad).is_err(), "{bad:?}");
        }
    }
}
