//! Owns the store that is a Kubernetes Secret: replicas share it, a Lease says which of them renews, and
//! the Secret's version keeps a late writer from undoing what another has done.

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kube::Client;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::record::GrantRecord;
use super::store::{LockedStore, StoreError, TokenStore};
use crate::cluster::lease::{LeaseError, LeaseLock, LeaseTimes};
use crate::cluster::lease_guard::LeaseGuard;
use crate::cluster::name::{DataKey, ObjectName};
use crate::cluster::secret::{ResourceVersion, SecretObject, SecretStoreError};

/// A replica that is cut off from the API server may hold new tokens that it cannot store. It gets this
/// long, counted from when its intent was first seen, before its refresh token is tried again.
pub const ABANDONED: Duration = Duration::from_secs(120);
/// The limit of one request for the Secret. kube-apiserver ends its own work on one after 34 s at the latest.
const PATIENCE: Duration = Duration::from_secs(10);

/// A grant in a Secret.
#[derive(Clone)]
pub struct KubernetesStore {
    name: ObjectName,
    secret: SecretObject,
    lease: LeaseLock,
    times: LeaseTimes,
    abandoned: Duration,
}

impl KubernetesStore {
    /// The grant under `key` of `secret`, with `lease` as its lock. `holder` is for people who read the
    /// Lease: the pod's name.
    pub fn new(
        client: Client,
        secret: ObjectName,
        key: DataKey,
        lease: ObjectName,
        holder: String,
        times: LeaseTimes,
    ) -> Self {
        // A request that takes longer than the Lease lasts is of no use to its holder. In whole seconds,
        // which people read.
        let patience = Duration::from_secs((times.duration.as_secs() * 2).div_ceil(3));
        Self {
            name: secret.clone(),
            secret: SecretObject::new(client.clone(), secret, key)
                .with_patience(patience.min(PATIENCE)),
            lease: LeaseLock::new(client, lease, holder, times),
            times,
            abandoned: ABANDONED,
        }
    }

    /// Sets how long another replica's intent must have been seen before it counts as abandoned.
    pub fn abandoned_after(self, abandoned: Duration) -> Self {
        Self { abandoned, ..self }
    }

    /// Longer than a holder that has crashed keeps the Lease. One that lives may keep it for longer; what
    /// it stores meanwhile is seen without it.
    fn lease_patience(&self) -> Duration {
        self.times.duration * 2
    }
}

impl fmt::Debug for KubernetesStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KubernetesStore").field(&self.name).finish()
    }
}

impl TokenStore for KubernetesStore {
    fn place(&self) -> String {
        format!("secret:{}/{}", self.name.namespace(), self.name.name())
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            self.secret.probe_writable().await.map_err(explain)?;
            self.lease.probe().await.map_err(explain_lease)?;
            self.read().await.map(drop)
        }
        .boxed()
    }

    fn read(&self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        async {
            let (bytes, _) = self.secret.read().await.map_err(explain)?;
            decode(&self.name, bytes)
        }
        .boxed()
    }

    /// As often as the Lease is renewed. Until then the old token is still good.
    fn poll_interval(&self) -> Duration {
        self.times.duration / 3
    }

    fn lock(&self) -> BoxFuture<'_, Result<Box<dyn LockedStore>, StoreError>> {
        async {
            let patience = self.lease_patience();
            let held = timeout(patience, self.lease.acquire()).await;
            let held = held.map_err(|_| {
                let obstacle = self.lease.obstacle();
                let obstacle = obstacle.unwrap_or_else(|| "nothing was heard".to_owned());
                let place = self.place();
                StoreError::Unavailable(format!(
                    "{place} could not be locked within {patience:?}: {obstacle}"
                ))
            })?;
            let lease = held.map_err(explain_lease)?;
            let locked = LockedSecret {
                store: self.clone(),
                lease,
                version: None,
            };
            Ok(Box::new(locked) as Box<dyn LockedStore>)
        }
        .boxed()
    }
}

/// A Secret store while this replica has the Lease.
struct LockedSecret {
    store: KubernetesStore,
    lease: LeaseGuard,
    /// Of what was last read or written.
    version: Option<ResourceVersion>,
}

impl LockedSecret {
    fn held(&self) -> Result<(), StoreError> {
        match self.lease.is_held() {
            true => Ok(()),
            false => Err(StoreError::LockLost(self.store.place())),
        }
    }

    async fn replace(&mut self, record: &GrantRecord) -> Result<(), StoreError> {
        // New tokens are stored with or without the Lease: what they replace is worth nothing any more, and
        // the version says whether anybody else has been at it. Nothing is begun without it.
        if record.intent.is_some() {
            self.held()?;
        }
        let Some(version) = &self.version else {
            return Err(StoreError::Conflict(self.store.place()));
        };
        let bytes = record
            .encode()
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let written = self.store.secret.write(&bytes, version).await;
        self.version = Some(written.map_err(explain)?);
        Ok(())
    }
}

impl LockedStore for LockedSecret {
    fn read(&mut self) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        async {
            let (bytes, version) = self.store.secret.read().await.map_err(explain)?;
            self.version = Some(version);
            decode(&self.store.name, bytes)
        }
        .boxed()
    }

    fn write<'a>(&'a mut self, record: &'a GrantRecord) -> BoxFuture<'a, Result<(), StoreError>> {
        self.replace(record).boxed()
    }

    /// The API server takes what it takes; what can be made sure of is that nobody else is at it.
    fn reserve(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(self.held()).boxed()
    }

    fn abandoned_after(&self) -> Duration {
        self.store.abandoned
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            if let Err(error) = self.lease.release().await {
                tracing::debug!(%error, "a Lease is left to expire");
            }
        }
        .boxed()
    }
}

fn decode(
    name: &ObjectName,
    bytes: Option<Zeroizing<Vec<u8>>>,
) -> Result<Option<GrantRecord>, StoreError> {
    // A key that was made empty, so that the Secret exists.
    let bytes = bytes.filter(|bytes| !bytes.trim_ascii().is_empty());
    let record = bytes.map(|bytes| GrantRecord::decode(&bytes)).transpose();
    record.map_err(|error| {
        StoreError::Unreadable(format!(
            "what the Secret {name} holds cannot be used: {error}; name another key for the grant under store.kubernetesSecret.key"
        ))
    })
}

fn explain_lease(error: LeaseError) -> StoreError {
    let text = error.to_string();
    match error {
        LeaseError::Forbidden { .. } => StoreError::ReadOnly(text),
        LeaseError::Call { .. } | LeaseError::Random => StoreError::Unavailable(text),
    }
}

fn explain(error: SecretStoreError) -> StoreError {
    let text = error.to_string();
    match error {
        SecretStoreError::Conflict { secret } => {
            StoreError::Conflict(format!("the Secret {secret}"))
        }
        SecretStoreError::TooLarge { .. } => StoreError::Full(text),
        SecretStoreError::Missing { .. }
        | SecretStoreError::Forbidden { .. }
        | SecretStoreError::Immutable { .. } => StoreError::ReadOnly(text),
        SecretStoreError::Call { .. } => StoreError::Unavailable(text),
    }
}
