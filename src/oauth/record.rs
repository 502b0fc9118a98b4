//! Owns what is kept of a grant, and the form it is kept in: versioned JSON that a newer Tollgate can
//! read and an older one refuses.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::clock::shifted;
use super::token::TokenSet;
use crate::types::secret::Secret;

/// Everything that is kept of one grant.
#[derive(Debug, Default)]
pub struct GrantRecord {
    /// Tells one login from another; drawn when it is stored.
    pub login: Option<String>,
    /// Grows whenever the tokens change.
    pub generation: u64,
    /// The tokens; none before the first login.
    pub tokens: Option<TokenSet>,
    /// How many seconds the endpoint's clock was ahead of the clock of the process that stored the tokens.
    pub clock_offset: i64,
    /// When they were last renewed.
    pub refreshed_at: Option<SystemTime>,
    /// A redeem that was begun; no result of it is known.
    pub intent: Option<Intent>,
    /// Only a person can go on from here.
    pub needs_login: Option<NeedsLogin>,
    /// Tells the seed that was taken over from a later one: a hash of its refresh token.
    pub seed: Option<String>,
}

/// What was written down before a token endpoint was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    /// Tells one redeem from another.
    pub id: String,
    /// The process that began it, for people: host name and process id.
    pub by: String,
    /// When, by that process's clock.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// The refresh token may have been redeemed before, and the answer lost: using it again may end the
    /// grant, access token included. Processes that share the store use neither until this is settled.
    #[serde(default)]
    pub doubtful: bool,
}

/// Why only a person can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeedsLogin {
    /// Since when.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
    /// In plain words, without any token.
    pub why: String,
}

/// Why stored bytes are not a record. Without any part of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They are something else, or damaged.
    #[error("it is not a grant record ({0})")]
    Malformed(String),
    /// A newer Tollgate wrote them.
    #[error("a newer Tollgate wrote it (version {0}; this one knows {VERSION})")]
    Newer(u64),
}

/// The version of the form; an incompatible change makes it grow.
const VERSION: u64 = 1;
const KIND: &str = "tollgate.dev/oauth-grant";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    kind: String,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<String>,
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<WrittenTokens>,
    #[serde(default)]
    clock_offset: i64,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_rfc3339"
    )]
    refreshed_at: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intent: Option<Intent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needs_login: Option<NeedsLogin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenTokens {
    access: Zeroizing<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh: Option<Zeroizing<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Zeroizing<String>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_rfc3339"
    )]
    expires_at: Option<SystemTime>,
    #[serde(with = "rfc3339")]
    issued_at: SystemTime,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    profile: Map<String, Value>,
}

impl GrantRecord {
    /// Takes over new tokens, fresh from the endpoint. What they leave out stays as it was: a refresh
    /// token that is not replaced is still good (RFC 6749, section 6).
    pub fn renew(&mut self, mut new: TokenSet, clock_offset: i64) {
        new.expires_at = new.expires_at.map(|end| shifted(end, clock_offset));
        if let Some(old) = self.tokens.take() {
            new.refresh = new.refresh.or(old.refresh);
            new.id = new.id.or(old.id);
            if new.scopes.is_empty() {
                new.scopes = old.scopes;
            }
            for (name, value) in old.profile {
                new.profile.entry(name).or_insert(value);
            }
        }
        self.tokens = Some(new);
        self.clock_offset = clock_offset;
        self.generation += 1;
        self.refreshed_at = Some(SystemTime::now());
        self.intent = None;
        self.needs_login = None;
    }

    /// Takes over the tokens of a new login; nothing of an earlier one stays.
    pub fn log_in(&mut self, new: TokenSet, clock_offset: i64) {
        self.tokens = None;
        self.login = Some(random_id());
        self.renew(new, clock_offset);
    }

    /// Whether `stored` is what this record was before: somebody put a copy back whose refresh token has been
    /// redeemed since. Using it would end the grant.
    pub fn is_later_than(&self, stored: &Self) -> bool {
        let usable = self.tokens.is_some() && self.needs_login.is_none();
        usable && stored.is_earlier(self.login.as_deref(), self.generation)
    }

