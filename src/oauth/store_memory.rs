//! Owns grants that need not outlive the process: those that can be asked for again at any time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

use super::record::GrantRecord;
use super::store::{LockedStore, StoreError, TokenStore};

/// A store in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    kept: Kept,
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// Encoded, so that it behaves as the others do.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<Zeroizing<Vec<u8>>>>>);

impl Kept {
    fn read(&self) -> Result<Option<GrantRecord>, StoreError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = kept.as_ref().map(|bytes| GrantRecord::decode(bytes));
        record
            .transpose()
            .map_err(|error| StoreError::Unreadable(error.to_string()))
    }

    fn write(&self, record: &GrantRecord) -> Result<(), StoreError> {
        let bytes = record.encode();
        let bytes = bytes.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        Ok(())
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept(***)")
    }
}

impl TokenStore for MemoryStore {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }

    fn read(&self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        async { self.kept.read() }.boxed()
    }

    /// No other process can write it.
    fn poll_interval(&self) -> Duration {
        Duration::from_secs(86_400)
    }

    fn lock(&self) -> BoxFuture<'_, Result<Box<dyn LockedStore>, StoreError>> {
        async {
            let locked: Box<dyn LockedStore> = Box::new(LockedMemory {
                kept: self.kept.clone(),
                guard: self.lock.clone().lock_owned().await,
            });
            Ok(locked)
        }
        .boxed()
    }
}

struct LockedMemory {
    kept: Kept,
    guard: OwnedMutexGuard<()>,
}

impl LockedStore for LockedMemory {
    fn read(&mut self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        async { self.kept.read() }.boxed()
    }

    fn write<'a>(&'a mut self, record: &'a GrantRecord) -> BoxFuture<'a, Result<(), StoreError>> {
        async { self.kept.write(record) }.boxed()
    }

    fn reserve(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }

    fn abandoned_after(&self) -> Duration {
        Duration::ZERO
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self.guard);
        async {}.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_writes_and_all_read() {
        let store = MemoryStore::default();
        assert!(store.read().await.unwrap().is_none());
        let mut locked = store.lock().await.unwrap();
        let other = store.clone();
        let mut second = tokio::spawn(async move { other.lock().await.unwrap().read().await });
        let record = GrantRecord {
            generation: 7,
            ..GrantRecord::default()
        };
        locked.write(&record).await.unwrap();
        assert_eq!(store.read().await.unwrap().unwrap().generation, 7);
        let early = tokio::time::timeout(Duration::from_millis(20), &mut second).await;
        assert!(early.is_err());
        locked.release().await;
        assert_eq!(second.await.unwrap().unwrap().unwrap().generation, 7);
    }
}
