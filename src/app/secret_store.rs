//! Owns how a Kubernetes Secret becomes a grant's store: which cluster, which objects, and how long
//! replicas wait for each other.

use std::fmt::Display;
use std::time::Duration;

use crate::cluster::connect::connect;
use crate::cluster::lease::LeaseTimes;
use crate::cluster::name::{DataKey, ObjectName};
use crate::config::source::SecretStoreSpec;
use crate::oauth::store::StoreError;
use crate::oauth::store_kubernetes::{ABANDONED, KubernetesStore};

/// The store that `spec` names. `timeout` is how long the token endpoint may take.
///
/// Errors: this process is in no cluster, or has no identity there.
pub(super) async fn open_secret(
    spec: &SecretStoreSpec,
    timeout: Duration,
) -> Result<KubernetesStore, StoreError> {
    let name = &spec.name;
    let unusable = |error: &dyn Display| {
        StoreError::ReadOnly(format!("the Secret {name} cannot be used: {error}"))
    };
    let client = connect(spec.namespace.as_deref()).await;
    let client = client.map_err(|error| unusable(&error))?;
    let namespace = client.default_namespace().to_owned();
    let object = |name: &str| ObjectName::parse(&namespace, name).map_err(|e| unusable(&e));
    let lease = match &spec.lease {
        Some(lease) => object(lease)?,
        None => object(&format!("tollgate-{name}"))?,
    };
    let key = DataKey::parse(spec.key()).map_err(|error| unusable(&error))?;
    let times = LeaseTimes::lasting(spec.lease_duration());
    let abandoned = match spec.abandoned_after {
        Some(span) => span.0,
        None => ABANDONED.max((times.duration + timeout) * 2),
    };
    let store = KubernetesStore::new(client, object(name)?, key, lease, host_name(), times);
    Ok(store.abandoned_after(abandoned))
}

/// In a pod it is the pod's name.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
