//! The file store among real processes, kills, full disks and mounts that cannot be written.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tollgate::oauth::store::TokenStore as _;
use tollgate::oauth::store_file::FileStore;

use super::support::token_worker::{
    AHEAD, WORK, command, count, generation, outcome, own_mounts, strace, work, write,
};

/// Everything that changes the file, its neighbours or the lock, and the number of the first call that is
/// the store's. Names that a processor lacks have a `?`.
const CALLS: &[(&str, usize)] = &[
    ("openat", AHEAD + 1),
    ("close", AHEAD + 1),
    ("flock", 1),
    ("fallocate", 1),
    ("pwrite64", 1),
    ("ftruncate", 1),
    ("fchmod", 1),
    ("fsync", 1),
    ("?rename,renameat,renameat2", 1),
    ("?unlink,unlinkat", 1),
];

/// A directory on the disk that the build is on: `/tmp` may be memory.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect()
}

/// Alone this is a test; with an order in the environment it is one of the processes of the others.
#[test]
fn a_process_counts_under_the_lock() {
    // One thread does all that blocks, so that "the third fsync" means the same each time.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    if let Ok(order) = std::env::var(WORK) {
        return runtime.block_on(work(&order));
    }
    let dir = directory();
    let store = FileStore::new(dir.path().join("grant.json"), None);
    runtime.block_on(async {
        count(&store, 3).await.unwrap();
        assert_eq!(generation(store.read().await.unwrap()), 3);
    });
}

