//! One renewal against a strict endpoint and a store that can be cut off at every step.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Map;
use tokio::sync::OwnedMutexGuard;
use tokio::task::yield_now;

use super::*;

/// A provider that gives refresh tokens out once and ends the grant when one comes back.
#[derive(Debug, Default)]
struct Provider {
    tokens: Mutex<Tokens>,
    calls: AtomicUsize,
    answers: Mutex<Vec<Fate>>,
}

#[derive(Debug, Default)]
struct Tokens {
    number: usize,
    revoked: bool,
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    LostAfterRotation,
    LostBefore,
    Down,
    Unreachable,
}

impl Provider {
    fn access_is_live(&self, access: &Secret) -> bool {
        let tokens = self.tokens.lock().unwrap();
        !tokens.revoked && access.expose() == format!("access-{}", tokens.number).as_bytes()
    }

    fn rotations(&self) -> usize {
        self.tokens.lock().unwrap().number
    }

    fn rotate(&self, refresh: &Secret) -> Result<TokenSet, EndpointError> {
        let mut tokens = self.tokens.lock().unwrap();
        if tokens.revoked || refresh.expose() != format!("refresh-{}", tokens.number).as_bytes() {
            tokens.revoked = true;
            return Err(EndpointError::InvalidGrant("reused".to_owned()));
        }
        tokens.number += 1;
        Ok(token_set(tokens.number, Duration::from_secs(3600)))
    }
}

impl TokenRequester for Provider {
    fn needs_refresh_token(&self) -> bool {
        true
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
            let answer = self.rotate(refresh.unwrap());
            yield_now().await;
            match fate {
                Some(Fate::LostAfterRotation) => Err(EndpointError::Unanswered(text())),
                _ => answer,
            }
        }
        .boxed()
    }

    fn clock_offset(&self) -> i64 {
        0
    }
}

