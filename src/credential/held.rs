//! Owns a credential's current value in memory: requests read it without waiting, a background
//! task renews it, and an expired value is never given out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::{hmac, rand};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::source::{Fetched, SourceError};
use crate::rt::deadline::Deadline;
use crate::types::secret::Secret;

/// A credential's name, its current value, and how its source is doing.
#[derive(Debug)]
pub struct HeldCredential {
    name: Arc<str>,
    origin: String,
    need: Need,
    state: ArcSwap<State>,
    writing: Mutex<()>,
    versions: watch::Sender<u64>,
    refresher: OnceLock<AbortOnDropHandle<()>>,
    renewer: OnceLock<Arc<dyn Renewer>>,
    renewing: watch::Sender<bool>,
    /// When the source last gave a value, and when an origin last refused one.
    marks: Mutex<Marks>,
    opening: u64,
    failures: AtomicU64,
}

/// Renews a credential ahead of its time, because an origin refused it.
pub trait Renewer: std::fmt::Debug + Send + Sync {
    /// Renews it unless that has happened since version `rejected`; many who ask share one renewal.
    /// It goes on when whoever asked leaves.
    ///
    /// Errors say why there is no new value; the request's first answer then stands.
    fn renew(&self, rejected: u64) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// Largest request body that is kept for the second try, in octets.
    fn replay_limit(&self) -> u64;
}

/// A renewal that is under way.
#[must_use]
pub struct RenewalUnderWay<'a>(&'a watch::Sender<bool>);

impl Drop for RenewalUnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

static OPENINGS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    renewed: Option<SystemTime>,
    rejected: Option<SystemTime>,
}

/// The secret that is current at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentSecret {
    /// The secret.
    pub secret: Arc<Secret>,
    /// Grows with each new value.
    pub version: u64,
    /// What belongs to it and never leaves: to look for it, never to use it.
    pub beside: Option<Arc<Secret>>,
}

/// Why a credential cannot be used now. Without any part of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credential `{credential}` cannot be used: {reason}")]
pub struct Unavailable {
    /// The credential's name.
    pub credential: Arc<str>,
    /// What is wrong with it, for people.
    pub reason: String,
}

/// Whether the proxy can be ready without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is not ready until there is a value.
    Required,
    /// It is ready anyway; using the placeholder is refused meanwhile.
    Optional,
}

/// How a credential is doing, for people and machines; holds no part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The credential's name.
    pub name: String,
    /// Where it comes from: `env:NAME`, `file:PATH`, `exec:PROGRAM`.
    pub source: String,
    /// Whether the proxy is ready without it.
    pub optional: bool,
    /// In one word.
    pub state: CredentialState,
    /// Since when it is in this state (RFC 3339).
    pub since: String,
    /// When the value held stops being used (RFC 3339).
    pub expires_at: Option<String>,
    /// What the source last failed with, until it works again.
    pub last_error: Option<String>,
    /// When the source last gave the value, or confirmed it (RFC 3339).
    pub last_renewal: Option<String>,
    /// When an origin last answered 401 to it (RFC 3339).
    pub last_rejection: Option<String>,
    /// Grows with each new value; 0 before the first.
    pub version: u64,
    /// Tells values apart within this process: a keyed hash, useless to anyone who guesses secrets.
    pub fingerprint: Option<String>,
}

/// How a credential is doing, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CredentialState {
    /// A valid value is held and its source works.
    Ok,
    /// A valid value is held; less than a tenth of its life is left, and nothing has failed yet.
    Expiring,
    /// The source has nothing, and no value is held.
    Missing,
    /// The source fails; the last good value, if there is one, is still used.
    Failing,
    /// The value held has expired and none came after it.
    Expired,
    /// A person must log in again; nothing is used until then.
    NeedsLogin,
}

impl CredentialState {
    /// The word of every state, as metrics have them.
    pub const WORDS: &[&str] = &[
        "ok",
        "expiring",
        "missing",
        "failing",
        "expired",
        "needs_login",
    ];

    /// The word of this one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Expiring => "expiring",
            Self::Missing => "missing",
            Self::Failing => "failing",
            Self::Expired => "expired",
            Self::NeedsLogin => "needs_login",
        }
    }
}

#[derive(Debug, Default)]
struct State {
    value: Option<Value>,
    failure: Option<Failure>,
}

#[derive(Debug, Clone)]
struct Value {
    current: CurrentSecret,
    since: SystemTime,
    expiry: Option<Expiry>,
    fingerprint: String,
}

#[derive(Debug, Clone)]
struct Failure {
    error: SourceError,
    since: SystemTime,
}

/// When a value ends.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    end: Deadline,
    /// From here on the value counts as expiring.
    late: SystemTime,
}

