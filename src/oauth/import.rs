//! Owns how a login made elsewhere is read: Claude Code's and Codex's own files, an exported grant
//! record, or a refresh token alone. What it reads is never shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::claims;
use super::record::{GrantRecord, RecordError};
use super::token::TokenSet;
use crate::credential::source::MAX_BYTES;
use crate::types::secret::Secret;

/// Why something is no login that can be taken over, as the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// Logins are a few hundred octets.
    #[error("it is larger than 64 KiB; is it the right file?")]
    TooLarge,
    /// It begins like JSON and cannot be read as such.
    #[error("it is not valid JSON (line {line}, column {column})")]
    Json {
        /// Where reading it failed.
        line: usize,
        /// Where reading it failed.
        column: usize,
    },
    /// Readable, and nothing that is known.
    #[error(
        "it is none of: Claude Code's `.credentials.json`, Codex's `auth.json`, a grant record of Tollgate, a refresh token alone on one line"
    )]
    Unknown,
    /// Claude Code empties its file when its login has ended.
    #[error("its login has ended and Claude Code has emptied it; log in anew and import that")]
    Emptied,
    /// `auth.json` of a Codex that uses an API key.
    #[error(
        "it holds an API key and no login; use it as `source: {{ file: {{ path: ..., pointer: /OPENAI_API_KEY }} }}`"
    )]
    ApiKey,
    /// Long-lived tokens and API keys are not renewed.
    #[error(
        "it holds no refresh token; a token that is not renewed is used as `source: {{ file: ... }}` or `{{ env: ... }}`"
    )]
    NoRefreshToken,
    /// It comes from behind a proxy like this one.
    #[error("its {0} is a placeholder; import the file of the machine where the login was made")]
    Placeholder(&'static str),
    /// Cut, quoted or broken over lines.
    #[error("its {0} holds white space or a character that no token has")]
    Character(&'static str),
    /// A record of Tollgate that cannot be read.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// A record without a login.
    #[error("it is a grant record without tokens")]
    NoTokens,
    /// A record whose grant is gone.
    #[error("it is the record of a grant that has ended: {0}")]
    Ended(String),
}

/// `~/.claude/.credentials.json`. Other logins in it (MCP servers) are left alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaudeLogin {
    access_token: Option<Zeroizing<String>>,
    refresh_token: Option<Zeroizing<String>>,
    /// Milliseconds since 1970.
    expires_at: Option<f64>,
    scopes: Option<Vec<String>>,
    subscription_type: Option<String>,
    rate_limit_tier: Option<String>,
}

/// `tokens` of `~/.codex/auth.json`.
#[derive(Deserialize)]
struct CodexLogin {
    id_token: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
    refresh_token: Option<Zeroizing<String>>,
    account_id: Option<String>,
}

/// Everything that tells one file from another.
#[derive(Deserialize)]
struct Login {
    #[serde(rename = "claudeAiOauth")]
    claude: Option<ClaudeLogin>,
    tokens: Option<CodexLogin>,
    #[serde(rename = "OPENAI_API_KEY")]
    api_key: Option<IgnoredAny>,
}

/// Reads a login that was made elsewhere.
///
/// The refresh token is always there. Where nothing tells until when the access token is good, or there
/// is none (a refresh token alone: `access` is then empty), it counts as expired already: `expires_at`
/// equals `issued_at`, and the first thing to do with the login is to renew it.
pub fn read_login(bytes: &[u8]) -> Result<TokenSet, ImportError> {
    if bytes.len() > MAX_BYTES {
        return Err(ImportError::TooLarge);
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let bytes = bytes.trim_ascii();
    match bytes.first() {
        None => Err(ImportError::Empty),
        Some(b'{') => file(bytes),
        Some(b'[' | b'"' | b'<') => Err(ImportError::Unknown),
        Some(_) => alone(bytes),
    }
}

fn file(bytes: &[u8]) -> Result<TokenSet, ImportError> {
    #[derive(Deserialize)]
    struct Head {
        kind: Option<IgnoredAny>,
    }
    if json::<Head>(bytes)?.kind.is_some() {
        return record(bytes);
    }
    let login: Login = json(bytes)?;
    match login {
        Login {
            claude: Some(claude),
            ..
        } => claude.read(),
        Login {
            tokens: Some(codex),
            ..
        } => codex.read(),
        Login {
            api_key: Some(_), ..
        } => Err(ImportError::ApiKey),
        _ => Err(ImportError::Unknown),
    }
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ImportError> {
    // The library's own texts quote what they found, which may be a token.
    serde_json::from_slice(bytes).map_err(|error| match error.is_data() {
        true => ImportError::Unknown,
        false => ImportError::Json {
            line: error.line(),
            column: error.column(),
        },
    })
}

fn record(bytes: &[u8]) -> Result<TokenSet, ImportError> {
    let record = GrantRecord::decode(bytes)?;
    if let Some(ended) = record.needs_login {
        return Err(ImportError::Ended(ended.why));
    }
    let tokens = record.tokens.ok_or(ImportError::NoTokens)?;
    match tokens.refresh {
        Some(_) => Ok(tokens),
        None => Err(ImportError::NoRefreshToken),
    }
}

/// A refresh token and nothing else.
fn alone(bytes: &[u8]) -> Result<TokenSet, ImportError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ImportError::Unknown)?;
    // What `claude setup-token` prints, and an API key: both are used as they are.
    if ["sk-ant-oat", "sk-ant-api"]
        .iter()
        .any(|head| text.starts_with(head))
    {
        return Err(ImportError::NoRefreshToken);
    }
    let now = SystemTime::now();
    Ok(TokenSet {
        access: Secret::new(Vec::new()),
        refresh: Some(refresh(Some(Zeroizing::new(text.to_owned())))?),
        id: None,
        expires_at: Some(now),
        issued_at: now,
        scopes: Vec::new(),
        profile: Map::new(),
    })
}

