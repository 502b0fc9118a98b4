//! Owns how an access token is asked for: the request that a grant makes, and what its answer means.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::answer::{Asked, installation_answer, token_answer};
use super::assertion::SigningKey;
use super::body::{Parameters, form_encode};
use super::clock::{Learned, Offset, date};
use super::endpoint::Endpoint;
use super::endpoint_error::EndpointError;
use super::grant_secrets::GrantSecrets;
use super::settings::{AppSettings, AssertionSettings, GrantSettings, OAuthSettings};
use super::token::TokenSet;
use super::transport::{TokenRequest, TokenResponse, TransportError};
use crate::config::source::{ClientAuthentication, JwtAlgorithm, KnownClient, RequestBodyForm};
use crate::types::secret::Secret;

/// The questions to one token endpoint, and how its answers are read.
#[derive(Debug)]
pub struct Grant {
    settings: OAuthSettings,
    offset: Offset,
}

/// When a request went out and when its answer, or word of its failure, was there.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    /// An expiry counted from here is never too late.
    pub sent: SystemTime,
    /// What the answer's `Date` is compared with.
    pub answered: SystemTime,
}

impl Grant {
    /// Asks as `settings` say.
    pub fn new(settings: OAuthSettings) -> Self {
        Self {
            settings,
            offset: Offset::default(),
        }
    }

    /// What it asks by.
    pub fn settings(&self) -> &OAuthSettings {
        &self.settings
    }

    /// How many seconds the endpoint's clock is ahead of this machine's, as its last `Date` told; 0
    /// before one was seen.
    pub fn clock_offset(&self) -> i64 {
        self.offset.seconds()
    }

    /// The same, or nothing before one was seen.
    pub fn learned_offset(&self) -> Option<i64> {
        self.offset.learned()
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
        let there = self.offset.apply(now);
        match &self.settings.grant {
            GrantSettings::RefreshToken => self.refresh(refresh, secrets),
            GrantSettings::ClientCredentials => {
                let mut parameters = Parameters::default();
                parameters.add("grant_type", "client_credentials");
                self.finish(parameters, &self.scope(), secrets)
            }
            GrantSettings::JwtBearer(assertion) => self.assert(assertion, secrets, there),
            GrantSettings::GithubApp(app) => self.installation(app, secrets, there),
        }
    }

    /// RFC 6749, section 6.
    fn refresh(
        &self,
        refresh: Option<&Secret>,
        secrets: &GrantSecrets,
    ) -> Result<TokenRequest, EndpointError> {
        let Some(refresh) = refresh else {
            let why = "there is no refresh token; a login gives one";
            return Err(EndpointError::Incomplete(why.to_owned()));
        };
        let mut parameters = Parameters::default();
        parameters
            .add("grant_type", "refresh_token")
            .add("refresh_token", readable(refresh, "the refresh token")?);
        self.finish(parameters, &self.scope(), secrets)
    }

    /// RFC 7523, section 2.1.
    fn assert(
        &self,
        settings: &AssertionSettings,
        secrets: &GrantSecrets,
        there: SystemTime,
    ) -> Result<TokenRequest, EndpointError> {
        let key = SigningKey::read(&*secrets.key()?, settings.algorithm)?;
        let scope = self.scope();
        let endpoint = self.settings.token_endpoint.to_string();
        let assertion = key.assertion(settings, &endpoint, &scope, there)?;
        let mut parameters = Parameters::default();
        parameters
            .add("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .add("assertion", &assertion);
        // Google reads scopes in the assertion only and refuses parameters it does not know.
        let scope = if key.is_google { "" } else { &scope };
        self.finish(parameters, scope, secrets)
    }

    /// <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>
    fn installation(
        &self,
        app: &AppSettings,
        secrets: &GrantSecrets,
        there: SystemTime,
    ) -> Result<TokenRequest, EndpointError> {
        let key = SigningKey::read(&*secrets.key()?, JwtAlgorithm::RS256)?;
        let field = credentials("Bearer", &key.app(&app.app_id, there)?)?;
        let headers = [
            (header::AUTHORIZATION, field),
            (
                header::ACCEPT,
                HeaderValue::from_static("application/vnd.github+json"),
            ),
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ),
            (
                HeaderName::from_static("x-github-api-version"),
                HeaderValue::from_static("2022-11-28"),
            ),
        ];
        let limits = Limits {
            repositories: &app.repositories,
            permissions: &app.permissions,
        };
        let body = serde_json::to_vec(&limits)
            .map_err(|error| EndpointError::Incomplete(error.to_string()))?;
        Ok(TokenRequest {
            url: self.settings.token_endpoint.to_string(),
            headers: HeaderMap::from_iter(headers),
            body: Zeroizing::new(body),
        })
    }

