//! Owns a login with a browser: the address a person opens, the code they bring back, and its exchange
//! for tokens (RFC 6749, section 4.1, with PKCE of RFC 7636).

use std::fmt;

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::asking::Asking;
use super::body::Parameters;
use super::endpoint_error::EndpointError;
use super::login_error::LoginError;
use super::settings::{CodeSettings, OAuthSettings};
use super::token::TokenSet;
use super::transport::TokenRequest;

/// A login that was begun: nobody else can end it, since only this knows the verifier.
pub struct AuthorizationRequest {
    url: String,
    code: CodeSettings,
    state: Zeroizing<String>,
    verifier: Zeroizing<String>,
}

/// What a person brought back. Not a token yet, but as secret as one.
pub struct AuthorizationCode(Zeroizing<String>);

impl AuthorizationRequest {
    /// Begins a login.
    ///
    /// Errors: [`LoginError::NoWay`] when no authorization endpoint is known.
    pub fn new(settings: &OAuthSettings) -> Result<Self, LoginError> {
        let code = settings.login.code.clone().ok_or(LoginError::NoWay)?;
        let (state, verifier) = (random()?, random()?);
        let challenge = challenge(&verifier);
        let scope = settings.login.scopes.join(" ");
        let mut parameters = Parameters::default();
        for (name, value) in &code.parameters {
            parameters.add(name, value);
        }
        parameters
            .add_some("client_id", settings.client_id.as_deref())
            .add("response_type", "code")
            .add("redirect_uri", &code.redirect_uri)
            .add_some(
                "scope",
                Some(scope.as_str()).filter(|scope| !scope.is_empty()),
            )
            .add("code_challenge", &challenge)
            .add("code_challenge_method", "S256")
            .add("state", &state);
        let endpoint = &code.authorization_endpoint;
        let joint = if endpoint.target().query().is_some() {
            '&'
        } else {
            '?'
        };
        let query = parameters.form();
        let url = format!("{endpoint}{joint}{}", String::from_utf8_lossy(&query));
        Ok(Self {
            url,
            code,
            state,
            verifier,
        })
    }

    /// The address to open in a browser. It holds nothing secret.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads what was pasted: `CODE#STATE` as Claude's page shows it, the whole address at which the
    /// browser ended, or the code alone. Where a state came along it must be ours; a code alone is still
    /// of no use to anybody without the verifier, nor theirs to us.
    pub fn parse_pasted(&self, pasted: &str) -> Result<AuthorizationCode, LoginError> {
        let pasted = pasted.trim();
        let (code, state) = match pasted.find("code=").or_else(|| pasted.find("error=")) {
            Some(_) if is_address(pasted) => from_address(pasted)?,
            _ => match pasted.split_once('#') {
                Some((code, state)) => (plain(code), Some(plain(state))),
                None => (plain(pasted), None),
            },
        };
        if let Some(state) = state
            && !bool::from(state.as_bytes().ct_eq(self.state.as_bytes()))
        {
            return Err(LoginError::OtherLogin);
        }
        let sound = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_graphic());
        match sound && !code.contains("://") {
            true => Ok(AuthorizationCode(code)),
            false => Err(LoginError::NoCode),
        }
    }

    /// The request that exchanges the code for tokens (RFC 6749, section 4.1.3).
    pub fn code_request(
        &self,
        asking: &Asking,
        code: &AuthorizationCode,
    ) -> Result<TokenRequest, EndpointError> {
        let mut parameters = Parameters::default();
        parameters
            .add("grant_type", "authorization_code")
            .add("code", &code.0)
            .add("redirect_uri", &self.code.redirect_uri)
            .add("code_verifier", &self.verifier);
        let state = Some(self.state.as_str()).filter(|_| self.code.repeats_state);
        parameters.add_some("state", state);
        exchange_request(asking, parameters)
    }

    /// Exchanges the code for tokens.
    pub async fn exchange(
        &self,
        asking: &Asking,
        code: &AuthorizationCode,
    ) -> Result<TokenSet, LoginError> {
        let request = self.code_request(asking, code)?;
        Ok(asking.exchange(request, None).await?)
    }
}

/// Adds what every exchange of a code has.
pub(super) fn exchange_request(
    asking: &Asking,
    parameters: Parameters<'_>,
) -> Result<TokenRequest, EndpointError> {
    let grant = asking.grant();
    let settings = grant.settings();
    let mut parameters = parameters;
    for (name, value) in &settings.parameters {
        parameters.add(name, value);
    }
    let form = settings.login.code_body;
    grant.as_client(&settings.token_endpoint, parameters, form, asking.secrets())
}

/// An address, a query, or a callback's path: not a code that happens to hold `code=`.
fn is_address(pasted: &str) -> bool {
    let heads = ["http://", "https://", "?", "/", "code=", "error=", "state="];
    heads.iter().any(|head| pasted.starts_with(head))
}

type CodeAndState = (Zeroizing<String>, Option<Zeroizing<String>>);

/// The parameters of a redirect (RFC 6749, sections 4.1.2 and 4.1.2.1).
fn from_address(address: &str) -> Result<CodeAndState, LoginError> {
    let query = address.split_once('?').map_or(address, |(_, query)| query);
    let query = query.split('#').next().unwrap_or(query);
    let value = |wanted: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
        let spaced = Zeroizing::new(value.replace('+', " "));
        let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
        Some(Zeroizing::new(decoded.into_owned()))
    };
    if let Some(error) = value("error") {
        let code = error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let shown = if code && error.len() <= 40 {
            error.as_str()
        } else {
            "no reason given"
        };
        return Err(LoginError::Denied(shown.to_owned()));
    }
    Ok((value("code").ok_or(LoginError::NoCode)?, value("state")))
}

fn plain(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// 32 random octets, as RFC 7636, section 4.1 recommends.
fn random() -> Result<Zeroizing<String>, LoginError> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes)
        .map_err(|_| EndpointError::Incomplete("the system gives no random numbers".to_owned()))?;
    Ok(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes)))
}

/// `S256` (RFC 7636, section 4.2).
fn challenge(verifier: &str) -> String {
    let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(hash)
}

impl fmt::Debug for AuthorizationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRequest")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorizationCode(***)")
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
