//! A grant's owner against a strict endpoint: what requests find in the credential, and when.

use std::sync::atomic::Ordering;

use tokio_util::task::TaskTracker;

use super::super::fixture::{Disk, DiskStore, Fate, HOUR, Provider, token_set};
use super::*;
use crate::credential::held::{CredentialState, Need, Renewer};
use crate::oauth::record::Intent;

struct Owned {
    held: Arc<HeldCredential>,
    owner: GrantOwner,
    disk: Arc<Disk>,
    provider: Arc<Provider>,
    tasks: TaskTracker,
}

/// A proxy's share in the grant on `disk`, once it has looked at it.
async fn owned(disk: &Arc<Disk>, provider: &Arc<Provider>) -> Owned {
    let held = HeldCredential::new("claude", "oauth".to_owned(), Need::Required);
    let tasks = TaskTracker::new();
    let parts = GrantParts {
        store: Arc::new(DiskStore(disk.clone())),
        requester: provider.clone(),
        seed: None,
        refresh_before: None,
        replay_limit: 1024,
        tasks: tasks.clone(),
        me: "test".into(),
        count: Arc::new(|_| {}),
    };
    let (owner, first) = own(parts, &held);
    first.await.unwrap();
    Owned {
        held,
        owner,
        disk: disk.clone(),
        provider: provider.clone(),
        tasks,
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < patience, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_and_never_given_out_after_it() {
    let life = Duration::from_millis(900);
    let (provider, disk) = (Arc::new(Provider::new(life)), Arc::default());
    Disk::put(&disk, &{
        let mut record = GrantRecord::default();
        record.log_in(token_set(0, Duration::ZERO), 0);
        record
    });
    let owned = owned(&disk, &provider).await;
    let mut given_out = 0;
    eventually("it was renewed three times", || {
        if let Ok(secret) = owned.held.current() {
            assert!(provider.access_is_live(&secret));
            given_out += 1;
        }
        provider.rotations() >= 4
    })
    .await;
    assert!(given_out > 3);
}

#[tokio::test]
async fn while_the_endpoint_is_down_the_token_is_used_until_its_end_and_not_longer() {
    let (provider, disk) = (Arc::new(Provider::default()), Arc::default());
    let mut record = GrantRecord::default();
    record.log_in(token_set(0, Duration::from_millis(1500)), 0);
    Disk::put(&disk, &record);
    provider.next(&[Fate::Down; 50]);
    let owned = owned(&disk, &provider).await;
    assert_eq!(owned.held.current().unwrap().expose(), b"access-0");
    eventually("it was asked for", || provider.calls() > 0).await;
    eventually("the failure shows", || {
        owned.held.status().last_error.is_some()
    })
    .await;
    eventually("the token has ended", || owned.held.current().is_err()).await;
    assert!(
        SystemTime::now() < record.tokens.unwrap().expires_at.unwrap() + Duration::from_secs(10)
    );
    let reason = owned.held.current().unwrap_err().reason;
    assert!(
        reason.contains("said so") && reason.contains("next try"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_for_all_who_ask() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    let owned = owned(&disk, &provider).await;
    let refused = owned.held.current_versioned().unwrap().version;
    let asking = (0..10).map(|_| owned.owner.renew(refused));
    for outcome in futures_util::future::join_all(asking).await {
        outcome.unwrap();
    }
    assert_eq!((provider.calls(), provider.rotations()), (1, 1));
    let current = owned.held.current_versioned().unwrap();
    assert!(provider.access_is_live(&current.secret) && current.version > refused);

    let again = owned.owner.renew(current.version).await.unwrap_err();
    assert!(again.reason.contains("a moment ago"), "{again}");
    assert_eq!(provider.calls(), 1);
    owned.owner.refresh().await.unwrap();
    assert_eq!(provider.rotations(), 2);
}

#[tokio::test]
async fn without_a_login_it_says_how_to_get_one_and_takes_it_when_it_comes() {
    let (provider, disk) = (Arc::new(Provider::default()), Arc::default());
    let owned = owned(&disk, &provider).await;
    assert_eq!(owned.owner.standing(), Standing::Absent);
    let status = owned.held.status();
    assert_eq!(status.state, CredentialState::Missing);
    assert!(
        status
            .last_error
            .unwrap()
            .contains("tollgate creds login claude")
    );

    owned.owner.adopt(token_set(0, HOUR)).await.unwrap();
    assert_eq!(owned.disk.record().generation, 1);
    assert_eq!(owned.held.current().unwrap().expose(), b"access-0");
    assert_eq!(owned.owner.standing(), Standing::Held);
}

#[tokio::test]
async fn a_grant_that_is_gone_takes_its_token_with_it_until_somebody_logs_in_elsewhere() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    provider.revoke();
    let owned = owned(&disk, &provider).await;
    let why = owned.owner.refresh().await.unwrap_err().to_string();
    assert!(
        why.contains("needs a login") && why.contains("creds login claude"),
        "{why}"
    );
    assert_eq!(owned.held.status().state, CredentialState::NeedsLogin);
    assert!(owned.held.current().is_err() && !owned.held.is_ready());
    assert_eq!(owned.owner.standing(), Standing::NeedsLogin);
    assert_eq!(owned.provider.calls(), 1);

    let mut record = disk.record();
    record.log_in(token_set(5, HOUR), 0);
    disk.put(&record);
    eventually("the new login is in use", || owned.held.current().is_ok()).await;
    assert_eq!(owned.held.current().unwrap().expose(), b"access-5");
}

#[tokio::test]
async fn what_another_process_renewed_is_taken_over_without_asking() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    let (one, other) = (owned(&disk, &provider).await, owned(&disk, &provider).await);
    one.owner.refresh().await.unwrap();
    eventually("the other follows", || {
        other
            .held
            .current()
            .is_ok_and(|secret| provider.access_is_live(&secret))
    })
    .await;
    assert_eq!(provider.calls(), 1);
}

#[tokio::test]
async fn what_others_try_meanwhile_does_not_shorten_the_pause_after_a_failure() {
    let (provider, disk) = (Arc::new(Provider::default()), Arc::default());
    let mut record = GrantRecord::default();
    let mut tokens = token_set(0, Duration::from_secs(30));
    tokens.issued_at -= Duration::from_secs(300);
    record.log_in(tokens, 0);
    Disk::put(&disk, &record);
    // The answer is lost: it is asked again when the token has ended.
    provider.next(&[Fate::LostBefore]);
    let owned = owned(&disk, &provider).await;
    assert_eq!(provider.calls(), 1);
    let theirs = disk.record().intent.map(|intent| Intent {
        by: "another".to_owned(),
        ..intent
    });
    for attempt in 0..10 {
        record.intent = theirs.clone().filter(|_| attempt % 2 == 0);
        disk.put(&record);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(provider.calls(), 1);
    assert!(owned.held.current().is_ok());
}

#[tokio::test]
async fn a_need_for_a_login_that_could_not_be_stored_is_not_forgotten() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    provider.revoke();
    let owned = owned(&disk, &provider).await;
    disk.broken_writes.store(usize::MAX, Ordering::Relaxed);
    owned.owner.refresh().await.unwrap_err();
    assert!(disk.record().needs_login.is_none());
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(owned.owner.standing(), Standing::NeedsLogin);
        assert!(owned.held.current().is_err());
    }
    assert_eq!(provider.calls(), 1);
}

#[tokio::test]
async fn once_the_process_is_ending_no_renewal_begins() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    let owned = owned(&disk, &provider).await;
    owned.tasks.close();
    owned.tasks.wait().await;
    let why = owned.owner.refresh().await.unwrap_err().to_string();
    assert!(why.contains("ending"), "{why}");
    let why = owned.owner.adopt(token_set(7, HOUR)).await.unwrap_err();
    assert!(why.to_string().contains("ending"), "{why}");
    assert_eq!((provider.calls(), disk.record().generation), (0, 1));
}

