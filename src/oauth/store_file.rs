//! Owns the store that is a file: processes of one machine share it, one of them writes.
//!
//! Beside `PATH` stand `PATH.lock`, which is held by flock(2) for the whole of a redeem and never
//! removed, and now and then `.PATH.<random>.tmp`, which becomes the next `PATH`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::file_disk::{GrantFile, Held};
use super::file_trouble::{Scene, Trouble};
use super::record::GrantRecord;
use super::store::{LockedStore, StoreError, TokenStore};

/// Another process's tokens are seen this much later; a look costs one small file.
const POLL: Duration = Duration::from_secs(1);
/// Between two attempts at the lock, at first and at most. Waiting in flock(2) itself could not be
/// cancelled, and would keep a thread for as long as another process takes.
const PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How long a probe waits for another process's redeem, before it tries without the lock.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// A grant in a file.
#[derive(Debug, Clone)]
pub struct FileStore {
    file: Arc<GrantFile>,
}

impl FileStore {
    /// The store at `path`. With a key file, what is written is encrypted; what was written before there
    /// was one is still read.
    pub fn new(path: PathBuf, key_file: Option<PathBuf>) -> Self {
        Self {
            file: Arc::new(GrantFile::new(path, key_file)),
        }
    }

    async fn with_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<GrantFile>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        blocking(move || work(&file).map_err(|trouble| file.explain(&trouble))).await
    }

    async fn hold(&self) -> Result<LockedFile, StoreError> {
        let mut pause = PAUSE;
        loop {
            // If this future is dropped, so is what the attempt brings, and with it the lock.
            if let Some(held) = self.with_file(GrantFile::try_lock).await? {
                return Ok(LockedFile {
                    file: self.file.clone(),
                    held: Some(Arc::new(Mutex::new(held))),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl TokenStore for FileStore {
    fn place(&self) -> String {
        format!("file:{}", self.file.path().display())
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            self.with_file(|file| file.inspect()).await?;
            match timeout(PROBE_PATIENCE, self.hold()).await {
                Ok(locked) => {
                    let mut locked = locked?;
                    locked.with_held(|held| held.rehearse()).await?;
                    locked.read().await?;
                    Box::new(locked).release().await;
                }
                Err(_) => {
                    self.with_file(|file| file.rehearse()).await?;
                    self.read().await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn durability_warning(&self) -> Option<String> {
        Scene::look(self.file.path()).durability_warning()
    }

    fn read(&self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        self.with_file(|file| file.read()).boxed()
    }

    fn poll_interval(&self) -> Duration {
        POLL
    }

    fn lock(&self) -> BoxFuture<'_, Result<Box<dyn LockedStore>, StoreError>> {
        let boxed = |locked| Box::new(locked) as Box<dyn LockedStore>;
        self.hold().map(move |held| held.map(boxed)).boxed()
    }
}

/// A file store while this process alone may write it.
///
/// Work that was begun goes on when its future is dropped, and holds the lock until it is done: the
/// next process finds the old record or the new one.
struct LockedFile {
    file: Arc<GrantFile>,
    /// Nothing once it is let go.
    held: Option<Arc<Mutex<Held>>>,
}

impl LockedFile {
    async fn with_held<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Held) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (file, held) = (self.file.clone(), self.held.clone());
        blocking(move || {
            let held = held.ok_or(Trouble::LockLost);
            let outcome = held
                .and_then(|held| work(&mut held.lock().unwrap_or_else(PoisonError::into_inner)));
            outcome.map_err(|trouble| file.explain(&trouble))
        })
        .await
    }
}

impl LockedStore for LockedFile {
    fn read(&mut self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        self.with_held(|held| held.read()).boxed()
    }

    fn write<'a>(&'a mut self, record: &'a GrantRecord) -> BoxFuture<'a, Result<(), StoreError>> {
        async {
            let encoded = record.encode();
            let bytes = encoded.map_err(|error| self.file.explain(&Trouble::Encoding(error)))?;
            self.with_held(move |held| held.write(&bytes)).await
        }
        .boxed()
    }

    fn reserve(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with_held(Held::reserve).boxed()
    }

    /// The system lets a lock go when its holder ends, however it ends.
    fn abandoned_after(&self) -> Duration {
        Duration::ZERO
    }

    fn release(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            if let Some(held) = self.held.take() {
                let waited = blocking(move || {
                    drop(held);
                    Ok(())
                });
                waited.await.ok();
            }
        }
        .boxed()
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Letting go touches the disk; outside a runtime there is nobody to keep waiting.
        if let (Some(held), Ok(runtime)) = (self.held.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(held));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = |_| StoreError::Unavailable("the process is ending".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

#[cfg(test)]
#[path = "store_file_tests.rs"]
mod tests;
