use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<TokenSet, ImportError> {
    read_login(text.as_bytes())
}

fn claude(parts: Value) -> String {
    json!({ "claudeAiOauth": parts, "mcpOAuth": { "server": { "accessToken": "other" } } })
        .to_string()
}

fn in_an_hour() -> u64 {
    let ends = SystemTime::now() + Duration::from_secs(3600);
    u64::try_from(ends.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn jwt(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(claims))
}

#[test]
fn claude_codes_file_is_read() {
    let ends = in_an_hour();
    let file = claude(json!({
        "accessToken": "sk-ant-oat01-A", "refreshToken": "sk-ant-ort01-B", "expiresAt": ends,
        "scopes": ["user:inference", "user:profile"], "subscriptionType": "max",
        "rateLimitTier": "default_claude_max_20x", "clientId": "x",
    }));
    for written in [file.clone(), format!("\u{feff}{file}\n")] {
        let tokens = read(&written).unwrap();
        assert_eq!(tokens.access.expose(), b"sk-ant-oat01-A");
        assert_eq!(tokens.refresh.unwrap().expose(), b"sk-ant-ort01-B");
        let expected = UNIX_EPOCH + Duration::from_millis(ends);
        let off = expected.duration_since(tokens.expires_at.unwrap());
        assert!(off.unwrap_or_else(|e| e.duration()) < Duration::from_millis(2));
        assert_eq!(tokens.scopes, ["user:inference", "user:profile"]);
        assert_eq!(tokens.profile["subscription_type"], "max");
        assert_eq!(tokens.profile["rate_limit_tier"], "default_claude_max_20x");
    }
}

#[test]
fn a_login_of_unknown_age_counts_as_expired() {
    let access = "sk-ant-oat01-A";
    for parts in [
        json!({ "accessToken": access, "refreshToken": "rt", "expiresAt": null }),
        json!({ "accessToken": access, "refreshToken": "rt", "expiresAt": 0 }),
        json!({ "accessToken": access, "refreshToken": "rt" }),
        json!({ "accessToken": "", "refreshToken": "rt", "expiresAt": in_an_hour() }),
    ] {
        let tokens = read(&claude(parts.clone())).unwrap();
        assert_eq!(tokens.expires_at, Some(tokens.issued_at), "{parts}");
    }
    let codex = json!({ "tokens": { "access_token": "opaque", "refresh_token": "rt" } });
    let tokens = read(&codex.to_string()).unwrap();
    assert_eq!(tokens.expires_at, Some(tokens.issued_at));
}

#[test]
fn codexs_file_is_read() {
    let access = jwt(&json!({ "exp": 4_000_000_000u64 }));
    let id = jwt(&json!({
        "email": "a@example.com",
        "https://api.openai.com/auth": { "chatgpt_plan_type": "plus", "chatgpt_account_id": "old" },
    }));
    let file = json!({
        "auth_mode": "chatgpt", "OPENAI_API_KEY": null, "last_refresh": "2026-11-01T00:00:00Z",
        "tokens": { "id_token": id, "access_token": access, "refresh_token": "rt_1", "account_id": "acc" },
    });
    let tokens = read(&file.to_string()).unwrap();
    assert_eq!(tokens.access.expose(), access.as_bytes());
    assert_eq!(tokens.id.unwrap().expose(), id.as_bytes());
    assert_eq!(tokens.refresh.unwrap().expose(), b"rt_1");
    let ends = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    assert_eq!(tokens.expires_at, Some(ends));
    let profile = json!({ "account_id": "acc", "email": "a@example.com", "plan_type": "plus" });
    assert_eq!(Value::from(tokens.profile), profile);
}

#[test]
fn a_refresh_token_alone_is_a_login_that_must_be_renewed_first() {
    for written in [
        "sk-ant-ort01-B",
        "sk-ant-ort01-B\n",
        "  sk-ant-ort01-B\r\n\n",
    ] {
        let tokens = read(written).unwrap();
        assert!(tokens.access.is_empty());
        assert_eq!(tokens.refresh.unwrap().expose(), b"sk-ant-ort01-B");
        assert_eq!(tokens.expires_at, Some(tokens.issued_at));
    }
}

#[test]
fn a_record_is_taken_over_as_it_was_exported() {
    let mut record = GrantRecord {
        tokens: Some(read("sk-ant-ort01-B").unwrap()),
        ..GrantRecord::default()
    };
    let tokens = read_login(&record.encode().unwrap()).unwrap();
    assert_eq!(tokens.refresh.unwrap().expose(), b"sk-ant-ort01-B");
    record.needs_login = Some(super::super::record::NeedsLogin {
        since: SystemTime::now(),
        why: "it was revoked".to_owned(),
    });
    let error = read_login(&record.encode().unwrap()).unwrap_err();
    assert_eq!(error, ImportError::Ended("it was revoked".to_owned()));
    let empty = GrantRecord::default().encode().unwrap();
    assert_eq!(read_login(&empty).unwrap_err(), ImportError::NoTokens);
}

#[test]
fn what_is_no_login_is_refused_without_showing_it() {
    let tokens = |access: &str, refresh: &str| {
        claude(json!({ "accessToken": access, "refreshToken": refresh, "expiresAt": 1 }))
    };
    let codex =
        |refresh: Value| json!({ "tokens": { "access_token": "x.y", "refresh_token": refresh } });
    let big = "a".repeat(MAX_BYTES + 1);
    use ImportError as E;
    for (written, expected) in [
        (String::new(), E::Empty),
        (" \n\t".to_owned(), E::Empty),
        (big, E::TooLarge),
        (
            "{\"claudeAiOauth\": sentinel".to_owned(),
            E::Json {
                line: 1,
                column: 19,
            },
        ),
        ("{}".to_owned(), E::Unknown),
        ("[]".to_owned(), E::Unknown),
        ("\"sentinel\"".to_owned(), E::Unknown),
        ("<html>sentinel".to_owned(), E::Unknown),
        (r#"{"claudeAiOauth":"sentinel"}"#.to_owned(), E::Unknown),
        (
            r#"{"sentinel":{"refresh_token":"sentinel"}}"#.to_owned(),
            E::Unknown,
        ),
        (
            "sentinel sentinel".to_owned(),
            E::Character("refresh token"),
        ),
        (
            "sentinel\nsentinel".to_owned(),
            E::Character("refresh token"),
        ),
        ("sentinel\u{7}".to_owned(), E::Character("refresh token")),
        ("sk-ant-oat01-sentinel".to_owned(), E::NoRefreshToken),
        ("sk-ant-api03-sentinel".to_owned(), E::NoRefreshToken),
        (
            "tollgate_sentinel".to_owned(),
            E::Placeholder("refresh token"),
        ),
        ("<refresh-token>".to_owned(), E::Unknown),
        ("$REFRESH_TOKEN".to_owned(), E::Placeholder("refresh token")),
        ("xxxxxxxx".to_owned(), E::Placeholder("refresh token")),
        (tokens("", ""), E::Emptied),
        (
            claude(json!({ "accessToken": "", "refreshToken": null })),
            E::Emptied,
        ),
        (tokens("sentinel", ""), E::NoRefreshToken),
        (
            claude(json!({ "accessToken": "sentinel", "refreshToken": null })),
            E::NoRefreshToken,
        ),
        (
            tokens("PLACEHOLDER-sentinel", "sentinel"),
            E::Placeholder("access token"),
        ),
        (
            tokens("sentinel", "phantom-sentinel"),
            E::Placeholder("refresh token"),
        ),
        (
            tokens("sen tinel", "sentinel"),
            E::Character("access token"),
        ),
        (
            json!({ "OPENAI_API_KEY": "sk-sentinel" }).to_string(),
            E::ApiKey,
        ),
        (
            json!({ "OPENAI_API_KEY": "sk-sentinel", "tokens": null }).to_string(),
            E::ApiKey,
        ),
        (json!({ "OPENAI_API_KEY": null }).to_string(), E::Unknown),
        (codex(json!("")).to_string(), E::NoRefreshToken),
        (codex(json!(null)).to_string(), E::NoRefreshToken),
        (
            codex(json!("a b")).to_string(),
            E::Character("refresh token"),
        ),
    ] {
        let error = read(&written).unwrap_err();
        assert_eq!(error, expected, "{written:.60}");
        assert!(!error.to_string().contains("sentinel"), "{error}");
    }
    let error = read(r#"{"kind":"sentinel","version":1}"#).unwrap_err();
    assert!(matches!(&error, E::Record(_)) && !error.to_string().contains("sentinel"));
    assert!(read_login(b"\xff\xfe sentinel").is_err());
}

proptest! {
    #[test]
    fn a_file_that_is_cut_anywhere_is_no_login(cut in 1usize..400) {
        let file = claude(json!({ "accessToken": "at-sentinel", "refreshToken": "rt-sentinel", "expiresAt": 1 }));
        let cut = 1 + cut % (file.len() - 1);
        let error = read(&file[..cut]).unwrap_err();
        prop_assert!(matches!(error, ImportError::Json { .. }), "{}", error);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(tokens) = read_login(&bytes) {
            prop_assert!(tokens.refresh.is_some_and(|refresh| !refresh.is_empty()));
        }
    }
}