impl Expiry {
    fn new(at: SystemTime, now: SystemTime) -> Self {
        let left = at.duration_since(now).unwrap_or_default();
        Self {
            end: Deadline::new(at, now),
            late: at.checked_sub(left / 10).unwrap_or(at),
        }
    }
}

impl HeldCredential {
    /// A credential without a value yet. `origin` is its source as status shows it (`env:NAME`).
    pub fn new(name: &str, origin: String, need: Need) -> Arc<Self> {
        let nothing_yet = Failure {
            error: SourceError::Missing("it was not fetched yet".to_owned()),
            since: SystemTime::now(),
        };
        Arc::new(Self {
            name: name.into(),
            origin,
            need,
            state: ArcSwap::from_pointee(State {
                value: None,
                failure: Some(nothing_yet),
            }),
            writing: Mutex::new(()),
            versions: watch::Sender::new(0),
            refresher: OnceLock::new(),
            renewer: OnceLock::new(),
            renewing: watch::Sender::new(false),
            marks: Mutex::default(),
            opening: OPENINGS.fetch_add(1, Ordering::Relaxed),
            failures: AtomicU64::new(0),
        })
    }

    /// Tells this one from those that had its name before.
    pub fn opening(&self) -> u64 {
        self.opening
    }

    /// How often its source has failed. One that may be missing, and never was there, has not.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The credential's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The secret to use now.
    pub fn current(&self) -> Result<Arc<Secret>, Unavailable> {
        self.current_versioned().map(|current| current.secret)
    }

    /// The secret to use now, with its version.
    pub fn current_versioned(&self) -> Result<CurrentSecret, Unavailable> {
        self.current_at(SystemTime::now())
    }

    fn current_at(&self, now: SystemTime) -> Result<CurrentSecret, Unavailable> {
        let state = self.state.load();
        let because = match (&state.value, &state.failure) {
            (Some(value), _) if !value.expired(now) => return Ok(value.current.clone()),
            (Some(_), Some(failure)) => format!("it has expired; {}", failure.error),
            (Some(_), None) => "it has expired and was not renewed yet".to_owned(),
            (None, Some(failure)) => failure.error.to_string(),
            (None, None) => "it was not fetched yet".to_owned(),
        };
        Err(Unavailable {
            credential: self.name.clone(),
            reason: because,
        })
    }

    /// The version of the value held, expired or not; 0 before the first.
    pub fn value_version(&self) -> u64 {
        let state = self.state.load();
        state
            .value
            .as_ref()
            .map_or(0, |value| value.current.version)
    }

    /// The value held, expired or not: to look for it, never to use it.
    pub fn last(&self) -> Option<CurrentSecret> {
        let state = self.state.load();
        state.value.as_ref().map(|value| value.current.clone())
    }

    /// Whether the proxy can be ready: there is a value to use, or none is needed.
    pub fn is_ready(&self) -> bool {
        self.need == Need::Optional || self.current_versioned().is_ok()
    }

    /// How it is doing.
    pub fn status(&self) -> CredentialStatus {
        self.status_at(SystemTime::now())
    }

    fn status_at(&self, now: SystemTime) -> CredentialStatus {
        let held = self.state.load();
        let (state, since) = held.summary(now);
        let value = held.value.as_ref();
        let marks = *self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        CredentialStatus {
            name: self.name.to_string(),
            source: self.origin.clone(),
            optional: self.need == Need::Optional,
            state,
            since: rfc3339(since),
            expires_at: value
                .and_then(|v| v.expiry)
                .map(|expiry| rfc3339(expiry.end.at())),
            last_error: held.failure.as_ref().map(|f| f.error.to_string()),
            last_renewal: marks.renewed.map(rfc3339),
            last_rejection: marks.rejected.map(rfc3339),
            version: self.version(),
            fingerprint: value.map(|v| v.fingerprint.clone()),
        }
    }

    fn version(&self) -> u64 {
        *self.versions.borrow()
    }

    /// Hears of each new version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// Takes over what the source gave, or keeps the last good value and remembers the failure.
    pub fn report(&self, outcome: Result<Fetched, SourceError>) {
        match outcome {
            Ok(fetched) => self.keep(fetched),
            Err(error) => self.failed(error),
        }
    }

    /// Lets `renewer` renew it when an origin refuses it. The first one stays.
    pub fn renewed_by(&self, renewer: Arc<dyn Renewer>) {
        self.renewer.set(renewer).ok();
    }

    /// Who renews it when an origin refuses it, if anybody can.
    pub fn renewer(&self) -> Option<&Arc<dyn Renewer>> {
        self.renewer.get()
    }