#[tokio::test]
async fn tokens_that_cannot_be_stored_are_not_used_and_the_state_says_why() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    let owned = owned(&disk, &provider).await;
    disk.broken_writes.store(usize::MAX, Ordering::Relaxed);
    let owner = owned.owner.clone();
    let renewal = tokio::spawn(async move { owner.refresh().await });
    eventually("it is told", || {
        let error = owned.held.status().last_error;
        error.is_some_and(|error| error.contains("cannot be stored"))
    })
    .await;
    assert_eq!(owned.held.current().unwrap().expose(), b"access-0");
    disk.broken_writes.store(0, Ordering::Relaxed);
    renewal.await.unwrap().unwrap();
    assert_eq!(owned.held.current().unwrap().expose(), b"access-1");
}

#[tokio::test]
async fn an_endpoint_whose_tokens_end_as_they_come_is_not_asked_all_the_time() {
    let provider = Arc::new(Provider::new(Duration::ZERO));
    let disk = Arc::new(Disk::with_login(Duration::ZERO));
    let owned = owned(&disk, &provider).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let calls = provider.calls();
    assert!((1..=3).contains(&calls), "{calls} calls");
    let why = owned.held.current().unwrap_err().reason;
    assert!(
        why.contains("expired when it came; the next try is in"),
        "{why}"
    );
    assert_eq!(provider.rotations(), calls);
    assert_eq!(owned.owner.standing(), Standing::Held);
}

