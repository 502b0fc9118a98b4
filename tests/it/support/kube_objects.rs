//! Owns the objects behind a Kubernetes API: what a write does to them, and the truth about all writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::kube_schema::{check_change, check_types, check_values};
use super::kube_status::Refusal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Secret,
    Lease,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::Lease => "Lease",
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Lease => "leases",
        }
    }

    pub fn group(self) -> &'static str {
        match self {
            Self::Secret => "",
            Self::Lease => "coordination.k8s.io",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Self::Secret => "v1",
            Self::Lease => "coordination.k8s.io/v1",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
}

/// What a write asks for.
#[derive(Clone, Debug)]
pub enum Change {
    Create(Value),
    Replace(Value),
    /// RFC 7396.
    Merge(Value),
}

/// Whether a write is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Real,
    /// `dryRun=All`
    Dry,
}

/// A write that was done.
#[derive(Clone, Debug)]
pub struct Write {
    pub account: String,
    pub user_agent: String,
    pub key: Key,
    /// The version it was made from; `None` for a new object.
    pub from: Option<String>,
    pub to: String,
    /// As it stood after the write.
    pub object: Value,
}

/// Somebody took a Lease while its holder's time was not over, by this server's clock.
#[derive(Clone, Debug)]
pub struct Overlap {
    pub holder: String,
    pub taken_by: String,
    pub early_by: Duration,
}

/// Who writes.
#[derive(Clone, Debug)]
pub struct Author {
    pub account: String,
    pub user_agent: String,
}

#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    /// When a Lease's spec last changed here.
    renewed: BTreeMap<Key, Instant>,
    version: u64,
    pub writes: Vec<Write>,
    pub overlaps: Vec<Overlap>,
}

impl Store {
    pub fn get(&self, key: &Key) -> Result<Value, Refusal> {
        let found = self.objects.get(key).cloned();
        found.ok_or_else(|| Refusal::not_found(key))
    }

    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        self.objects.remove(key)
    }

    /// Does a write, or refuses it and leaves everything as it was. Answers 201 for a new object.
    pub fn write(
        &mut self,
        key: &Key,
        change: Change,
        run: Run,
        author: &Author,
    ) -> Result<(u16, Value), Refusal> {
        let old = self.objects.get(key).cloned();
        let mut new = match (change, &old) {
            (Change::Create(_), Some(_)) => return Err(Refusal::already_exists(key)),
            (Change::Create(object), None) => {
                check_create(&object, key)?;
                object
            }
            (Change::Replace(object), old) => {
                check_replace(&object, old.as_ref(), key)?;
                object
            }
            (Change::Merge(_), None) => return Err(Refusal::not_found(key)),
            (Change::Merge(patch), Some(old)) => merged(old, patch, key)?,
        };
        if key.kind == Kind::Secret && new["type"].is_null() {
            new["type"] = json!("Opaque");
        }
        check_values(&new, key)?;
        if let Some(old) = &old {
            check_change(old, &new, key)?;
        }
        self.stamp(&mut new, old.as_ref(), key);
        let code = if old.is_some() { 200 } else { 201 };
        // As kube-apiserver: a write that changes nothing makes no new version.
        if old.as_ref() == Some(&new) {
            return Ok((code, new));
        }
        new["metadata"]["resourceVersion"] = json!((self.version + 1).to_string());
        if run == Run::Dry {
            // kube-apiserver shows no version of a dry run either: there is none.
            new["metadata"]["resourceVersion"] = match &old {
                Some(old) => old["metadata"]["resourceVersion"].clone(),
                None => Value::Null,
            };
            return Ok((code, new));
        }
        self.version += 1;
        self.note_holder(key, old.as_ref(), &new);
        self.writes.push(Write {
            account: author.account.clone(),
            user_agent: author.user_agent.clone(),
            key: key.clone(),
            from: old.map(|o| text(&o["metadata"]["resourceVersion"])),
            to: self.version.to_string(),
            object: new.clone(),
        });
        self.objects.insert(key.clone(), new.clone());
        Ok((code, new))
    }

    /// What only the server sets, in the version the write was made from.
    fn stamp(&self, new: &mut Value, old: Option<&Value>, key: &Key) {
        let metadata = &mut new["metadata"];
        metadata["name"] = json!(key.name);
        metadata["namespace"] = json!(key.namespace);
        match old {
            Some(old) => {
                for name in ["uid", "creationTimestamp", "resourceVersion"] {
                    metadata[name] = old["metadata"][name].clone();
                }
            }
            None => {
                metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.version));
                let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
                metadata["creationTimestamp"] = json!(now.to_string());
            }
        }
    }

    /// Judges a new holder by this server's clock: from when it stored the last renewal, not by what
    /// `renewTime` says, which is another machine's clock.
    fn note_holder(&mut self, key: &Key, old: Option<&Value>, new: &Value) {
        if key.kind != Kind::Lease {
            return;
        }
        let holder = |lease: &Value| text(&lease["spec"]["holderIdentity"]);
        let now = Instant::now();
        if let Some(old) = old {
            if old["spec"] == new["spec"] {
                return;
            }
            let seconds = old["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(0);
            let free = self.renewed.get(key).copied().unwrap_or(now) + Duration::from_secs(seconds);
            let (before, after) = (holder(old), holder(new));
            if now < free && !before.is_empty() && !after.is_empty() && before != after {
                self.overlaps.push(Overlap {
                    holder: before,
                    taken_by: after,
                    early_by: free - now,
                });
            }
        }
        self.renewed.insert(key.clone(), now);
    }

    /// A Secret's value, decoded.
    pub fn secret_value(&self, key: &Key, name: &str) -> Option<Vec<u8>> {
        let coded = self.objects.get(key)?["data"][name].as_str()?.to_owned();
        Some(STANDARD.decode(coded).unwrap())
    }
}