    /// A renewal has begun; it is under way until what this returns is dropped.
    pub fn renewal(&self) -> RenewalUnderWay<'_> {
        self.renewing.send_replace(true);
        RenewalUnderWay(&self.renewing)
    }

    /// The renewal that is under way will take long: nobody waits for it any more.
    pub fn renewal_stalls(&self) {
        self.renewing.send_replace(false);
    }

    /// Waits for a renewal that is under way, at most `limit`. Says whether there was one.
    pub async fn wait_for_renewal(&self, limit: Duration) -> bool {
        let mut renewing = self.renewing.subscribe();
        if !*renewing.borrow_and_update() {
            return false;
        }
        // Whether it ended in time shows in what is held then.
        drop(tokio::time::timeout(limit, renewing.wait_for(|renewing| !renewing)).await);
        true
    }

    /// It was renewed at `at`, perhaps by another process.
    pub fn renewed(&self, at: SystemTime) {
        self.mark(|marks| marks.renewed = Some(at));
    }

    /// An origin answered 401 to it.
    pub fn rejected(&self) {
        self.mark(|marks| marks.rejected = Some(SystemTime::now()));
    }

    fn mark(&self, mark: impl FnOnce(&mut Marks)) {
        mark(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn keep(&self, fetched: Fetched) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        self.mark(|marks| marks.renewed = Some(now));
        let held = self.state.load();
        let expiry = fetched.expires_at.map(|at| Expiry::new(at, now));
        let value = match &held.value {
            Some(old) if *old.current.secret == fetched.secret => Value {
                current: CurrentSecret {
                    beside: match fetched.beside {
                        same if same.as_ref() == old.current.beside.as_deref() => {
                            old.current.beside.clone()
                        }
                        other => other.map(Arc::new),
                    },
                    ..old.current.clone()
                },
                expiry,
                since: match held.failure.is_some() || old.expired(now) {
                    true => now,
                    false => old.since,
                },
                ..old.clone()
            },
            _ => Value {
                fingerprint: fingerprint(&fetched.secret),
                current: CurrentSecret {
                    secret: Arc::new(fetched.secret),
                    version: self.version() + 1,
                    beside: fetched.beside.map(Arc::new),
                },
                since: now,
                expiry,
            },
        };
        let version = value.current.version;
        if held.value.is_none() || held.failure.is_some() {
            tracing::info!(credential = %self.name, version, "the credential can be used");
        } else if version != self.version() {
            tracing::info!(credential = %self.name, version, "the credential has a new value");
        }
        self.state.store(Arc::new(State {
            value: Some(value),
            failure: None,
        }));
        self.versions
            .send_if_modified(|last| std::mem::replace(last, version) != version);
    }

    fn failed(&self, error: SourceError) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.state.load();
        let never_there = held.value.is_none() && self.version() == 0;
        let is_missing = matches!(error, SourceError::Missing(_));
        if !(self.need == Need::Optional && never_there && is_missing) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let was_login =
            matches!(&held.failure, Some(f) if matches!(f.error, SourceError::NeedsLogin(_)));
        let is_login = matches!(error, SourceError::NeedsLogin(_));
        if is_login && !was_login {
            tracing::error!(credential = %self.name, reason = %error, "the credential needs a login");
        } else if held.value.is_some() && held.failure.is_none() {
            tracing::warn!(credential = %self.name, reason = %error, "its source fails; the last good value is still used");
        }
        let since = match &held.failure {
            Some(failure) if was_login == is_login => failure.since,
            _ => SystemTime::now(),
        };
        let value = match error.withdraws() {
            true => None,
            false => held.value.clone(),
        };
        self.state.store(Arc::new(State {
            value,
            failure: Some(Failure { error, since }),
        }));
    }

    /// Ties a background task to this credential: it is aborted when the last handle is dropped.
    pub fn owns(&self, refresher: JoinHandle<()>) {
        if let Err(second) = self.refresher.set(AbortOnDropHandle::new(refresher)) {
            second.abort();
        }
    }
}

impl Value {
    fn expired(&self, now: SystemTime) -> bool {
        self.expiry.is_some_and(|expiry| expiry.end.passed(now))
    }
}

impl State {
    fn summary(&self, now: SystemTime) -> (CredentialState, SystemTime) {
        match (&self.value, &self.failure) {
            (
                _,
                Some(
                    failure @ Failure {
                        error: SourceError::NeedsLogin(_),
                        ..
                    },
                ),
            ) => (CredentialState::NeedsLogin, failure.since),
            (Some(value), failure) if value.expired(now) => {
                let at = value.expiry.map(|expiry| expiry.end.at());
                let since = at.or(failure.as_ref().map(|f| f.since)).unwrap_or(now);
                (CredentialState::Expired, since.min(now))
            }
            (Some(value), None) => match value.expiry {
                Some(expiry) if now >= expiry.late => (CredentialState::Expiring, expiry.late),
                _ => (CredentialState::Ok, value.since),
            },
            (held, Some(failure)) => match (held, &failure.error) {
                (None, SourceError::Missing(_)) => (CredentialState::Missing, failure.since),
                _ => (CredentialState::Failing, failure.since),
            },
            (None, None) => (CredentialState::Missing, now),
        }
    }
}

