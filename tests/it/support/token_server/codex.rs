//! Owns OpenAI's own login on another device, which is not RFC 8628: the provider makes the PKCE
//! pair, and the device redeems a code with it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::recorded::{Recorded, sha256};
use super::super::reply::{self, Reply};
use super::device::Devices;
use super::login::{Asked, Codes};
use super::mint::random;
use super::request::{self, Refused};
use super::settings::{BodyMode, Settings};

pub const USER_CODE: &str = "/api/accounts/deviceauth/usercode";
pub const POLL: &str = "/api/accounts/deviceauth/token";

/// Begins a login. The interval is text.
pub fn begin(
    settings: &Settings,
    devices: &Devices,
    head: &Recorded,
    body: &[u8],
) -> Result<Value, Refused> {
    let sent = request::other(settings, head, body, BodyMode::Json, &["client_id"], &[])?;
    request::authenticate(settings, head, &sent)?;
    let opened = devices.open(settings, &settings.scope);
    Ok(json!({
        "device_auth_id": opened.device_code,
        "user_code": opened.user_code,
        "interval": opened.interval.as_secs().to_string(),
    }))
}

/// Answers a poll: 403 while nobody has answered, then a code with the pair that redeems it.
pub fn poll(
    settings: &Settings,
    devices: &Devices,
    codes: &Codes,
    head: &Recorded,
    body: &[u8],
) -> Result<Reply, Refused> {
    let needed = ["device_auth_id", "user_code"];
    let sent = request::other(settings, head, body, BodyMode::Json, &needed, &[])?;
    let scope = match devices.poll(sent.need("device_auth_id"), Some(sent.need("user_code"))) {
        Ok(scope) => scope,
        Err(refused) if refused.error == "authorization_pending" => {
            let pending = json!({"error": {"message": refused.why, "code": "deviceauth_authorization_pending"}});
            return Ok(reply::json(403, &pending));
        }
        Err(refused) => return Err(refused),
    };
    let verifier = random(43);
    let challenge = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
    let consent = codes.issue(Asked {
        challenge: challenge.clone(),
        redirect_uri: "https://auth.openai.com/deviceauth/callback".to_owned(),
        state: random(43),
        scope,
    });
    Ok(reply::json(
        200,
        &json!({
            "authorization_code": consent.code,
            "code_challenge": challenge,
            "code_verifier": verifier,
        }),
    ))
}
