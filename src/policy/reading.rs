//! Owns how servers read a path: what is compared, and what makes it mean two things to two of them.

use std::fmt;

/// What in a path is read differently by different servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    /// `.` and `..`, also as `%2e` and with a parameter (`..;x`), which some servers remove (RFC 3986, 5.2.4).
    DotSegment,
    /// `%2F`: one segment or two.
    EncodedSlash,
    /// `%252f`: decoded once or twice.
    DoubleEncoding,
    /// `\` or `%5C`: a slash to some.
    Backslash,
    /// `//`: merged by some.
    EmptySegment,
    /// Broken escapes, control characters, overlong UTF-8, no slash in front.
    Malformed,
}

impl Ambiguity {
    /// The first ambiguity of a path, dot segments before all others. Allocates nothing.
    pub fn find(path: &str) -> Option<Self> {
        let Some(rest) = path.as_bytes().strip_prefix(b"/") else {
            return (path != "*").then_some(Self::Malformed);
        };
        if segments(rest).any(is_dot_segment) {
            return Some(Self::DotSegment);
        }
        let mut split = segments(rest).peekable();
        while let Some(segment) = split.next() {
            if segment.is_empty() && split.peek().is_some() {
                return Some(Self::EmptySegment);
            }
            if let Some(found) = Self::within(segment) {
                return Some(found);
            }
        }
        None
    }

    fn within(segment: &[u8]) -> Option<Self> {
        let mut items = Decoded(segment);
        while let Some(item) = items.next() {
            let found = match item {
                KEPT_SLASH => Self::EncodedSlash,
                KEPT_BACKSLASH | BACKSLASH => Self::Backslash,
                KEPT_PERCENT if begins_with_hex_pair(items.clone()) => Self::DoubleEncoding,
                KEPT_PERCENT => continue,
                PERCENT | KEPT.. | ..0x20 | 0x7f => Self::Malformed,
                _ => continue,
            };
            return Some(found);
        }
        None
    }
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DotSegment => "a dot segment (`.` or `..`)",
            Self::EncodedSlash => "an encoded slash (`%2F`)",
            Self::DoubleEncoding => "a double encoding (`%25xx`)",
            Self::Backslash => "a backslash",
            Self::EmptySegment => "an empty segment (`//`)",
            Self::Malformed => "a broken escape or a control character",
        })
    }
}

/// The reading of a lenient server: everything decoded, backslashes turned, slashes merged, path
/// parameters (`;x=1`) cut off as servlet containers do.
#[derive(Debug, PartialEq, Eq)]
pub struct LenientReading {
    /// The path that such a server sees, dot segments still in it.
    pub path: Vec<u8>,
    /// Whether that path climbs, or whether we gave up on decoding it.
    pub climbs: bool,
}

impl LenientReading {
    /// How often escapes within escapes are decoded; nobody honest nests them deeper.
    const ROUNDS: usize = 4;

    /// Whether a path has parameters. They are no ambiguity, but no rule that refuses is passed by one.
    pub fn has_parameters(path: &str) -> bool {
        path.contains(';') || path.contains("%3b") || path.contains("%3B")
    }

    /// Reads a path as leniently as any server might.
    pub fn of(path: &str) -> Self {
        let mut decoded = path.as_bytes().to_vec();
        let mut settled = false;
        for _ in 0..Self::ROUNDS {
            let next = percent_encoding::percent_decode(&decoded).collect::<Vec<_>>();
            settled = next == decoded;
            decoded = next;
            if settled {
                break;
            }
        }
        let mut path = Vec::with_capacity(decoded.len() + 1);
        let mut climbs = !settled;
        for segment in decoded.split(|b| matches!(b, b'/' | b'\\')) {
            climbs |= is_dot_segment(segment);
            let plain = segment.split(|b| *b == b';').next().unwrap_or_default();
            // Also what is empty only once its parameters are cut off: `/a/;x/b` is `/a/b` to some.
            if plain.is_empty() {
                continue;
            }
            path.push(b'/');
            path.extend_from_slice(plain);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Self { path, climbs }
    }
}

/// The parts between slashes.
pub(super) fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    path.split(|b| *b == b'/')
}

/// `.` or `..`, also encoded, also with a path parameter behind it, which servlet containers cut off.
fn is_dot_segment(segment: &[u8]) -> bool {
    let mut name = Decoded(segment).take_while(|item| *item != u16::from(b';'));
    let dot = Some(u16::from(b'.'));
    name.next() == dot && matches!((name.next(), name.next()), (None, _) | (Some(DOT), None))
}

