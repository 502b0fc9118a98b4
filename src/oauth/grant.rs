//! Owns how an access token is asked for: the request that a grant makes, and what its answer means.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, header};
use zeroize::Zeroizing;

use super::answer::{Asked, installation_answer, token_answer};
use super::body::{Parameters, form_encode};
use super::endpoint_error::EndpointError;
use super::grant_secrets::GrantSecrets;
use super::settings::{GrantSettings, OAuthSettings};
use super::token::TokenSet;
use super::transport::{TokenRequest, TokenResponse, TransportError};
use crate::config::source::{ClientAuthentication, KnownClient, RequestBodyForm};
use crate::types::secret::Secret;

/// The questions to one token endpoint, and how its answers are read.
#[derive(Debug)]
pub struct Grant {
    settings: OAuthSettings,
}

impl Grant {
    /// Asks as `settings` say.
    pub fn new(settings: OAuthSettings) -> Self {
        Self { settings }
    }

    /// What it asks by.
    pub fn settings(&self) -> &OAuthSettings {
        &self.settings
    }

    /// The request for a new access token. `refresh` is the refresh token, for the grant that has one.
    ///
    /// Errors: [`EndpointError::Incomplete`] when a secret that it takes is not there.
    pub fn request(
        &self,
        refresh: Option<&Secret>,
        secrets: &GrantSecrets,
        now: SystemTime,
    ) -> Result<TokenRequest, EndpointError> {
        let _ = now;
        let mut parameters = Parameters::default();
        match &self.settings.grant {
            GrantSettings::RefreshToken => {
                let refresh = refresh.ok_or_else(|| {
                    EndpointError::Incomplete(
                        "there is no refresh token; a login gives one".to_owned(),
                    )
                })?;
                parameters
                    .add("grant_type", "refresh_token")
                    .add("refresh_token", readable(refresh, "the refresh token")?);
            }
            GrantSettings::ClientCredentials => {
                parameters.add("grant_type", "client_credentials");
            }
            GrantSettings::JwtBearer(_) | GrantSettings::GithubApp(_) => {
                return Err(EndpointError::Incomplete(
                    "this grant is not built yet".to_owned(),
                ));
            }
        }
        let scope = self.settings.scopes.join(" ");
        parameters.add_some(
            "scope",
            Some(scope.as_str()).filter(|scope| !scope.is_empty()),
        );
        for (name, value) in &self.settings.parameters {
            parameters.add(name, value);
        }
        self.as_client(parameters, self.settings.request_body, secrets)
    }

    /// What an answer to [`Grant::request`], or to the exchange of a login's code, means. `asked` is the
    /// refresh token that was sent: it stays in force when the answer has none (RFC 6749, section 6).
    /// `now` is when the request was sent: an expiry counted from there is never too late.
    ///
    /// What the answer leaves out besides (identity, scopes, profile) is for [`carry_over`].
    pub fn answer(
        &self,
        result: Result<TokenResponse, TransportError>,
        asked: Option<&Secret>,
        now: SystemTime,
    ) -> Result<TokenSet, EndpointError> {
        let response = result.map_err(|error| match error {
            TransportError::NotSent(why) => EndpointError::Unreachable(why),
            TransportError::Unanswered(why) => EndpointError::Unanswered(why),
        })?;
        let asked = Asked {
            endpoint: &self.settings.token_endpoint,
            refresh: asked,
            now,
            expiry_in_token: self.settings.client == Some(KnownClient::Codex),
        };
        match &self.settings.grant {
            GrantSettings::GithubApp(_) => installation_answer(&response, &asked),
            _ => token_answer(&response, &asked),
        }
    }

    /// Adds who the client is (RFC 6749, sections 2.3.1 and 3.2.1) and makes the request.
    pub(super) fn as_client(
        &self,
        parameters: Parameters<'_>,
        form: RequestBodyForm,
        secrets: &GrantSecrets,
    ) -> Result<TokenRequest, EndpointError> {
        let endpoint = &self.settings.token_endpoint;
        let id = self.settings.client_id.as_deref();
        let secret = secrets.client_secret()?;
        let mut parameters = parameters;
        let (Some(id), Some(secret)) = (id, &secret) else {
            parameters.add_some("client_id", id);
            return Ok(parameters.post(endpoint, form));
        };
        let secret = readable(secret, "the client secret")?;
        match self.settings.client_authentication {
            ClientAuthentication::Body => {
                parameters.add("client_id", id).add("client_secret", secret);
                Ok(parameters.post(endpoint, form))
            }
            ClientAuthentication::Basic => {
                let mut request = parameters.post(endpoint, form);
                let field = basic(id, secret)?;
                request.headers.insert(header::AUTHORIZATION, field);
                Ok(request)
            }
        }
    }
}

/// Fills in what a refresh leaves out and the tokens before it had: identity, scopes, profile.
pub fn carry_over(new: &mut TokenSet, old: &TokenSet) {
    if new.id.is_none() {
        let id = old.id.as_ref();
        new.id = id.map(|id| Secret::new(id.expose().to_vec()));
    }
    if new.scopes.is_empty() {
        new.scopes.clone_from(&old.scopes);
    }
    for (name, value) in &old.profile {
        if !new.profile.contains_key(name) {
            new.profile.insert(name.clone(), value.clone());
        }
    }
}

/// `Authorization: Basic` with both parts encoded as in a form first (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &str) -> Result<HeaderValue, EndpointError> {
    let mut pair = Zeroizing::new(Vec::with_capacity(3 * (id.len() + secret.len()) + 1));
    form_encode(id, &mut pair);
    pair.push(b':');
    form_encode(secret, &mut pair);
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*pair));
    bearing("Basic", &encoded)
}

/// A sensitive `Authorization` field.
pub(super) fn bearing(scheme: &str, text: &str) -> Result<HeaderValue, EndpointError> {
    let field = Zeroizing::new(format!("{scheme} {text}"));
    let mut field = HeaderValue::from_str(&field).map_err(|_| {
        EndpointError::Incomplete("a secret holds a character that no field can carry".to_owned())
    })?;
    field.set_sensitive(true);
    Ok(field)
}

fn readable<'a>(secret: &'a Secret, name: &str) -> Result<&'a str, EndpointError> {
    std::str::from_utf8(secret.expose())
        .map_err(|_| EndpointError::Incomplete(format!("{name} is not text")))
}
