//! How a grant's file behaves within one process: who gets in, what is refused, what remains.

use std::future::poll_fn;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::SystemTime;
use std::{fs, iter};

use tempfile::TempDir;

use super::*;
use crate::oauth::token::TokenSet;
use crate::types::secret::Secret;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A directory of its own with a store in it.
struct Place {
    dir: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("grant.json");
        Self { dir, path }
    }

    fn store(&self) -> FileStore {
        FileStore::new(self.path.clone(), None)
    }

    fn sealed_store(&self, key: &str) -> FileStore {
        let path = self.beside("key");
        fs::write(&path, key).unwrap();
        chmod(&path, 0o600);
        FileStore::new(self.path.clone(), Some(path))
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn record(generation: u64) -> GrantRecord {
    GrantRecord {
        generation,
        tokens: Some(TokenSet {
            access: Secret::from(format!("access-sentinel-{generation}")),
            refresh: Some(Secret::from(format!("refresh-sentinel-{generation}"))),
            id: None,
            expires_at: None,
            issued_at: SystemTime::UNIX_EPOCH,
            scopes: Vec::new(),
            profile: serde_json::Map::new(),
        }),
        ..GrantRecord::default()
    }
}

async fn write(store: &FileStore, generation: u64) -> Result<(), StoreError> {
    let mut locked = store.lock().await?;
    let outcome = locked.write(&record(generation)).await;
    locked.release().await;
    outcome
}

async fn generation(store: &FileStore) -> Option<u64> {
    let record = store.read().await.unwrap();
    record.map(|record| record.generation)
}

#[tokio::test]
async fn what_is_written_is_read_and_for_the_owner_alone() {
    let place = Place::new();
    let store = place.store();
    assert_eq!(generation(&store).await, None);
    for number in 1..=3 {
        write(&store, number).await.unwrap();
        assert_eq!(generation(&store).await, Some(number));
    }
    assert_eq!(mode(&place.path), 0o600);
    assert_eq!(mode(&place.beside("grant.json.lock")), 0o600);
    assert_eq!(place.names(), ["grant.json", "grant.json.lock"]);
}

#[tokio::test]
async fn the_next_holder_waits_for_the_first_and_reads_what_it_wrote() {
    let place = Place::new();
    let (first, second) = (place.store(), place.store());
    let mut locked = first.lock().await.unwrap();
    let mut waiting = tokio::spawn(async move { second.lock().await?.read().await });
    let early = timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "two held the lock");
    locked.write(&record(7)).await.unwrap();
    drop(locked);
    let read = waiting.await.unwrap().unwrap().unwrap();
    assert_eq!(read.generation, 7);
}

/// Polls `work` so many times and lets it be dropped at once, in the middle of what it waits for.
async fn polled<T>(work: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut work = pin!(work);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Pending if left == 0 => Poll::Ready(None),
            outcome => outcome.map(Some),
        }
    })
    .await
}

#[tokio::test]
async fn work_dropped_at_any_point_leaves_the_old_record_or_the_new_and_lets_the_next_one_in() {
    let place = Place::new();
    let store = place.store();
    write(&store, 1).await.unwrap();
    // Four steps wait at least once each; how far the threads come meanwhile differs from round to round.
    for times in (0..8).cycle().take(160) {
        let work = async {
            let mut locked = store.lock().await.unwrap();
            locked.reserve().await.unwrap();
            locked.write(&record(2)).await.unwrap();
            locked.release().await;
        };
        let finished = polled(work, times).await.is_some();

        let locking = timeout(Duration::from_secs(20), store.lock());
        let mut locked = locking.await.expect("the lock was let go").unwrap();
        let found = locked.read().await.unwrap().unwrap().generation;
        assert!(
            found == 2 || found == 1 && !finished,
            "{found} after {times} polls"
        );
        assert_eq!(place.names(), ["grant.json", "grant.json.lock"]);
        locked.write(&record(1)).await.unwrap();
        locked.release().await;
    }
}

#[tokio::test]
async fn a_probe_makes_the_directory_and_leaves_no_trace_of_its_attempt() {
    let place = Place::new();
    let path = place.beside("deep").join("er/grant.json");
    let store = FileStore::new(path.clone(), None);
    store.probe().await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let left = fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(left.count(), 1, "more than the lock file");
    write(&store, 1).await.unwrap();
    store.probe().await.unwrap();
    assert_eq!(generation(&store).await, Some(1));
}

#[tokio::test]
async fn what_is_no_grants_file_is_refused_before_anything_is_redeemed() {
    let place = Place::new();
    let bytes = |bytes: &[u8], permissions| {
        fs::write(&place.path, bytes).unwrap();
        chmod(&place.path, permissions);
    };
    let valid = record(1).encode().unwrap();
    let large: Vec<u8> = iter::repeat_n(b' ', (1 << 20) + 1).collect();
    let cases: &[(&dyn Fn(), &str)] = &[
        (
            &|| bytes(&valid, 0o644),
            "readable by others (mode 0644): chmod 600 ",
        ),
        (
            &|| bytes(&valid, 0o640),
            "readable by others (mode 0640): chmod 600 ",
        ),
        (&|| bytes(&large, 0o600), "is larger than 1 MiB"),
        (&|| bytes(b"", 0o600), "it is not a grant record"),
        (
            &|| bytes(b"refresh-sentinel", 0o600),
            "it is not a grant record",
        ),
        (
            &|| fs::create_dir(&place.path).unwrap(),
            "is a directory: set store.file.path to",
        ),
        (
            &|| symlink("/dev/zero", &place.path).unwrap(),
            "is no regular file",
        ),
        (
            &|| symlink("/nowhere/x", &place.path).unwrap(),
            "link to /nowhere/x, which is not there",
        ),
    ];
    for (make, expected) in cases {
        make();
        let store = place.store();
        for error in [
            store.probe().await.unwrap_err(),
            store.read().await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Unreadable(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(expected), "{text}\nlacks: {expected}");
            assert!(!text.contains("sentinel"), "{text}");
        }
        let removed = fs::remove_file(&place.path).or_else(|_| fs::remove_dir(&place.path));
        removed.unwrap();
    }
}