fn rfc3339(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(timestamp) => format!("{timestamp:.0}"),
        Err(_) => "out of range".to_owned(),
    }
}

/// The first 8 hex digits of an HMAC whose key is drawn anew by each process.
fn fingerprint(secret: &Secret) -> String {
    static KEY: LazyLock<Option<hmac::Key>> =
        LazyLock::new(|| hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok());
    let Some(key) = KEY.as_ref() else {
        return "unknown".to_owned();
    };
    let tag = hmac::sign(key, secret.expose());
    let digits = tag.as_ref().iter().take(4);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    fn lasting(text: &str) -> Result<Fetched, SourceError> {
        Ok(Fetched::lasting(secret(text)))
    }

    fn broken() -> Result<Fetched, SourceError> {
        Err(SourceError::Broken("the helper failed".to_owned()))
    }

    fn held() -> Arc<HeldCredential> {
        HeldCredential::new("anthropic", "env:KEY".to_owned(), Need::Required)
    }

    #[test]
    fn versions_grow_with_new_values_only() {
        let held = held();
        let mut versions = held.subscribe();
        held.report(lasting("one"));
        held.report(lasting("one"));
        assert_eq!(*versions.borrow_and_update(), 1);
        held.report(lasting("two"));
        assert!(versions.has_changed().unwrap());
        assert_eq!(held.current_versioned().unwrap().version, 2);
        assert_eq!(held.current().unwrap().expose(), b"two");
    }

    #[tokio::test]
    async fn who_needs_a_value_waits_for_a_renewal_that_is_under_way_and_for_no_other() {
        let held = held();
        let long = Duration::from_secs(60);
        assert!(!held.wait_for_renewal(long).await);
        let renewal = held.renewal();
        let renewed = async {
            held.report(lasting("one"));
            drop(renewal);
        };
        let (waited, ()) = tokio::join!(held.wait_for_renewal(long), renewed);
        assert!(waited && held.current().is_ok());
        let renewal = held.renewal();
        held.renewal_stalls();
        assert!(!held.wait_for_renewal(long).await);
        drop(renewal);
    }

    #[test]
    fn a_failing_source_keeps_the_last_good_value_and_says_so() {
        let held = held();
        held.report(lasting("one"));
        held.report(broken());
        assert_eq!(held.current().unwrap().expose(), b"one");
        let status = held.status();
        assert_eq!(status.state, CredentialState::Failing);
        assert_eq!(status.last_error.as_deref(), Some("the helper failed"));
        assert_eq!(held.failures(), 1);
        held.report(lasting("one"));
        assert_eq!(held.status().state, CredentialState::Ok);
        assert_eq!(held.status().last_error, None);
    }

    #[test]
    fn an_expired_value_is_never_given_out() {
        let held = held();
        let expires_at = SystemTime::now() + Duration::from_secs(60);
        held.report(Ok(Fetched {
            secret: secret("one"),
            expires_at: Some(expires_at),
            beside: None,
        }));
        assert!(held.current().is_ok());
        assert!(held.current_at(expires_at).is_err());
        let status = held.status_at(expires_at + Duration::from_secs(1));
        assert_eq!(status.state, CredentialState::Expired);
        assert_eq!(Some(status.since), status.expires_at);
        held.report(broken());
        let unavailable = held.current_at(expires_at).unwrap_err().to_string();
        assert!(
            unavailable.contains("expired; the helper failed"),
            "{unavailable}"
        );
    }

    #[test]
    fn without_a_first_value_the_state_tells_missing_from_failing() {
        let held = held();
        assert_eq!(held.status().state, CredentialState::Missing);
        assert!(held.current().is_err() && !held.is_ready());
        held.report(broken());
        assert_eq!(held.status().state, CredentialState::Failing);
        assert!(HeldCredential::new("x", String::new(), Need::Optional).is_ready());
    }

    #[test]
    fn a_status_holds_no_part_of_the_secret() {
        let held = held();
        held.report(lasting("sentinel"));
        let json = serde_json::to_string(&held.status()).unwrap();
        assert!(
            json.contains(r#""state":"ok""#) && !json.contains("sentinel"),
            "{json}"
        );
        assert!(!format!("{held:?}").contains("sentinel"));
        let first = held.status().fingerprint.unwrap();
        assert_eq!(first.len(), 8);
        held.report(lasting("other"));
        assert_ne!(held.status().fingerprint.unwrap(), first);
    }
}
