//! Owns bytes under one key of a Kubernetes Secret: read with their version, written only over the
//! version they were made from, the other keys left alone. Errors and logs never show data.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use k8s_openapi::api::core::v1::Secret;
use kube::core::params::{GetParams, Patch, PatchParams};
use kube::core::request;
use kube::{Client, Resource as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::call::{CallError, FIELD_MANAGER, call};
use super::name::{DataKey, ObjectName};

/// `core.MaxSecretSize` of Kubernetes, for all keys of a Secret together.
const MAX_SECRET: usize = 1024 * 1024;
/// The limit of one request, unless another is set.
const PATIENCE: Duration = Duration::from_secs(10);

/// A version of a Secret. It can be compared for equality and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceVersion(String);

/// What was read, and the version it was read at.
pub type Versioned = (Option<Zeroizing<Vec<u8>>>, ResourceVersion);

/// One key of one Secret at one API server.
#[derive(Clone)]
pub struct SecretObject {
    client: Client,
    secret: ObjectName,
    key: DataKey,
    patience: Duration,
}

/// Why a Secret cannot be read or written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretStoreError {
    /// It does not exist; Tollgate does not create it, so that its Role needs no `create`.
    #[error(
        "the Secret {secret} does not exist; create it empty: kubectl -n {} create secret generic {}",
        secret.namespace(),
        secret.name()
    )]
    Missing {
        /// The Secret.
        secret: ObjectName,
    },
    /// RBAC lacks a rule.
    #[error(
        "the ServiceAccount may not {verb} the Secret {secret}; give its Role the rule \
         {{apiGroups: [\"\"], resources: [secrets], resourceNames: [{}], verbs: [get, patch]}}",
        secret.name()
    )]
    Forbidden {
        /// The Secret.
        secret: ObjectName,
        /// What is forbidden, as RBAC calls it.
        verb: &'static str,
    },
    /// `immutable: true`
    #[error(
        "the Secret {secret} is immutable, so a rotated token cannot be kept in it; delete it and create it again without `immutable: true`"
    )]
    Immutable {
        /// The Secret.
        secret: ObjectName,
    },
    /// Somebody has written other bytes, or another key, since that version.
    #[error("the Secret {secret} has changed since it was read; read it again")]
    Conflict {
        /// The Secret.
        secret: ObjectName,
    },
    /// More than 1 MiB for all keys together.
    #[error(
        "the Secret {secret} would become larger than the 1 MiB that Kubernetes allows; use a Secret of its own for this grant"
    )]
    TooLarge {
        /// The Secret.
        secret: ObjectName,
    },
    /// Anything else.
    #[error("Secret {secret}: {source}")]
    Call {
        /// The Secret.
        secret: ObjectName,
        /// What went wrong.
        source: CallError,
    },
}

impl SecretStoreError {
    /// Whether a write may have been done, or may still be done, although it failed: the same write
    /// on the same version settles it.
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.may_be_done())
    }
}

impl SecretObject {
    /// The bytes under `key` of `secret`.
    pub fn new(client: Client, secret: ObjectName, key: DataKey) -> Self {
        Self {
            client,
            secret,
            key,
            patience: PATIENCE,
        }
    }

    /// Sets how long one request may take.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The bytes, `None` if the key is absent, and the version to write over.
    pub async fn read(&self) -> Result<Versioned, SecretStoreError> {
        let fetched = self.fetch().await?;
        Ok((fetched.bytes, fetched.version))
    }

