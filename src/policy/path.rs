//! Owns the path patterns that rules write: parsed once, matched without allocating, compared for overlap.

use std::cmp::Reverse;
use std::fmt;

use super::reading::{Ambiguity, Decoded, segments};

/// A path pattern, compiled once: `/v1/messages`, `/bot*/sendMessage`, `/repos/acme/**`.
#[derive(Clone, Debug)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Token<Segment>]>,
    rank: PathRank,
}

/// How narrow a pattern is. The order of the fields is the order of their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathRank {
    exact: bool,
    literal_segments: usize,
    literals_beside_stars: usize,
    starred_segments: usize,
    open_ends: Reverse<usize>,
}

/// Why a text is not a path pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// `v1/messages`.
    #[error("a path pattern begins with `/`")]
    NotAbsolute,
    /// `/v1/a**`.
    #[error("`**` stands for whole segments; write it between slashes")]
    DoubleStar,
    /// `/search?q=`.
    #[error("a path pattern has no query and no fragment; rules do not look at them")]
    Query,
    /// `/repos/{owner}`.
    #[error("braces are no wildcard; write `*` for one segment")]
    Braces,
    /// No request ever has this path, or it means two things.
    #[error("the pattern has {0}, so it does not name one resource")]
    Ambiguous(Ambiguity),
}

/// One element of a pattern: a run of any length, or one thing.
#[derive(Clone, Debug)]
enum Token<T> {
    Many,
    One(T),
}

/// One segment of a pattern.
#[derive(Clone, Debug)]
enum Segment {
    /// `*`: any segment that is not empty.
    Any,
    /// Characters, with stars between them.
    Glob(Box<[Token<u16>]>),
}

impl PathPattern {
    /// The pattern of a rule that names no path. `/**` is the same one.
    pub fn any() -> Self {
        Self::of("/**", vec![Token::Many])
    }

