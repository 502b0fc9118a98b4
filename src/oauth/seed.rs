//! Owns the first login of a grant, where it comes from another source: taken over once, and again
//! only when somebody has put another one there.

use std::sync::Arc;

use aws_lc_rs::digest;

use super::import::read_login;
use super::token::TokenSet;
use crate::credential::held::HeldCredential;

/// Where a first login comes from.
#[derive(Debug)]
pub struct Seed(pub Arc<HeldCredential>);

/// A login that may be taken over.
#[derive(Debug)]
pub struct Planted {
    /// Its tokens.
    pub tokens: TokenSet,
    /// What a record keeps to know it again.
    pub fingerprint: String,
}

impl Seed {
    /// The login that is there now.
    ///
    /// Errors, in plain words: the source has nothing, or what it has is no login.
    pub fn take(&self) -> Result<Planted, String> {
        let secret = self.0.current().map_err(|error| error.reason)?;
        let tokens = read_login(secret.expose()).map_err(|error| error.to_string())?;
        let refresh = tokens.refresh.as_ref().ok_or("it has no refresh token")?;
        let fingerprint = fingerprint(refresh.expose());
        Ok(Planted {
            tokens,
            fingerprint,
        })
    }
}

/// Half a SHA-256: refresh tokens have far more entropy than can be guessed.
fn fingerprint(refresh: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, refresh);
    let half = hash.as_ref().iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}
