//! Owns how a token endpoint's good answer is read: strictly where a token would be broken or lost,
//! leniently everywhere else.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::claims;
use super::clock;
use super::endpoint::Endpoint;
use super::endpoint_error::EndpointError;
use super::refusal::{error_in_success, refusal};
use super::seconds::Seconds;
use super::token::TokenSet;
use super::transport::TokenResponse;
use crate::types::secret::Secret;

/// What an answer is read against.
pub(super) struct Asked<'a> {
    /// Who answered.
    pub(super) endpoint: &'a Endpoint,
    /// The refresh token that was sent. It stays in force when the answer has none (RFC 6749, section 6).
    pub(super) refresh: Option<&'a Secret>,
    /// When the request was sent: an expiry counted from here is never too late.
    pub(super) sent: SystemTime,
    /// Whether a missing `expires_in` is looked for in the access token itself, as Codex does.
    pub(super) expiry_in_token: bool,
}

/// RFC 6749, section 5.1, and what Claude Code's endpoint gives besides. What is not named here is
/// not kept: it could be a secret of a kind that is not known yet.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<Zeroizing<String>>,
    refresh_token: Option<Zeroizing<String>>,
    id_token: Option<Zeroizing<String>>,
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<Seconds>,
    #[serde(default)]
    scope: Option<Scope>,
    #[serde(default)]
    account: Option<Party>,
    #[serde(default)]
    organization: Option<Party>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scope {
    Text(String),
    List(Vec<String>),
    Other(IgnoredAny),
}

/// Whose tokens they are.
#[derive(Deserialize)]
#[serde(untagged)]
enum Party {
    Named {
        uuid: Option<String>,
        email_address: Option<String>,
        name: Option<String>,
    },
    Other(IgnoredAny),
}

/// GitHub's installation token:
/// <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>
#[derive(Deserialize)]
struct InstallationAnswer {
    token: Option<Zeroizing<String>>,
    expires_at: Option<String>,
}

/// A life longer than this is taken for a mistake and cut.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads an answer of RFC 6749, section 5.
pub(super) fn token_answer(
    response: &TokenResponse,
    asked: &Asked<'_>,
) -> Result<TokenSet, EndpointError> {
    if !response.status.is_success() {
        return Err(refusal(asked.endpoint, response, asked.refresh, asked.sent));
    }
    let answer: TokenAnswer = parse(response, asked)?;
    let Some(access) = answer.access_token else {
        let error = error_in_success(asked.endpoint, response, asked.refresh);
        return Err(error.unwrap_or_else(|| unusable(asked, "it holds no access token")));
    };
    if let Some(kind) = &answer.token_type
        && !kind.eq_ignore_ascii_case("bearer")
    {
        return Err(EndpointError::Refused(format!(
            "the endpoint at {} gives tokens that are no bearer tokens; only those can be used (RFC 6750)",
            asked.endpoint.authority().host
        )));
    }
    let id = sound("id token", answer.id_token, asked)?;
    let mut profile = profile(answer.account, answer.organization);
    if let Some(id) = &id {
        profile.extend(claims::of_identity(id));
    }
    let refresh = sound("refresh token", answer.refresh_token, asked)?;
    let access = sound("access token", Some(access), asked)?
        .ok_or_else(|| unusable(asked, "its access token is empty"))?;
    let mut expires_at = expires_at(answer.expires_in, asked.sent);
    if expires_at.is_none() && asked.expiry_in_token {
        let date = clock::date(&response.headers);
        expires_at = claims::expiry(&access).map(|at| clock::local(at, date, asked.sent));
    }
    Ok(TokenSet {
        access,
        refresh: refresh.or_else(|| asked.refresh.map(copy)),
        id,
        expires_at,
        issued_at: asked.sent,
        scopes: scopes(answer.scope),
        profile,
    })
}

