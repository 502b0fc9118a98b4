//! Owns what a helper program prints: a bare secret, or an `ExecCredential` as kubectl's plugins print it.
//! No part of it reaches an error.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::source::{Fetched, Form, SourceError};
use crate::config::source::ExecOutput;

/// Version of the request on a helper's standard input, and of answers of our own making.
pub const API_VERSION: &str = "tollgate.dev/v1alpha1";
/// Versions of kubectl's credential plugins (`kubectl explain`: client.authentication.k8s.io).
const KUBECTL_VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

/// kubectl's `ExecCredential`; everything that is not used is ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: String,
    kind: String,
    status: Option<AnswerStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerStatus {
    token: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Reads what was printed. A secret without an expiry of its own is used for `ttl`.
///
/// Errors end a sentence that begins with "the helper".
pub fn read(
    output: ExecOutput,
    form: Form,
    stdout: Zeroizing<Vec<u8>>,
    now: SystemTime,
    ttl: Duration,
) -> Result<Fetched, String> {
    let said = |error: SourceError| error.to_string();
    let lasting = now + ttl;
    if output == ExecOutput::Text {
        let secret = form.read(stdout, "printed a text that").map_err(said)?;
        return Ok(Fetched {
            secret,
            expires_at: Some(lasting),
            beside: None,
        });
    }
    if stdout.is_empty() {
        return Err("printed nothing".to_owned());
    }
    let (length, hint) = (stdout.len(), "`output: text` takes a bare secret");
    let answer: Answer = serde_json::from_slice(&stdout)
        .map_err(|_| format!("printed {length} bytes that are no ExecCredential; {hint}"))?;
    let known = answer.api_version == API_VERSION
        || KUBECTL_VERSIONS.contains(&answer.api_version.as_str());
    if !known || answer.kind != "ExecCredential" {
        return Err("printed a document of another apiVersion or kind".to_owned());
    }
    let status = answer.status.ok_or("printed no `status`")?;
    let token = status.token.ok_or("printed no `status.token`")?;
    let token = Zeroizing::new(token.into_bytes());
    let secret = form
        .read(token, "printed a `status.token` that")
        .map_err(said)?;
    let expires_at = match status.expiration_timestamp {
        Some(text) => expiry(&text, now)?,
        None => lasting,
    };
    Ok(Fetched {
        secret,
        expires_at: Some(expires_at),
        beside: None,
    })
}

fn expiry(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let timestamp: jiff::Timestamp = text
        .parse()
        .map_err(|_| "printed a `status.expirationTimestamp` that is no RFC 3339 time")?;
    let at = SystemTime::from(timestamp);
    match at.duration_since(now) {
        Ok(left) if !left.is_zero() => Ok(at),
        _ => Err("printed a token that has already expired".to_owned()),
    }
}
