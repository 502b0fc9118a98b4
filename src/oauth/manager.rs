//! Owns a grant for as long as a credential is in use: renews it ahead of its time, once for all who
//! ask, takes over what other processes store, and holds out only what is good and stored.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Interval, MissedTickBehavior};

use super::holding::{IN_DOUBT, hold_out};
use super::owner::{About, GrantOwner, GrantParts, NotDone, Order, Renewed, Standing};
use super::record::{GrantRecord, NeedsLogin};
use super::redeem::{Doubt, Progress, Redeem, RedeemError, Renewal, log_in, put_forward};
use super::schedule;
use super::sightings::Sightings;
use super::store::StoreError;
use super::token::TokenSet;
use crate::credential::held::HeldCredential;
use crate::credential::source::SourceError;
use crate::rt::deadline::Deadline;
use crate::rt::pace::{back_off, jitter};

/// How long a refusal by an origin is answered by a renewal only once: what it refuses may not be the token.
const FORCED_PAUSE: Duration = Duration::from_secs(60);
/// Tokens that are due so soon after they came are of no use to anybody.
const SOON: Duration = Duration::from_millis(100);
const ORDERS: usize = 64;

/// Starts to own `grant` for `held`. The second half ends when the store was read and, where that was
/// called for, the endpoint was asked for the first time.
pub fn own(grant: GrantParts, held: &Arc<HeldCredential>) -> (GrantOwner, oneshot::Receiver<()>) {
    let (orders, received) = mpsc::channel(ORDERS);
    let (about, seen) = watch::channel(About::default());
    let (started, first) = oneshot::channel();
    let owner = GrantOwner::new(held.name().into(), grant.replay_limit, orders, seen);
    held.renewed_by(Arc::new(owner.clone()));
    let manager = Manager {
        grant: Arc::new(grant),
        held: Arc::downgrade(held),
        sightings: Arc::default(),
        about,
        record: GrantRecord::default(),
        known: false,
        failures: 0,
        vain: 0,
        wake: None,
        forced: None,
    };
    held.owns(tokio::spawn(manager.run(received, started)));
    (owner, first)
}

struct Manager {
    grant: Arc<GrantParts>,
    held: Weak<HeldCredential>,
    sightings: Arc<Sightings>,
    about: watch::Sender<About>,
    /// What the store held when it was last looked at.
    record: GrantRecord,
    /// Whether it could be looked at yet.
    known: bool,
    failures: u32,
    /// Renewals in a row whose tokens were due again as they came.
    vain: u32,
    /// When to renew.
    wake: Option<Deadline>,
    /// When an origin's refusal last led to a renewal.
    forced: Option<Instant>,
}

impl Manager {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, started: oneshot::Sender<()>) {
        self.start().await;
        // Nobody may be waiting any more.
        started.send(()).ok();
        let mut look = self.looks();
        loop {
            let wake = self.wake;
            let due = async move {
                match wake {
                    Some(wake) => wake.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                () = due => self.renew(Doubt::Wait).await,
                _ = look.tick() => {
                    self.look().await;
                    self.plant().await;
                }
            }
        }
    }

    /// When to look at the store.
    fn looks(&self) -> Interval {
        let mut looks = tokio::time::interval(self.grant.store.poll_interval());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        looks
    }

    /// Takes over what is stored; renews at once what is due, or what was left half done.
    async fn start(&mut self) {
        self.look().await;
        self.plant().await;
        let due = self.wake.is_some_and(|wake| wake.passed(SystemTime::now()));
        let interrupted = self.record.intent.is_some() && self.record.needs_login.is_none();
        if interrupted || (self.known && due) {
            self.renew(Doubt::Ask).await;
        }
    }