fn token_set(number: usize, life: Duration) -> TokenSet {
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
struct Disk {
    bytes: Mutex<Option<Vec<u8>>>,
    lock: Arc<tokio::sync::Mutex<()>>,
    full: AtomicBool,
    /// Writes that fail before one succeeds.
    broken_writes: AtomicUsize,
}

impl Disk {
    fn with_login(life: Duration) -> Self {
        let disk = Self::default();
        let mut record = GrantRecord::default();
        record.log_in(token_set(0, life), 0);
        disk.put(&record);
        disk
    }

    fn put(&self, record: &GrantRecord) {
        *self.bytes.lock().unwrap() = Some(record.encode().unwrap().to_vec());
    }

    fn record(&self) -> GrantRecord {
        let bytes = self.bytes.lock().unwrap();
        GrantRecord::decode(bytes.as_deref().unwrap()).unwrap()
    }
}

#[derive(Debug, Clone)]
struct DiskStore(Arc<Disk>);

impl TokenStore for DiskStore {
    fn place(&self) -> String {
        "disk".to_owned()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }

    fn read(&self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        async { Ok(Some(self.0.record())) }.boxed()
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
            Ok(Some(self.0.record()))
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
            match self.0.full.load(Ordering::Relaxed) {
                true => Err(StoreError::Full("no room".to_owned())),
                false => Ok(()),
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

/// One process that shares the disk.
struct Process {
    name: &'static str,
    disk: Arc<Disk>,
    sightings: Sightings,
    told: Mutex<Vec<Progress>>,
}

impl Process {
    fn new(name: &'static str, disk: &Arc<Disk>) -> Self {
        Self {
            name,
            disk: disk.clone(),
            sightings: Sightings::default(),
            told: Mutex::default(),
        }
    }

    async fn renew(
        &self,
        provider: &Provider,
        seen: u64,
        doubt: Doubt,
    ) -> Result<GrantRecord, RedeemError> {
        let tell = |progress| self.told.lock().unwrap().push(progress);
        let redeem = Redeem {
            store: &DiskStore(self.disk.clone()),
            requester: provider,
            me: self.name,
            seen,
            doubt,
            sightings: &self.sightings,
            tell: &tell,
        };
        redeem.run().await
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Polls a future at most `steps` times, then drops it as a killed process does. Says whether it ended.
async fn killed_after<T>(steps: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..steps {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(outcome) = polled {
            return Some(outcome);
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn killed_at_every_step_the_grant_survives_or_a_login_is_asked_for() {
    let (mut survived, mut lost) = (0, 0);
    for steps in 0.. {
        let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
        let first = Process::new("first", &disk);
        if killed_after(steps, first.renew(&provider, 1, Doubt::Wait))
            .await
            .is_some()
        {
            assert_eq!((provider.rotations(), disk.record().generation), (1, 2));
            break;
        }
        let rotated = provider.rotations() == 1;
        let stored = disk.record().generation == 2;
        let second = Process::new("second", &disk);
        let seen = disk.record().generation;
        match second.renew(&provider, seen, Doubt::Ask).await {
            Ok(record) => {
                assert!(
                    provider.access_is_live(&record.tokens.unwrap().access),
                    "step {steps}"
                );
                assert!(stored || !rotated, "step {steps}");
                survived += 1;
            }
            Err(RedeemError::NeedsLogin(needs_login)) => {
                assert!(rotated && !stored, "step {steps}: {}", needs_login.why);
                assert!(needs_login.why.contains("first"), "{}", needs_login.why);
                lost += 1;
                let calls = provider.calls.load(Ordering::Relaxed);
                let again = second.renew(&provider, seen, Doubt::Ask).await;
                assert!(matches!(again, Err(RedeemError::NeedsLogin(_))));
                assert_eq!(
                    provider.calls.load(Ordering::Relaxed),
                    calls,
                    "it asked again"
                );
            }
            Err(error) => panic!("step {steps}: {error}"),
        }
    }
    assert!(
        survived >= 5 && lost >= 1,
        "{survived} survived, {lost} lost"
    );
}

#[tokio::test(start_paused = true)]
async fn of_many_processes_one_redeems_and_the_others_take_its_tokens() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    let processes: Vec<Process> = (0..16)
        .map(|_| Process::new("one of many", &disk))
        .collect();
    let renewals = processes.iter().map(|p| p.renew(&provider, 1, Doubt::Wait));
    for outcome in futures_util::future::join_all(renewals).await {
        let record = outcome.unwrap();
        assert!(provider.access_is_live(&record.tokens.unwrap().access));
    }
    assert_eq!(provider.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn new_tokens_are_nobodys_until_they_are_stored() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    disk.broken_writes.store(3, Ordering::Relaxed);
    let process = Process::new("first", &disk);
    let record = process.renew(&provider, 1, Doubt::Wait).await.unwrap();
    assert_eq!(disk.record().generation, record.generation);
    let unstored = Progress::Unstored(StoreError::Full("no room".to_owned()));
    assert_eq!(*process.told.lock().unwrap(), vec![unstored; 3]);
    assert_eq!(provider.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn without_room_for_the_answer_nothing_is_redeemed() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    disk.full.store(true, Ordering::Relaxed);
    let process = Process::new("first", &disk);
    let error = process.renew(&provider, 1, Doubt::Ask).await.unwrap_err();
    assert!(matches!(error, RedeemError::Store(StoreError::Full(_))));
    assert_eq!(provider.calls.load(Ordering::Relaxed), 0);
    assert!(disk.record().intent.is_none());
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_good_token_is_kept_and_the_refresh_token_tried_once_more_at_its_end()
 {
    for (fate, survives) in [(Fate::LostBefore, true), (Fate::LostAfterRotation, false)] {
        let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
        provider.answers.lock().unwrap().push(fate);
        let process = Process::new("first", &disk);
        let error = process.renew(&provider, 1, Doubt::Wait).await.unwrap_err();
        assert!(matches!(
            error,
            RedeemError::Endpoint(EndpointError::Unanswered(_))
        ));
        let error = process.renew(&provider, 1, Doubt::Wait).await.unwrap_err();
        assert!(matches!(error, RedeemError::Doubtful(_)), "{error}");
        assert_eq!(provider.calls.load(Ordering::Relaxed), 1);

        let mut record = disk.record();
        record.tokens.as_mut().unwrap().expires_at = Some(SystemTime::now());
        disk.put(&record);
        let outcome = process.renew(&provider, 1, Doubt::Wait).await;
        assert_eq!(outcome.is_ok(), survives);
        assert_eq!(disk.record().needs_login.is_some(), !survives);
        assert!(disk.record().intent.is_none());
        assert!(
            process.told.lock().unwrap().is_empty(),
            "an expired token need not be withdrawn"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_withdrawn_everywhere_before_its_grant_is_put_at_risk() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    provider
        .answers
        .lock()
        .unwrap()
        .push(Fate::LostAfterRotation);
    let process = Process::new("first", &disk);
    process.renew(&provider, 1, Doubt::Wait).await.unwrap_err();

    let (other, poll) = (Process::new("second", &disk), Duration::from_millis(10));
    let mut asking = pin!(other.renew(&provider, 1, Doubt::Ask));
    let early = tokio::time::timeout(poll, &mut asking).await;
    assert!(
        early.is_err(),
        "it asked before others could look at the store"
    );
    assert_eq!(*other.told.lock().unwrap(), [Progress::Doubtful]);
    assert!(disk.record().intent.unwrap().doubtful);
    assert_eq!(provider.calls.load(Ordering::Relaxed), 1);
    assert!(matches!(asking.await, Err(RedeemError::NeedsLogin(_))));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_did_not_act_leaves_everything_as_it_was() {
    for fate in [Fate::Unreachable, Fate::Down] {
        let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
        provider.answers.lock().unwrap().push(fate);
        let process = Process::new("first", &disk);
        process.renew(&provider, 1, Doubt::Wait).await.unwrap_err();
        assert!(disk.record().intent.is_none() && disk.record().generation == 1);
        assert!(process.renew(&provider, 1, Doubt::Wait).await.is_ok());
    }
}

#[tokio::test]
async fn a_grant_that_is_gone_is_not_asked_for_again() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    provider.tokens.lock().unwrap().revoked = true;
    let process = Process::new("first", &disk);
    for _ in 0..3 {
        let error = process.renew(&provider, 1, Doubt::Ask).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("does not accept the refresh token"),
            "{error}"
        );
    }
    assert_eq!(provider.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_login_is_stored_before_it_counts_and_ends_the_need_for_one() {
    let disk = Arc::new(Disk::with_login(HOUR));
    let mut record = disk.record();
    record.needs_login = Some(needs_login("gone".to_owned()));
    disk.put(&record);
    disk.broken_writes.store(2, Ordering::Relaxed);
    let store = DiskStore(disk.clone());
    let record = log_in(&store, token_set(7, HOUR), 0, None, &|_| {})
        .await
        .unwrap();
    assert_eq!((record.generation, disk.record().generation), (2, 2));
    assert!(disk.record().needs_login.is_none());
}
