//! Owns the search for secrets in what is to be written down: raw, in base64 wherever they stand in it, in
//! hexadecimal, percent-encoded, in small letters, and as JSON or HTML write them.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memchr;
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use crate::types::secret::Secret;

/// Secrets in every form they could be written in.
pub struct Disguises {
    forms: Vec<Zeroizing<Vec<u8>>>,
    /// The first windows of all forms.
    heads: Windows,
    /// The first `stride` windows of all forms. Wherever a form stands in a text, one in `stride` of the text's
    /// windows is one of these: most of a text is passed by without a look at it, or at any secret (the search of Wu
    /// and Manber, 1994).
    windows: Windows,
    /// None where a form is shorter than a window.
    stride: Option<NonZero<usize>>,
    shortest: usize,
}

/// So many octets are hashed.
const WINDOW: usize = 4;
/// Hashes of them that are told apart.
const HASHES: usize = 1 << 16;
/// Of them, those that secrets may use up: what looks like one of a secret's windows has to be compared.
const MOST_HASHES: usize = HASHES / 32;
/// An encoded form that is shorter stands in many an innocent text.
const SHORTEST_FORM: usize = 8;
/// How often text is decoded before it counts as searched.
const DECODINGS: usize = 2;

impl Disguises {
    /// Looks for these.
    pub fn of(secrets: impl Iterator<Item = Arc<Secret>>) -> Self {
        let mut forms: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for secret in secrets.filter(|secret| !secret.is_empty()) {
            let secret = secret.expose();
            let encoded = encoded(secret).into_iter();
            forms.extend(encoded.filter(|form| form.len() >= SHORTEST_FORM));
            // What an agent made the name of a host is read in small letters.
            let small = Zeroizing::new(secret.to_ascii_lowercase());
            forms.extend(Some(small).filter(|form| form.len() >= SHORTEST_FORM));
            forms.push(Zeroizing::new(secret.to_vec()));
        }
        forms.sort_unstable_by(|a, b| a.as_slice().cmp(b.as_slice()));
        // Where one begins with another, finding the other is enough. Of those that are left, only the greatest that
        // comes before a text can begin it.
        forms.dedup_by(|form, before| form.starts_with(before));
        let shortest = forms.iter().map(|form| form.len()).min();
        let most = shortest.map_or(0, |shortest| (shortest + 1).saturating_sub(WINDOW));
        let (mut heads, mut windows) = (Windows::none(), Windows::none());
        let (mut stride, mut used) = (0, 0);
        while stride < most && used < MOST_HASHES {
            for form in &forms {
                let window = &form[stride..stride + WINDOW];
                used += usize::from(windows.add(window));
                if stride == 0 {
                    heads.add(window);
                }
            }
            stride += 1;
        }
        Self {
            forms,
            heads,
            windows,
            stride: NonZero::new(stride),
            shortest: shortest.unwrap_or(usize::MAX),
        }
    }

    /// Whether one of them stands in a text, which may be percent-encoded as a whole.
    pub fn stand_in(&self, text: &[u8]) -> bool {
        if text.len() < self.shortest {
            return false;
        }
        let mut text = Cow::Borrowed(text);
        for _ in 0..DECODINGS {
            if self.stand_in_plain(&text) {
                return true;
            }
            if memchr(b'%', &text).is_none() {
                return false;
            }
            text = Cow::Owned(percent_decode(&text).collect());
        }
        self.stand_in_plain(&text)
    }

    fn stand_in_plain(&self, text: &[u8]) -> bool {
        let Some(stride) = self.stride.map(NonZero::get) else {
            return (0..text.len()).any(|at| self.begins(&text[at..]));
        };
        let mut at = stride - 1;
        while let Some(window) = text.get(at..at + WINDOW) {
            if self.windows.has(window) {
                let mut places = at + 1 - stride..=at;
                // What repeats the beginning of a secret, which many know, is not compared at every place.
                if places.any(|at| self.heads.has(&text[at..]) && self.begins(&text[at..])) {
                    return true;
                }
            }
            at += stride;
        }
        false
    }