    /// Looks at the store for what other processes and commands have written.
    async fn look(&mut self) {
        match self.grant.store.read().await {
            Ok(record) => {
                let record = record.unwrap_or_default();
                if self.record.is_later_than(&record) {
                    return self.put_forward().await;
                }
                if let Some(intent) = &record.intent {
                    // However long another process is at it is counted from here.
                    self.sightings.since(intent);
                }
                if !self.known || is_news(&self.record, &record) {
                    self.known = true;
                    self.publish(record);
                    if self.vain > 0 {
                        self.slow_down();
                    }
                } else if self.record.is_doubtful() != record.is_doubtful() {
                    // Nothing to try sooner for: another process is trying.
                    self.record = record;
                    self.hold_out();
                }
            }
            Err(error) if !self.known => {
                self.report(SourceError::Broken(error.to_string()));
            }
            Err(error) => tracing::debug!(%error, "the token store cannot be looked at"),
        }
    }

    /// Stores what is held here again: a copy of an earlier state was put in its place.
    async fn put_forward(&mut self) {
        tracing::warn!(
            credential = self.name(),
            "an older state of the grant was put into its store; the one in use is stored again"
        );
        let copy = self.record.encode();
        let Ok(newest) = copy.and_then(|bytes| GrantRecord::decode(&bytes)) else {
            return;
        };
        let grant = self.grant.clone();
        let storing = async move { put_forward(&*grant.store, &newest).await };
        if let Ok(Err(error)) = self.grant.tasks.spawn(storing).await {
            self.report(SourceError::Broken(error.to_string()));
        }
    }

    /// Takes the seed over where there is no usable login, unless it was taken over before.
    async fn plant(&mut self) {
        let usable = self.record.tokens.is_some() && self.record.needs_login.is_none();
        let Some(seed) = self.grant.seed.as_ref().filter(|_| self.known && !usable) else {
            return;
        };
        match seed.take() {
            Ok(planted) if !self.record.wants_seed(&planted.fingerprint) => {}
            Ok(planted) => {
                tracing::info!(credential = self.name(), "the seed's login is taken over");
                // An outcome that cannot be stored is reported on the way.
                self.log_in(planted.tokens, Some(planted.fingerprint))
                    .await
                    .ok();
                if self.wake.is_some_and(|wake| wake.passed(SystemTime::now())) {
                    self.renew(Doubt::Ask).await;
                }
            }
            Err(why) if self.record.tokens.is_none() => {
                self.report(SourceError::Missing(format!(
                    "its seed cannot be used: {why}"
                )));
            }
            Err(_) => {}
        }
    }

    async fn obey(&mut self, order: Order) {
        // Whoever asked may have left; the work is done all the same.
        match order {
            Order::Renew { rejected, answer } => {
                let outcome = self.renew_rejected(rejected).await;
                answer.send(outcome).ok();
            }
            Order::Refresh { answer } => {
                let outcome = self.renew_now().await;
                answer.send(outcome).ok();
            }
            Order::Adopt { tokens, answer } => {
                let outcome = self.log_in(*tokens, None).await;
                answer.send(outcome).ok();
            }
        }
    }

    async fn renew_rejected(&mut self, rejected: u64) -> Result<Renewed, NotDone> {
        let Some(held) = self.held.upgrade() else {
            return Err(NotDone("the credential is not in use any more".to_owned()));
        };
        let current = held.current_versioned().map(|current| current.version);
        if current.is_ok_and(|version| version > rejected) {
            return Ok(self.renewed());
        }
        if self.forced.is_some_and(|at| at.elapsed() < FORCED_PAUSE) {
            let why = "it was renewed a moment ago, and the origin refuses it still";
            return Err(NotDone(why.to_owned()));
        }
        self.forced = Some(Instant::now());
        self.renew_now().await
    }

    async fn renew_now(&mut self) -> Result<Renewed, NotDone> {
        let before = self.record.generation;
        self.renew(Doubt::Ask).await;
        if self.record.generation > before {
            return Ok(self.renewed());
        }
        let why = self
            .held
            .upgrade()
            .and_then(|held| held.status().last_error);
        Err(NotDone(
            why.unwrap_or_else(|| "there is nothing to renew".to_owned()),
        ))
    }