#[tokio::test]
async fn sixteen_processes_on_one_file_lose_nothing() {
    let dir = directory();
    let path = dir.path().join("grant.json");
    let workers: Vec<_> = (0..16)
        .map(|_| {
            command(&[], "count", &path)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert_eq!(outcome(&output).as_deref(), Some("Ok(())"));
    }
    let store = FileStore::new(path, None);
    assert_eq!(generation(store.read().await.unwrap()), 16 * 60);
    assert_eq!(
        names(dir.path()),
        ["grant.json", "grant.json.lock"].map(str::to_owned).into()
    );
}

/// A directory with a store of generation 1 that processes are sent into.
struct Field {
    dir: TempDir,
    path: PathBuf,
    store: FileStore,
}

impl Field {
    async fn new() -> Self {
        let dir = directory();
        let path = dir.path().join("grant.json");
        let store = FileStore::new(path.clone(), None);
        write(&store, 1).await.unwrap();
        Self { dir, path, store }
    }

    /// Runs the work under strace with something injected. Nothing if it did not come to its end.
    fn run(&self, strace: &str, inject: &str, work: &str) -> Option<String> {
        let (calls, inject) = inject.split_once(':').unwrap();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{inject}"));
        let quiet = [strace, "-f", "-qqq", "-o", "/dev/null"];
        let through = [&quiet[..], &["-e", &trace, "-e", &inject]].concat();
        outcome(&command(&through, work, &self.path).output().unwrap())
    }

    /// What a later process finds. It can always lock and write, and clears up.
    async fn found(&self) -> u64 {
        let found = generation(self.store.read().await.unwrap());
        write(&self.store, 3).await.unwrap();
        assert_eq!(generation(self.store.read().await.unwrap()), 3);
        let expected = ["grant.json", "grant.json.lock"].map(str::to_owned);
        assert_eq!(names(self.dir.path()), expected.into());
        write(&self.store, 1).await.unwrap();
        found
    }
}

#[tokio::test]
async fn a_process_killed_at_any_call_leaves_the_old_record_or_the_new_one() {
    let Some(strace) = strace() else { return };
    let field = Field::new().await;
    let (mut old, mut new) = (0, 0);
    for (calls, first) in CALLS {
        for number in *first.. {
            let inject = format!("{calls}:signal=KILL:when={number}");
            let survived = field.run(&strace, &inject, "redeem");
            match (field.found().await, survived) {
                (2, Some(_)) => break,
                (1, None) => old += 1,
                (2, None) => new += 1,
                (found, outcome) => panic!("{inject}: {found} after {outcome:?}"),
            }
        }
    }
    // Before the rename and after it: what strace shows of one run.
    assert!(
        old >= 10 && new >= 4,
        "{old} left the old one, {new} the new one"
    );
}

#[tokio::test]
async fn a_call_that_fails_leaves_the_old_record_or_the_new_one_and_says_which_disk_is_full() {
    let Some(strace) = strace() else { return };
    let field = Field::new().await;
    for (work, calls, error) in [
        ("write", "pwrite64", "ENOSPC"),
        ("write", "fsync", "ENOSPC"),
        ("write", "?rename,renameat,renameat2", "ENOSPC"),
        ("redeem", "fallocate", "ENOSPC"),
        ("redeem", "pwrite64", "EDQUOT"),
        ("redeem", "fsync", "EIO"),
        ("redeem", "ftruncate", "EIO"),
        ("redeem", "?rename,renameat,renameat2", "EIO"),
    ] {
        for number in 1.. {
            let inject = format!("{calls}:error={error}:when={number}+");
            let outcome = field.run(&strace, &inject, work).unwrap_or_default();
            let left = names(field.dir.path());
            assert!(left.len() == 2, "{inject} left {left:?}");
            let found = field.found().await;
            if outcome == "Ok(())" {
                assert_eq!(found, 2, "{inject}");
                break;
            }
            let expected = match error {
                "EIO" => "Err(Unavailable(\"the token store ",
                _ => "Err(Full(\"there is no room for the token store ",
            };
            assert!(outcome.starts_with(expected), "{inject}: {outcome}");
            // Only the directory's own fsync comes after the record has its name.
            assert!(found == 1 || calls == "fsync", "{inject}: {found}");
        }
    }
}

#[tokio::test]
async fn a_file_system_that_cannot_do_everything_is_used_as_far_as_that_is_safe() {
    let Some(strace) = strace() else { return };
    let field = Field::new().await;
    for harmless in ["fallocate:error=EOPNOTSUPP", "fsync:error=EINVAL:when=2+2"] {
        let outcome = field.run(&strace, harmless, "redeem");
        assert_eq!(
            (outcome.as_deref(), field.found().await),
            (Some("Ok(())"), 2),
            "{harmless}"
        );
    }
    for unlocked in [
        "flock:error=EOPNOTSUPP",
        "flock:error=ENOLCK",
        "flock:error=ENOSYS",
    ] {
        let outcome = field.run(&strace, unlocked, "probe").unwrap();
        assert!(
            outcome.starts_with("Err(ReadOnly(\"the token store "),
            "{outcome}"
        );
        assert!(outcome.contains("this mount has no flock(2)"), "{outcome}");
    }
}

#[tokio::test]
async fn a_record_is_on_the_disk_before_it_has_its_name_and_the_name_before_anybody_is_told() {
    let Some(strace) = strace() else { return };
    let field = Field::new().await;
    let log = field.dir.path().join("log");
    let trace = "trace=?rename,renameat,renameat2,fallocate,pwrite64,ftruncate,fsync,flock,write";
    let tracer = [&strace, "-f", "-qqq", "-y", "-s", "8", "-e", trace];
    let through = [&tracer[..], &["-o", log.to_str().unwrap()]].concat();
    let output = command(&through, "redeem", &field.path).output().unwrap();
    assert_eq!(outcome(&output).as_deref(), Some("Ok(())"));

    let dir = format!("<{}>", field.dir.path().display());
    let steps: Vec<String> = fs::read_to_string(log)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let (call, rest) = line.split_once(' ')?.1.trim_start().split_once('(')?;
            let on = match rest {
                _ if rest.contains("/.grant.json.") => "temporary",
                _ if rest.contains(".lock") => "lock",
                _ if rest.contains(&dir) => "directory",
                _ if rest.contains("OUTCOME") => "told",
                _ => return None,
            };
            let call = if call.starts_with("rename") {
                "rename"
            } else {
                call
            };
            Some(format!("{call} {on}"))
        })
        .collect();
    assert_eq!(
        steps,
        [
            "flock lock",
            "fallocate temporary",
            "fsync temporary",
            "pwrite64 temporary",
            "ftruncate temporary",
            "fsync temporary",
            "rename temporary",
            "fsync directory",
            "flock lock",
            "write told",
        ]
    );
}