#[tokio::test]
async fn a_file_of_another_user_is_not_taken_from_him() {
    let place = Place::new();
    write(&place.store(), 1).await.unwrap();
    let given_away = std::os::unix::fs::chown(&place.path, Some(12345), None);
    let (path, owner) = match given_away {
        Ok(()) => (place.path.clone(), 12345),
        Err(_) => (PathBuf::from("/etc/passwd"), 0), // whoever cannot give one away is not root
    };
    let before = fs::read(&path).unwrap();
    let store = FileStore::new(path.clone(), None);
    let me = rustix::process::geteuid().as_raw();
    for error in [store.probe().await.err(), write(&store, 2).await.err()] {
        let Some(StoreError::ReadOnly(text)) = error else {
            panic!("{error:?}");
        };
        let told = format!("belongs to user {owner}, and this process is user {me}");
        assert!(text.contains(&told), "{text}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn rights_that_a_pods_fs_group_was_given_are_taken_back_and_no_reason_to_stop() {
    let place = Place::new();
    write(&place.store(), 1).await.unwrap();
    // What the kubelet does to a volume whenever it mounts it for a pod with fsGroup.
    chmod(place.dir.path(), 0o2770);
    chmod(&place.path, 0o660);
    assert_eq!(generation(&place.store()).await, Some(1));
    place.store().probe().await.unwrap();
    assert_eq!(mode(&place.path), 0o600);
    chmod(&place.path, 0o664);
    assert!(place.store().probe().await.is_err());
}

#[tokio::test]
async fn a_link_to_the_file_stays_a_link_and_shares_its_lock() {
    let place = Place::new();
    write(&place.store(), 1).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.json");
    symlink(&place.path, &link).unwrap();
    let linked = FileStore::new(link.clone(), None);
    linked.probe().await.unwrap();
    write(&linked, 2).await.unwrap();
    assert!(link.is_symlink());
    assert_eq!(generation(&place.store()).await, Some(2));

    let _held = place.store().lock().await.unwrap();
    let second = timeout(Duration::from_millis(50), linked.lock()).await;
    assert!(second.is_err(), "two held the lock");
}

#[tokio::test]
async fn a_removed_lock_file_is_noticed_before_anything_is_written() {
    let place = Place::new();
    let store = place.store();
    write(&store, 1).await.unwrap();
    let mut locked = store.lock().await.unwrap();
    fs::remove_file(place.beside("grant.json.lock")).unwrap();
    let error = locked.write(&record(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::LockLost(_)), "{error:?}");
    assert_eq!(generation(&store).await, Some(1));
}

#[tokio::test]
async fn a_reservation_that_somebody_cleared_away_costs_nothing() {
    let place = Place::new();
    let store = place.store();
    let mut locked = store.lock().await.unwrap();
    locked.reserve().await.unwrap();
    let names = place.names();
    let reserved = names.iter().find(|name| name.ends_with(".tmp")).unwrap();
    fs::remove_file(place.beside(reserved)).unwrap();
    locked.write(&record(1)).await.unwrap();
    assert_eq!(generation(&store).await, Some(1));
    assert_eq!(place.names(), ["grant.json", "grant.json.lock"]);
}

#[tokio::test]
async fn a_plain_record_is_sealed_by_the_first_write_with_a_key() {
    let place = Place::new();
    write(&place.store(), 1).await.unwrap();
    let sealed = place.sealed_store(KEY);
    assert_eq!(generation(&sealed).await, Some(1));
    write(&sealed, 2).await.unwrap();
    let bytes = fs::read(&place.path).unwrap();
    assert!(memchr::memmem::find(&bytes, b"sentinel").is_none());
    assert_eq!(generation(&sealed).await, Some(2));
    sealed.probe().await.unwrap();

    let text = place.store().probe().await.unwrap_err().to_string();
    assert!(
        text.ends_with(
            "is encrypted: set store.file.keyFile to the key file it was encrypted with"
        )
    );
    let other = place.sealed_store(&KEY.replace("00", "ff"));
    let text = other.read().await.unwrap_err().to_string();
    let key_file = place.beside("key");
    let expected = format!(
        "the key file {} does not open the token store ",
        key_file.display()
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.contains("sealed with another key"), "{text}");
}

#[tokio::test]
async fn a_key_file_is_missed_before_a_redeem_and_not_after_it() {
    let place = Place::new();
    let store = place.sealed_store(KEY);
    let mut locked = store.lock().await.unwrap();
    fs::rename(place.beside("key"), place.beside("gone")).unwrap();
    locked.write(&record(1)).await.unwrap();
    locked.release().await;
    for error in [store.probe().await.err(), store.lock().await.err()] {
        let text = error.unwrap().to_string();
        assert!(
            text.contains("the key file ") && text.contains("No such file"),
            "{text}"
        );
    }
    fs::rename(place.beside("gone"), place.beside("key")).unwrap();
    assert_eq!(generation(&store).await, Some(1));
}