/// Reads GitHub's answer. It names an absolute time by its own clock.
pub(super) fn installation_answer(
    response: &TokenResponse,
    asked: &Asked<'_>,
) -> Result<TokenSet, EndpointError> {
    if !response.status.is_success() {
        return Err(refusal(asked.endpoint, response, None, asked.sent));
    }
    let answer: InstallationAnswer = parse(response, asked)?;
    let access =
        sound("token", answer.token, asked)?.ok_or_else(|| unusable(asked, "it holds no token"))?;
    let there = answer
        .expires_at
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let date = clock::date(&response.headers);
    let expires_at = there.map(|at| clock::local(at.into(), date, asked.sent));
    if expires_at.is_some_and(|at| at <= asked.sent) {
        return Err(unusable(asked, "its token has expired already"));
    }
    Ok(TokenSet {
        access,
        refresh: None,
        id: None,
        expires_at,
        issued_at: asked.sent,
        scopes: Vec::new(),
        profile: Map::new(),
    })
}

fn parse<'a, T: Deserialize<'a>>(
    response: &'a TokenResponse,
    asked: &Asked<'_>,
) -> Result<T, EndpointError> {
    let body = response.body.trim_ascii();
    if !body.is_empty() && !body.starts_with(b"{") {
        // It came from behind the endpoint's certificate and says that all went well.
        return Err(EndpointError::Unanswered(format!(
            "the endpoint at {} answered {} with something else than JSON: an error page, or another server in its place",
            asked.endpoint.authority().host,
            response.status.as_u16()
        )));
    }
    // The library's own texts quote what they found, which may be a token.
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.is_eof() {
            true => "it is cut short",
            false => "it is not the JSON that was expected",
        };
        unusable(asked, what)
    })
}

/// The endpoint may have rotated the tokens, and what it gave cannot be used.
fn unusable(asked: &Asked<'_>, what: &str) -> EndpointError {
    let host = &asked.endpoint.authority().host;
    EndpointError::Unanswered(format!(
        "the answer of the endpoint at {host} cannot be used: {what}"
    ))
}

/// A token as a field value and a form can carry it; an empty one is none (RFC 6749, appendix A.12).
fn sound(
    name: &str,
    token: Option<Zeroizing<String>>,
    asked: &Asked<'_>,
) -> Result<Option<Secret>, EndpointError> {
    match token.filter(|token| !token.is_empty()) {
        None => Ok(None),
        Some(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(Secret::new(token.as_bytes().to_vec())))
        }
        Some(_) => {
            let what = format!("its {name} holds white space or a character that no token has");
            Err(unusable(asked, &what))
        }
    }
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}

/// A token that has ended when it comes is not used. It is no reason to refuse the answer: the refresh token
/// beside it is the only one that is good from now on.
fn expires_at(seconds: Option<Seconds>, sent: SystemTime) -> Option<SystemTime> {
    let seconds = seconds?.number()?;
    // NaN counts as ended too.
    let life = match seconds > 0.0 {
        true => Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LIFE),
        false => Duration::ZERO,
    };
    sent.checked_add(life.min(LONGEST_LIFE))
}

fn scopes(scope: Option<Scope>) -> Vec<String> {
    match scope {
        Some(Scope::Text(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Scope::List(list)) => list,
        Some(Scope::Other(_)) | None => Vec::new(),
    }
}

fn profile(account: Option<Party>, organization: Option<Party>) -> Map<String, Value> {
    let mut profile = Map::new();
    for (key, party) in [("account", account), ("organization", organization)] {
        let Some(Party::Named {
            uuid,
            email_address,
            name,
        }) = party
        else {
            continue;
        };
        let parts = [
            ("uuid", uuid),
            ("email_address", email_address),
            ("name", name),
        ];
        let known = parts.into_iter().filter_map(|(key, value)| {
            let value = value.filter(|value| claims::is_plain(value))?;
            Some((key.to_owned(), Value::from(value)))
        });
        let known: Map<String, Value> = known.collect();
        if !known.is_empty() {
            profile.insert(key.to_owned(), Value::from(known));
        }
    }
    profile
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
