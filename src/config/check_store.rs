//! Owns what is wrong with a place where tokens are to be kept: empty paths, names that no cluster
//! accepts, and times that would let two replicas redeem one token.

use std::path::Path;
use std::time::Duration;

use super::error::ConfigError;
use super::literal::shown;
use super::source::{ENDPOINT_TIMEOUT, SecretStoreSpec, StoreSpec};
use super::units::Span;

/// On the wire it has whole seconds, and it is renewed three times before it ends.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);
/// Nobody renews anything for that long when its holder has crashed; nobody waits for it much longer, either.
const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// What keeps a store from being one, if anything does. `timeout` is how long the token endpoint may take.
pub(super) fn store_error(store: &StoreSpec, timeout: Option<Span>) -> Option<ConfigError> {
    match store {
        StoreSpec::Memory {} => None,
        StoreSpec::File { path, key_file } => file_error(path, key_file.as_deref()),
        StoreSpec::KubernetesSecret(secret) => {
            name_error(secret).or_else(|| times_error(secret, timeout))
        }
    }
}

fn name_error(secret: &SecretStoreSpec) -> Option<ConfigError> {
    let names = [
        (
            "name of a Secret",
            Some(&secret.name),
            is_subdomain as fn(&str) -> bool,
        ),
        ("name of a Lease", secret.lease.as_ref(), is_subdomain),
        ("name of a namespace", secret.namespace.as_ref(), is_label),
        ("key of a Secret", secret.key.as_ref(), is_data_key),
    ];
    let wrong = names
        .into_iter()
        .filter_map(|(what, name, fits)| Some((what, name?, fits)))
        .find(|(_, name, fits)| !fits(name));
    wrong.map(|(what, name, _)| {
        let allowed = match what {
            "key of a Secret" => "use letters, digits, `-`, `_` and `.`",
            _ => "use lower case letters, digits and `-`, beginning and ending with a letter or digit (RFC 1123)",
        };
        ConfigError::new("TG0333", format!("`{}` is not the {what}", shown(name))).help(allowed)
    })
}

/// A replica that is cut off may be asking still, and have new tokens a moment later: nobody else asks
/// before its request must have ended.
fn times_error(secret: &SecretStoreSpec, timeout: Option<Span>) -> Option<ConfigError> {
    let lease = secret.lease_duration();
    if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
        let error = ConfigError::new("TG0335", format!("`leaseDuration` is {lease:?}"));
        return Some(error.help("write 2s to 1m, or remove it: 15s suits most clusters"));
    }
    let busy = lease + timeout.map_or(ENDPOINT_TIMEOUT, |span| span.0);
    let early = secret.abandoned_after.filter(|span| span.0 <= busy);
    early.map(|span| {
        ConfigError::new(
            "TG0335",
            format!("`abandonedAfter` is {span}, and a renewal may take {busy:?}"),
        )
        .help("write more than `leaseDuration` and `timeout` together, or two replicas may redeem one refresh token")
    })
}

fn file_error(path: &Path, key_file: Option<&Path>) -> Option<ConfigError> {
    let empty = |path: &Path| path.as_os_str().is_empty();
    if empty(path) || key_file.is_some_and(empty) {
        return Some(
            ConfigError::new("TG0333", "the store has an empty path")
                .help("write `path: /var/lib/tollgate/NAME.json`"),
        );
    }
    (key_file == Some(path)).then(|| {
        ConfigError::new("TG0333", "the store and its key are one file")
            .help("keep the key elsewhere; `openssl rand -out KEYFILE 32` makes one")
    })
}

/// What Kubernetes calls a DNS subdomain name, after RFC 1123, section 2.1.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| plain(b) || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A key of a Secret's `data` (Kubernetes API reference, Secret v1).
fn is_data_key(key: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&key.len())
        && key.bytes().all(inside)
        && key != "."
        && !key.starts_with("..")
}
