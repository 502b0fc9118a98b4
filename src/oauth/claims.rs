//! Owns what is read from a JWT that somebody else signed: when it ends and whose it is. Nothing is
//! decided by it, so no signature is checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::types::secret::Secret;

/// `exp` (RFC 7519, section 4.1.4), by the clock of whoever signed it; nothing when it is no JWT.
pub(super) fn expiry(token: &Secret) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims: Claims = read(token)?;
    let since = Duration::try_from_secs_f64(claims.exp).ok()?;
    UNIX_EPOCH.checked_add(since)
}

/// Who a ChatGPT login is, under the names that Codex's `auth.json` and its own requests use:
/// `account_id`, `plan_type`, `email`.
pub(super) fn of_identity(id_token: &Secret) -> Map<String, Value> {
    #[derive(Deserialize)]
    struct Claims {
        email: Option<String>,
        #[serde(rename = "https://api.openai.com/auth")]
        openai: Option<OpenAi>,
    }
    #[derive(Deserialize)]
    struct OpenAi {
        chatgpt_account_id: Option<String>,
        chatgpt_plan_type: Option<String>,
    }
    let Some(claims) = read::<Claims>(id_token) else {
        return Map::new();
    };
    let (account, plan) = match claims.openai {
        Some(openai) => (openai.chatgpt_account_id, openai.chatgpt_plan_type),
        None => (None, None),
    };
    let parts = [
        ("account_id", account),
        ("plan_type", plan),
        ("email", claims.email),
    ];
    let known = parts.into_iter().filter_map(|(name, value)| {
        let value = value.filter(|value| is_plain(value))?;
        Some((name.to_owned(), Value::from(value)))
    });
    known.collect()
}

/// Whether a text can be the name or the identifier of something, and is too short to be a token.
pub(super) fn is_plain(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The claims of a JWT in its compact form (RFC 7515, section 3.1).
fn read<T: DeserializeOwned>(token: &Secret) -> Option<T> {
    let mut parts = token.expose().split(|byte| *byte == b'.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice(&payload).ok()
}
