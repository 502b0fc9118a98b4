//! Owns what a source gives: a secret that can be sent, with its expiry, or why there is none.

use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::types::secret::Secret;

/// Largest secret, or document holding one, that is read.
pub const MAX_BYTES: usize = 64 * 1024;

/// A secret as a source gave it.
#[derive(Debug)]
pub struct Fetched {
    /// The secret.
    pub secret: Secret,
    /// When it stops being valid, if that is known.
    pub expires_at: Option<SystemTime>,
    /// What belongs to it and never leaves, such as the token that it is renewed with.
    pub beside: Option<Secret>,
}

impl Fetched {
    /// A secret that is valid until the source says otherwise.
    pub fn lasting(secret: Secret) -> Self {
        Self {
            secret,
            expires_at: None,
            beside: None,
        }
    }
}

/// Why a source gave no secret. The text never holds any part of what the source gave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is nothing where the secret should be.
    #[error("{0}")]
    Missing(String),
    /// There is something, but it is not usable, or it cannot be asked for.
    #[error("{0}")]
    Broken(String),
    /// Only a person can go on: the grant is gone and a new login is needed. The value held before went
    /// with it.
    #[error("{0}")]
    NeedsLogin(String),
    /// The value held before may be invalid any moment: it is not used until the source says more.
    #[error("{0}")]
    Withdrawn(String),
}

impl SourceError {
    /// Whether the value held before must not be used any more.
    pub fn withdraws(&self) -> bool {
        matches!(self, Self::NeedsLogin(_) | Self::Withdrawn(_))
    }
}

/// Turns what a source gave into a secret: line ends at its end are dropped, everything else that
/// no credential contains is refused rather than repaired. `place` names the source.
pub fn clean(mut bytes: Zeroizing<Vec<u8>>, place: &str) -> Result<Secret, SourceError> {
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(SourceError::Missing(format!("{place} is empty")));
    }
    match flaw(&bytes) {
        Some(flaw) => Err(SourceError::Broken(format!("{place} {flaw}"))),
        None => Ok(Secret::new(std::mem::take(&mut *bytes))),
    }
}

/// What a source is expected to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A secret alone on one line, as it is sent.
    Line,
    /// A document that holds one: a PEM key, a JSON file.
    Document,
}

impl Form {
    /// Turns what a source gave into a secret of this form. `place` names the source.
    pub fn read(self, bytes: Zeroizing<Vec<u8>>, place: &str) -> Result<Secret, SourceError> {
        match self {
            Self::Line => clean(bytes, place),
            Self::Document => document(bytes, place),
        }
    }
}

fn document(mut bytes: Zeroizing<Vec<u8>>, place: &str) -> Result<Secret, SourceError> {
    if bytes.trim_ascii().is_empty() {
        return Err(SourceError::Missing(format!("{place} is empty")));
    }
    match bytes.contains(&0) || std::str::from_utf8(&bytes).is_err() {
        true => Err(SourceError::Broken(format!(
            "{place} is not text; is it a binary file?"
        ))),
        false => Ok(Secret::new(std::mem::take(&mut *bytes))),
    }
}

/// What keeps `bytes` from being a credential.
fn flaw(bytes: &[u8]) -> Option<&'static str> {
    if bytes.contains(&0) {
        return Some("contains a NUL byte; is it a binary file?");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Some("is not UTF-8 text; is it a binary file?");
    };
    if text.starts_with('\u{feff}') {
        return Some("begins with a byte order mark; save it without one");
    }
    if text.contains(['\n', '\r']) {
        return Some("has more than one line; keep the secret alone on one line");
    }
    if text.chars().any(|c| c.is_control() || is_invisible(c)) {
        return Some("contains an invisible character; write the secret anew");
    }
    if text.trim() != text {
        return Some("begins or ends with white space; remove it");
    }
    None
}

/// Characters that paste along with a secret unseen (general category Cf, the common ones).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(bytes: &[u8]) -> Result<Secret, SourceError> {
        clean(Zeroizing::new(bytes.to_vec()), "the file `key`")
    }

    #[test]
    fn line_ends_at_the_end_are_dropped() {
        for written in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\n\n"] {
            assert_eq!(cleaned(written.as_bytes()).unwrap().expose(), b"s3cret");
        }
        assert_eq!(cleaned("påss wörd\n".as_bytes()).unwrap().len(), 11);
    }

    #[test]
    fn a_document_is_kept_as_it_is() {
        let document = |bytes: &[u8]| Form::Document.read(Zeroizing::new(bytes.to_vec()), "it");
        let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(document(pem.as_bytes()).unwrap().expose(), pem.as_bytes());
        for bytes in [&b" \n"[..], b"s3\0", b"s3\xff"] {
            let error = document(bytes).unwrap_err().to_string();
            assert!(
                error.starts_with("it is ") && !error.contains("s3"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_no_credential_contains_is_refused_without_showing_it() {
        for (bytes, said) in [
            (&b""[..], "is empty"),
            (b"\n\n", "is empty"),
            (b"s3cret\0", "NUL"),
            (b"s3cret\nmore", "more than one line"),
            (b"s3\rcret", "more than one line"),
            (b"s3\tcret", "invisible"),
            (b"s3\x1bcret", "invisible"),
            (b"s3\xffcret", "not UTF-8"),
            (b"\xef\xbb\xbfs3cret", "byte order mark"),
            ("s3\u{200b}cret".as_bytes(), "invisible"),
            (b" s3cret", "white space"),
            (b"s3cret \n", "white space"),
        ] {
            let error = cleaned(bytes).unwrap_err().to_string();
            assert!(error.contains(said), "{bytes:?}: {error}");
            assert!(error.starts_with("the file `key` ") && !error.contains("s3"));
        }
    }
}