    /// Puts `bytes` in the place of what stood there at `expected`.
    ///
    /// Writing the same bytes on the same version again is harmless: if the first write was done and
    /// only its answer was lost, this finds them there and succeeds.
    pub async fn write(
        &self,
        bytes: &[u8],
        expected: &ResourceVersion,
    ) -> Result<ResourceVersion, SecretStoreError> {
        if bytes.len() > MAX_SECRET {
            let secret = self.secret.clone();
            return Err(SecretStoreError::TooLarge { secret });
        }
        let coded = Zeroizing::new(STANDARD.encode(bytes));
        let error = match self.patch(Some(&coded), expected, Run::Real).await {
            Ok(version) => return Ok(version),
            Err(error) => error,
        };
        let unsettled = error.may_be_done() || error == CallError::Conflict;
        if unsettled || error == CallError::Invalid {
            match self.fetch().await {
                Ok(now) if unsettled && now.holds(bytes) => return Ok(now.version),
                Ok(now) if now.immutable => {
                    let secret = self.secret.clone();
                    return Err(SecretStoreError::Immutable { secret });
                }
                Ok(now) if !unsettled && now.others + bytes.len() > MAX_SECRET => {
                    let secret = self.secret.clone();
                    return Err(SecretStoreError::TooLarge { secret });
                }
                // Of two errors the first one tells what became of the write.
                _ => {}
            }
        }
        Err(self.error(error, "patch"))
    }

    /// Finds at start what would keep a rotated token from being stored: a Secret that is missing or
    /// immutable, and a Role that lets this process read only. Changes nothing.
    pub async fn probe_writable(&self) -> Result<(), SecretStoreError> {
        let now = self.fetch().await?;
        if now.immutable {
            let secret = self.secret.clone();
            return Err(SecretStoreError::Immutable { secret });
        }
        // No data in it: should anything on the way not know `dryRun`, nothing is lost.
        match self.patch(None, &now.version, Run::Dry).await {
            // Another replica has just written: RBAC had been asked by then.
            Ok(_) | Err(CallError::Conflict) => Ok(()),
            Err(error) => Err(self.error(error, "patch")),
        }
    }

    async fn fetch(&self) -> Result<Fetched, SecretStoreError> {
        let request = self
            .requests()
            .get(self.secret.name(), &GetParams::default());
        let body = match request {
            Ok(request) => call(&self.client, request.map(Bytes::from), self.patience).await,
            Err(_) => Err(NO_REQUEST),
        };
        let fetched = body.and_then(|body| Fetched::parse(&body, &self.key));
        fetched.map_err(|error| self.error(error, "get"))
    }

    async fn patch(
        &self,
        coded: Option<&str>,
        expected: &ResourceVersion,
        run: Run,
    ) -> Result<ResourceVersion, CallError> {
        let parameters = PatchParams {
            dry_run: run == Run::Dry,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        // Of the metadata only, so that the answer has no data in it; the body is put in below.
        let request = self.requests().patch_metadata(
            self.secret.name(),
            &parameters,
            &Patch::Merge(serde_json::Map::new()),
        );
        let request: Request<Vec<u8>> = request.map_err(|_| NO_REQUEST)?;
        let body = merge_patch(&self.key, coded, expected)?;
        let request = request.map(|_| Bytes::from_owner(body));
        let answer = call(&self.client, request, self.patience).await?;
        match serde_json::from_slice::<Partial>(&answer) {
            Ok(answer) if !answer.metadata.resource_version.is_empty() => {
                Ok(ResourceVersion(answer.metadata.resource_version))
            }
            _ => Err(CallError::Unreadable("it has no version")),
        }
    }

    fn requests(&self) -> request::Request {
        request::Request::new(Secret::url_path(&(), Some(self.secret.namespace())))
    }

    fn error(&self, source: CallError, verb: &'static str) -> SecretStoreError {
        let secret = self.secret.clone();
        match source {
            CallError::NotFound => SecretStoreError::Missing { secret },
            CallError::Forbidden => SecretStoreError::Forbidden { secret, verb },
            CallError::Conflict => SecretStoreError::Conflict { secret },
            CallError::TooLarge => SecretStoreError::TooLarge { secret },
            source => SecretStoreError::Call { secret, source },
        }
    }
}

const NO_REQUEST: CallError = CallError::Unreadable("no request could be made");

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Real,
    Dry,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    #[serde(rename = "resourceVersion", default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Partial {
    metadata: Metadata,
}

struct Fetched {
    bytes: Option<Zeroizing<Vec<u8>>>,
    version: ResourceVersion,
    immutable: bool,
    /// How many bytes the other keys hold, up to the padding of base64.
    others: usize,
}

