//! Owns placements in `Authorization: Basic` (RFC 7617): one half of the decoded credentials is
//! replaced, the other is kept.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::request::Parts;
use zeroize::Zeroizing;

use super::error::{InjectError, Position};
use super::header::{sealed, single};
use super::injector::{Injector, Reveal};
use super::table::AgentTable;
use crate::config::credential::BasicPosition;
use crate::types::secret::Secret;

/// Writes padding; reads with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One half of Basic credentials, or either.
#[derive(Debug)]
pub struct BasicPlace {
    half: BasicPosition,
    username: Option<String>,
}

impl BasicPlace {
    /// The half where the placeholder may stand; `username` is sent in mode `set`.
    pub fn new(half: BasicPosition, username: Option<String>) -> Self {
        Self { half, username }
    }
}

impl Injector for BasicPlace {
    fn position(&self) -> Position {
        Position::Header(AUTHORIZATION)
    }

    fn standing<'h>(&self, head: &'h Parts) -> Result<Option<Cow<'h, [u8]>>, InjectError> {
        Ok(single(&head.headers, &AUTHORIZATION)?.map(Cow::Borrowed))
    }

    fn swap(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<bool, InjectError> {
        let Some(value) = single(&head.headers, &AUTHORIZATION)? else {
            return Ok(false);
        };
        let Some((scheme, decoded)) = decode(value) else {
            return Ok(false);
        };
        let (user, password) = halves(&decoded);
        let placeholder = reveal.placeholder();
        let in_user = self.half != BasicPosition::Password && user == placeholder;
        let in_password =
            self.half != BasicPosition::User && password.is_some_and(|p| p == placeholder);
        if !in_user && !in_password {
            return Ok(false);
        }
        let secret = reveal.secret("basic")?;
        let user = match in_user {
            true => user_name(&secret, reveal)?,
            false => user,
        };
        let password = match in_password {
            true => Some(secret.expose()),
            false => password,
        };
        let encoded = encode(user, password);
        let value = sealed(&[scheme, encoded.as_bytes()], reveal)?;
        head.headers.insert(AUTHORIZATION, value);
        Ok(true)
    }

    fn put(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<(), InjectError> {
        let secret = reveal.secret("basic")?;
        let encoded = match self.half {
            BasicPosition::User => encode(user_name(&secret, reveal)?, Some(b"")),
            BasicPosition::Any | BasicPosition::Password => {
                let user = self.username.as_deref().unwrap_or_default();
                encode(user.as_bytes(), Some(secret.expose()))
            }
        };
        let value = sealed(&[b"Basic ", encoded.as_bytes()], reveal)?;
        head.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    fn strip(&self, head: &mut Parts) -> Result<(), InjectError> {
        head.headers.remove(AUTHORIZATION);
        Ok(())
    }
}

/// A user name ends at the first colon (RFC 7617, section 2).
fn user_name<'s>(secret: &'s Secret, reveal: &Reveal<'_>) -> Result<&'s [u8], InjectError> {
    match secret.expose().contains(&b':') {
        true => Err(reveal.unavailable("its value has a colon, so it cannot be a user name")),
        false => Ok(secret.expose()),
    }
}

/// The scheme with the spaces after it, and the decoded credentials.
pub fn decode(value: &[u8]) -> Option<(&[u8], Zeroizing<Vec<u8>>)> {
    let scheme = value.get(..5)?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let spaces = value[5..].iter().take_while(|b| **b == b' ').count();
    let (before, encoded) = value.split_at(5 + spaces);
    let decoded = BASE64.decode(encoded.trim_ascii_end()).ok()?;
    (spaces > 0).then(|| (before, Zeroizing::new(decoded)))
}

/// User name and password; without a colon there is no password.
pub fn halves(decoded: &[u8]) -> (&[u8], Option<&[u8]>) {
    match decoded.iter().position(|b| *b == b':') {
        Some(colon) => (&decoded[..colon], Some(&decoded[colon + 1..])),
        None => (decoded, None),
    }
}

/// Passwords that clients send beside a token that is the user name; they say nothing.
const FILLERS: [&[u8]; 5] = [b"", b"x", b"X", b"x-oauth-basic", b"api_token"];

/// Whether a password of the agent's own stands beside a placeholder that is the user name: it
/// might be the one that counts. The other way round, user names are arbitrary (git sends any).
pub fn smuggles(value: &[u8], table: &AgentTable) -> bool {
    let Some((_, decoded)) = decode(value) else {
        return false;
    };
    let (user, password) = halves(&decoded);
    let password = password.unwrap_or_default();
    table.is_placeholder(user) && !FILLERS.contains(&password) && !table.is_placeholder(password)
}

fn encode(user: &[u8], password: Option<&[u8]>) -> Zeroizing<String> {
    let joined = Zeroizing::new(match password {
        Some(password) => [user, b":", password].concat(),
        None => user.to_vec(),
    });
    Zeroizing::new(BASE64.encode(&*joined))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read_with_and_without_padding() {
        for value in [
            "Basic YTpi",
            "BASIC  YTpi",
            "basic YTpiYw==",
            "basic YTpiYw",
        ] {
            let (_, decoded) = decode(value.as_bytes()).unwrap();
            assert!(decoded.starts_with(b"a:b"), "{value}");
        }
        for bad in [
            "Basic",
            "BasicYTpi",
            "Basic !!!",
            "Bearer YTpi",
            "Basic YTp",
        ] {
            assert!(
                decode(bad.as_bytes()).is_none_or(|(_, d)| d.is_empty()),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_password_begins_after_the_first_colon() {
        assert_eq!(halves(b"a:b:c"), (&b"a"[..], Some(&b"b:c"[..])));
        assert_eq!(halves(b"a:"), (&b"a"[..], Some(&b""[..])));
        assert_eq!(halves(b"a"), (&b"a"[..], None));
    }
}
