//! One renewal against a strict endpoint and a store that can be cut off at every step.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use super::super::fixture::{Disk, DiskStore, Fate, HOUR, Provider, token_set};
use super::*;

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
        let renewal = self.renewal(provider, seen, doubt).await;
        renewal.map(Renewal::into_record)
    }

    async fn renewal(
        &self,
        provider: &Provider,
        seen: u64,
        doubt: Doubt,
    ) -> Result<Renewal, RedeemError> {
        let tell = |progress| self.told.lock().unwrap().push(progress);
        let redeem = Redeem {
            store: &DiskStore(self.disk.clone()),
            requester: provider,
            me: self.name,
            seen,
            login: None,
            doubt,
            sightings: &self.sightings,
            tell: &tell,
        };
        redeem.run().await
    }
}

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
                let calls = provider.calls();
                let again = second.renew(&provider, seen, Doubt::Ask).await;
                assert!(matches!(again, Err(RedeemError::NeedsLogin(_))));
                assert_eq!(provider.calls(), calls, "it asked again");
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
    let renewals = processes
        .iter()
        .map(|p| p.renewal(&provider, 1, Doubt::Wait));
    let mut done = 0;
    for outcome in futures_util::future::join_all(renewals).await {
        let renewal = outcome.unwrap();
        done += usize::from(matches!(renewal, Renewal::Done(_)));
        let tokens = renewal.into_record().tokens.unwrap();
        assert!(provider.access_is_live(&tokens.access));
    }
    assert_eq!((provider.calls(), done), (1, 1));
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
    assert_eq!(provider.calls(), 1);
}

#[tokio::test]
async fn without_room_for_the_answer_nothing_is_redeemed() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    *disk.room_for.lock().unwrap() = Some(0);
    let process = Process::new("first", &disk);
    let error = process.renew(&provider, 1, Doubt::Ask).await.unwrap_err();
    assert!(matches!(error, RedeemError::Store(StoreError::Full(_))));
    assert_eq!(provider.calls(), 0);
    assert!(disk.record().intent.is_none());
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_good_token_is_kept_and_the_refresh_token_tried_once_more_at_its_end()
 {
    for (fate, survives) in [(Fate::LostBefore, true), (Fate::LostAfterRotation, false)] {
        let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
        provider.next(&[fate]);
        let process = Process::new("first", &disk);
        let error = process.renew(&provider, 1, Doubt::Wait).await.unwrap_err();
        assert!(matches!(
            error,
            RedeemError::Endpoint(EndpointError::Unanswered(_))
        ));
        let error = process.renew(&provider, 1, Doubt::Wait).await.unwrap_err();
        assert!(matches!(error, RedeemError::Doubtful(_)), "{error}");
        assert_eq!(provider.calls(), 1);

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
    provider.next(&[Fate::LostAfterRotation]);
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
    assert_eq!(provider.calls(), 1);
    assert!(matches!(asking.await, Err(RedeemError::NeedsLogin(_))));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_did_not_act_leaves_everything_as_it_was() {
    for fate in [Fate::Unreachable, Fate::Down] {
        let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
        provider.next(&[fate]);
        let process = Process::new("first", &disk);
        process.renew(&provider, 1, Doubt::Wait).await.unwrap_err();
        assert!(disk.record().intent.is_none() && disk.record().generation == 1);
        assert!(process.renew(&provider, 1, Doubt::Wait).await.is_ok());
    }
}

#[tokio::test]
async fn a_grant_that_is_gone_is_not_asked_for_again() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    provider.revoke();
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
    assert_eq!(provider.calls(), 1);
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

#[tokio::test(start_paused = true)]
async fn of_two_processes_that_plant_one_seed_the_later_takes_what_came_of_it() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::default()));
    let store = DiskStore(disk.clone());
    let plant = || {
        log_in(
            &store,
            token_set(0, HOUR),
            0,
            Some("seed".to_owned()),
            &|_| {},
        )
    };
    plant().await.unwrap();
    let process = Process::new("first", &disk);
    process.renew(&provider, 1, Doubt::Wait).await.unwrap();
    let record = plant().await.unwrap();
    assert_eq!((record.generation, disk.record().generation), (2, 2));
    assert!(provider.access_is_live(&record.tokens.unwrap().access));
}

#[tokio::test]
async fn an_intent_without_room_for_its_answer_is_taken_back() {
    let (provider, disk) = (Provider::default(), Arc::new(Disk::with_login(HOUR)));
    *disk.room_for.lock().unwrap() = Some(1);
    let process = Process::new("first", &disk);
    let error = process.renew(&provider, 1, Doubt::Ask).await.unwrap_err();
    assert!(matches!(error, RedeemError::Store(StoreError::Full(_))));
    assert_eq!(provider.calls(), 0);
    assert!(disk.record().intent.is_none());
}
