//! Owns secrets in files: read within a bound, followed when they change, and never taken half-written.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::held::HeldCredential;
use super::source::{Fetched, Form, MAX_BYTES, SourceError};
use crate::types::secret::Secret;

/// Between two reads that must agree before a content is taken.
const SETTLE: Duration = Duration::from_millis(50);
/// A file that keeps changing for this long is taken as it is.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// Besides watching: some file systems report nothing.
const POLL: Duration = Duration::from_secs(60);
/// Where watching is refused (inotify limits) a rotation must still be seen within 10 s.
const POLL_UNWATCHED: Duration = Duration::from_secs(5);

/// A file, or a field of a JSON file, that holds a secret.
#[derive(Debug, Clone)]
pub struct SecretFile {
    path: PathBuf,
    pointer: Option<String>,
    form: Form,
}

impl SecretFile {
    /// The file at `path`; `pointer` (RFC 6901) leads to the secret within a JSON document.
    pub fn new(path: PathBuf, pointer: Option<String>, form: Form) -> Self {
        Self {
            path,
            pointer,
            form,
        }
    }

    /// Reads it once.
    pub async fn fetch(&self) -> Result<Fetched, SourceError> {
        let bytes = self.read().await?;
        self.parse(bytes)
    }

    /// Re-reads the file whenever it changes, for as long as `held` lives.
    pub async fn follow(self, held: Weak<HeldCredential>) {
        let changes = Arc::new(Changes::default());
        let mut watch = Watch::default();
        loop {
            // Watch first, read second: a change in between is then seen, not lost.
            let poll;
            (watch, poll) = watch.renewed(self.path.clone(), changes.clone()).await;
            let outcome = self
                .settled(&changes)
                .await
                .and_then(|bytes| self.parse(bytes));
            let Some(credential) = held.upgrade() else {
                return;
            };
            credential.report(outcome);
            drop(credential);
            tokio::select! {
                () = changes.any.notified() => {}
                () = sleep(poll) => {}
            }
        }
    }

    /// The content once two reads agree and nobody is seen writing.
    async fn settled(&self, changes: &Changes) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let patience = Instant::now() + SETTLE_LIMIT;
        let mut last = self.read().await;
        loop {
            sleep(SETTLE).await;
            let next = self.read().await;
            let stable = next == last && !changes.unfinished.load(Ordering::Relaxed);
            if stable || Instant::now() >= patience {
                return next;
            }
            last = next;
        }
    }

    async fn read(&self) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || read(&path));
        // A mount that hangs must not stop the next attempt from being made.
        match timeout(Duration::from_secs(10), reading).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err(self.broken("could not be read within 10s")),
        }
    }

    fn parse(&self, bytes: Zeroizing<Vec<u8>>) -> Result<Fetched, SourceError> {
        let secret = match &self.pointer {
            Some(pointer) => self.field(&bytes, pointer)?,
            None => self.form.read(bytes, &place(&self.path))?,
        };
        Ok(Fetched::lasting(secret))
    }

    fn field(&self, bytes: &[u8], pointer: &str) -> Result<Secret, SourceError> {
        let mut document: Value = serde_json::from_slice(bytes).map_err(|error| {
            // Line and column only: the error's own text may quote the document.
            let (line, column) = (error.line(), error.column());
            self.broken(&format!("is not valid JSON (line {line}, column {column})"))
        })?;
        let secret = match document.pointer_mut(pointer) {
            Some(Value::String(text)) => Zeroizing::new(std::mem::take(text).into_bytes()),
            Some(_) => return Err(self.broken(&format!("has no text at `{pointer}`"))),
            None => {
                let place = place(&self.path);
                return Err(SourceError::Missing(format!(
                    "{place} has nothing at `{pointer}`"
                )));
            }
        };
        let place = format!("`{pointer}` of {}", place(&self.path));
        self.form.read(secret, &place)
    }

    fn broken(&self, what: &str) -> SourceError {
        SourceError::Broken(format!("{} {what}", place(&self.path)))
    }
}