    /// Whether a text begins with one of the forms.
    fn begins(&self, text: &[u8]) -> bool {
        let before = self.forms.partition_point(|form| form.as_slice() <= text);
        let last = before.checked_sub(1).map(|last| &self.forms[last]);
        last.is_some_and(|form| text.starts_with(form))
    }
}

impl fmt::Debug for Disguises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disguises({})", self.forms.len())
    }
}

/// Hashes of windows. An automaton would be as good, and keep copies that nothing clears.
struct Windows(Box<Zeroizing<[u64; HASHES / 64]>>);

impl Windows {
    fn none() -> Self {
        Self(Box::new(Zeroizing::new([0; HASHES / 64])))
    }

    /// Whether it was not among them.
    fn add(&mut self, text: &[u8]) -> bool {
        let is_new = !self.has(text);
        let hash = Self::hash(text);
        self.0[hash / 64] |= 1 << (hash % 64);
        is_new
    }

    fn has(&self, text: &[u8]) -> bool {
        let hash = Self::hash(text);
        self.0[hash / 64] >> (hash % 64) & 1 == 1
    }

    /// Of the window that a text begins with.
    fn hash(text: &[u8]) -> usize {
        let octets = text.first_chunk().copied().unwrap_or([0; WINDOW]);
        // Multiplicative hashing; the high bits are the good ones.
        let mixed = u32::from_le_bytes(octets).wrapping_mul(0x9e37_79b1);
        (mixed >> 16) as usize % HASHES
    }
}

fn encoded(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms: Vec<Zeroizing<Vec<u8>>> = Vec::new();
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.extend((0..3).map(|offset| base64(engine, secret, offset)));
    }
    let written = |each: &dyn Fn(u8) -> Option<&'static str>| {
        let mut text = Zeroizing::new(Vec::with_capacity(secret.len() * 6));
        for octet in secret {
            match each(*octet) {
                Some(escape) => text.extend_from_slice(escape.as_bytes()),
                None => text.push(*octet),
            }
        }
        text
    };
    forms.push(hexadecimal(secret, b"", b"0123456789abcdef"));
    forms.push(hexadecimal(secret, b"", b"0123456789ABCDEF"));
    forms.push(hexadecimal(secret, b"\\u00", b"0123456789abcdef"));
    forms.push(hexadecimal(secret, b"\\u00", b"0123456789ABCDEF"));
    forms.push(hexadecimal(secret, b"\\x", b"0123456789abcdef"));
    // RFC 8259, section 7: with and without the optional escape.
    forms.push(written(&|octet| json(octet).filter(|_| octet != b'/')));
    forms.push(written(&json));
    forms.push(written(&|octet| match octet {
        b'<' => Some("\\u003c"),
        b'>' => Some("\\u003e"),
        b'&' => Some("\\u0026"),
        octet => json(octet).filter(|_| octet != b'/'),
    }));
    forms.push(written(&|octet| match octet {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'"' => Some("&quot;"),
        b'\'' => Some("&#39;"),
        _ => None,
    }));
    forms
}

/// What base64 makes of a secret with this many octets before it, without the characters that its neighbours
/// have a part in.
fn base64(engine: &GeneralPurpose, secret: &[u8], offset: usize) -> Zeroizing<Vec<u8>> {
    let padded = Zeroizing::new([&[0; 2][..offset], secret].concat());
    let whole = Zeroizing::new(engine.encode(&*padded).into_bytes());
    let (from, to) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
    Zeroizing::new(whole[from.min(to)..to].to_vec())
}

fn hexadecimal(secret: &[u8], before: &[u8], digits: &[u8; 16]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(secret.len() * (before.len() + 2)));
    for octet in secret {
        text.extend_from_slice(before);
        text.push(digits[usize::from(octet >> 4)]);
        text.push(digits[usize::from(octet & 15)]);
    }
    text
}

