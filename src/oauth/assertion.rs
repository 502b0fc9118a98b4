//! Owns the assertions a client signs about itself (RFC 7523, section 3): a private key, read anew each
//! time from PEM or a Google service account's JSON, and the claims it puts its name to.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::clock::unix;
use super::endpoint_error::EndpointError;
use super::settings::AssertionSettings;
use crate::config::source::JwtAlgorithm;
use crate::types::secret::Secret;

/// What an assertion says. Absent claims are left out.
#[derive(Debug, Serialize)]
pub(super) struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    /// Google and DocuSign read scopes here, not among the parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    iat: i64,
    exp: i64,
    /// Some endpoints accept each assertion once.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// A private key, and what its document says of its owner.
pub(super) struct SigningKey {
    key: EncodingKey,
    /// Whether it came as a Google service account's JSON.
    pub(super) is_google: bool,
    issuer: Option<String>,
    key_id: Option<String>,
}

/// <https://developers.google.com/identity/protocols/oauth2/service-account>
#[derive(Deserialize)]
struct GoogleKey {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
}

/// How far an assertion is dated back, as GitHub advises: clocks differ.
const BACK: Duration = Duration::from_secs(60);
/// The longest life GitHub accepts:
/// <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>
const APP_LIFETIME: Duration = Duration::from_secs(600);

impl SigningKey {
    /// Reads a private key.
    ///
    /// Errors: [`EndpointError::Incomplete`] with what to put there; nothing of the document is shown.
    pub(super) fn read(document: &Secret, algorithm: JwtAlgorithm) -> Result<Self, EndpointError> {
        let document = document.expose().trim_ascii();
        if !document.starts_with(b"{") {
            return Ok(Self {
                key: pem(document, algorithm)?,
                is_google: false,
                issuer: None,
                key_id: None,
            });
        }
        let google: GoogleKey = serde_json::from_slice(document).map_err(|_| {
            incomplete("the key is JSON, and not the JSON key of a Google service account")
        })?;
        if google.kind != "service_account" {
            return Err(incomplete(
                "the JSON key's `type` is not `service_account`; make a key for a service account and use that",
            ));
        }
        Ok(Self {
            key: pem(google.private_key.as_bytes(), algorithm)?,
            is_google: true,
            issuer: Some(google.client_email),
            key_id: google.private_key_id,
        })
    }

    /// An assertion for `endpoint` (RFC 7523, section 3), by the endpoint's clock.
    pub(super) fn assertion(
        &self,
        settings: &AssertionSettings,
        endpoint: &str,
        scope: &str,
        there: SystemTime,
    ) -> Result<Zeroizing<String>, EndpointError> {
        let issuer = settings.issuer.as_deref().or(self.issuer.as_deref());
        let issuer =
            issuer.ok_or_else(|| incomplete("there is no `issuer`; a PEM key names none"))?;
        let (iat, exp) = span(there, settings.lifetime);
        let claims = Claims {
            iss: issuer,
            sub: settings.subject.as_deref(),
            aud: Some(settings.audience.as_deref().unwrap_or(endpoint)),
            scope: Some(scope).filter(|scope| !scope.is_empty()),
            iat,
            exp,
            jti: Some(random_id()?),
        };
        let key_id = settings.key_id.as_deref().or(self.key_id.as_deref());
        self.sign(&claims, settings.algorithm, key_id)
    }

    /// The JWT with which a GitHub App shows who it is, by GitHub's clock.
    pub(super) fn app(
        &self,
        app_id: &str,
        there: SystemTime,
    ) -> Result<Zeroizing<String>, EndpointError> {
        let (iat, exp) = span(there, APP_LIFETIME);
        let claims = Claims {
            iss: app_id,
            sub: None,
            aud: None,
            scope: None,
            iat,
            exp,
            jti: None,
        };
        self.sign(&claims, JwtAlgorithm::RS256, None)
    }

    fn sign(
        &self,
        claims: &Claims<'_>,
        algorithm: JwtAlgorithm,
        key_id: Option<&str>,
    ) -> Result<Zeroizing<String>, EndpointError> {
        let mut header = Header::new(match algorithm {
            JwtAlgorithm::RS256 => Algorithm::RS256,
            JwtAlgorithm::ES256 => Algorithm::ES256,
        });
        header.kid = key_id.map(str::to_owned);
        encode(&header, claims, &self.key)
            .map(Zeroizing::new)
            .map_err(|_| unusable(algorithm))
    }
}

fn pem(text: &[u8], algorithm: JwtAlgorithm) -> Result<EncodingKey, EndpointError> {
    let key = match algorithm {
        JwtAlgorithm::RS256 => EncodingKey::from_rsa_pem(text),
        JwtAlgorithm::ES256 => EncodingKey::from_ec_pem(text),
    };
    key.map_err(|_| unusable(algorithm))
}

fn unusable(algorithm: JwtAlgorithm) -> EndpointError {
    incomplete(match algorithm {
        JwtAlgorithm::RS256 => {
            "the key is not an RSA private key of 2048 bits or more in PEM form (PKCS#8 or PKCS#1)"
        }
        JwtAlgorithm::ES256 => {
            "the key is not a P-256 private key in PEM form (PKCS#8; `openssl pkcs8 -topk8 -nocrypt` converts)"
        }
    })
}

fn incomplete(what: &str) -> EndpointError {
    EndpointError::Incomplete(what.to_owned())
}

/// `iat` and `exp`: dated back, and never longer from one to the other than `lifetime`.
fn span(there: SystemTime, lifetime: Duration) -> (i64, i64) {
    let signed = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let iat = unix(there) - signed(BACK.min(lifetime / 2));
    (iat, iat.saturating_add(signed(lifetime)))
}

fn random_id() -> Result<String, EndpointError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| incomplete("the system gives no random numbers"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}