#[tokio::test]
async fn a_token_is_not_used_once_another_came_for_it_even_one_that_has_ended() {
    let provider = Arc::new(Provider::new(Duration::ZERO));
    let disk = Arc::new(Disk::with_login(HOUR));
    let owned = owned(&disk, &provider).await;
    assert_eq!(owned.held.current().unwrap().expose(), b"access-0");
    owned.owner.refresh().await.unwrap();
    assert!(owned.held.current().is_err());
}

#[tokio::test]
async fn a_grant_that_can_be_asked_for_at_any_time_does_not_wait_for_the_end_of_its_token() {
    let provider = Arc::new(Provider::afresh(HOUR));
    let owned = owned(&Arc::default(), &provider).await;
    assert_eq!(owned.held.current().unwrap().expose(), b"access-1");
    provider.next(&[Fate::LostBefore]);
    owned.owner.refresh().await.unwrap_err();
    // The provider has given it a moment before it is in use.
    eventually("what it is given then is in use", || {
        owned
            .held
            .current()
            .is_ok_and(|value| value.expose() == b"access-2")
    })
    .await;
    assert_eq!(provider.rotations(), 2);
}

#[tokio::test]
async fn a_login_that_is_taken_out_of_the_store_is_not_used_any_more() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    let owned = owned(&disk, &provider).await;
    assert_eq!(owned.held.current().unwrap().expose(), b"access-0");
    disk.clear();
    eventually("it is withdrawn", || owned.held.current().is_err()).await;
    assert_eq!(owned.owner.standing(), Standing::Absent);
    let why = owned.held.current().unwrap_err().reason;
    assert!(why.contains("taken out of the store"), "{why}");
    assert_eq!(provider.calls(), 0);
    disk.put(&{
        let mut record = GrantRecord::default();
        record.log_in(token_set(3, HOUR), 0);
        record
    });
    eventually("a new login is in use", || owned.held.current().is_ok()).await;
}

#[tokio::test]
async fn a_copy_of_an_earlier_state_that_is_put_into_the_store_does_not_end_the_grant() {
    let (provider, disk) = (
        Arc::new(Provider::default()),
        Arc::new(Disk::with_login(HOUR)),
    );
    let backup = disk.record();
    let owned = owned(&disk, &provider).await;
    owned.owner.refresh().await.unwrap();
    disk.put(&backup);
    // At once, before it is looked at, and again later.
    owned.owner.refresh().await.ok();
    eventually("what is in use is stored", || {
        disk.record().generation > backup.generation
    })
    .await;
    owned.owner.refresh().await.unwrap();
    let current = owned.held.current().unwrap();
    assert!(provider.access_is_live(&current) && provider.rotations() >= 2);

    let mut other = GrantRecord::default();
    other.log_in(token_set(7, HOUR), 0);
    disk.put(&other);
    eventually("another login is taken over", || {
        owned
            .held
            .current()
            .is_ok_and(|secret| secret.expose() == b"access-7")
    })
    .await;
}
