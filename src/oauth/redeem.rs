//! Owns one renewal, in an order that survives a crash at every point: lock, read again, intent
//! durable, call, new tokens durable, and only then are they anybody's to use (RFC 6749, section 6;
//! refresh tokens are single-use, RFC 9700, section 4.14).

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

use super::endpoint_error::EndpointError;
use super::record::{GrantRecord, Intent, NeedsLogin, random_id};
use super::requester::TokenRequester;
use super::sightings::Sightings;
use super::store::{LockedStore, StoreError, TokenStore};
use super::token::TokenSet;
use crate::rt::pace::{back_off, jitter};
use crate::types::secret::Secret;

/// What one renewal works with.
pub struct Redeem<'a> {
    /// Where the grant is kept.
    pub store: &'a dyn TokenStore,
    /// Who asks for tokens.
    pub requester: &'a dyn TokenRequester,
    /// This process, as intents name it.
    pub me: &'a str,
    /// The generation to be replaced: if another process has done it, its tokens are taken.
    pub seen: u64,
    /// The login that this is a generation of, if that is known.
    pub login: Option<&'a str>,
    /// What is done where the refresh token may have been redeemed already.
    pub doubt: Doubt,
    /// Intents of others that this process has seen, and since when.
    pub sightings: &'a Sightings,
    /// Hears what happens on the way.
    pub tell: &'a (dyn Fn(Progress) + Send + Sync),
}

/// What is done where an earlier answer was lost, so that asking again may end the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Not as long as the access token is good: asking can only lose it.
    Wait,
    /// Ask once now.
    Ask,
}

/// What happens during a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The access token held may end any moment; it must not be used until the outcome is known.
    Doubtful,
    /// New tokens came and cannot be stored; storing is tried again. The old ones are still in use.
    Unstored(StoreError),
}

/// What a renewal came to; the record is stored.
#[derive(Debug)]
pub enum Renewal {
    /// The endpoint gave new tokens.
    Done(GrantRecord),
    /// Another process had done it, or did meanwhile: these are its tokens.
    Adopted(GrantRecord),
}

impl Renewal {
    /// The tokens, whoever asked for them.
    pub fn into_record(self) -> GrantRecord {
        match self {
            Self::Done(record) | Self::Adopted(record) => record,
        }
    }
}

/// Why there are no new tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedeemError {
    /// There is nothing to renew.
    #[error("there is no login yet")]
    NoLogin,
    /// The grant is gone.
    #[error("{}", .0.why)]
    NeedsLogin(NeedsLogin),
    /// The endpoint gave none, for now.
    #[error("{0}")]
    Endpoint(EndpointError),
    /// Another process may still be at it.
    #[error("{by} has begun to renew it and may still be at it")]
    Elsewhere {
        /// Who, as its intent says.
        by: String,
        /// How long to wait before it counts as abandoned.
        wait: Duration,
    },
    /// An earlier answer was lost, and the access token is still good.
    #[error("{0}; it is asked again when the access token has expired")]
    Doubtful(String),
    /// An older state than is known was put back into the store: its refresh token has been redeemed.
    #[error("{0} was put back to an older state; its refresh token has been used since")]
    PutBack(String),
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Whatever began now could be cut off in the middle.
    #[error("the process is ending")]
    Ending,
}

/// What somebody else made of a grant while new tokens were to be stored.
enum Overtaken {
    /// Nothing: ours may be written.
    No,
    /// A login or a renewal of its own, which counts.
    Yes(Box<GrantRecord>),
    /// It found that the grant is gone.
    Ended(NeedsLogin),
    /// That is not known yet.
    Unclear,
}

/// Longest wait for a lock that another process holds: longer than any redeem takes.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// Tokens that wait to be stored are tried at least this often: the way to the store may be open for a
/// moment only, and others do not wait for ever.
const STORING_PAUSE: Duration = Duration::from_secs(5);

