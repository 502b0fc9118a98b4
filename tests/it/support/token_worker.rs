//! A process that works on a token file: this very binary once more, so that it can be killed, starved
//! and locked out.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use tollgate::oauth::record::GrantRecord;
use tollgate::oauth::store::{StoreError, TokenStore as _};
use tollgate::oauth::store_file::FileStore;
use tollgate::oauth::token::TokenSet;
use tollgate::types::secret::Secret;

use super::clients;

/// Names the work, a space, and the path of the store.
pub const WORK: &str = "TOLLGATE_TEST_TOKEN_WORK";
/// The test that does it.
const TEST: &str = "token_file::a_process_counts_under_the_lock";
/// Before the outcome on standard error.
const MARK: &str = "OUTCOME ";

/// A record whose every part tells its generation.
pub fn record(generation: u64) -> GrantRecord {
    GrantRecord {
        generation,
        tokens: Some(TokenSet {
            access: Secret::from(format!("access-{generation}").repeat(50)),
            refresh: Some(Secret::from(format!("refresh-{generation}").repeat(50))),
            id: None,
            expires_at: None,
            issued_at: SystemTime::UNIX_EPOCH,
            scopes: Vec::new(),
            profile: serde_json::Map::new(),
        }),
        ..GrantRecord::default()
    }
}

/// The generation of what a store keeps, if all of it is of one.
pub fn generation(kept: Option<GrantRecord>) -> u64 {
    let Some(kept) = kept else { return 0 };
    let (tokens, whole) = (
        kept.tokens.unwrap(),
        record(kept.generation).tokens.unwrap(),
    );
    assert_eq!(
        (tokens.access, tokens.refresh),
        (whole.access, whole.refresh)
    );
    kept.generation
}

/// Locks, writes and lets go.
pub async fn write(store: &FileStore, generation: u64) -> Result<(), StoreError> {
    let mut locked = store.lock().await?;
    locked.write(&record(generation)).await?;
    locked.release().await;
    Ok(())
}

/// How many files the thread that does the store's work has opened and closed before it begins.
///
/// strace counts the calls of each thread by itself, and the first thread opens many while it looks for
/// its libraries: a number beyond those means a call of the store.
pub const AHEAD: usize = 256;

/// Does the work that the environment names and prints its outcome.
pub async fn work(order: &str) {
    let open = || (0..AHEAD).for_each(|_| drop(fs::File::open("/dev/null").unwrap()));
    tokio::task::spawn_blocking(open).await.unwrap();
    let (work, path) = order.split_once(' ').unwrap();
    let store = FileStore::new(PathBuf::from(path), None);
    let outcome = match work {
        "count" => count(&store, 60).await,
        "probe" => store.probe().await,
        "write" => write(&store, 2).await,
        "redeem" => redeem(&store).await,
        "lasts" => store
            .durability_warning()
            .map_or(Ok(()), |why| Err(StoreError::Unavailable(why))),
        "full" => on_a_full_disk(&store, Path::new(path)).await,
        other => panic!("{other}"),
    };
    // On standard error: the test runner writes beside it on standard output.
    let line = format!("\n{MARK}{outcome:?}");
    eprintln!("{line}");
}

/// Reads, adds one and writes, so many times.
pub async fn count(store: &FileStore, times: u64) -> Result<(), StoreError> {
    for _ in 0..times {
        let mut locked = store.lock().await?;
        let next = generation(locked.read().await?) + 1;
        locked.write(&record(next)).await?;
        locked.release().await;
    }
    Ok(())
}

/// What the owner of a grant does around a call to the token endpoint.
async fn redeem(store: &FileStore) -> Result<(), StoreError> {
    let mut locked = store.lock().await?;
    locked.reserve().await?;
    locked.write(&record(2)).await?;
    locked.release().await;
    Ok(())
}

/// The disk fills up between the reservation and the write.
async fn on_a_full_disk(store: &FileStore, path: &Path) -> Result<(), StoreError> {
    let ballast = path.with_file_name("ballast");
    write(store, 1).await?;
    let mut locked = store.lock().await?;
    locked.reserve().await?;
    fill(&ballast);
    locked
        .write(&record(2))
        .await
        .expect("what was reserved is there");
    assert_eq!(generation(store.read().await?), 2);

    fill(&ballast);
    for refused in [locked.reserve().await, locked.write(&record(3)).await] {
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    }
    locked.release().await;
    let refused = store.probe().await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(generation(store.read().await?), 2);

    fs::remove_file(ballast).unwrap();
    store.probe().await?;
    write(store, 3).await?;
    assert_eq!(generation(store.read().await?), 3);
    refused
}

fn fill(ballast: &Path) {
    let mut file = fs::File::options()
        .append(true)
        .create(true)
        .open(ballast)
        .unwrap();
    let full = loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[b'x'; 512]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
}

/// A command that does the work, by way of `through` (a tracer, a shell) if that is not empty.
pub fn command(through: &[&str], work: &str, path: &Path) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut words = through.iter().copied().chain(me.to_str());
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"]);
    command.env(WORK, format!("{work} {}", path.display()));
    // Who counts tests by what is printed must not count these.
    command.stdout(Stdio::null());
    command
}

/// What the work came to. Nothing if the process ended before it was done.
pub fn outcome(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let outcome = text.lines().find_map(|line| line.strip_prefix(MARK));
    outcome.map(str::to_owned)
}

/// strace, where it may trace; else a visible skip.
pub fn strace() -> Option<String> {
    let strace = clients::find("strace")?;
    let tried = Command::new(&strace)
        .args(["-o", "/dev/null", "/bin/true"])
        .output()
        .unwrap();
    if !tried.status.success() {
        let reason = String::from_utf8_lossy(&tried.stderr)
            .trim()
            .replace('\n', "; ");
        clients::skip("strace", &format!("may not trace here: {reason}"));
        return None;
    }
    Some(strace.display().to_string())
}

/// `unshare` with what makes mounts of its own, where that is allowed; else a visible skip.
pub fn own_mounts() -> Option<[&'static str; 4]> {
    let words = ["unshare", "--map-root-user", "--mount", "sh"];
    let script = "mount -t tmpfs -o size=64k none /mnt && umount /mnt";
    let tried = Command::new(words[0])
        .args(&words[1..])
        .args(["-ec", script])
        .output();
    let reason = match tried {
        Ok(output) if output.status.success() => return Some(words),
        Ok(output) => String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', "; "),
        Err(error) => error.to_string(),
    };
    clients::skip("unshare", &format!("no mounts of one's own here: {reason}"));
    None
}
