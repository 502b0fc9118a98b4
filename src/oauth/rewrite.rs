//! Owns what an agent gets to see of a token endpoint's answer: placeholders where tokens stood, what is
//! known to be harmless besides, and nothing at all where that cannot be told.

use memchr::memmem;
use serde_json::{Map, Value};

use super::call_error::CallError;
use super::phantom::Phantoms;
use super::token::TokenSet;
use crate::telemetry::redact::looks_secret;
use crate::types::secret::Secret;

/// Words in the name of a member that may hold a secret.
const SUSPICIOUS: [&str; 6] = ["token", "secret", "key", "assertion", "password", "code"];
/// Objects that are kept: whose login it is.
const PARTIES: [&str; 2] = ["account", "organization"];
/// The shortest token that can be searched for without finding it by chance.
const SHORTEST_TOKEN: usize = 8;
const LONGEST_TEXT: usize = 1024;
const MOST_DEPTH: usize = 4;

/// The good answer of `body`, which gave `tokens`, with `phantoms` in their place.
///
/// Errors: it has a member that may be a secret and is none of the known tokens.
pub fn tokens(body: &[u8], tokens: &TokenSet, phantoms: &Phantoms) -> Result<Vec<u8>, CallError> {
    let answer: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| withheld("it is no JSON object"))?;
    let mut rewritten = Map::new();
    for (name, value) in answer {
        let standing = match (name.as_str(), &value) {
            (_, Value::Null) => Value::Null,
            ("access_token", Value::String(_)) => phantoms.access.as_str().into(),
            ("refresh_token", Value::String(_)) => phantoms.refresh.as_str().into(),
            ("id_token", Value::String(_)) => phantoms.identity(&tokens.profile).into(),
            ("token_type", Value::String(kind)) if is_word(kind) => value,
            (party, Value::Object(_)) if PARTIES.contains(&party) => {
                kept(&value, 1)?.unwrap_or_default()
            }
            _ => match member(&name, &value, 0)? {
                Some(kept) => kept,
                None => continue,
            },
        };
        rewritten.insert(name, standing);
    }
    let rewritten = Value::Object(rewritten);
    let real = [
        Some(&tokens.access),
        tokens.refresh.as_ref(),
        tokens.id.as_ref(),
    ];
    search(&rewritten, real.into_iter().flatten())
}

/// An error answer of `body`, without whatever could be a secret.
///
/// Errors: it has a member that may be a secret.
pub fn error(body: &[u8]) -> Result<Vec<u8>, CallError> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| withheld("it is no JSON"))?;
    match error_member(&answer, 0)? {
        Some(answer @ Value::Object(_)) => search(&answer, []),
        _ => Err(withheld("it is no JSON object")),
    }
}

/// A member that is none of the known ones: kept if it is a harmless scalar, left out if it is not.
fn member(name: &str, value: &Value, depth: usize) -> Result<Option<Value>, CallError> {
    if is_suspicious(name) && !is_span(name, value) {
        return match is_identifier(name) && !value.is_object() && !value.is_array() {
            true => Ok(None),
            false => Err(withheld(
                "a member of it may be a secret that is not known here",
            )),
        };
    }
    match value {
        Value::Array(_) | Value::Object(_) => kept(value, depth + 1).map(|_| None),
        scalar => kept(scalar, depth),
    }
}

fn kept(value: &Value, depth: usize) -> Result<Option<Value>, CallError> {
    if depth > MOST_DEPTH {
        return Err(withheld("it is nested too deeply to be looked through"));
    }
    Ok(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.clone()),
        Value::String(text) => is_harmless(text).then(|| value.clone()),
        Value::Array(items) => {
            // Looked through for names that tell of secrets; what stands in lists is not passed on.
            for item in items {
                kept(item, depth + 1)?;
            }
            None
        }
        Value::Object(members) => {
            let mut all = Map::new();
            for (name, value) in members {
                if let Some(value) = member(name, value, depth)?
                    && is_harmless(name)
                {
                    all.insert(name.clone(), value);
                }
            }
            Some(Value::Object(all))
        }
    })
}

/// Errors are told in objects (OpenAI, Anthropic) as well as in members (RFC 6749, section 5.2), and have codes.
fn error_member(value: &Value, depth: usize) -> Result<Option<Value>, CallError> {
    let Value::Object(members) = value else {
        return member("", value, depth);
    };
    if depth > MOST_DEPTH {
        return Err(withheld("it is nested too deeply to be looked through"));
    }
    let mut all = Map::new();
    for (name, value) in members {
        let code = name.to_ascii_lowercase().ends_with("code");
        let is_code = code && value.as_str().is_none_or(is_word);
        let value = match value {
            Value::Object(_) if !is_suspicious(name) => error_member(value, depth + 1)?,
            scalar if is_code && !scalar.is_object() && !scalar.is_array() => Some(scalar.clone()),
            other => member(name, other, depth)?,
        };
        if let Some(value) = value
            && is_harmless(name)
        {
            all.insert(name.clone(), value);
        }
    }
    Ok(Some(Value::Object(all)))
}