impl Redeem<'_> {
    /// Renews, or takes what another process has renewed.
    pub async fn run(&self) -> Result<Renewal, RedeemError> {
        let locked = self.lock().await?;
        self.run_under(locked).await
    }

    /// Waits for the lock, which may take long.
    pub async fn lock(&self) -> Result<Box<dyn LockedStore>, StoreError> {
        let lock = tokio::time::timeout(LOCK_PATIENCE, self.store.lock());
        lock.await.unwrap_or_else(|_| {
            let place = self.store.place();
            Err(StoreError::Unavailable(format!(
                "another process has held the lock of {place} for {} s",
                LOCK_PATIENCE.as_secs()
            )))
        })
    }

    /// The rest, under the lock, which is let go at the end.
    pub async fn run_under(
        &self,
        mut locked: Box<dyn LockedStore>,
    ) -> Result<Renewal, RedeemError> {
        let outcome = self.locked(&mut locked).await;
        locked.release().await;
        outcome
    }

    async fn locked(&self, store: &mut Box<dyn LockedStore>) -> Result<Renewal, RedeemError> {
        let record = store.read().await?.unwrap_or_default();
        if record.generation > self.seen {
            return Ok(Renewal::Adopted(record));
        }
        if record.is_earlier(self.login, self.seen) {
            return Err(RedeemError::PutBack(self.store.place()));
        }
        if !self.requester.needs_refresh_token() {
            return self.ask_afresh(store, record).await;
        }
        if let Some(needs_login) = record.needs_login {
            return Err(RedeemError::NeedsLogin(needs_login));
        }
        let Some(tokens) = &record.tokens else {
            return Err(RedeemError::NoLogin);
        };
        let Some(refresh) = &tokens.refresh else {
            let why = "the login came without a refresh token and cannot be renewed";
            return Err(RedeemError::NeedsLogin(needs_login(why.to_owned())));
        };
        let refresh = Secret::new(refresh.expose().to_vec());
        let lost = self.judge(&record, store.abandoned_after())?;
        self.ask(store, record, &refresh, lost).await
    }

    /// The earlier renewal, if there is one without a known result: the refresh token may have been
    /// redeemed then. An error where it is too early to ask again.
    fn judge(
        &self,
        record: &GrantRecord,
        abandoned: Duration,
    ) -> Result<Option<Intent>, RedeemError> {
        let Some(intent) = &record.intent else {
            return Ok(None);
        };
        if self.sightings.is_void(intent) {
            return Ok(None);
        }
        if intent.by != self.me {
            let seen = self.sightings.since(intent);
            if seen < abandoned {
                return Err(RedeemError::Elsewhere {
                    by: intent.by.clone(),
                    wait: abandoned.saturating_sub(seen),
                });
            }
        }
        // Once it is withdrawn everywhere, nothing is gained by waiting.
        let in_use = !intent.doubtful && is_good(record, self.requester.learned_offset());
        if self.doubt == Doubt::Wait && in_use {
            return Err(RedeemError::Doubtful(no_result(intent)));
        }
        Ok(Some(intent.clone()))
    }

    async fn ask(
        &self,
        store: &mut Box<dyn LockedStore>,
        mut record: GrantRecord,
        refresh: &Secret,
        lost: Option<Intent>,
    ) -> Result<Renewal, RedeemError> {
        // Room for the answer first: without it, nothing is redeemed.
        store.reserve().await?;
        let (id, begun) = (random_id(), Instant::now());
        record.intent = Some(Intent {
            id: id.clone(),
            by: self.me.to_owned(),
            at: SystemTime::now(),
            doubtful: lost.is_some(),
        });
        if let Err(error) = store.write(&record).await {
            // It may be stored all the same. Nothing was asked, unless an earlier renewal did.
            if lost.is_none() {
                self.sightings.came_to_nothing(&id);
            }
            return Err(error.into());
        }
        if let Err(error) = store.reserve().await {
            // Nothing was asked; an intent that stays would look like a lost answer.
            record.intent = lost;
            self.note(store, &record, &id).await;
            return Err(error.into());
        }
        if lost.is_some() && is_good(&record, self.requester.learned_offset()) {
            (self.tell)(Progress::Doubtful);
            // Until every process that shares the store has looked at it and stopped using the token.
            sleep(self.store.poll_interval() * 2).await;
        }
        match self.requester.request(Some(refresh)).await {
            Ok(tokens) => self.keep(store, record, tokens, begun).await,
            Err(EndpointError::InvalidGrant(why)) => {
                let why = match &lost {
                    Some(lost) => format!(
                        "{}, and the refresh token is not accepted any more ({why})",
                        no_result(lost)
                    ),
                    None => format!(
                        "the token endpoint does not accept the refresh token any more ({why}): it expired, was revoked, or was used by another program"
                    ),
                };
                let needs_login = needs_login(why);
                record.intent = None;
                record.needs_login = Some(needs_login.clone());
                self.note(store, &record, &id).await;
                Err(RedeemError::NeedsLogin(needs_login))
            }
            // What is written down stays: this renewal has no known result.
            Err(error @ EndpointError::Unanswered(_)) => Err(RedeemError::Endpoint(error)),
            Err(error) => {
                // It did not act: what is known of the refresh token is what was known before.
                record.intent = lost;
                self.note(store, &record, &id).await;
                Err(RedeemError::Endpoint(error))
            }
        }
    }

    /// For grants that can be asked for at any time: there is nothing to lose.
    async fn ask_afresh(
        &self,
        store: &mut Box<dyn LockedStore>,
        record: GrantRecord,
    ) -> Result<Renewal, RedeemError> {
        let tokens = self
            .requester
            .request(None)
            .await
            .map_err(RedeemError::Endpoint)?;
        self.keep(store, record, tokens, Instant::now()).await
    }

    /// Stores new tokens. Once others may take the renewal that was begun at `begun` for abandoned, the
    /// access token in use is withdrawn: they may ask with the old refresh token, which can end it.
    async fn keep(
        &self,
        store: &mut Box<dyn LockedStore>,
        record: GrantRecord,
        tokens: TokenSet,
        begun: Instant,
    ) -> Result<Renewal, RedeemError> {
        let others = record.intent.as_ref().map(|_| store.abandoned_after());
        let withdrawal = async {
            match others.filter(|wait| !wait.is_zero()) {
                Some(wait) => sleep_until(begun + wait).await,
                // Nobody else asks while this process lives, or asking ends nothing.
                None => std::future::pending().await,
            }
            (self.tell)(Progress::Doubtful);
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            stored = self.store_at_last(store, record, tokens) => stored,
            never = withdrawal => match never {},
        }
    }

    /// However long that takes: the old refresh token is worth nothing any more. The lock stays held
    /// meanwhile, so that nobody redeems it.
    async fn store_at_last(
        &self,
        store: &mut Box<dyn LockedStore>,
        mut record: GrantRecord,
        tokens: TokenSet,
    ) -> Result<Renewal, RedeemError> {
        let generation = record.generation;
        let intent = record.intent.take();
        record.renew(tokens, self.requester.clock_offset());
        let mut failures = 0;
        loop {
            let error = match store.write(&record).await {
                Ok(()) => return Ok(Renewal::Done(record)),
                Err(error) => error,
            };
            if let StoreError::LockLost(_) = error
                && let Ok(again) = self.store.lock().await
            {
                *store = again;
            }
            if let StoreError::Conflict(_) | StoreError::LockLost(_) = error {
                match self.overtaken(store, generation, intent.as_ref()).await {
                    Overtaken::No => continue,
                    Overtaken::Yes(theirs) => return Ok(Renewal::Adopted(*theirs)),
                    Overtaken::Ended(needs_login) => {
                        return Err(RedeemError::NeedsLogin(needs_login));
                    }
                    Overtaken::Unclear => {}
                }
            }
            failures += 1;
            (self.tell)(Progress::Unstored(error));
            sleep(back_off(failures, jitter()).min(STORING_PAUSE)).await;
        }
    }

    /// After a conflict: what somebody else has made of the grant meanwhile. That happens only where a
    /// lock can be lost by a process that lives on, cut off from the store.
    async fn overtaken(
        &self,
        store: &mut Box<dyn LockedStore>,
        generation: u64,
        ours: Option<&Intent>,
    ) -> Overtaken {
        let theirs = match store.read().await {
            Ok(record) => record.unwrap_or_default(),
            Err(_) => return Overtaken::Unclear,
        };
        if theirs.generation > generation {
            return Overtaken::Yes(Box::new(theirs));
        }
        if let Some(needs_login) = theirs.needs_login {
            return Overtaken::Ended(needs_login);
        }
        match &theirs.intent {
            Some(intent) if Some(intent) != ours => {
                // Whoever wrote it may be asking with the refresh token that ours came from, which would
                // end our tokens too: its outcome counts.
                let abandoned = self.sightings.since(intent) >= store.abandoned_after();
                if abandoned {
                    Overtaken::No
                } else {
                    Overtaken::Unclear
                }
            }
            _ => Overtaken::No,
        }
    }

    /// Writes down what is only good to know, in the place of the intent `asked`: the outcome stands
    /// without it.
    async fn note(&self, store: &mut Box<dyn LockedStore>, record: &GrantRecord, asked: &str) {
        let mut written = store.write(record).await;
        // Somebody may have changed what stands beside it.
        if let Err(StoreError::Conflict(_)) = written
            && let Ok(Some(now)) = store.read().await
            && now.intent.is_some_and(|intent| intent.id == asked)
        {
            written = store.write(record).await;
        }
        if let Err(error) = written {
            tracing::warn!(%error, "the state of a renewal could not be stored");
        }
    }
}