    /// Whether it is of this login, before this generation.
    pub fn is_earlier(&self, login: Option<&str>, generation: u64) -> bool {
        login.is_some() && self.login.as_deref() == login && self.generation < generation
    }

    /// When the access token ends on this machine's clock, which the endpoint's is ahead of by `clock_offset`
    /// seconds. A process that has not heard from the endpoint takes its own clock for that of whoever
    /// stored the tokens: most often it is the same one.
    pub fn ends_here(&self, clock_offset: Option<i64>) -> Option<SystemTime> {
        /// `Date` has whole seconds, and answers take time to arrive.
        const NEGLIGIBLE: u64 = 3;
        let end = self.tokens.as_ref()?.expires_at?;
        let offset = clock_offset
            .filter(|own| own.abs_diff(self.clock_offset) > NEGLIGIBLE)
            .unwrap_or(self.clock_offset);
        Some(shifted(end, offset.saturating_neg()))
    }

    /// Whether somebody is asking with a refresh token that may have been redeemed.
    pub fn is_doubtful(&self) -> bool {
        self.intent.as_ref().is_some_and(|intent| intent.doubtful)
    }

    /// Whether the login of a seed may be taken over: no other can be used, and it is not the one that was
    /// taken over before.
    pub fn wants_seed(&self, fingerprint: &str) -> bool {
        let usable = self.tokens.is_some() && self.needs_login.is_none();
        !usable && self.seed.as_deref() != Some(fingerprint)
    }