fn begins_with_hex_pair(mut items: Decoded<'_>) -> bool {
    let mut hex = || {
        let item = items.next().and_then(|item| u8::try_from(item).ok());
        item.is_some_and(|byte| byte.is_ascii_hexdigit())
    };
    hex() && hex()
}

/// Marks an escape that stays one when paths are compared, since decoding it would change what the path means.
const KEPT: u16 = 0x100;
const KEPT_SLASH: u16 = KEPT | b'/' as u16;
const KEPT_BACKSLASH: u16 = KEPT | b'\\' as u16;
const KEPT_PERCENT: u16 = KEPT | b'%' as u16;
const BACKSLASH: u16 = b'\\' as u16;
const PERCENT: u16 = b'%' as u16;
const DOT: u16 = b'.' as u16;

/// The bytes of a segment as they are compared: `%41` is `A`, `%2f` and `%2F` are one kept escape.
///
/// RFC 3986 (6.2.2.2) equates unreserved characters only; origins decode the rest of a segment too
/// (`%40scope` is `@scope`), and a rule that refuses must not be passed by an escape.
#[derive(Clone)]
pub(super) struct Decoded<'a>(pub(super) &'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first()?;
        let escape = match (first, rest) {
            (b'%', [high, low, after @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let Some((byte, after)) = escape else {
            self.0 = rest;
            return Some(u16::from(*first));
        };
        self.0 = after;
        Some(match byte {
            // 0xC0 and 0xC1 only begin overlong UTF-8, an old disguise of `.` and `/`.
            b'/' | b'\\' | b'%' | 0..0x20 | 0x7f | 0xc0 | 0xc1 => KEPT | u16::from(byte),
            byte => u16::from(byte),
        })
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ambiguous_paths_are_found_in_every_disguise() {
        use Ambiguity::*;
        for (path, ambiguity) in [
            ("/a/../b", DotSegment),
            ("/a/./b", DotSegment),
            ("/a/..", DotSegment),
            ("/%2e%2E/b", DotSegment),
            ("/.%2e/b", DotSegment),
            ("/..;x=1/b", DotSegment),
            ("/..%3b/b", DotSegment),
            ("/a%2Fb", EncodedSlash),
            ("/..%2fb", EncodedSlash),
            ("/%252e%252e/b", DoubleEncoding),
            ("/%25%32%65/b", DoubleEncoding),
            ("/a\\b", Backslash),
            ("/a%5cb", Backslash),
            ("//a", EmptySegment),
            ("/a//", EmptySegment),
            ("/a%", Malformed),
            ("/a%2", Malformed),
            ("/a%u002f", Malformed),
            ("/a%00", Malformed),
            ("/a%0d%0a", Malformed),
            ("/a\tb", Malformed),
            ("/%c0%ae%c0%ae/b", Malformed),
            ("a", Malformed),
            ("", Malformed),
        ] {
            assert_eq!(Ambiguity::find(path), Some(ambiguity), "{path}");
        }
    }

    #[test]
    fn honest_paths_are_not_ambiguous() {
        for path in [
            "/",
            "*",
            "/a/",
            "/.git/...",
            "/..a",
            "/a..",
            "/@s/n",
            "/100%25",
            "/100%25%20x",
            "/%C3%BC",
            "/ü",
            "/a;b=c",
            "/a:b",
        ] {
            assert_eq!(Ambiguity::find(path), None, "{path}");
        }
    }

    #[test]
    fn the_lenient_reading_sees_through_every_layer() {
        for (path, read, climbs) in [
            ("/admin%2fx", "/admin/x", false),
            ("//admin\\x", "/admin/x", false),
            ("/%2561dmin%255cx", "/admin/x", false),
            ("/a%252f..%252fb", "/a/../b", true),
            ("/a\\..;v=1\\b", "/a/../b", true),
            ("//", "/", false),
            ("/admin;x=1/y%3bz", "/admin/y", false),
            ("/a/;x/b", "/a/b", false),
            ("/public/;../private/x", "/public/private/x", false),
        ] {
            let reading = LenientReading::of(path);
            assert_eq!(String::from_utf8_lossy(&reading.path), read, "{path}");
            assert_eq!(reading.climbs, climbs, "{path}");
        }
        assert!(LenientReading::of(&format!("/%{}41", "25".repeat(20))).climbs);
    }

    proptest! {
        #[test]
        fn no_path_makes_the_readers_fail(path in "\\PC{0,40}") {
            let found = Ambiguity::find(&path);
            let reading = LenientReading::of(&path);
            prop_assert!(found.is_some() || path == "*" || !reading.climbs, "{} {:?}", path, reading);
        }
    }
}