/// Stores the tokens of a new login over whatever was held, however long that takes. `seed` tells where
/// they came from, if it was a seed: what another process has made of the same seed meanwhile stays.
pub async fn log_in(
    store: &dyn TokenStore,
    tokens: TokenSet,
    clock_offset: i64,
    seed: Option<String>,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<GrantRecord, StoreError> {
    let mut failures = 0;
    let mut wait = async |error| {
        failures += 1;
        tell(Progress::Unstored(error));
        sleep(back_off(failures, jitter()).min(STORING_PAUSE)).await;
    };
    let is_stale = |record: &GrantRecord| seed.as_ref().is_some_and(|s| !record.wants_seed(s));
    let (mut locked, mut record) = loop {
        match locked_record(store).await {
            // A seed is there the next time, too; what a person has just done is not.
            Err(error @ StoreError::Unavailable(_)) if seed.is_none() => wait(error).await,
            opened => break opened?,
        }
    };
    if !is_stale(&record) {
        record.log_in(tokens, clock_offset);
        record.seed = seed.clone().or(record.seed);
        while let Err(error) = locked.write(&record).await {
            if let StoreError::Conflict(_) = error
                && let Ok(theirs) = locked.read().await
            {
                let theirs = theirs.unwrap_or_default();
                if is_stale(&theirs) {
                    record = theirs;
                    break;
                }
                record.generation = record.generation.max(theirs.generation + 1);
            }
            wait(error).await;
        }
    }
    locked.release().await;
    Ok(record)
}

/// Stores `newest` over an earlier state of it. What somebody else has made of the grant meanwhile stays.
pub async fn put_forward(store: &dyn TokenStore, newest: &GrantRecord) -> Result<(), StoreError> {
    let (mut locked, stored) = locked_record(store).await?;
    let written = match newest.is_later_than(&stored) {
        true => locked.write(newest).await,
        false => Ok(()),
    };
    locked.release().await;
    written
}

/// Holds the lock and reads what is kept.
async fn locked_record(
    store: &dyn TokenStore,
) -> Result<(Box<dyn LockedStore>, GrantRecord), StoreError> {
    let mut locked = store.lock().await?;
    match locked.read().await {
        Ok(record) => Ok((locked, record.unwrap_or_default())),
        Err(error) => {
            locked.release().await;
            Err(error)
        }
    }
}

/// Whether the record's access token can still be used.
fn is_good(record: &GrantRecord, offset: Option<i64>) -> bool {
    let Some(tokens) = &record.tokens else {
        return false;
    };
    let end = record.ends_here(offset);
    let expired = end.is_some_and(|end| end <= SystemTime::now());
    !expired && !tokens.access.is_empty()
}

fn no_result(intent: &Intent) -> String {
    let at = jiff::Timestamp::try_from(intent.at)
        .map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"));
    format!(
        "a renewal that {} began at {at} has no known result (its answer was lost, or the process ended)",
        intent.by
    )
}

fn needs_login(why: String) -> NeedsLogin {
    NeedsLogin {
        since: SystemTime::now(),
        why,
    }
}

#[cfg(test)]
#[path = "redeem_tests.rs"]
mod tests;