impl ClaudeLogin {
    fn read(self) -> Result<TokenSet, ImportError> {
        let empty =
            |token: &Option<Zeroizing<String>>| token.as_ref().is_none_or(|token| token.is_empty());
        if empty(&self.access_token) && empty(&self.refresh_token) {
            return Err(ImportError::Emptied);
        }
        let now = SystemTime::now();
        let milliseconds = self.expires_at.filter(|at| *at > 0.0);
        let ends = milliseconds.and_then(|at| {
            let since = Duration::try_from_secs_f64(at / 1000.0).ok()?;
            UNIX_EPOCH.checked_add(since)
        });
        let access = token("access token", self.access_token)?;
        Ok(TokenSet {
            expires_at: Some(access.as_ref().and(ends).unwrap_or(now)),
            access: access.unwrap_or_else(|| Secret::new(Vec::new())),
            refresh: Some(refresh(self.refresh_token)?),
            id: None,
            issued_at: now,
            scopes: self.scopes.unwrap_or_default(),
            profile: named([
                ("subscription_type", self.subscription_type),
                ("rate_limit_tier", self.rate_limit_tier),
            ]),
        })
    }
}

impl CodexLogin {
    fn read(self) -> Result<TokenSet, ImportError> {
        let now = SystemTime::now();
        let access = token("access token", self.access_token)?;
        let ends = access.as_ref().and_then(claims::expiry);
        let id = token("id token", self.id_token)?;
        let mut profile = id.as_ref().map(claims::of_identity).unwrap_or_default();
        profile.extend(named([("account_id", self.account_id)]));
        Ok(TokenSet {
            expires_at: Some(ends.unwrap_or(now)),
            access: access.unwrap_or_else(|| Secret::new(Vec::new())),
            refresh: Some(refresh(self.refresh_token)?),
            id,
            issued_at: now,
            scopes: Vec::new(),
            profile,
        })
    }
}

fn refresh(text: Option<Zeroizing<String>>) -> Result<Secret, ImportError> {
    token("refresh token", text)?.ok_or(ImportError::NoRefreshToken)
}

fn token(
    name: &'static str,
    text: Option<Zeroizing<String>>,
) -> Result<Option<Secret>, ImportError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ImportError::Character(name));
    }
    if is_placeholder(&text) {
        return Err(ImportError::Placeholder(name));
    }
    Ok(Some(Secret::new(text.as_bytes().to_vec())))
}

/// What proxies and examples put where a token would be.
fn is_placeholder(text: &str) -> bool {
    let text = Zeroizing::new(text.to_ascii_lowercase());
    let words = ["placeholder", "phantom", "redacted", "tollgate"];
    let first = text.bytes().next();
    words.iter().any(|word| text.contains(word))
        || text.starts_with(['<', '$'])
        || text.bytes().all(|byte| Some(byte) == first)
}

fn named<const N: usize>(parts: [(&str, Option<String>); N]) -> Map<String, Value> {
    let known = parts.into_iter().filter_map(|(name, value)| {
        let value = value.filter(|value| claims::is_plain(value))?;
        Some((name.to_owned(), Value::from(value)))
    });
    known.collect()
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