fn check_create(object: &Value, key: &Key) -> Result<(), Refusal> {
    check_types(object, key.kind)?;
    let metadata = &object["metadata"];
    check_place(metadata, key)?;
    if !text(&metadata["resourceVersion"]).is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}

fn check_replace(object: &Value, old: Option<&Value>, key: &Key) -> Result<(), Refusal> {
    check_types(object, key.kind)?;
    let metadata = &object["metadata"];
    check_place(metadata, key)?;
    let (uid, version) = (text(&metadata["uid"]), text(&metadata["resourceVersion"]));
    let Some(old) = old else {
        // A Lease may be created by PUT, but not in the place of one that had a uid.
        return match key.kind {
            Kind::Lease if uid.is_empty() => Ok(()),
            Kind::Lease => Err(Refusal::conflict(key, "Precondition failed: UID")),
            Kind::Secret => Err(Refusal::not_found(key)),
        };
    };
    if !uid.is_empty() && uid != text(&old["metadata"]["uid"]) {
        return Err(Refusal::conflict(key, "Precondition failed: UID"));
    }
    match (version.is_empty(), key.kind) {
        (true, Kind::Secret) => Ok(()),
        (true, Kind::Lease) => Err(Refusal::invalid(
            key,
            "metadata.resourceVersion",
            "must be specified for an update",
        )),
        (false, _) => check_version(&version, old, key),
    }
}

/// The name and namespace of the object are those of the address.
fn check_place(metadata: &Value, key: &Key) -> Result<(), Refusal> {
    if text(&metadata["name"]) != key.name {
        let message = "the name of the object does not match the name on the URL";
        return Err(Refusal::bad_request(message));
    }
    let namespace = text(&metadata["namespace"]);
    if !namespace.is_empty() && namespace != key.namespace {
        let message =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}

fn check_version(version: &str, old: &Value, key: &Key) -> Result<(), Refusal> {
    if version == text(&old["metadata"]["resourceVersion"]) {
        return Ok(());
    }
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    Err(Refusal::conflict(key, why))
}

fn merged(old: &Value, patch: Value, key: &Key) -> Result<Value, Refusal> {
    let mut new = old.clone();
    merge(&mut new, patch);
    check_types(&new, key.kind).map_err(|refusal| match refusal.violation {
        true => refusal,
        // kube-apiserver puts the whole patched object into its answer (handlers/patch.go).
        false => Refusal::invalid(
            key,
            "patch",
            &format!("Invalid value: {:?}: {}", new.to_string(), refusal.message),
        ),
    })?;
    if new["metadata"]["name"] != old["metadata"]["name"] {
        return Err(Refusal::bad_request(
            "the name of the object does not match",
        ));
    }
    check_version(&text(&new["metadata"]["resourceVersion"]), old, key)?;
    if new["metadata"]["uid"] != old["metadata"]["uid"] {
        return Err(Refusal::conflict(key, "Precondition failed: UID"));
    }
    Ok(new)
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.as_object_mut().unwrap().remove(&name);
            }
            value => merge(&mut target[name], value),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