    /// The record as it is kept. The bytes are secret.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, RecordError> {
        let text = |secret: &Secret| {
            let text = std::str::from_utf8(secret.expose());
            text.map(|text| Zeroizing::new(text.to_owned()))
                .map_err(|_| RecordError::Malformed("a token is not text".to_owned()))
        };
        let tokens = match &self.tokens {
            None => None,
            Some(tokens) => Some(WrittenTokens {
                access: text(&tokens.access)?,
                refresh: tokens.refresh.as_ref().map(text).transpose()?,
                id: tokens.id.as_ref().map(text).transpose()?,
                expires_at: tokens.expires_at,
                issued_at: tokens.issued_at,
                scopes: tokens.scopes.clone(),
                profile: tokens.profile.clone(),
            }),
        };
        let written = Written {
            kind: KIND.to_owned(),
            version: VERSION,
            login: self.login.clone(),
            generation: self.generation,
            tokens,
            clock_offset: self.clock_offset,
            refreshed_at: self.refreshed_at,
            intent: self.intent.clone(),
            needs_login: self.needs_login.clone(),
            seed: self.seed.clone(),
        };
        // Large enough not to grow: growing leaves copies of tokens behind in freed memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
        serde_json::to_writer_pretty(&mut *bytes, &written)
            .map_err(|error| RecordError::Malformed(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what [`GrantRecord::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            version: u64,
        }
        // The library's own texts quote what they found, which may be a token.
        let place = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            RecordError::Malformed(format!("line {line}, column {column}"))
        };
        let head: Head = serde_json::from_slice(bytes).map_err(place)?;
        if head.kind != KIND {
            return Err(RecordError::Malformed(format!("its kind is not {KIND}")));
        }
        if head.version > VERSION {
            return Err(RecordError::Newer(head.version));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(place)?;
        let secret = |text: Zeroizing<String>| Secret::new(text.as_bytes().to_vec());
        Ok(Self {
            login: written.login,
            generation: written.generation,
            tokens: written.tokens.map(|tokens| TokenSet {
                access: secret(tokens.access),
                refresh: tokens.refresh.map(secret),
                id: tokens.id.map(secret),
                expires_at: tokens.expires_at,
                issued_at: tokens.issued_at,
                scopes: tokens.scopes,
                profile: tokens.profile,
            }),
            clock_offset: written.clock_offset,
            refreshed_at: written.refreshed_at,
            intent: written.intent,
            needs_login: written.needs_login,
            seed: written.seed,
        })
    }
}

/// Sixteen hexadecimal digits.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 8];
    // A repeated one only makes another process wait a little less.
    aws_lc_rs::rand::fill(&mut bytes).ok();
    format!("{:016x}", u64::from_be_bytes(bytes))
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "begun by {}", self.by)
    }
}

mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let timestamp = jiff::Timestamp::try_from(*time).map_err(ser::Error::custom)?;
        timestamp.to_string().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let timestamp: jiff::Timestamp = String::deserialize(from)?
            .parse()
            .map_err(|_| de::Error::custom("a time that is no RFC 3339 time"))?;
        Ok(timestamp.into())
    }
}

mod optional_rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "super::rfc3339")] SystemTime);

    #[expect(clippy::ref_option, reason = "serde hands it over like this")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Time>::deserialize(from)?.map(|time| time.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn record() -> GrantRecord {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        GrantRecord {
            login: Some("l".to_owned()),
            generation: 7,
            tokens: Some(TokenSet {
                access: Secret::from("access-sentinel".to_owned()),
                refresh: Some(Secret::from("refresh-sentinel".to_owned())),
                id: None,
                expires_at: Some(at + Duration::from_millis(1500)),
                issued_at: at,
                scopes: vec!["user:inference".to_owned()],
                profile: Map::from_iter([("plan".to_owned(), Value::from("max"))]),
            }),
            clock_offset: -600,
            refreshed_at: Some(at),
            intent: Some(Intent {
                id: "x".to_owned(),
                by: "host 1".to_owned(),
                at,
                doubtful: false,
            }),
            needs_login: None,
            seed: None,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = record();
        let read = GrantRecord::decode(&record.encode().unwrap()).unwrap();
        let (was, is) = (record.tokens.unwrap(), read.tokens.unwrap());
        assert_eq!((was.access, was.refresh), (is.access, is.refresh));
        assert_eq!((was.expires_at, was.profile), (is.expires_at, is.profile));
        assert_eq!(
            (record.intent, record.generation, record.clock_offset),
            (read.intent, read.generation, read.clock_offset)
        );
    }

    #[test]
    fn a_process_that_has_not_heard_from_the_endpoint_trusts_the_clock_of_the_one_that_has() {
        let (end, mut record) = (record().tokens.unwrap().expires_at.unwrap(), record());
        let minutes = |n: u64| Duration::from_secs(n * 60);
        for (theirs, ours, ends) in [
            (600, None, end),
            (-600, None, end),
            (600, Some(598), end),
            (0, Some(-1), end),
            // On another machine, whose clock is right.
            (600, Some(0), end + minutes(10)),
            (-600, Some(0), end - minutes(10)),
        ] {
            record.log_in(self::record().tokens.unwrap(), theirs);
            assert_eq!(record.ends_here(ours), Some(ends), "{theirs} {ours:?}");
        }
    }

    #[test]
    fn a_seed_is_wanted_once_and_only_where_no_login_can_be_used() {
        let mut record = GrantRecord::default();
        assert!(record.wants_seed("x"));
        record.log_in(self::record().tokens.unwrap(), 0);
        assert!(!record.wants_seed("x"));
        record.seed = Some("x".to_owned());
        record.needs_login = Some(NeedsLogin {
            since: UNIX_EPOCH,
            why: String::new(),
        });
        assert!(!record.wants_seed("x") && record.wants_seed("y"));
    }

    #[test]
    fn what_is_no_record_is_refused_without_showing_it() {
        let newer = br#"{"kind":"tollgate.dev/oauth-grant","version":9,"future":1}"#;
        assert_eq!(
            GrantRecord::decode(newer).err(),
            Some(RecordError::Newer(9))
        );
        for bytes in [
            b"".as_slice(),
            b"sk-ant-ort01-sentinel",
            br#"{"kind":"sentinel","version":1}"#,
            br#"{"kind":"tollgate.dev/oauth-grant","version":1,"generation":"sentinel"}"#,
        ] {
            let error = GrantRecord::decode(bytes).unwrap_err().to_string();
            assert!(!error.contains("sentinel"), "{error}");
        }
        assert!(!format!("{:?}", record()).contains("sentinel"));
    }
}