/// Runs a script that prepares `$DIR` with mounts of its own, and then the work on `$DIR/grant.json`.
fn on_a_mount(dir: &Path, script: &str, work: &str) -> Option<String> {
    let shell = own_mounts()?;
    let script = format!("{script}\nexec \"$@\"");
    let through = [&shell[..], &["-ec", &script, "sh"]].concat();
    let mut command = command(&through, work, &dir.join("grant.json"));
    let output = command.env("DIR", dir).output().unwrap();
    let failed = || format!("no outcome: {output:?}");
    let text = outcome(&output).unwrap_or_else(failed);
    Some(text.replace(dir.to_str().unwrap(), "DIR"))
}

#[test]
fn a_disk_that_fills_up_after_the_reservation_does_not_lose_the_new_tokens() {
    let tmpfs = "mount -t tmpfs -o size=64k,mode=0700 none $DIR";
    let Some(outcome) = on_a_mount(directory().path(), tmpfs, "full") else {
        return;
    };
    assert_eq!(
        outcome,
        "Err(Full(\"there is no room for the token store DIR/grant.json on DIR (tmpfs): free space or \
         inodes, or mount a larger volume; what is stored there stays as it is\"))"
    );
}

#[test]
fn a_store_in_memory_is_warned_of() {
    let tmpfs = "mount -t tmpfs -o size=64k,mode=0700 none $DIR";
    let Some(outcome) = on_a_mount(directory().path(), tmpfs, "lasts") else {
        return;
    };
    let told = "Err(Unavailable(\"the token store DIR/grant.json is in memory (DIR, tmpfs) and is lost when";
    assert!(outcome.starts_with(told), "{outcome}");
}

#[test]
fn a_mounted_secret_is_found_out_before_anything_is_redeemed() {
    // As the kubelet lays it out: the files in a directory with a date, behind a link, behind links.
    let secret = "mount -t tmpfs -o size=64k none $DIR
        mkdir $DIR/..2026_11_21
        echo '{}' >$DIR/..2026_11_21/grant.json
        chmod 600 $DIR/..2026_11_21/grant.json
        ln -s ..2026_11_21 $DIR/..data
        ln -s ..data/grant.json $DIR/grant.json
        mount -o remount,ro $DIR";
    let Some(outcome) = on_a_mount(directory().path(), secret, "probe") else {
        return;
    };
    assert_eq!(
        outcome,
        "Err(ReadOnly(\"the token store DIR/grant.json is on a read-only mount (DIR, tmpfs): a Secret \
         volume is always read-only; mount a PersistentVolumeClaim or use store.kubernetesSecret\"))"
    );
}

#[test]
fn a_read_only_mount_is_named_also_where_the_file_is_not_there_yet() {
    let disk = "mount --bind $DIR $DIR; mount -o remount,ro,bind $DIR";
    let Some(outcome) = on_a_mount(directory().path(), disk, "probe") else {
        return;
    };
    let begin = "Err(ReadOnly(\"the token store DIR/grant.json is on a read-only mount (DIR, ";
    assert!(outcome.starts_with(begin), "{outcome}");
    assert!(
        outcome.contains("mount it for writing, or set store.file.path"),
        "{outcome}"
    );
}

#[test]
fn a_file_mounted_by_itself_is_refused_since_nothing_can_take_its_place() {
    let file = "touch $DIR/grant.json; chmod 600 $DIR/grant.json
        mount --bind $DIR/grant.json $DIR/grant.json";
    for work in ["probe", "write"] {
        let Some(outcome) = on_a_mount(directory().path(), file, work) else {
            return;
        };
        let told = "Err(ReadOnly(\"the token store DIR/grant.json is mounted as a single file";
        assert!(outcome.starts_with(told), "{outcome}");
    }
}

#[test]
fn a_directory_of_another_user_is_named_with_the_way_to_open_it() {
    let given_away = directory();
    let theirs = match chown(given_away.path(), Some(12345), None) {
        Ok(()) => given_away.path(),
        Err(_) => Path::new("/etc"), // whoever cannot give one away is not root
    };
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(given_away.path(), readable).unwrap();
    // Root of a namespace has no power over a user who is not in it, and sees nobody (65534) there.
    let Some(outcome) = on_a_mount(theirs, "", "probe") else {
        return;
    };
    assert_eq!(
        outcome,
        "Err(ReadOnly(\"the token store DIR/grant.json cannot be locked: Permission denied (os error 13) (DIR \
         belongs to user 65534, mode 0755; this process is user 0): chown 0 DIR, or set \
         securityContext.fsGroup of the pod\"))"
    );
}