fn place(path: &Path) -> String {
    format!("the file `{}`", path.display())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let place = place(path);
    let broken = |what: &str| SourceError::Broken(format!("{place} {what}"));
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => SourceError::Missing(format!("{place} does not exist")),
        ErrorKind::PermissionDenied => broken(
            "may not be read by this user; check its owner and mode, and spec.hardening.read if a link leads elsewhere than at the start",
        ),
        kind => broken(&format!("cannot be read: {kind}")),
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(broken("is a directory; name a file in it"));
    }
    if !metadata.is_file() {
        return Err(broken("is not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    // One allocation of the full size: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    let mut bounded = file.take(MAX_BYTES as u64 + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() > MAX_BYTES {
        true => Err(broken("is larger than 64 KiB; is it the right file?")),
        false => Ok(bytes),
    }
}

/// What the watcher's thread tells the task.
#[derive(Debug, Default)]
struct Changes {
    any: Notify,
    /// Data was written and the file was not closed yet.
    unfinished: AtomicBool,
}

impl Changes {
    fn note(&self, event: &Event) {
        match event.kind {
            // Our own reads are reported as well; answering them would never end.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.unfinished.store(false, Ordering::Relaxed);
            }
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => {
                self.unfinished.store(true, Ordering::Relaxed);
            }
            // Another file took its place, whole.
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => {
                self.unfinished.store(false, Ordering::Relaxed);
            }
            _ => {}
        }
        self.any.notify_one();
    }
}

/// Watches on the directories in which a change of the file shows. A watch on the file itself
/// goes deaf after the first Kubernetes `..data` swap: it follows the inode that was removed.
#[derive(Default)]
struct Watch {
    directories: Vec<Directory>,
    watcher: Option<RecommendedWatcher>,
}

/// A directory by its inode: one that was replaced under its name must be watched anew.
#[derive(Debug, PartialEq, Eq)]
struct Directory {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Watch {
    /// [`Watch::renew`] where a mount that hangs blocks nobody else.
    async fn renewed(mut self, file: PathBuf, changes: Arc<Changes>) -> (Self, Duration) {
        let renewing = tokio::task::spawn_blocking(move || {
            let poll = self.renew(&file, &changes);
            (self, poll)
        });
        renewing.await.unwrap_or((Self::default(), POLL_UNWATCHED))
    }

    /// Watches what needs watching now, and says after which pause to look without being told.
    fn renew(&mut self, file: &Path, changes: &Arc<Changes>) -> Duration {
        let directories = directories(file);
        if self.watcher.is_none() || directories != self.directories {
            self.watcher = watch(file, &directories, changes);
            self.directories = directories;
        }
        match self.watcher {
            Some(_) => POLL,
            None => POLL_UNWATCHED,
        }
    }
}

fn directories(file: &Path) -> Vec<Directory> {
    let parent = parent(file);
    let target = std::fs::canonicalize(file).ok();
    let candidates = [
        Some(parent.to_owned()),
        Some(parent.join("..data")),
        target.map(|target| parent_of_target(&target)),
    ];
    let mut found: Vec<Directory> = Vec::new();
    for path in candidates.into_iter().flatten() {
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        let (device, inode) = (metadata.dev(), metadata.ino());
        if metadata.is_dir() && !found.iter().any(|d| (d.device, d.inode) == (device, inode)) {
            found.push(Directory {
                path,
                device,
                inode,
            });
        }
    }
    found
}

fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn parent_of_target(target: &Path) -> PathBuf {
    parent(target).to_owned()
}

fn watch(
    file: &Path,
    directories: &[Directory],
    changes: &Arc<Changes>,
) -> Option<RecommendedWatcher> {
    if directories.is_empty() {
        return None;
    }
    let target = std::fs::canonicalize(file).ok();
    let names: Vec<OsString> = [Some(file), target.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(|path| path.file_name().map(OsStr::to_owned))
        .collect();
    let changes = changes.clone();
    let mut watcher =
        notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) if concerns(&event, &names) => changes.note(&event),
            Ok(_) => {}
            Err(_) => changes.any.notify_one(),
        })
        .ok()?;
    for directory in directories {
        watcher
            .watch(&directory.path, RecursiveMode::NonRecursive)
            .ok()?;
    }
    Some(watcher)
}

