//! Owns a login with a code that is entered on another device: RFC 8628, and Codex's own way, which
//! gives an authorization code in place of tokens.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::asking::Asking;
use super::body::Parameters;
use super::endpoint::Endpoint;
use super::endpoint_error::EndpointError;
use super::grant::Moments;
use super::login::exchange_request;
use super::login_error::LoginError;
use super::refusal::{ErrorAnswer, refusal};
use super::seconds::Seconds;
use super::settings::DeviceSettings;
use super::token::TokenSet;
use super::transport::{TokenRequest, TokenResponse, TransportError};
use crate::config::source::RequestBodyForm;

/// A login that waits for a person to enter a code.
pub struct DeviceLogin {
    user_code: String,
    verification_uri: String,
    complete: Option<String>,
    code: Zeroizing<String>,
    interval: Duration,
    ends: Instant,
    way: DeviceSettings,
}

/// How long to wait between two polls when the answer does not say (RFC 8628, section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// What `slow_down` adds (RFC 8628, section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The shortest and the longest pause: an answer could ask for anything.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a code is good for when the answer does not say, as with Codex, and at most.
const LIFE: Duration = Duration::from_secs(15 * 60);
const LONGEST_LIFE: Duration = Duration::from_secs(3600);

/// RFC 8628, section 3.2, and what Codex's endpoint gives in its place.
#[derive(Deserialize)]
struct Begun {
    #[serde(alias = "device_auth_id")]
    device_code: Zeroizing<String>,
    #[serde(alias = "usercode")]
    user_code: String,
    /// Google's name for it came before the RFC.
    #[serde(alias = "verification_url")]
    verification_uri: Option<String>,
    verification_uri_complete: Option<String>,
    expires_in: Option<Seconds>,
    interval: Option<Seconds>,
}

/// What Codex's endpoint gives when the code was entered: the verifier is made there.
#[derive(Deserialize)]
struct Entered {
    authorization_code: Zeroizing<String>,
    code_verifier: Zeroizing<String>,
}

/// What one poll brought.
enum Polled {
    Pending,
    TooOften,
    /// Nothing was heard; the next one may do better.
    Unheard,
    Tokens(Box<TokenSet>),
    Code(Entered),
}

impl DeviceLogin {
    /// Asks for a code.
    ///
    /// Errors: [`LoginError::NoDevice`] when there is no such login, or what the endpoint answered.
    pub async fn start(asking: &Asking) -> Result<Self, LoginError> {
        let settings = asking.grant().settings();
        let way = settings.login.device.clone().ok_or(LoginError::NoDevice)?;
        let scope = settings.login.scopes.join(" ");
        let mut parameters = Parameters::default();
        let (endpoint, request) = match &way {
            DeviceSettings::Standard(endpoint) => {
                let scope = Some(scope.as_str()).filter(|scope| !scope.is_empty());
                parameters.add_some("scope", scope);
                let (grant, form) = (asking.grant(), RequestBodyForm::Form);
                let request = grant.as_client(endpoint, parameters, form, asking.secrets())?;
                (endpoint, request)
            }
            DeviceSettings::Codex { start, .. } => {
                parameters.add_some("client_id", settings.client_id.as_deref());
                (start, parameters.post(start, RequestBodyForm::Json))
            }
        };
        let response = asking.transport().send(request).await;
        let response = response.map_err(|error| match error {
            TransportError::NotSent(why) => EndpointError::Unreachable(why),
            TransportError::Unanswered(why) => EndpointError::Unanswered(why),
        })?;
        if !response.status.is_success() {
            return Err(denied(endpoint, &response).into());
        }
        let begun: Begun = read(endpoint, &response)?;
        let useless = no_answer(endpoint);
        Self::begun(begun, way).ok_or(useless.into())
    }

    fn begun(begun: Begun, way: DeviceSettings) -> Option<Self> {
        let seconds = |given: Option<Seconds>| Duration::try_from_secs_f64(given?.number()?).ok();
        let verification_uri = match &way {
            DeviceSettings::Standard(_) => begun.verification_uri?,
            DeviceSettings::Codex {
                verification_uri, ..
            } => verification_uri.clone(),
        };
        // All of it is shown in a terminal.
        let plain = |text: &String| {
            (1..=256).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'))
        };
        if !plain(&begun.user_code) || !plain(&verification_uri) {
            return None;
        }
        let life = seconds(begun.expires_in).unwrap_or(LIFE).min(LONGEST_LIFE);
        let interval = seconds(begun.interval).unwrap_or(INTERVAL);
        Some(Self {
            user_code: begun.user_code,
            verification_uri,
            complete: begun.verification_uri_complete.filter(plain),
            code: begun.device_code,
            interval: interval.clamp(PAUSES.0, PAUSES.1),
            ends: Instant::now() + life,
            way,
        })
    }

