//! Owns what agents are given in place of a login: placeholders where the tokens stand, and the files
//! that Claude Code and Codex keep theirs in.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// 2100-01-01: a client that believes this never asks for another token on its own.
const FAR: u64 = 4_102_444_800;

/// What one agent holds in place of the tokens of one grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phantoms {
    /// In place of the access token.
    pub access: String,
    /// In place of the refresh token.
    pub refresh: String,
    /// The last part of what stands in place of the identity token: 43 letters of base64url.
    pub signature: String,
}

impl Phantoms {
    /// What stands in place of the identity token of the account that `profile` is about.
    pub fn identity(&self, profile: &Map<String, Value>) -> String {
        identity(profile, &self.signature)
    }
}

/// `~/.claude/.credentials.json` as Claude Code 2.1 reads it. It wants the scope `user:inference`; with no
/// other scope, and without a refresh token, it asks for nothing but models.
pub fn claude_credentials(placeholder: &str, profile: &Map<String, Value>) -> Value {
    let known = |name: &str| profile.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "claudeAiOauth": {
            "accessToken": placeholder,
            "refreshToken": "",
            "expiresAt": FAR * 1000,
            "scopes": ["user:inference"],
            "subscriptionType": known("subscription_type"),
            "rateLimitTier": known("rate_limit_tier"),
        }
    })
}

/// `~/.codex/auth.json` as Codex 0.169 reads it. Without an identity token the file is passed over, without
/// `last_refresh` requests go out bare, and `account_id` must be the account's own; it is no secret.
pub fn codex_auth(placeholder: &str, profile: &Map<String, Value>, now: SystemTime) -> Value {
    let mut tokens = json!({
        "id_token": identity(profile, &BASE64_URL_SAFE_NO_PAD.encode("placeholder")),
        "access_token": placeholder,
        "refresh_token": placeholder,
    });
    if let Some(account) = profile.get("account_id") {
        tokens["account_id"] = account.clone();
    }
    json!({
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": null,
        "tokens": tokens,
        "last_refresh": jiff::Timestamp::try_from(now).unwrap_or_default().to_string(),
    })
}

/// An identity token that nobody signed (RFC 7519, section 6): Codex reads the plan and the account in it
/// and checks no signature.
fn identity(profile: &Map<String, Value>, signature: &str) -> String {
    let named = [
        ("chatgpt_plan_type", "plan_type"),
        ("chatgpt_account_id", "account_id"),
    ];
    let claims: Map<String, Value> = named
        .into_iter()
        .filter_map(|(claim, name)| Some((claim.to_owned(), profile.get(name)?.clone())))
        .collect();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(&json!({ "alg": "none" })),
        part(&json!({ "https://api.openai.com/auth": claims })),
        signature
    )
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::oauth::claims;
    use crate::types::secret::Secret;

    fn profile() -> Map<String, Value> {
        let Value::Object(profile) = json!({
            "account_id": "acc-1", "plan_type": "pro", "email": "me@example.com", "subscription_type": "max",
        }) else {
            unreachable!()
        };
        profile
    }

    #[test]
    fn claude_code_is_given_what_it_needs_to_run_and_nothing_to_refresh_with() {
        let file = claude_credentials("sk-ant-oat01-placeholder", &profile());
        let login = &file["claudeAiOauth"];
        assert_eq!(login["accessToken"], "sk-ant-oat01-placeholder");
        assert_eq!(
            (&login["refreshToken"], &login["scopes"][0]),
            (&json!(""), &json!("user:inference"))
        );
        assert_eq!(login["subscriptionType"], "max");
        assert_eq!(login["rateLimitTier"], Value::Null);
        assert!(login["expiresAt"].as_u64().unwrap() > 4_000_000_000_000);
    }

    #[test]
    fn codex_is_given_an_identity_it_can_read_and_the_account_it_must_name() {
        let file = codex_auth("placeholder", &profile(), UNIX_EPOCH);
        let tokens = &file["tokens"];
        assert_eq!(
            (&tokens["access_token"], &tokens["account_id"]),
            (&json!("placeholder"), &json!("acc-1"))
        );
        assert_eq!(file["last_refresh"], "1970-01-01T00:00:00Z");
        let identity = Secret::from(tokens["id_token"].as_str().unwrap().to_owned());
        let read = claims::of_identity(&identity);
        assert_eq!(
            (&read["account_id"], &read["plan_type"]),
            (&json!("acc-1"), &json!("pro"))
        );
        assert!(!read.contains_key("email"), "{read:?}");
        let bare = codex_auth("placeholder", &Map::new(), UNIX_EPOCH);
        assert!(bare["tokens"].get("account_id").is_none());
    }
}