/// Whether an event may change what the file's path leads to: the file by its name, Kubernetes'
/// `..data`, the directory itself, or a queue that overflowed.
fn concerns(event: &Event, names: &[OsString]) -> bool {
    event.need_rescan()
        || event.paths.is_empty()
        || event.paths.iter().any(|path| {
            path.is_dir()
                || path.file_name().is_none_or(|name| {
                    names.iter().any(|n| n == name) || name.as_encoded_bytes().starts_with(b"..")
                })
        })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use tokio::sync::watch::Receiver;

    use super::*;
    use crate::credential::held::{CredentialState, Need};

    const SOON: Duration = Duration::from_secs(10);

    async fn follow(path: PathBuf) -> (Arc<HeldCredential>, Receiver<u64>) {
        let held = HeldCredential::new("key", "file:key".to_owned(), Need::Required);
        let file = SecretFile::new(path, None, Form::Line);
        held.report(file.fetch().await);
        let task = tokio::spawn(file.follow(Arc::downgrade(&held)));
        held.owns(task);
        let versions = held.subscribe();
        (held, versions)
    }

    async fn reaches(versions: &mut Receiver<u64>, version: u64) {
        timeout(SOON, versions.wait_for(|v| *v >= version))
            .await
            .expect("the change was not seen in time")
            .unwrap();
    }

    #[tokio::test]
    async fn every_unusable_file_has_a_pointed_error() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("empty"), "\n").unwrap();
        fs::write(at("large"), vec![b'x'; MAX_BYTES + 1]).unwrap();
        fs::write(at("lines"), "s3cret\nmore").unwrap();
        fs::create_dir(at("folder")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), fifo, mode, 0).unwrap();
        for (name, said) in [
            ("absent", "does not exist"),
            ("empty", "is empty"),
            ("large", "larger than 64 KiB"),
            ("lines", "more than one line"),
            ("folder", "is a directory"),
            ("pipe", "not a regular file"),
        ] {
            let error = SecretFile::new(at(name), None, Form::Line)
                .fetch()
                .await
                .unwrap_err();
            let error = error.to_string();
            assert!(error.contains(said) && error.contains(name), "{error}");
            assert!(!error.contains("s3cret"));
        }
    }

    #[tokio::test]
    async fn a_pointer_leads_to_the_secret_in_a_json_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        fs::write(&path, r#"{"tokens":{"a/b":"s3cret","n":7}}"#).unwrap();
        let at =
            |pointer: &str| SecretFile::new(path.clone(), Some(pointer.to_owned()), Form::Line);
        let fetched = at("/tokens/a~1b").fetch().await.unwrap();
        assert_eq!(fetched.secret.expose(), b"s3cret");
        for (pointer, said) in [("/tokens/n", "has no text"), ("/absent", "has nothing at")] {
            let error = at(pointer).fetch().await.unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("s3cret"), "{error}");
        }
        fs::write(&path, r#"{"a":"s3cret"#).unwrap();
        let error = at("/a").fetch().await.unwrap_err().to_string();
        assert!(
            error.contains("not valid JSON") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_replaced_file_is_seen_and_a_removed_one_keeps_the_last_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "one").unwrap();
        let (held, mut versions) = follow(path.clone()).await;
        assert_eq!(held.current().unwrap().expose(), b"one");

        fs::write(dir.path().join("new"), "two\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        reaches(&mut versions, 2).await;
        assert_eq!(held.current().unwrap().expose(), b"two");

        fs::remove_file(&path).unwrap();
        let failing = async {
            while held.status().state != CredentialState::Failing {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, failing).await.unwrap();
        assert_eq!(held.current().unwrap().expose(), b"two");

        fs::write(&path, "three").unwrap();
        reaches(&mut versions, 3).await;
        assert_eq!(held.status().state, CredentialState::Ok);
    }

    #[tokio::test]
    async fn kubernetes_swaps_are_seen_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let swap = |generation: &str, value: &str| {
            let folder = dir.path().join(generation);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("token"), value).unwrap();
            symlink(generation, dir.path().join("..data_tmp")).unwrap();
            fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        };
        swap("..1", "one");
        symlink("..data/token", dir.path().join("token")).unwrap();
        let (held, mut versions) = follow(dir.path().join("token")).await;
        for (version, generation, value) in
            [(2, "..2", "two"), (3, "..3", "three"), (4, "..4", "four")]
        {
            swap(generation, value);
            fs::remove_dir_all(dir.path().join(format!("..{}", version - 1))).unwrap();
            reaches(&mut versions, version).await;
            assert_eq!(held.current().unwrap().expose(), value.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_file_that_is_still_being_written_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "one").unwrap();
        let (held, mut versions) = follow(path.clone()).await;
        // A first change, once seen, proves that the watch stands.
        fs::write(dir.path().join("new"), "two").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        reaches(&mut versions, 2).await;
        let mut writer = fs::File::create(&path).unwrap();
        writer.write_all(b"half").unwrap();
        sleep(SETTLE * 6).await;
        assert_eq!(held.current().unwrap().expose(), b"two");
        writer.write_all(b"-and-half").unwrap();
        drop(writer);
        reaches(&mut versions, 3).await;
        assert_eq!(held.current().unwrap().expose(), b"half-and-half");
    }
}