    /// Parses a pattern. An ambiguous one is an error unless it is asked for with `lenient_parse`.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        match Ambiguity::find(text) {
            Some(ambiguity) if text.starts_with('/') => Err(PathPatternError::Ambiguous(ambiguity)),
            _ => Self::lenient_parse(text),
        }
    }

    /// Parses a pattern of a rule that passes ambiguous paths: `/@scope%2fname`.
    pub fn lenient_parse(text: &str) -> Result<Self, PathPatternError> {
        let rest = text
            .strip_prefix('/')
            .ok_or(PathPatternError::NotAbsolute)?;
        if text.contains(['?', '#']) {
            return Err(PathPatternError::Query);
        }
        if text.contains(['{', '}']) {
            return Err(PathPatternError::Braces);
        }
        if let Some(never @ (Ambiguity::DotSegment | Ambiguity::Malformed)) = Ambiguity::find(text)
        {
            return Err(PathPatternError::Ambiguous(never));
        }
        let mut segments = Vec::new();
        for segment in rest.split('/') {
            match segment {
                // `**/**` says no more than `**`.
                "**" if matches!(segments.last(), Some(Token::Many)) => {}
                "**" => segments.push(Token::Many),
                "*" => segments.push(Token::One(Segment::Any)),
                text if text.contains("**") => return Err(PathPatternError::DoubleStar),
                text => segments.push(Token::One(Segment::Glob(glob(text)))),
            }
        }
        Ok(Self::of(text, segments))
    }

    fn of(text: &str, segments: Vec<Token<Segment>>) -> Self {
        Self {
            text: text.into(),
            rank: PathRank::of(&segments),
            segments: segments.into(),
        }
    }

    /// Whether `path`, as it stands in a request, is named by this pattern. Allocates nothing.
    pub fn matches(&self, path: &[u8]) -> bool {
        match path.strip_prefix(b"/") {
            Some(rest) => wildcard(
                &self.segments,
                segments(rest),
                |segment, text| match segment {
                    Segment::Any => !text.is_empty(),
                    Segment::Glob(glob) => wildcard(glob, Decoded(text), |want, got| want == got),
                },
            ),
            // `OPTIONS *` (RFC 9112, section 3.2.4) names no path.
            None => self.is_any(),
        }
    }

    /// Whether some path is named by both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        overlap(&self.segments, &other.segments, |a, b| match (a, b) {
            (Segment::Any, Segment::Any) => true,
            (Segment::Any, Segment::Glob(glob)) | (Segment::Glob(glob), Segment::Any) => {
                !glob.is_empty()
            }
            (Segment::Glob(a), Segment::Glob(b)) => overlap(a, b, |a, b| a == b),
        })
    }

    /// Whether every path is named.
    pub fn is_any(&self) -> bool {
        matches!(self.segments.as_ref(), [Token::Many])
    }

    /// How narrow it is.
    pub fn rank(&self) -> PathRank {
        self.rank
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PathRank {
    fn of(segments: &[Token<Segment>]) -> Self {
        let mut rank = Self {
            exact: true,
            literal_segments: 0,
            literals_beside_stars: 0,
            starred_segments: 0,
            open_ends: Reverse(0),
        };
        for segment in segments {
            match segment {
                Token::Many => rank.open_ends.0 += 1,
                Token::One(Segment::Any) => rank.starred_segments += 1,
                Token::One(Segment::Glob(glob)) => {
                    let literals = glob.iter().filter(|t| matches!(t, Token::One(_))).count();
                    if literals == glob.len() {
                        rank.literal_segments += 1;
                    } else {
                        rank.literals_beside_stars += literals;
                        rank.starred_segments += 1;
                    }
                }
            }
        }
        rank.exact = rank.starred_segments == 0 && rank.open_ends.0 == 0;
        rank
    }
}

fn glob(text: &str) -> Box<[Token<u16>]> {
    let mut tokens = Vec::new();
    for (index, literal) in text.split('*').enumerate() {
        if index > 0 {
            tokens.push(Token::Many);
        }
        tokens.extend(Decoded(literal.as_bytes()).map(Token::One));
    }
    tokens.into()
}

/// Matches `input` against `pattern` in time proportional to their product: on a mismatch only the
/// last run is widened, since an earlier one could not do better.
fn wildcard<T, I>(pattern: &[Token<T>], mut input: I, one: impl Fn(&T, &I::Item) -> bool) -> bool
where
    I: Iterator + Clone,
{
    let mut at = 0;
    let mut retry = None;
    loop {
        if let Some(Token::Many) = pattern.get(at) {
            at += 1;
            if at == pattern.len() {
                return true;
            }
            retry = Some((at, input.clone()));
            continue;
        }
        let mut ahead = input.clone();
        match (pattern.get(at), ahead.next()) {
            (None, None) => return true,
            (Some(Token::One(want)), Some(got)) if one(want, &got) => {
                at += 1;
                input = ahead;
                continue;
            }
            _ => {}
        }
        let Some((back, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        at = *back;
        input = from.clone();
    }
}

/// Whether some input matches both patterns: walks the pairs of positions that can be reached together.
fn overlap<T>(a: &[Token<T>], b: &[Token<T>], one: impl Fn(&T, &T) -> bool) -> bool {
    let mut reached = vec![vec![false; b.len() + 1]; a.len() + 1];
    reached[0][0] = true;
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if !reached[i][j] {
                continue;
            }
            match (a.get(i), b.get(j)) {
                (Some(Token::Many), Some(_)) | (Some(_), Some(Token::Many)) => {
                    reached[i + 1][j] = true;
                    reached[i][j + 1] = true;
                }
                (Some(Token::Many), None) => reached[i + 1][j] = true,
                (None, Some(Token::Many)) => reached[i][j + 1] = true,
                (Some(Token::One(x)), Some(Token::One(y))) if one(x, y) => {
                    reached[i + 1][j + 1] = true;
                }
                _ => {}
            }
        }
    }
    reached[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::lenient_parse(text).unwrap()
    }

    #[test]
    fn patterns_name_paths() {
        for (text, yes, no) in [
            (
                "/v1/messages",
                &["/v1/messages", "/v1/%6Dessages"][..],
                &["/v1/messages/", "/v1", "/V1/messages", "v1/messages", "*"][..],
            ),
            ("/", &["/"], &["/a", "//", ""]),
            (
                "/a/*",
                &["/a/b", "/a/%2f"],
                &["/a", "/a/", "/a/b/c", "/a/b/"],
            ),
            (
                "/bot*/sendMessage",
                &["/bot1:A/sendMessage", "/bot/sendMessage"],
                &["/bot1/x/sendMessage", "/bo/sendMessage"],
            ),
            (
                "/a*b*c",
                &["/abc", "/aXbYc", "/abbcc"],
                &["/ab", "/acb", "/a/b/c"],
            ),
            (
                "/repos/acme/**",
                &["/repos/acme", "/repos/acme/", "/repos/acme/x/y"],
                &["/repos/acmex", "/repos", "/repos/acme%2fx"],
            ),
            ("/a/**/z", &["/a/z", "/a/b/z", "/a/b/c/z"], &["/a/b", "/az"]),
            ("/**/z/*", &["/z/a", "/b/z/a", "/z/z/z"], &["/z", "/z/"]),
            ("/**", &["/", "/a/b", "*", ""], &[]),
            ("/@s%2fn", &["/@s%2fn", "/@s%2Fn", "/%40s%2fn"], &["/@s/n"]),
            ("/100%2A", &["/100*", "/100%2a"], &["/100", "/1000"]),
        ] {
            for path in yes {
                assert!(pattern(text).matches(path.as_bytes()), "{text} {path}");
            }
            for path in no {
                assert!(!pattern(text).matches(path.as_bytes()), "{text} {path}");
            }
        }
    }

    #[test]
    fn texts_that_name_no_resource_are_no_patterns() {
        for (text, error) in [
            ("v1", PathPatternError::NotAbsolute),
            ("", PathPatternError::NotAbsolute),
            ("**", PathPatternError::NotAbsolute),
            ("/a**", PathPatternError::DoubleStar),
            ("/***", PathPatternError::DoubleStar),
            ("/a?b", PathPatternError::Query),
            ("/{owner}/x", PathPatternError::Braces),
            (
                "/a/../b",
                PathPatternError::Ambiguous(Ambiguity::DotSegment),
            ),
            ("/a%zz", PathPatternError::Ambiguous(Ambiguity::Malformed)),
            (
                "/a//b",
                PathPatternError::Ambiguous(Ambiguity::EmptySegment),
            ),
            (
                "/@s%2fn",
                PathPatternError::Ambiguous(Ambiguity::EncodedSlash),
            ),
        ] {
            assert_eq!(PathPattern::parse(text).unwrap_err(), error, "{text}");
        }
        assert!(PathPattern::lenient_parse("/a/%2e%2e/b").is_err());
    }

    #[test]
    fn narrower_patterns_rank_higher() {
        let order = [
            "/a/b/c",
            "/a/b",
            "/a/b/*",
            "/a/b/**",
            "/a/bot*/**",
            "/a/b*/**",
            "/a/*",
            "/a/**",
            "/*",
            "/**",
        ];
        for pair in order.windows(2) {
            assert!(
                pattern(pair[0]).rank() > pattern(pair[1]).rank(),
                "{pair:?}"
            );
        }
        assert_eq!(pattern("/**/**").rank(), PathPattern::any().rank());
    }

    /// The same language, by plain recursion over the text.
    fn naive(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => {
                naive(rest, path) || (!path.is_empty() && naive(pattern, &path[1..]))
            }
            (["*", rest @ ..], [first, after @ ..]) => !first.is_empty() && naive(rest, after),
            ([one, rest @ ..], [first, after @ ..]) => {
                naive_segment(one.as_bytes(), first.as_bytes()) && naive(rest, after)
            }
            _ => false,
        }
    }

    fn naive_segment(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                naive_segment(rest, text)
                    || (!text.is_empty() && naive_segment(pattern, &text[1..]))
            }
            ([a, rest @ ..], [b, after @ ..]) => a == b && naive_segment(rest, after),
            _ => false,
        }
    }

    fn patterns() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            Just("*".to_owned()),
            Just("**".to_owned()),
            "[ab]{0,2}",
            "[ab]{0,1}\\*[ab]{1,2}",
            "a\\*b\\*a"
        ];
        prop::collection::vec(segment, 1..5).prop_map(|parts| format!("/{}", parts.join("/")))
    }

    fn paths() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab]{0,4}", 1..6).prop_map(|parts| format!("/{}", parts.join("/")))
    }

    fn split(text: &str) -> Vec<&str> {
        text[1..].split('/').collect()
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_naive_matcher(text in patterns(), path in paths()) {
            prop_assert_eq!(
                pattern(&text).matches(path.as_bytes()),
                naive(&split(&text), &split(&path)),
            );
        }

        #[test]
        fn escapes_of_plain_characters_change_nothing(text in patterns(), path in paths(), mask in any::<u32>()) {
            let escaped: String = path.bytes().enumerate().map(|(at, byte)| match byte {
                b'/' => "/".to_owned(),
                byte if mask >> (at % 32) & 1 == 1 => format!("%{byte:02x}"),
                byte => char::from(byte).to_string(),
            }).collect();
            prop_assert_eq!(pattern(&text).matches(path.as_bytes()), pattern(&text).matches(escaped.as_bytes()));
        }

        #[test]
        fn patterns_that_share_a_path_overlap(a in patterns(), b in patterns(), path in paths()) {
            let both = pattern(&a).matches(path.as_bytes()) && pattern(&b).matches(path.as_bytes());
            prop_assert!(!both || pattern(&a).overlaps(&pattern(&b)));
            prop_assert!(pattern(&a).overlaps(&pattern(&a)));
            prop_assert_eq!(pattern(&a).overlaps(&pattern(&b)), pattern(&b).overlaps(&pattern(&a)));
        }
    }
}