/// Makes sure that no real token stands in `answer`, and writes it.
fn search<'a>(
    answer: &Value,
    real: impl IntoIterator<Item = &'a Secret>,
) -> Result<Vec<u8>, CallError> {
    let written = answer.to_string().into_bytes();
    for token in real {
        let token = token.expose();
        if token.len() < SHORTEST_TOKEN {
            return Err(withheld("its tokens are too short to be searched for"));
        }
        // Of a JWT the signature is what makes it one (RFC 7515, section 3.1).
        let signature = token.rsplit(|b| *b == b'.').next().unwrap_or_default();
        let parts = [token, signature];
        let mut parts = parts.iter().filter(|part| part.len() >= SHORTEST_TOKEN);
        if parts.any(|part| stands(answer, &written, part)) {
            return Err(withheld("a real token stands in another place of it"));
        }
    }
    Ok(written)
}

/// Whether `token` stands in the bytes as they are written, or in a text as it is read.
fn stands(answer: &Value, written: &[u8], token: &[u8]) -> bool {
    let within = |text: &str| memmem::find(text.as_bytes(), token).is_some();
    let inside = match answer {
        Value::String(text) => within(text),
        Value::Array(items) => items.iter().any(|item| stands(item, &[], token)),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| within(name) || stands(value, &[], token)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    };
    inside || memmem::find(written, token).is_some()
}

fn is_suspicious(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SUSPICIOUS.iter().any(|word| name.contains(word))
}

/// `refresh_token_expires_in` and the like: a number that says how long.
fn is_span(name: &str, value: &Value) -> bool {
    let name = name.to_ascii_lowercase();
    let span = ["expires_in", "expires_at", "expiry", "lifetime"];
    value.is_number() && span.iter().any(|end| name.ends_with(end))
}

/// `token_uuid` and the like: it names a secret, and can do without being told.
fn is_identifier(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["_id", "_uuid"].iter().any(|end| name.ends_with(end))
}

fn is_harmless(text: &str) -> bool {
    let words = || text.split(|c: char| c.is_whitespace() || c == '/');
    text.len() <= LONGEST_TEXT && !looks_secret(text) && !words().any(looks_secret)
}

/// A word as registries have them.
fn is_word(text: &str) -> bool {
    let letters = text
        .bytes()
        .all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-' | b'.'));
    text.len() <= 40 && letters
}