    fn scope(&self) -> String {
        self.settings.scopes.join(" ")
    }

    /// Adds what every request to the token endpoint has.
    fn finish(
        &self,
        parameters: Parameters<'_>,
        scope: &str,
        secrets: &GrantSecrets,
    ) -> Result<TokenRequest, EndpointError> {
        let mut parameters = parameters;
        parameters.add_some("scope", Some(scope).filter(|scope| !scope.is_empty()));
        for (name, value) in &self.settings.parameters {
            parameters.add(name, value);
        }
        let form = self.settings.request_body;
        self.as_client(&self.settings.token_endpoint, parameters, form, secrets)
    }

    /// Adds who the client is (RFC 6749, sections 2.3.1 and 3.2.1) and makes the request.
    pub(super) fn as_client(
        &self,
        endpoint: &Endpoint,
        parameters: Parameters<'_>,
        form: RequestBodyForm,
        secrets: &GrantSecrets,
    ) -> Result<TokenRequest, EndpointError> {
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

    /// What an answer to [`Grant::request`], or to the exchange of a login's code, means. `asked` is the
    /// refresh token that was sent: it stays in force when the answer has none (RFC 6749, section 6).
    pub fn answer(
        &self,
        result: Result<TokenResponse, TransportError>,
        asked: Option<&Secret>,
        moments: Moments,
    ) -> Result<TokenSet, EndpointError> {
        let response = result.map_err(|error| match error {
            TransportError::NotSent(why) => EndpointError::Unreachable(why),
            TransportError::Unanswered(why) => EndpointError::Unanswered(why),
        })?;
        let date = date(&response.headers);
        let clock = self.offset.learn(date, moments.answered);
        let asked = Asked {
            endpoint: &self.settings.token_endpoint,
            refresh: asked,
            sent: moments.sent,
            expiry_in_token: self.settings.client == Some(KnownClient::Codex),
        };
        match &self.settings.grant {
            GrantSettings::RefreshToken => token_answer(&response, &asked),
            GrantSettings::ClientCredentials => {
                token_answer(&response, &asked).map_err(no_login_helps)
            }
            GrantSettings::JwtBearer(_) => token_answer(&response, &asked)
                .map_err(|error| self.of_an_assertion(error, response.status, clock)),
            GrantSettings::GithubApp(_) => installation_answer(&response, &asked)
                .map_err(|error| self.of_an_assertion(error, response.status, clock)),
        }
    }

    /// A refusal that a wrong clock explains is asked again at once, by the clock just learned.
    fn of_an_assertion(
        &self,
        error: EndpointError,
        status: StatusCode,
        clock: Learned,
    ) -> EndpointError {
        let error = no_login_helps(error);
        let refused = matches!(status.as_u16(), 400 | 401 | 403);
        match error {
            EndpointError::Refused(why) if refused && clock == Learned::WasOff => {
                EndpointError::Later {
                    why: format!(
                        "{why}; the endpoint's clock and this machine's differ by {} seconds",
                        self.offset.seconds().unsigned_abs()
                    ),
                    after: Some(Duration::ZERO),
                }
            }
            error => error,
        }
    }
}

/// What an installation's token is limited to.
#[derive(Serialize)]
struct Limits<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    repositories: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    permissions: &'a BTreeMap<String, String>,
}

/// Where no login gave the grant, an operator must change something.
fn no_login_helps(error: EndpointError) -> EndpointError {
    match error {
        EndpointError::InvalidGrant(why) => EndpointError::Refused(why),
        error => error,
    }
}

/// `Authorization: Basic` with both parts encoded as in a form first (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &str) -> Result<HeaderValue, EndpointError> {
    let mut pair = Zeroizing::new(Vec::with_capacity(3 * (id.len() + secret.len()) + 1));
    form_encode(id, &mut pair);
    pair.push(b':');
    form_encode(secret, &mut pair);
    credentials("Basic", &Zeroizing::new(BASE64_STANDARD.encode(&*pair)))
}

/// A sensitive `Authorization` field.
fn credentials(scheme: &str, text: &str) -> Result<HeaderValue, EndpointError> {
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

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
