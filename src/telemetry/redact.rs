//! Owns the views of paths and queries that are safe to write down.
//!
//! Agents hold placeholders, but what an agent sends is its own choice: a real key in a path or
//! query must not reach a log even when the request is refused.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use bytes::Bytes;
use http::Method;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

/// What stands in a record where something was taken out.
pub const REDACTED: &str = "[redacted]";

/// A path and query that can only be shown redacted: credential-shaped segments are replaced, and
/// of a query only the parameter names remain.
#[derive(Clone)]
pub struct SafeTarget(Option<PathAndQuery>);

impl SafeTarget {
    /// Wraps a target as the agent sent it; one that `holds_secret` is not shown at all.
    pub fn of(target: Option<&PathAndQuery>, holds_secret: impl Fn(&str) -> bool) -> Option<Self> {
        let target = target?;
        Some(Self(
            (!holds_secret(target.as_str())).then(|| target.clone()),
        ))
    }
}

impl SafeTarget {
    /// The same in memory of its own. What it was read from, a request's head and what came behind it, is
    /// larger by far, and a record may wait.
    pub fn detach(&mut self) {
        if let Some(target) = &mut self.0 {
            let copy = Bytes::copy_from_slice(target.as_str().as_bytes());
            self.0 = PathAndQuery::from_maybe_shared(copy).ok();
        }
    }
}

impl fmt::Display for SafeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(target) = &self.0 else {
            return f.write_str(REDACTED);
        };
        for (index, segment) in target.path().split('/').enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(if looks_secret(segment) {
                REDACTED
            } else {
                segment
            })?;
        }
        let Some(query) = target.query() else {
            return Ok(());
        };
        for (index, pair) in query.split('&').enumerate() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            f.write_str(if index == 0 { "?" } else { "&" })?;
            f.write_str(if looks_secret(name) { REDACTED } else { name })?;
            if !value.is_empty() {
                write!(f, "={REDACTED}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SafeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SafeTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A short text that an agent made up, such as a model's name: words that look like a credential are
/// replaced when it is shown.
#[derive(Clone)]
pub struct SafeText(Box<str>);

/// Longer ones are cut: no name is so long, and what waits to be written takes memory.
const LONGEST_TEXT: usize = 256;

impl SafeText {
    /// Wraps a text.
    pub fn of(text: &str) -> Self {
        let end = text.floor_char_boundary(LONGEST_TEXT);
        Self(text[..end].into())
    }
}

impl fmt::Display for SafeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() < SHORTEST_SECRET {
            return f.write_str(&self.0);
        }
        for (index, word) in self.0.split(' ').enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(if looks_secret(word) { REDACTED } else { word })?;
        }
        Ok(())
    }
}

impl fmt::Debug for SafeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An identifier that can be shown because it is a UUID: a number, with no room for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafeId(u128);

impl SafeId {
    /// Parses the usual form, `8-4-4-4-12` hexadecimal digits (RFC 9562, section 4).
    pub fn parse(text: &str) -> Option<Self> {
        let groups: Vec<&str> = text.split('-').collect();
        let fits = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
        let digits = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !fits || !digits {
            return None;
        }
        u128::from_str_radix(&groups.concat(), 16).ok().map(Self)
    }
}

impl fmt::Display for SafeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let (a, b, c) = (n >> 96, n >> 80 & 0xffff, n >> 64 & 0xffff);
        let (d, e) = (n >> 48 & 0xffff, n & 0xffff_ffff_ffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

/// Prefixes that providers put in front of their tokens, so that scanners find them.
const TOKEN_PREFIXES: &[&str] = &[
    "sk-",
    "sk_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "npm_",
    "pypi-",
    "aiza",
    "ya29.",
    "akia",
    "asia",
    "eyj",
    "hf_",
    "dop_v1_",
    "shpat_",
    "rk_live_",
    "pk_live_",
    "tollgate_",
];

/// A method as it may be written down: the agent can put any token there.
pub fn safe_method(method: &Method) -> Method {
    let word = method.as_str();
    let plain = word.len() <= 20 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    match plain {
        true => method.clone(),
        // OpenTelemetry's word for it.
        false => Method::from_bytes(b"_OTHER").unwrap_or_default(),
    }
}

/// No provider's token is shorter.
const SHORTEST_SECRET: usize = 12;

/// Whether a path segment could be a credential. Rather too often yes than once no.
pub fn looks_secret(segment: &str) -> bool {
    if segment.len() < SHORTEST_SECRET {
        return false;
    }
    let decoded = match segment.contains('%') {
        true => percent_decode_str(segment).decode_utf8_lossy(),
        false => Cow::Borrowed(segment),
    };
    // A token may stand behind a word: Telegram's is `bot<id>:<token>`.
    let telegram = decoded.contains(':') && decoded.bytes().filter(u8::is_ascii_digit).count() >= 6;
    telegram || has_prefix(&decoded) || dense(&decoded)
}

/// Whether a provider's prefix stands in a text, in whatever case. One pass for all of them: this is asked of
/// every path that is written down.
fn has_prefix(text: &str) -> bool {
    static SEARCH: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
        let builder = &mut AhoCorasick::builder();
        let builder = builder.kind(Some(AhoCorasickKind::DFA));
        let built = builder.ascii_case_insensitive(true).build(TOKEN_PREFIXES);
        built.ok()
    });
    match &*SEARCH {
        Some(search) => search.is_match(text),
        // So few patterns always make an automaton; without one it is slow, but never blind.
        None => {
            let lower = text.to_ascii_lowercase();
            TOKEN_PREFIXES.iter().any(|prefix| lower.contains(prefix))
        }
    }
}