impl Fetched {
    /// Decodes the one key; the others are passed over.
    fn parse(body: &[u8], key: &DataKey) -> Result<Self, CallError> {
        #[derive(Deserialize)]
        struct Stored<'a> {
            metadata: Metadata,
            immutable: Option<bool>,
            #[serde(borrow)]
            data: Option<HashMap<String, &'a RawValue>>,
        }
        let stored: Stored<'_> =
            serde_json::from_slice(body).map_err(|_| CallError::Unreadable("it is no Secret"))?;
        if stored.metadata.resource_version.is_empty() {
            return Err(CallError::Unreadable("the Secret has no version"));
        }
        let mut data = stored.data.unwrap_or_default();
        let value = data.remove(key.as_str());
        Ok(Self {
            bytes: value.map(decoded).transpose()?,
            version: ResourceVersion(stored.metadata.resource_version),
            immutable: stored.immutable.unwrap_or(false),
            others: data.values().map(|v| v.get().len() / 4 * 3).sum(),
        })
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        self.bytes.as_ref().is_some_and(|b| b.as_slice() == bytes)
    }
}

fn decoded(value: &RawValue) -> Result<Zeroizing<Vec<u8>>, CallError> {
    const NOT_BASE64: CallError = CallError::Unreadable("the Secret's data is no base64");
    let coded: String = serde_json::from_str(value.get()).map_err(|_| NOT_BASE64)?;
    let coded = Zeroizing::new(coded);
    let bytes = STANDARD.decode(coded.as_bytes());
    bytes.map(Zeroizing::new).map_err(|_| NOT_BASE64)
}

/// RFC 7396: only this key changes. With `metadata.resourceVersion` in it, the server refuses it with
/// 409 if the Secret has changed.
fn merge_patch(
    key: &DataKey,
    coded: Option<&str>,
    expected: &ResourceVersion,
) -> Result<Zeroizing<Vec<u8>>, CallError> {
    #[derive(Serialize)]
    struct MergePatch<'a> {
        metadata: Metadata,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<BTreeMap<&'a str, &'a str>>,
    }
    let patch = MergePatch {
        metadata: Metadata {
            resource_version: expected.0.clone(),
        },
        data: coded.map(|coded| BTreeMap::from([(key.as_str(), coded)])),
    };
    // In one piece, because a vector that grows leaves copies behind.
    let room = 128 + expected.0.len() + key.as_str().len() + coded.map_or(0, str::len);
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *body, &patch).map_err(|_| NO_REQUEST)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DataKey {
        DataKey::parse("grant").unwrap()
    }

    #[test]
    fn a_secret_without_the_key_or_without_data_has_no_bytes() {
        for data in [
            "",
            r#","data":null"#,
            r#","data":{}"#,
            r#","data":{"other":"eA=="}"#,
        ] {
            let body = format!(r#"{{"metadata":{{"resourceVersion":"7"}}{data}}}"#);
            let fetched = Fetched::parse(body.as_bytes(), &key()).unwrap();
            assert!(fetched.bytes.is_none(), "{data}");
            assert_eq!(fetched.version, ResourceVersion("7".to_owned()));
        }
    }

    #[test]
    fn an_answer_without_a_version_is_no_answer() {
        let body = br#"{"metadata":{},"data":{"grant":"eA=="}}"#;
        assert!(Fetched::parse(body, &key()).is_err());
    }

    #[test]
    fn a_patch_names_the_version_and_the_one_key_and_grows_in_no_second_place() {
        let version = ResourceVersion("41".to_owned());
        let patch = merge_patch(&key(), Some("eA=="), &version).unwrap();
        assert_eq!(
            std::str::from_utf8(&patch).unwrap(),
            r#"{"metadata":{"resourceVersion":"41"},"data":{"grant":"eA=="}}"#
        );
        let coded = "A".repeat(100_000);
        let patch = merge_patch(&key(), Some(&coded), &version).unwrap();
        assert_eq!(
            patch.capacity(),
            128 + version.0.len() + "grant".len() + coded.len()
        );
    }
}
