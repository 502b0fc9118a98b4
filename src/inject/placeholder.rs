//! Owns placeholders: derived from a process key for each agent and credential, shaped like the
//! real thing, and recognizable as ours without a table.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use subtle::ConstantTimeEq;

use crate::config::shape::{Part, Shape};

/// The shape of a placeholder when none is written.
pub const DEFAULT_SHAPE: &str = "tollgate_[A-Za-z0-9:40]";
/// The shape of what stands in place of a refresh token when none is written or known.
pub const DEFAULT_REFRESH_SHAPE: &str = "tollgate_refresh_[A-Za-z0-9:40]";
/// The shape of the last part of what stands in place of an identity token: 32 octets in base64url, as
/// a signature has them (RFC 7515, section 3.1).
pub const SIGNATURE_SHAPE: &str = "[A-Za-z0-9_-:43]";
/// How many of the random characters, at the end, vouch for all others.
const CHECK: usize = 10;
/// Least number of random characters: the check, and as many to tell placeholders apart.
const LEAST_RANDOM: usize = 2 * CHECK;
/// Least length of the key.
const LEAST_KEY: usize = 32;

/// The key that placeholders are derived with. Replicas that share it need no table.
#[derive(Clone)]
pub struct PlaceholderKey(hmac::Key);

/// Why bytes cannot be a placeholder key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too few bytes.
    #[error("a placeholder key has at least 32 bytes")]
    Short,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

impl PlaceholderKey {
    /// A key from 32 or more bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes.len() < LEAST_KEY {
            true => Err(KeyError::Short),
            false => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))),
        }
    }

    /// A key that lives as long as this process.
    pub fn random() -> Result<Self, KeyError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        key.map(Self).map_err(|_| KeyError::Random)
    }

    /// The placeholder of `credential` for `agent`.
    pub fn derive(&self, shape: &Shape, agent: &str, credential: &str) -> String {
        // NUL stands in neither name, so no two pairs make one message.
        let seed = [b"derive\0", agent.as_bytes(), b"\0", credential.as_bytes()].concat();
        self.derive_from(&seed, shape)
    }

    /// What stands for another part of it: `refresh`, `identity`.
    pub fn derive_part(&self, shape: &Shape, agent: &str, credential: &str, part: &str) -> String {
        let names = [agent.as_bytes(), credential.as_bytes(), part.as_bytes()];
        let seed = [b"derive part\0", names.join(&0).as_slice()].concat();
        self.derive_from(&seed, shape)
    }

    fn derive_from(&self, seed: &[u8], shape: &Shape) -> String {
        let letters = Letters::of(shape);
        let mut text = letters.blank(shape);
        let (body, check) = letters.split();
        self.fill(&mut text, body, seed);
        let vouched = vouched(&text, check);
        self.fill(&mut text, check, &vouched);
        // Shapes are ASCII: nothing is lost here.
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether `text` is a placeholder of this shape that this key made, for whichever agent.
    pub fn recognizes(&self, shape: &Shape, text: &str) -> bool {
        let text = text.as_bytes();
        if text.len() != shape.length() {
            return false;
        }
        let letters = Letters::of(shape);
        if !letters.fit(shape, text) {
            return false;
        }
        let (_, check) = letters.split();
        let mut expected = text.to_vec();
        self.fill(&mut expected, check, &vouched(text, check));
        expected.ct_eq(text).into()
    }

    /// Writes a keyed stream that begins at `seed` into `places`.
    fn fill(&self, text: &mut [u8], places: &[Letter<'_>], seed: &[u8]) {
        for (block, places) in (0_u32..).zip(places.chunks(16)) {
            let mut mac = hmac::Context::with_key(&self.0);
            mac.update(b"tollgate placeholder v1\0");
            mac.update(&block.to_be_bytes());
            mac.update(seed);
            let tag = mac.sign();
            // Two bytes a letter keep the modulo's bias below one in a thousand.
            for (bytes, (at, alphabet)) in tag.as_ref().chunks_exact(2).zip(places) {
                let number = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                text[*at] = alphabet[number % alphabet.len()];
            }
        }
    }
}

impl fmt::Debug for PlaceholderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaceholderKey(***)")
    }
}

/// What of `text` the check vouches for: all of it, with the check's own places blanked.
fn vouched(text: &[u8], check: &[Letter<'_>]) -> Vec<u8> {
    let mut rest = text.to_vec();
    for (at, _) in check {
        rest[*at] = 0;
    }
    [b"check\0", rest.as_slice()].concat()
}

/// A random character: its place, and its alphabet.
type Letter<'a> = (usize, &'a [u8]);

/// The random characters of a shape, left to right.
struct Letters<'a>(Vec<Letter<'a>>);

impl<'a> Letters<'a> {
    fn of(shape: &'a Shape) -> Self {
        let mut letters = Vec::new();
        let mut at = 0;
        for part in &shape.parts {
            match part {
                Part::Literal(text) => at += text.len(),
                Part::Run { alphabet, length } => {
                    letters.extend((at..at + length).map(|at| (at, alphabet.as_slice())));
                    at += length;
                }
            }
        }
        Self(letters)
    }

    /// The seeded letters, and those that vouch for them.
    fn split(&self) -> (&[Letter<'a>], &[Letter<'a>]) {
        self.0.split_at(self.0.len().saturating_sub(CHECK))
    }

    fn blank(&self, shape: &Shape) -> Vec<u8> {
        let mut text = Vec::with_capacity(shape.length());
        for part in &shape.parts {
            match part {
                Part::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                Part::Run { length, .. } => text.resize(text.len() + length, 0),
            }
        }
        text
    }

