//! Owns what an endpoint's error answer means, and how much of it people may see: codes and words,
//! never anything that could be a token.

use std::time::SystemTime;

use http::{StatusCode, header};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::clock;
use super::endpoint::Endpoint;
use super::endpoint_error::EndpointError;
use super::transport::TokenResponse;
use crate::types::secret::Secret;

/// What an error answer holds, in whichever of the shapes that are about.
#[derive(Default, Deserialize)]
pub(super) struct ErrorAnswer {
    /// RFC 6749, section 5.2; an object with OpenAI and Anthropic.
    #[serde(default)]
    error: Option<ErrorField>,
    #[serde(default)]
    error_description: Option<Loose>,
    /// GitHub's REST API.
    #[serde(default)]
    message: Option<Loose>,
    #[serde(default)]
    code: Option<Loose>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorField {
    Code(Zeroizing<String>),
    Object {
        #[serde(default)]
        code: Option<Loose>,
        #[serde(default, rename = "type")]
        kind: Option<Loose>,
        #[serde(default)]
        message: Option<Loose>,
    },
    Other(serde::de::IgnoredAny),
}

/// Text, or something that is not looked at.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Text(Zeroizing<String>),
    Other(serde::de::IgnoredAny),
}

/// Codes that say: this refresh token will never work again. The first is RFC 6749, section 5.2; GitHub
/// and Slack have their own word for it, OpenAI tells three reasons apart.
const GONE: [&str; 7] = [
    "invalid_grant",
    "bad_refresh_token",
    "invalid_refresh_token",
    "refresh_token_expired",
    "refresh_token_invalidated",
    "refresh_token_reused",
    "refresh_token_revoked",
];

impl ErrorAnswer {
    pub(super) fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Every code it holds: OpenAI's `type` is coarse and its `code` exact, with Anthropic it is `type` alone.
    pub(super) fn codes(&self) -> Vec<&str> {
        let parts = match &self.error {
            Some(ErrorField::Code(code)) => [Some(code.as_str()), None],
            Some(ErrorField::Object { code, kind, .. }) => [text(code), text(kind)],
            Some(ErrorField::Other(_)) | None => [None, None],
        };
        let outer = text(&self.code);
        parts.into_iter().chain([outer]).flatten().collect()
    }

    fn words(&self) -> Option<&str> {
        let inner = match &self.error {
            Some(ErrorField::Object { message, .. }) => text(message),
            _ => None,
        };
        text(&self.error_description)
            .or(inner)
            .or_else(|| text(&self.message))
    }
}

#[expect(clippy::ref_option, reason = "fields are looked at where they are")]
fn text(part: &Option<Loose>) -> Option<&str> {
    match part.as_ref()? {
        Loose::Text(text) => Some(text),
        Loose::Other(_) => None,
    }
}

/// What an answer without success means. `asked` is the secret that was sent: it is never repeated.
pub(super) fn refusal(
    endpoint: &Endpoint,
    response: &TokenResponse,
    asked: Option<&Secret>,
    now: SystemTime,
) -> EndpointError {
    let status = response.status;
    let after = clock::retry_after(&response.headers, now);
    let place = endpoint.authority().host.to_string();
    if status.is_redirection() {
        return EndpointError::Refused(format!(
            "the endpoint at {place} answered {} and points to {}; that is not followed",
            status.as_u16(),
            redirected(response)
        ));
    }
    let answer = ErrorAnswer::read(&response.body);
    let why = told(&place, status, &answer, asked);
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
            EndpointError::Later { why, after }
        }
        StatusCode::SERVICE_UNAVAILABLE if after.is_some() => EndpointError::Later { why, after },
        status if status.is_client_error() => match meaning(&answer.codes()) {
            Meaning::Gone => EndpointError::InvalidGrant(why),
            Meaning::Busy => EndpointError::Later { why, after },
            Meaning::Refused => EndpointError::Refused(why),
        },
        status if LOST.contains(&status.as_u16()) => EndpointError::Unanswered(why),
        _ => EndpointError::Failed(why),
    }
}

/// What a 200 means that holds an error and no token, as GitHub and Slack answer.
pub(super) fn error_in_success(
    endpoint: &Endpoint,
    response: &TokenResponse,
    asked: Option<&Secret>,
) -> Option<EndpointError> {
    let answer = ErrorAnswer::read(&response.body);
    let codes = answer.codes();
    let place = endpoint.authority().host.to_string();
    let why = || told(&place, response.status, &answer, asked);
    match meaning(&codes) {
        _ if codes.is_empty() => None,
        Meaning::Gone => Some(EndpointError::InvalidGrant(why())),
        Meaning::Busy => Some(EndpointError::Later {
            why: why(),
            after: None,
        }),
        Meaning::Refused => Some(EndpointError::Refused(why())),
    }
}

/// A gateway lost what its origin answered (RFC 9110, sections 15.6.3 and 15.6.5; 520 and 524 are
/// Cloudflare's): the origin may have acted.
const LOST: [u16; 4] = [502, 504, 520, 524];

enum Meaning {
    Gone,
    Busy,
    Refused,
}

fn meaning(codes: &[&str]) -> Meaning {
    if codes.iter().any(|code| GONE.contains(code)) {
        return Meaning::Gone;
    }
    // An error of RFC 6749, section 4.1.2.1, that token endpoints use as well.
    match codes.contains(&"temporarily_unavailable") {
        true => Meaning::Busy,
        false => Meaning::Refused,
    }
}

/// The host that `Location` names, or what is wrong with it.
fn redirected(response: &TokenResponse) -> String {
    let location = response.headers.get(header::LOCATION);
    match location.map(|value| value.to_str().map(Endpoint::parse)) {
        None => "nowhere".to_owned(),
        Some(Ok(Ok(there))) => there.authority().host.to_string(),
        Some(_) => "something that is no https:// address".to_owned(),
    }
}

fn told(place: &str, status: StatusCode, answer: &ErrorAnswer, asked: Option<&Secret>) -> String {
    let code = answer.codes().into_iter().find(|code| is_code(code));
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    let words = answer.words().map(|words| harmless(words, asked));
    let words = match words {
        Some(words) if !words.is_empty() => format!(": {words}"),
        _ => String::new(),
    };
    format!(
        "the endpoint at {place} answered {}{code}{words}",
        status.as_u16()
    )
}

/// An error code as registries have them, and nothing that a token could look like.
fn is_code(code: &str) -> bool {
    (1..=40).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

const MOST_WORDS: usize = 200;
const LONGEST_WORD: usize = 24;

/// The words of `text` that cannot be, or hold, a token.
fn harmless(text: &str, asked: Option<&Secret>) -> String {
    let asked = asked.and_then(|asked| std::str::from_utf8(asked.expose()).ok());
    let safe = |word: &&str| {
        let plain = word.bytes().all(|byte| byte.is_ascii_graphic());
        plain && word.len() <= LONGEST_WORD && !asked.is_some_and(|asked| word.contains(asked))
    };
    let mut out = String::new();
    for word in text.split_whitespace().filter(safe) {
        if out.len() + 1 + word.len() > MOST_WORDS {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
