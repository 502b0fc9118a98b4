//! Owns one request to the Kubernetes API: its time limit, and what its failure means. Nothing that the
//! server says in words is passed on: a refused patch comes back with the whole Secret in the message
//! (kube-apiserver, `handlers/patch.go`), and kube's own reader logs a body that it cannot parse.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::{AuthError, Body};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Written into `managedFields`, so that `kubectl` shows who wrote.
pub(super) const FIELD_MANAGER: &str = "tollgate";

/// A Secret holds 1 MiB at most; base64 and its other fields come on top.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Why a request to the Kubernetes API has not succeeded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer came, for this reason.
    #[error("the Kubernetes API server gave no answer: {0}")]
    Unreachable(String),
    /// No whole answer came in time.
    #[error("the Kubernetes API server gave no answer within {0:?}")]
    Late(Duration),
    /// The ServiceAccount's token cannot be read.
    #[error("the token for the Kubernetes API cannot be used: {0}")]
    Token(String),
    /// 401
    #[error(
        "the Kubernetes API server does not accept this process's token (401): it has expired, is for another audience, or is of another cluster"
    )]
    Unauthorized,
    /// 403 of the authorizer.
    #[error("RBAC forbids it (403)")]
    Forbidden,
    /// 403 of anything else.
    #[error("an admission webhook, policy or quota of the cluster refuses it (403)")]
    Denied,
    /// 404
    #[error("it does not exist (404)")]
    NotFound,
    /// 409: made from a version that is not the current one.
    #[error("it has changed meanwhile (409)")]
    Conflict,
    /// 409: of a create.
    #[error("it exists already (409)")]
    AlreadyExists,
    /// 422
    #[error("the Kubernetes API server refuses the object as invalid (422)")]
    Invalid,
    /// 413
    #[error("the Kubernetes API server refuses the object as too large (413)")]
    TooLarge,
    /// 429 and how long to wait if it said so.
    #[error("the Kubernetes API server is busy (429)")]
    Busy(Option<Duration>),
    /// 5xx
    #[error("the Kubernetes API server failed ({0})")]
    Failed(u16),
    /// Any other answer: its code, and its reason if it is a plain word.
    #[error("the Kubernetes API server refuses ({0} {1})")]
    Refused(u16, String),
    /// A success that this program does not understand.
    #[error("the Kubernetes API server's answer is not understood: {0}")]
    Unreadable(&'static str),
}

impl CallError {
    /// Whether a write may have been done although it failed.
    pub fn may_be_done(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Late(_) | Self::Failed(_) | Self::Unreadable(_)
        )
    }

    /// Whether the same request may succeed a little later.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Late(_)
                | Self::Failed(_)
                | Self::Busy(_)
                | Self::Conflict
                | Self::AlreadyExists
        )
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy(wait) => *wait,
            _ => None,
        }
    }
}

/// Sends a request and returns the body of a 2xx answer.
pub(super) async fn call(
    client: &Client,
    request: Request<Bytes>,
    within: Duration,
) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let answered = tokio::time::timeout(within, exchange(client, request)).await;
    let (status, headers, body) = answered.map_err(|_| CallError::Late(within))??;
    if status.is_success() {
        return Ok(body);
    }
    Err(refusal(status, &headers, &body))
}

async fn exchange(
    client: &Client,
    request: Request<Bytes>,
) -> Result<(StatusCode, HeaderMap, Zeroizing<Vec<u8>>), CallError> {
    let sent = client.send(request.map(Body::from)).await;
    let (head, mut body) = sent.map_err(|e| unreachable(&e))?.into_parts();
    // In one piece, because a vector that grows leaves copies behind.
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.unwrap_or(0).min(MAX_ANSWER)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| unreachable(&e))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if bytes.len() + data.len() > MAX_ANSWER {
            return Err(CallError::Unreadable("it is longer than 8 MiB"));
        }
        bytes.extend_from_slice(data);
    }
    Ok((head.status, head.headers, bytes))
}

fn unreachable(error: &kube::Error) -> CallError {
    let mut deepest: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = deepest.source() {
        if let Some(token) = source.downcast_ref::<AuthError>() {
            return CallError::Token(token.to_string());
        }
        deepest = source;
    }
    CallError::Unreachable(match error.source() {
        Some(_) => deepest.to_string(),
        None => "the request failed".to_owned(),
    })
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
    let said: Said<'_> = serde_json::from_slice(body).unwrap_or_default();
    let reason = said.word();
    match status.as_u16() {
        401 => CallError::Unauthorized,
        403 if said.is_authorizers() => CallError::Forbidden,
        403 => CallError::Denied,
        404 => CallError::NotFound,
        409 if reason == "AlreadyExists" => CallError::AlreadyExists,
        409 => CallError::Conflict,
        413 => CallError::TooLarge,
        422 => CallError::Invalid,
        429 => {
            let wait = headers.get(http::header::RETRY_AFTER);
            let seconds = wait.and_then(|v| v.to_str().ok()?.parse().ok());
            CallError::Busy(seconds.map(Duration::from_secs))
        }
        code @ 500.. => CallError::Failed(code),
        code => CallError::Refused(code, reason),
    }
}

/// What is read of a `metav1.Status`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    reason: String,
    /// As it stands in the body: what it quotes is not to be copied.
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

impl Said<'_> {
    /// The reason: one word in CamelCase, or nothing.
    fn word(&self) -> String {
        match self.reason.len() <= 40 && self.reason.bytes().all(|b| b.is_ascii_alphabetic()) {
            true => self.reason.clone(),
            false => String::new(),
        }
    }

    /// Whether it is in the words that kube-apiserver puts around every authorizer's no
    /// (`handlers/responsewriters`): `User "x" cannot patch resource "secrets"`.
    fn is_authorizers(&self) -> bool {
        let message = self.message.map_or("", RawValue::get);
        message.contains("forbidden: User ") && message.contains(" cannot ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_word_is_taken_from_a_refusal() {
        let answer = |reason: &str| {
            let body = serde_json::json!({"kind": "Status", "reason": reason, "message": "tok-1"});
            refusal(
                StatusCode::BAD_REQUEST,
                &HeaderMap::new(),
                body.to_string().as_bytes(),
            )
        };
        assert_eq!(
            answer("BadRequest").to_string(),
            "the Kubernetes API server refuses (400 BadRequest)"
        );
        assert!(!format!("{:?} {}", answer("tok-1"), answer("tok-1")).contains("tok-1"));
    }

    #[test]
    fn the_two_kinds_of_409_are_told_apart() {
        let of = |body: &[u8]| refusal(StatusCode::CONFLICT, &HeaderMap::new(), body);
        assert_eq!(
            of(br#"{"reason":"AlreadyExists"}"#),
            CallError::AlreadyExists
        );
        assert_eq!(of(br#"{"reason":"Conflict"}"#), CallError::Conflict);
        assert_eq!(of(b"no JSON"), CallError::Conflict);
    }
}