    /// What the person enters.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where they enter it.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// The same with the code in it, if the provider has that (RFC 8628, section 3.3.1).
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.complete.as_deref()
    }

    /// Waits until the person has entered the code, or it has expired.
    pub async fn wait(mut self, asking: &Asking) -> Result<TokenSet, LoginError> {
        loop {
            if Instant::now() + self.interval >= self.ends {
                return Err(LoginError::Expired);
            }
            sleep(self.interval).await;
            match self.poll(asking).await? {
                Polled::Pending => {}
                Polled::TooOften => self.interval = (self.interval + SLOWER).min(PAUSES.1),
                // RFC 8628, section 3.5 wants fewer polls after a time-out.
                Polled::Unheard => self.interval = (self.interval * 2).min(PAUSES.1),
                Polled::Tokens(tokens) => return Ok(*tokens),
                Polled::Code(entered) => {
                    let request = self.code_request(asking, &entered)?;
                    return Ok(asking.exchange(request, None).await?);
                }
            }
        }
    }

    async fn poll(&self, asking: &Asking) -> Result<Polled, LoginError> {
        let request = self.poll_request(asking)?;
        let sent = SystemTime::now();
        let result = asking.transport().send(request).await;
        let answered = SystemTime::now();
        if let DeviceSettings::Codex { poll, .. } = &self.way {
            return match result {
                Ok(response) => codex_answer(poll, &response),
                Err(_) => Ok(Polled::Unheard),
            };
        }
        let body = result.as_ref().map(|response| &*response.body);
        let error = ErrorAnswer::read(body.map_or(&[], Vec::as_slice));
        let moments = Moments { sent, answered };
        let outcome = asking.grant().answer(result, None, moments);
        standard_answer(&error.codes(), outcome)
    }

    fn poll_request(&self, asking: &Asking) -> Result<TokenRequest, EndpointError> {
        let mut parameters = Parameters::default();
        match &self.way {
            DeviceSettings::Codex { poll, .. } => {
                parameters
                    .add("device_auth_id", &self.code)
                    .add("user_code", &self.user_code);
                Ok(parameters.post(poll, RequestBodyForm::Json))
            }
            DeviceSettings::Standard(_) => {
                let kind = "urn:ietf:params:oauth:grant-type:device_code";
                parameters
                    .add("grant_type", kind)
                    .add("device_code", &self.code);
                exchange_request(asking, parameters)
            }
        }
    }

    fn code_request(
        &self,
        asking: &Asking,
        entered: &Entered,
    ) -> Result<TokenRequest, EndpointError> {
        let mut parameters = Parameters::default();
        parameters
            .add("grant_type", "authorization_code")
            .add("code", &entered.authorization_code)
            .add("code_verifier", &entered.code_verifier);
        if let DeviceSettings::Codex { redirect_uri, .. } = &self.way {
            parameters.add("redirect_uri", redirect_uri);
        }
        exchange_request(asking, parameters)
    }
}

/// RFC 8628, section 3.5. GitHub sends these errors with status 200.
fn standard_answer(
    codes: &[&str],
    outcome: Result<TokenSet, EndpointError>,
) -> Result<Polled, LoginError> {
    let said = |code: &str| codes.contains(&code);
    match outcome {
        Ok(tokens) => Ok(Polled::Tokens(Box::new(tokens))),
        Err(_) if said("authorization_pending") => Ok(Polled::Pending),
        Err(_) if said("slow_down") => Ok(Polled::TooOften),
        Err(_) if said("expired_token") => Err(LoginError::Expired),
        Err(_) if said("access_denied") => Err(LoginError::Denied("access_denied".to_owned())),
        Err(EndpointError::Later { .. }) => Ok(Polled::TooOften),
        Err(
            EndpointError::Unreachable(_) | EndpointError::Unanswered(_) | EndpointError::Failed(_),
        ) => Ok(Polled::Unheard),
        Err(error) => Err(error.into()),
    }
}

/// Codex's endpoint answers 403 or 404 until the code was entered.
fn codex_answer(endpoint: &Endpoint, response: &TokenResponse) -> Result<Polled, LoginError> {
    match response.status {
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(Polled::Pending),
        StatusCode::TOO_MANY_REQUESTS => Ok(Polled::TooOften),
        status if status.is_server_error() => Ok(Polled::Unheard),
        status if status.is_success() => Ok(Polled::Code(read(endpoint, response)?)),
        _ => Err(denied(endpoint, response).into()),
    }
}

fn denied(endpoint: &Endpoint, response: &TokenResponse) -> EndpointError {
    refusal(endpoint, response, None, SystemTime::now())
}

fn read<'a, T: Deserialize<'a>>(
    endpoint: &Endpoint,
    response: &'a TokenResponse,
) -> Result<T, EndpointError> {
    serde_json::from_slice(&response.body).map_err(|_| no_answer(endpoint))
}

fn no_answer(endpoint: &Endpoint) -> EndpointError {
    EndpointError::Unanswered(format!(
        "the endpoint at {} gave no answer that a device login has",
        endpoint.authority().host
    ))
}

impl fmt::Debug for DeviceLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceLogin")
            .field("verification_uri", &self.verification_uri)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