    fn fit(&self, shape: &Shape, text: &[u8]) -> bool {
        let mut literals = self.blank(shape);
        for (at, alphabet) in &self.0 {
            if !alphabet.contains(&text[*at]) {
                return false;
            }
            literals[*at] = text[*at];
        }
        literals == text
    }
}

/// Checks that a shape leaves room for what makes placeholders differ and recognizable.
pub fn check_shape(shape: &Shape) -> Result<(), String> {
    let random = Letters::of(shape).0.len();
    if random < LEAST_RANDOM {
        return Err(format!(
            "it has {random} random characters; {LEAST_RANDOM} are needed to tell placeholders apart"
        ));
    }
    let usable = shape.parts.iter().all(|part| match part {
        Part::Literal(text) => text.bytes().all(is_usable),
        Part::Run { alphabet, .. } => {
            !alphabet.is_empty() && alphabet.iter().all(|b| is_usable(*b))
        }
    });
    match usable {
        true => Ok(()),
        false => Err(UNUSABLE.to_owned()),
    }
}

/// Checks that a fixed placeholder can be found again wherever it may stand.
pub fn check_fixed(value: &str) -> Result<(), String> {
    if value.len() < 8 {
        return Err(
            "it has fewer than 8 characters; a shorter one would be found by chance".to_owned(),
        );
    }
    match value.bytes().all(is_usable) {
        true => Ok(()),
        false => Err(UNUSABLE.to_owned()),
    }
}

const UNUSABLE: &str =
    r#"it has a character that is changed on its way (white space, `"`, `%`, `&`, `,`, `;`, `\`)"#;

fn is_usable(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%' | b'&' | b',' | b';' | b'\\')
}

/// Recognizes placeholders of ours in any of the shapes in use.
#[derive(Debug, Clone)]
pub struct Recognizer {
    key: PlaceholderKey,
    shapes: Vec<Shape>,
}

impl Recognizer {
    /// A recognizer for these shapes.
    pub fn new(key: PlaceholderKey, shapes: impl IntoIterator<Item = Shape>) -> Self {
        let mut distinct = Vec::new();
        for shape in shapes {
            if !distinct.contains(&shape) {
                distinct.push(shape);
            }
        }
        Self {
            key,
            shapes: distinct,
        }
    }

    /// Whether all of `text` is a placeholder of ours.
    pub fn is_ours(&self, text: &[u8]) -> bool {
        let same_length = self
            .shapes
            .iter()
            .filter(|shape| shape.length() == text.len());
        same_length.into_iter().any(|shape| {
            std::str::from_utf8(text).is_ok_and(|text| self.key.recognizes(shape, text))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPES: [&str; 4] = [
        DEFAULT_SHAPE,
        "sk-ant-api03-[A-Za-z0-9_-:93]AA",
        "[0-9:10]:AA[A-Za-z0-9_-:33]",
        "[a-f0-9:8]-[a-f0-9:4]-[a-f0-9:12]",
    ];

    fn key(fill: u8) -> PlaceholderKey {
        PlaceholderKey::new(&[fill; 32]).unwrap()
    }

    #[test]
    fn placeholders_differ_per_agent_and_credential_and_are_stable() {
        for text in SHAPES {
            let shape = Shape::parse(text).unwrap();
            let derive = |agent, credential| key(1).derive(&shape, agent, credential);
            let one = derive("team/a", "anthropic");
            assert_eq!(one, derive("team/a", "anthropic"));
            assert_eq!(one.len(), shape.length());
            assert_ne!(one, derive("team/b", "anthropic"));
            assert_ne!(one, derive("team/a", "github"));
            assert_ne!(one, key(2).derive(&shape, "team/a", "anthropic"));
            assert!(key(1).recognizes(&shape, &one), "{one}");
            assert!(!key(2).recognizes(&shape, &one));
        }
    }

    #[test]
    fn the_real_shapes_come_out_as_clients_expect_them() {
        let shape = Shape::parse(SHAPES[2]).unwrap();
        let text = key(1).derive(&shape, "a", "telegram");
        let (digits, rest) = text.split_once(':').unwrap();
        assert!(digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit()));
        assert!(rest.len() == 35 && rest.starts_with("AA"));
    }

    #[test]
    fn weak_or_unusable_placeholders_are_refused() {
        let shape = |text| check_shape(&Shape::parse(text).unwrap());
        assert!(shape("x-[a-z:20]").is_ok());
        assert!(shape("x-[a-z:19]").is_err());
        assert!(shape("100%[a-z:20]").is_err());
        assert!(shape("[!-~:20]").is_err());
        assert!(check_fixed("placeholder").is_ok() && check_fixed("123456:AAph").is_ok());
        assert!(check_fixed("short").is_err() && check_fixed("two words").is_err());
        assert_eq!(PlaceholderKey::new(&[0; 31]).unwrap_err(), KeyError::Short);
        assert_eq!(format!("{:?}", key(7)), "PlaceholderKey(***)");
    }

    proptest! {
        #[test]
        fn random_texts_of_the_shape_are_not_ours(random in "[A-Za-z0-9]{40}") {
            let shape = Shape::parse(DEFAULT_SHAPE).unwrap();
            let text = format!("tollgate_{random}");
            prop_assert!(!key(1).recognizes(&shape, &text));
            prop_assert!(!key(1).recognizes(&shape, &random));
        }

        #[test]
        fn one_changed_character_is_noticed(at in 0_usize..49, letter in "[A-Za-z0-9]") {
            let shape = Shape::parse(DEFAULT_SHAPE).unwrap();
            let mut text = key(1).derive(&shape, "a", "c");
            prop_assume!(text[at..=at] != letter);
            text.replace_range(at..=at, &letter);
            prop_assert!(!key(1).recognizes(&shape, &text));
        }
    }
}
