//! Owns what a secret looks like when it leaks, and the search for it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

/// One secret in every form it could be written in.
pub struct Needle {
    pub name: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Needle {
    pub fn new(name: &str, secret: &str) -> Self {
        assert!(secret.len() >= 12, "{name} is too short to be searched for");
        let bytes = secret.as_bytes();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let percent = percent_encode(bytes, NON_ALPHANUMERIC).to_string();
        let every: String = bytes.iter().map(|b| format!("%{b:02X}")).collect();
        let json = serde_json::Value::from(secret).to_string();
        let mut forms = vec![
            ("raw", secret.to_owned()),
            ("reversed", secret.chars().rev().collect()),
            ("hex", hex.to_uppercase()),
            ("hex", hex),
            ("percent-encoded", percent.to_lowercase()),
            ("percent-encoded", percent),
            ("percent-encoded", every.to_lowercase()),
            ("percent-encoded", every),
            ("in JSON", json.trim_matches('"').to_owned()),
            (
                "as a list of bytes",
                format!("{bytes:?}").trim_matches(['[', ']']).to_owned(),
            ),
        ];
        for offset in 0..3 {
            let mut shifted = vec![0; offset];
            shifted.extend(bytes);
            // Only the characters that nothing but the secret decides.
            let (first, last) = ((offset * 8).div_ceil(6), shifted.len() * 8 / 6);
            for encoded in [
                STANDARD_NO_PAD.encode(&shifted),
                URL_SAFE_NO_PAD.encode(&shifted),
            ] {
                forms.push(("base64", encoded[first..last].to_owned()));
            }
        }
        Self {
            name: name.to_owned(),
            forms: forms
                .into_iter()
                .map(|(form, text)| (form, text.into_bytes()))
                .collect(),
        }
    }

    /// The first form that is found.
    pub fn find(&self, hay: &[u8]) -> Option<&'static str> {
        let found = self
            .forms
            .iter()
            .find(|(_, form)| memmem::find(hay, form).is_some());
        found.map(|(form, _)| *form)
    }
}

/// Everything that was written, told or shown, by its place.
#[derive(Default)]
pub struct Haystack(Vec<(String, Vec<u8>)>);

impl Haystack {
    pub fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    /// Whether a place holds a text: shows that the search looked at something.
    #[track_caller]
    pub fn assert_mentions(&self, place: &str, text: &str) {
        let mut found = self.0.iter().filter(|(p, _)| p == place);
        assert!(
            found.any(|(_, hay)| memmem::find(hay, text.as_bytes()).is_some()),
            "{place} does not mention {text:?}"
        );
    }

    #[track_caller]
    pub fn assert_free_of(&self, needles: &[Needle]) {
        let mut found = Vec::new();
        for (place, hay) in &self.0 {
            for needle in needles {
                if let Some(form) = needle.find(hay) {
                    let text = String::from_utf8_lossy(hay);
                    let shown: String = text.chars().take(3000).collect();
                    found.push(format!("{} ({form}) is in {place}:\n{shown}", needle.name));
                }
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n\n"));
    }
}

#[test]
fn every_form_of_a_secret_is_found() {
    let needle = Needle::new("n", "s3cret+value/of=it");
    for hay in [
        "xs3cret+value/of=itx",
        "s3cret%2bvalue%2fof%3dit",
        "7333637265742b76616c75652f6f663d6974",
    ] {
        assert!(needle.find(hay.as_bytes()).is_some(), "{hay}");
    }
    for before in ["", "u", "us", "use", "user:"] {
        let hay = STANDARD_NO_PAD.encode(format!("{before}s3cret+value/of=it after"));
        assert_eq!(needle.find(hay.as_bytes()), Some("base64"), "{before}");
    }
    assert!(needle.find(b"s3cret value of it").is_none());
}