fn json(octet: u8) -> Option<&'static str> {
    match octet {
        b'"' => Some("\\\""),
        b'\\' => Some("\\\\"),
        b'/' => Some("\\/"),
        b'\n' => Some("\\n"),
        b'\r' => Some("\\r"),
        b'\t' => Some("\\t"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

    use super::*;

    const SECRET: &str = "sk-ant-api03-Ab\"c/D&e<f>g'h\\i+j=k";

    fn disguises(secrets: &[&str]) -> Disguises {
        let secrets = secrets
            .iter()
            .map(|s| Arc::new(Secret::from((*s).to_owned())));
        Disguises::of(secrets)
    }

    #[test]
    fn a_secret_is_found_in_every_form_and_anywhere() {
        let known = disguises(&["another-one-of-them", SECRET]);
        let hex: String = SECRET.bytes().map(|b| format!("{b:02x}")).collect();
        let unicode: String = SECRET.bytes().map(|b| format!("\\u{b:04x}")).collect();
        let percent = percent_encode(SECRET.as_bytes(), NON_ALPHANUMERIC).to_string();
        let twice = percent_encode(percent.as_bytes(), NON_ALPHANUMERIC).to_string();
        let every: String = SECRET.bytes().map(|b| format!("%{b:02x}")).collect();
        let json = serde_json::to_string(SECRET).unwrap();
        let html = SECRET
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;");
        let mut texts = vec![
            SECRET.to_owned(),
            hex.to_uppercase(),
            hex,
            unicode,
            percent.to_lowercase(),
            percent,
            twice,
            every,
            json.trim_matches('"').to_owned(),
            json.trim_matches('"').replace('/', "\\/"),
            html,
            SECRET.to_ascii_lowercase(),
        ];
        for before in ["", "u", "us", "user:"] {
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                texts.push(engine.encode(format!("{before}{SECRET}:after")));
            }
        }
        for text in texts {
            assert!(known.stand_in(text.as_bytes()), "{text}");
            for before in 1..40 {
                let within = format!("{}{text}y", "x".repeat(before));
                assert!(known.stand_in(within.as_bytes()), "{within}");
            }
            let cut = &text[..text.len() / 2];
            assert!(!known.stand_in(cut.as_bytes()), "{cut}");
        }
    }

    #[test]
    fn what_is_no_secret_is_not_found() {
        let known = disguises(&[SECRET]);
        for text in [
            "",
            "sk-ant-api03-",
            "https://api.anthropic.com/v1/messages?beta=true",
            "%",
            "%zz",
        ] {
            assert!(!known.stand_in(text.as_bytes()), "{text}");
        }
        assert!(!disguises(&[]).stand_in(b"anything"));
        assert!(!disguises(&[""]).stand_in(b"anything"));
    }

    #[test]
    fn even_the_shortest_secret_is_found() {
        for secret in ["a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefghi"] {
            let known = disguises(&[secret, "a-much-longer-one-beside-it"]);
            for (before, after) in (0..20).flat_map(|before| [(before, 0), (before, 9)]) {
                let text = format!("{}{secret}{}", "-".repeat(before), "-".repeat(after));
                assert!(known.stand_in(text.as_bytes()), "{text}");
            }
            assert!(!known.stand_in(b"----------"));
        }
    }

    #[test]
    fn one_of_very_many_is_found() {
        let secret = |number| format!("secret-number-{number:06}-of-many");
        let all: Vec<String> = (0..3000).map(secret).collect();
        let known = disguises(&all.iter().map(String::as_str).collect::<Vec<_>>());
        for number in [0, 1, 1499, 2999] {
            for before in 0..9 {
                let text = format!("{}{}", "-".repeat(before), secret(number));
                assert!(known.stand_in(text.as_bytes()), "{text}");
            }
        }
        assert!(!known.stand_in(secret(3000).as_bytes()));
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        assert!(!format!("{:?}", disguises(&[SECRET])).contains("sk-ant"));
    }
}