/// A long run of mixed letters and digits without the separators that readable names have.
fn dense(text: &str) -> bool {
    let runs = text
        .as_bytes()
        .split(|octet| !octet.is_ascii_alphanumeric());
    runs.filter(|run| run.len() >= 20).any(|run| {
        let mixed = run.iter().any(u8::is_ascii_digit) && run.iter().any(u8::is_ascii_alphabetic);
        let hex = run.iter().all(u8::is_ascii_hexdigit);
        // A hash of 40 or 64 hexadecimal digits names an object; it opens nothing.
        mixed && !(hex && matches!(run.len(), 40 | 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(target: &'static str) -> String {
        let target = PathAndQuery::from_static(target);
        SafeTarget::of(Some(&target), |text| text.contains("known-secret"))
            .unwrap()
            .to_string()
    }

    #[test]
    fn ordinary_paths_stay_readable() {
        for target in [
            "/v1/messages",
            "/repos/acme/web/pulls/17",
            "/simple/typing-extensions/",
            "/@anthropic-ai%2fclaude-code",
            "/repos/a/b/git/commits/da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "/",
        ] {
            assert_eq!(shown(target), target);
        }
    }

    #[test]
    fn what_an_agent_makes_up_is_shown_without_what_looks_like_a_credential() {
        for (text, shown) in [
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929"),
            (
                "claude-cli/2.1.197 (external, sdk-cli)",
                "claude-cli/2.1.197 (external, sdk-cli)",
            ),
            ("curl/8.5.0", "curl/8.5.0"),
            ("tool sk-ant-api03-abcdef 1", "tool [redacted] 1"),
            ("ghp_0123456789abcdef", "[redacted]"),
        ] {
            assert_eq!(SafeText::of(text).to_string(), shown);
        }
        assert!(SafeText::of(&"x-".repeat(1000)).to_string().len() <= LONGEST_TEXT);
    }

    #[test]
    fn only_a_uuid_is_an_identifier_to_show() {
        let id = "0195f3a0-7c1b-7d2e-8f3a-00000000abcd";
        assert_eq!(SafeId::parse(id).unwrap().to_string(), id);
        assert_eq!(SafeId::parse(&id.to_uppercase()).unwrap().to_string(), id);
        for none in [
            "",
            "session",
            "0195f3a07c1b7d2e8f3a00000000abcd",
            "0195f3a0-7c1b-7d2e-8f3a-00000000abcg",
            "+195f3a0-7c1b-7d2e-8f3a-00000000abcd",
        ] {
            assert_eq!(SafeId::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_detached_target_is_the_same() {
        let target = PathAndQuery::from_static("/v1/messages?beta=true");
        let mut safe = SafeTarget::of(Some(&target), |_| false).unwrap();
        safe.detach();
        assert_eq!(safe.to_string(), "/v1/messages?beta=[redacted]");
    }

    #[test]
    fn methods_are_words_or_nothing() {
        let shown =
            |word: &str| safe_method(&Method::from_bytes(word.as_bytes()).unwrap()).to_string();
        for word in ["GET", "PROPFIND", "M-SEARCH"] {
            assert_eq!(shown(word), word);
        }
        for word in [
            "get",
            "sk-ant-api03-abc",
            "GHP_0123",
            "ABCDEFGHIJKLMNOPQRSTUVW",
        ] {
            assert_eq!(shown(word), "_OTHER");
        }
    }

    #[test]
    fn credentials_in_paths_and_queries_are_taken_out() {
        for (target, expected) in [
            (
                "/bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage",
                "/[redacted]/sendMessage",
            ),
            (
                "/bot123456789%3AAAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/x",
                "/[redacted]/x",
            ),
            ("/x/sk-ant-api03-abc", "/x/[redacted]"),
            ("/x/ghp_0123456789abcdef", "/x/[redacted]"),
            ("/x?key=AIzaSyA&alt=sse", "/x?key=[redacted]&alt=[redacted]"),
            ("/x?sk-ant-api03-abcdef", "/x?[redacted]"),
            ("/x?flag", "/x?flag"),
            ("/x/known-secret?y", "[redacted]"),
            (
                "/hooks/T0000/B0000/XXXXXXXXXXXXXXXX1XXXXXXX",
                "/hooks/T0000/B0000/[redacted]",
            ),
        ] {
            assert_eq!(shown(target), expected);
        }
    }
}