fn withheld(why: &str) -> CallError {
    CallError::Withheld(why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn phantoms() -> Phantoms {
        Phantoms {
            access: "phantom-access".to_owned(),
            refresh: "phantom-refresh".to_owned(),
            signature: "phantom-signature".to_owned(),
        }
    }

    fn given(access: &str, refresh: Option<&str>, id: Option<&str>) -> TokenSet {
        let secret = |text: &str| Secret::from(text.to_owned());
        TokenSet {
            access: secret(access),
            refresh: refresh.map(secret),
            id: id.map(secret),
            expires_at: None,
            issued_at: SystemTime::UNIX_EPOCH,
            scopes: Vec::new(),
            profile: Map::new(),
        }
    }

    fn rewrite(answer: &Value) -> Result<Value, CallError> {
        let real = given(
            "real-access-1",
            Some("real-refresh-1"),
            Some("a.b.real-signature"),
        );
        let written = tokens(answer.to_string().as_bytes(), &real, &phantoms())?;
        Ok(serde_json::from_slice(&written).unwrap())
    }

    #[test]
    fn the_answers_of_claude_and_codex_keep_their_shape() {
        let claude = json!({
            "token_type": "Bearer",
            "access_token": "real-access-1",
            "expires_in": 28800,
            "refresh_token": "real-refresh-1",
            "scope": "user:inference user:profile",
            "organization": {"uuid": "5d4f4e1c-7f63-4d3e-a9ef-1d9be1a6f4c4", "name": "Acme"},
            "account": {"uuid": "0b7f0a52-3b35-4a39-bd8d-5a2a6a3a9b11", "email_address": "me@example.com"},
        });
        let mut expected = claude.clone();
        expected["access_token"] = json!("phantom-access");
        expected["refresh_token"] = json!("phantom-refresh");
        assert_eq!(rewrite(&claude).unwrap(), expected);

        let codex = json!({
            "access_token": "real-access-1",
            "refresh_token": "real-refresh-1",
            "id_token": "a.b.real-signature",
        });
        let told = rewrite(&codex).unwrap();
        assert_eq!(told["access_token"], "phantom-access");
        assert_eq!(told["id_token"], phantoms().identity(&Map::new()));
        assert_eq!(told["id_token"].as_str().unwrap().split('.').count(), 3);
    }

    #[test]
    fn what_is_not_known_is_kept_left_out_or_a_reason_to_say_nothing() {
        let with = |name: &str, value: Value| {
            rewrite(&json!({"access_token": "real-access-1", name: value}))
        };
        for (name, value) in [
            ("plan", json!("max")),
            ("refresh_token_expires_in", json!(3600)),
            ("created_at", json!(1_700_000_000)),
            ("is_first", json!(true)),
            ("refresh_token", json!(null)),
            ("account", json!({"uuid": "u", "tier": 3})),
        ] {
            assert_eq!(with(name, value.clone()).unwrap()[name], value, "{name}");
        }
        for (name, value) in [
            ("session", json!("sk-ant-sid01-whatever")),
            ("handle", json!("Zm9vYmFyYmF6cXV4Zm9vYmFyMTIz")),
            ("token_uuid", json!("5d4f4e1c-7f63-4d3e-a9ef-1d9be1a6f4c4")),
            ("list", json!(["a"])),
            ("else", json!({"a": "b"})),
        ] {
            assert_eq!(with(name, value).unwrap().get(name), None, "{name}");
        }
        for (name, value) in [
            ("api_key", json!("x")),
            ("clientSecret", json!("x")),
            ("device_code", json!(123_456)),
            ("Password", json!("x")),
            ("access_token", json!(["real-access-1"])),
            ("token_type", json!("sk-ant-api03-x 1")),
            ("account", json!({"session_token": "x"})),
            ("else", json!({"a": [{"b": {"raw_key": "x"}}]})),
            ("note", json!("it is real-refresh-1!")),
            ("note", json!("signed real-signature")),
            ("real-access-1", json!(1)),
        ] {
            let error = with(name, value.clone()).unwrap_err();
            assert!(matches!(error, CallError::Withheld(_)), "{name}: {value}");
        }
        let real = given("short", None, None);
        assert!(tokens(br#"{"access_token":"short"}"#, &real, &phantoms()).is_err());
        assert!(tokens(b"access_token=x", &real, &phantoms()).is_err());
    }

    #[test]
    fn errors_pass_without_what_could_be_a_secret() {
        for passed in [
            json!({"error": "authorization_pending"}),
            json!({"error": "invalid_grant", "error_description": "Refresh token not found or invalid"}),
            json!({"error": {"message": "Your code has expired.", "type": "invalid_request_error", "param": null, "code": "expired_code"}}),
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": "Invalid 'code'"}}),
            json!({"error": "slow_down", "interval": 10, "status_code": 400}),
        ] {
            let told: Value =
                serde_json::from_slice(&error(passed.to_string().as_bytes()).unwrap()).unwrap();
            assert_eq!(told, passed);
        }
        let told = error(br#"{"error":"x","hint":"use sk-ant-oat01-abcdefgh instead"}"#).unwrap();
        assert_eq!(told, br#"{"error":"x"}"#);
        for held_back in [
            json!({"error": "x", "access_token": "y"}),
            json!({"error": {"code": "sk-ant-oat01-abcdefgh"}}),
            json!({"error": {"more": {"client_secret": "y"}}}),
            json!(["error"]),
            json!("error"),
        ] {
            assert!(
                error(held_back.to_string().as_bytes()).is_err(),
                "{held_back}"
            );
        }
        assert!(error(b"<html>").is_err());
    }

    /// Any JSON, with tokens in any of its places.
    fn any_json(token: &str) -> impl Strategy<Value = Value> + use<> {
        let text = prop_oneof![
            4 => "[a-z_]{0,12}",
            1 => Just(token.to_owned()),
            1 => Just(format!("Bearer {token}")),
            1 => Just(token.chars().rev().collect()),
        ];
        let name = prop_oneof![
            4 => "[a-z_]{0,8}",
            1 => Just("access_token".to_owned()),
            1 => Just("refresh_token".to_owned()),
            1 => Just("id_token".to_owned()),
            1 => Just("account".to_owned()),
            1 => Just(token.to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(name.clone(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_json_comes_no_real_token_leaves(
            (token, answer) in "[!-~]{8,40}".prop_flat_map(|token| (Just(token.clone()), any_json(&token))),
        ) {
            let real = given("another-access-token", Some(&token), None);
            let body = answer.to_string();
            if let Ok(written) = tokens(body.as_bytes(), &real, &phantoms()) {
                let told: Value = serde_json::from_slice(&written).unwrap();
                prop_assert!(memmem::find(&written, token.as_bytes()).is_none());
                prop_assert!(!stands(&told, &[], token.as_bytes()));
            }
        }
    }
}
