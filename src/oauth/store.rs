//! Owns the port to where a grant outlives the process: read by all, written by whoever holds the lock.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::record::GrantRecord;

/// Why a store cannot be used now. The text names the place and what to do; it holds no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be written until somebody changes the mount, the mode, the role or the surroundings.
    #[error("{0}")]
    ReadOnly(String),
    /// There is no room left.
    #[error("{0}")]
    Full(String),
    /// What stands there is not a record of ours, or the key does not open it.
    #[error("{0}")]
    Unreadable(String),
    /// It does not answer: an API server out of reach, an I/O error.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody else wrote since it was read.
    #[error("{0} was changed by somebody else meanwhile")]
    Conflict(String),
    /// The lock was lost: somebody else may be redeeming.
    #[error("the lock of {0} was lost")]
    LockLost(String),
}

/// Where one grant is kept.
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// The place as status and errors name it: `file:PATH`, `secret:NAMESPACE/NAME`, `memory`.
    fn place(&self) -> String;

    /// Finds out, before anything is redeemed, that it cannot be read or written.
    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Why a login that is kept here would be lost before long, if the place tells.
    fn durability_warning(&self) -> Option<String> {
        None
    }

    /// What is kept now. Nothing before the first login.
    fn read(&self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>>;

    /// How often it is looked at for what other processes wrote.
    fn poll_interval(&self) -> Duration;

    /// Waits until no other process holds the lock, and holds it.
    fn lock(&self) -> BoxFuture<'_, Result<Box<dyn LockedStore>, StoreError>>;
}

/// A store while this process alone may write it. It is held for the whole of a redeem.
pub trait LockedStore: Send {
    /// What is kept now. It must be asked again after locking: another process may have redeemed.
    fn read(&mut self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>>;

    /// Replaces what is kept; when this returns it outlives a crash.
    fn write<'a>(&'a mut self, record: &'a GrantRecord) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Makes sure, as far as the place allows, that the next write finds room.
    fn reserve(&mut self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// How long an intent of another process must have been seen before it counts as abandoned: zero where
    /// a lock cannot be had while its holder lives.
    fn abandoned_after(&self) -> Duration;

    /// Lets the next one in. Dropping does the same, later.
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}