    fn renewed(&self) -> Renewed {
        Renewed {
            generation: self.record.generation,
            expires_at: self.record.ends_here(self.clock_offset()),
        }
    }

    /// Renews in a task of its own, which goes on if the credential is dropped meanwhile.
    async fn renew(&mut self, doubt: Doubt) {
        let (grant, sightings) = (self.grant.clone(), self.sightings.clone());
        let (seen, tell) = (self.record.generation, self.teller());
        let login = self.record.login.clone();
        let renewal = self.grant.tasks.spawn(async move {
            let redeem = Redeem {
                store: &*grant.store,
                requester: &*grant.requester,
                me: &grant.me,
                seen,
                login: login.as_deref(),
                doubt,
                sightings: &sightings,
                tell: &tell,
            };
            let locked = redeem.lock().await?;
            // Checked where the end of the process waits for this task already.
            if grant.tasks.is_closed() {
                locked.release().await;
                return Err(RedeemError::Ending);
            }
            redeem.run_under(locked).await
        });
        let held = self.held.upgrade();
        let _under_way = held.as_ref().map(|held| held.renewal());
        match self.looking_on(renewal).await {
            Ok(Ok(renewal)) => {
                (self.grant.count)(match renewal {
                    Renewal::Done(_) => "ok",
                    Renewal::Adopted(_) => "adopted",
                });
                self.publish(renewal.into_record());
                self.slow_down();
            }
            Ok(Err(error)) => self.failed(error).await,
            Err(_) => {
                let broken_off = "the renewal was broken off".to_owned();
                let error = StoreError::Unavailable(broken_off);
                self.failed(error.into()).await;
            }
        }
    }

