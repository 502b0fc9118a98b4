//! A provider that forgives nothing and a store that can be cut off at any step, for the tests of this floor.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Map;
use tokio::sync::OwnedMutexGuard;
use tokio::task::yield_now;

use super::endpoint_error::EndpointError;
use super::record::GrantRecord;
use super::requester::TokenRequester;
use super::store::{LockedStore, StoreError, TokenStore};
use super::token::TokenSet;
use crate::types::secret::Secret;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A provider that gives refresh tokens out once and ends the grant when one comes back.
#[derive(Debug)]
pub(super) struct Provider {
    tokens: Mutex<Tokens>,
    calls: AtomicUsize,
    answers: Mutex<Vec<Fate>>,
    life: Duration,
    /// It takes no refresh token, as with client credentials.
    afresh: bool,
}

#[derive(Debug, Default)]
struct Tokens {
    number: usize,
    revoked: bool,
    end: Option<SystemTime>,
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    LostAfterRotation,
    LostBefore,
    Down,
    Unreachable,
}

impl Default for Provider {
    fn default() -> Self {
        Self::new(HOUR)
    }
}

impl Provider {
    /// Its access tokens live this long.
    pub(super) fn new(life: Duration) -> Self {
        Self {
            tokens: Mutex::default(),
            calls: AtomicUsize::new(0),
            answers: Mutex::default(),
            life,
            afresh: false,
        }
    }

    /// One that gives tokens of this life to whoever asks.
    pub(super) fn afresh(life: Duration) -> Self {
        Self {
            afresh: true,
            ..Self::new(life)
        }
    }

    /// What becomes of the next calls.
    pub(super) fn next(&self, fates: &[Fate]) {
        let mut answers = self.answers.lock().unwrap();
        answers.extend(fates.iter().rev());
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn revoke(&self) {
        self.tokens.lock().unwrap().revoked = true;
    }

    pub(super) fn access_is_live(&self, access: &Secret) -> bool {
        let tokens = self.tokens.lock().unwrap();
        let expired = tokens.end.is_some_and(|end| end <= SystemTime::now());
        !tokens.revoked
            && !expired
            && access.expose() == format!("access-{}", tokens.number).as_bytes()
    }

    pub(super) fn rotations(&self) -> usize {
        self.tokens.lock().unwrap().number
    }

    fn rotate(&self, refresh: Option<&Secret>) -> Result<TokenSet, EndpointError> {
        let mut tokens = self.tokens.lock().unwrap();
        let current = format!("refresh-{}", tokens.number);
        let known = refresh.is_some_and(|refresh| refresh.expose() == current.as_bytes());
        if tokens.revoked || !(known || self.afresh) {
            tokens.revoked = true;
            return Err(EndpointError::InvalidGrant("reused".to_owned()));
        }
        tokens.number += 1;
        tokens.end = Some(SystemTime::now() + self.life);
        Ok(token_set(tokens.number, self.life))
    }
}

impl TokenRequester for Provider {
    fn needs_refresh_token(&self) -> bool {
        !self.afresh
    }

    fn request<'a>(
        &'a self,
        refresh: Option<&'a Secret>,
    ) -> BoxFuture<'a, Result<TokenSet, EndpointError>> {
        async move {
            yield_now().await;
            self.calls.fetch_add(1, Ordering::Relaxed);
            let fate = self.answers.lock().unwrap().pop();
            let text = || "said so".to_owned();
            match fate {
                Some(Fate::Unreachable) => return Err(EndpointError::Unreachable(text())),
                Some(Fate::Down) => return Err(EndpointError::Failed(text())),
                Some(Fate::LostBefore) => return Err(EndpointError::Unanswered(text())),
                _ => {}
            }
            let answer = self.rotate(refresh);
            yield_now().await;
            match fate {
                Some(Fate::LostAfterRotation) => Err(EndpointError::Unanswered(text())),
                _ => answer,
            }
        }
        .boxed()
    }

    fn learned_offset(&self) -> Option<i64> {
        None
    }
}

pub(super) fn token_set(number: usize, life: Duration) -> TokenSet {
    let now = SystemTime::now();
    TokenSet {
        access: Secret::from(format!("access-{number}")),
        refresh: Some(Secret::from(format!("refresh-{number}"))),
        id: None,
        expires_at: Some(now + life),
        issued_at: now,
        scopes: Vec::new(),
        profile: Map::new(),
    }
}

/// Storage that survives whoever writes to it.
#[derive(Debug, Default)]
pub(super) struct Disk {
    bytes: Mutex<Option<Vec<u8>>>,
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Reservations for which there is room, if there is an end to it.
    pub(super) room_for: Mutex<Option<usize>>,
    /// Writes that fail before one succeeds.
    pub(super) broken_writes: AtomicUsize,
}

impl Disk {
    pub(super) fn with_login(life: Duration) -> Self {
        let disk = Self::default();
        let mut record = GrantRecord::default();
        record.log_in(token_set(0, life), 0);
        disk.put(&record);
        disk
    }

    pub(super) fn put(&self, record: &GrantRecord) {
        *self.bytes.lock().unwrap() = Some(record.encode().unwrap().to_vec());
    }

    pub(super) fn clear(&self) {
        *self.bytes.lock().unwrap() = None;
    }

    pub(super) fn record(&self) -> GrantRecord {
        let bytes = self.bytes.lock().unwrap();
        GrantRecord::decode(bytes.as_deref().unwrap()).unwrap()
    }
}

#[derive(Debug, Clone)]
pub(super) struct DiskStore(pub(super) Arc<Disk>);

impl TokenStore for DiskStore {
    fn place(&self) -> String {
        "disk".to_owned()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }

    fn read(&self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        async {
            let empty = self.0.bytes.lock().unwrap().is_none();
            Ok((!empty).then(|| self.0.record()))
        }
        .boxed()
    }

    fn poll_interval(&self) -> Duration {
        Duration::from_millis(10)
    }

    fn lock(&self) -> BoxFuture<'_, Result<Box<dyn LockedStore>, StoreError>> {
        async {
            let guard = self.0.lock.clone().lock_owned().await;
            let locked = LockedDisk(self.0.clone(), guard);
            Ok(Box::new(locked) as Box<dyn LockedStore>)
        }
        .boxed()
    }
}

struct LockedDisk(Arc<Disk>, #[expect(dead_code)] OwnedMutexGuard<()>);

impl LockedStore for LockedDisk {
    fn read(&mut self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        async {
            yield_now().await;
            let empty = self.0.bytes.lock().unwrap().is_none();
            Ok((!empty).then(|| self.0.record()))
        }
        .boxed()
    }

    fn write<'a>(&'a mut self, record: &'a GrantRecord) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            yield_now().await;
            let broken = &self.0.broken_writes;
            let tick = |left: usize| left.checked_sub(1);
            // The intent's write comes first and is not meant.
            if record.intent.is_none()
                && broken
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, tick)
                    .is_ok()
            {
                return Err(StoreError::Full("no room".to_owned()));
            }
            self.0.put(record);
            yield_now().await;
            Ok(())
        }
        .boxed()
    }

    fn reserve(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            yield_now().await;
            let mut room = self.0.room_for.lock().unwrap();
            match room.as_mut() {
                Some(0) => Err(StoreError::Full("no room".to_owned())),
                Some(left) => {
                    *left -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn abandoned_after(&self) -> Duration {
        Duration::ZERO
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}