    /// Waits for `work`, which may wait for another process's lock. Whoever holds that may put the grant at
    /// risk, or find that it is gone: its token must not be used here any more then.
    async fn looking_on<T>(&mut self, mut work: JoinHandle<T>) -> Result<T, JoinError> {
        let mut look = self.looks();
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = look.tick() => self.look().await,
            }
        }
    }

    /// An endpoint whose tokens end as they come is asked as seldom as one that fails.
    fn slow_down(&mut self) {
        let now = SystemTime::now();
        if self.wake.is_none_or(|wake| wake.left(now) > SOON) {
            self.vain = 0;
            return;
        }
        self.vain = self.vain.saturating_add(1);
        let pause = back_off(self.vain, jitter());
        self.wake = Some(Deadline::after(pause));
        let held = self.held.upgrade();
        if held.is_some_and(|held| held.current().is_err()) {
            self.report(SourceError::Broken(format!(
                "the token endpoint gave an access token that had expired when it came; the next try is in {} s",
                pause.as_secs().max(1)
            )));
        }
    }

    async fn failed(&mut self, error: RedeemError) {
        if let RedeemError::NeedsLogin(needs_login) = error {
            (self.grant.count)("needs_login");
            self.end(&needs_login);
            return;
        }
        // What it has left behind tells whether the access token may still be used.
        let before = self.record.generation;
        self.look().await;
        if self.record.generation > before || self.record.needs_login.is_some() {
            return;
        }
        if error != RedeemError::NoLogin {
            (self.grant.count)("failed");
        }
        self.failures = self.failures.saturating_add(1);
        let left = match self.grant.requester.needs_refresh_token() {
            true => schedule::left(&self.record, self.clock_offset()),
            // Asking again can lose nothing.
            false => Duration::ZERO,
        };
        let pause = schedule::pause(&error, self.failures, left);
        self.wake = match error {
            RedeemError::NoLogin => None,
            _ => Some(Deadline::after(pause)),
        };
        // It may have been withdrawn on the way, and turned out to be as good as before.
        let withdrawn = self
            .held
            .upgrade()
            .is_some_and(|held| held.current().is_err());
        if withdrawn && !self.record.is_doubtful() {
            self.hold_out();
        }
        let next = match self.wake {
            Some(_) => format!("; the next try is in {} s", pause.as_secs().max(1)),
            None => String::new(),
        };
        self.report(SourceError::Broken(format!("{error}{next}")));
    }

    /// Stores the tokens of a new login and uses them from then on.
    async fn log_in(&mut self, tokens: TokenSet, seed: Option<String>) -> Result<Renewed, NotDone> {
        let (grant, tell) = (self.grant.clone(), self.teller());
        let storing = self.grant.tasks.spawn(async move {
            if grant.tasks.is_closed() {
                return Err(StoreError::Unavailable("the process is ending".to_owned()));
            }
            let offset = grant.requester.clock_offset();
            log_in(&*grant.store, tokens, offset, seed, &tell).await
        });
        match self.looking_on(storing).await {
            Ok(Ok(record)) => {
                self.publish(record);
                Ok(self.renewed())
            }
            Ok(Err(error)) => {
                self.report(SourceError::Broken(error.to_string()));
                Err(NotDone(error.to_string()))
            }
            Err(_) => Err(NotDone("the login could not be stored".to_owned())),
        }
    }

    /// Holds out what the store has now.
    fn publish(&mut self, record: GrantRecord) {
        self.record = record;
        self.failures = 0;
        let now = SystemTime::now();
        let (standing, wake) = match (&self.record.needs_login, &self.record.tokens) {
            (Some(_), _) => (Standing::NeedsLogin, None),
            (None, None) if self.grant.requester.needs_refresh_token() => (Standing::Absent, None),
            _ => (Standing::Held, self.due(now)),
        };
        let tokens = self.record.tokens.as_ref();
        self.about.send_replace(About {
            standing,
            scopes: tokens
                .map(|t| t.scopes.as_slice().into())
                .unwrap_or_default(),
            profile: tokens
                .map(|t| Arc::new(t.profile.clone()))
                .unwrap_or_default(),
        });
        self.wake = wake.map(|at| Deadline::new(at, now));
        self.hold_out();
    }

    fn hold_out(&self) {
        if let Some(held) = self.held.upgrade() {
            hold_out(&held, &self.record, self.clock_offset());
        }
    }

    fn clock_offset(&self) -> Option<i64> {
        self.grant.requester.learned_offset()
    }

    fn due(&self, now: SystemTime) -> Option<SystemTime> {
        let before = self.grant.refresh_before;
        schedule::due(&self.record, self.clock_offset(), before, now)
    }

    fn end(&mut self, needs_login: &NeedsLogin) {
        self.record.needs_login = Some(needs_login.clone());
        let record = std::mem::take(&mut self.record);
        self.publish(record);
    }

    fn teller(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let held = self.held.clone();
        move |progress| {
            let Some(held) = held.upgrade() else {
                return;
            };
            held.report(Err(match progress {
                Progress::Doubtful => SourceError::Withdrawn(IN_DOUBT.to_owned()),
                Progress::Unstored(error) => {
                    held.renewal_stalls();
                    SourceError::Broken(format!(
                        "new tokens cannot be stored, and are not used until they are: {error}"
                    ))
                }
            }));
        }
    }

    fn report(&self, error: SourceError) {
        if let Some(held) = self.held.upgrade() {
            held.report(Err(error));
        }
    }

    fn name(&self) -> String {
        self.held
            .upgrade()
            .map_or_else(String::new, |held| held.name().to_owned())
    }
}

/// Whether other tokens are stored, or a login is needed that was not. Only other tokens end that need:
/// it is known here also where it could not be stored.
fn is_news(known: &GrantRecord, stored: &GrantRecord) -> bool {
    let ended = stored.needs_login.is_some() && known.needs_login != stored.needs_login;
    known.generation != stored.generation || ended
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
