//! Owns what a Secret and a Lease may look like. Codes and order follow kube-apiserver: what cannot be
//! decoded is 400, what is decoded and wrong is 422. Unknown fields, which it only warns about, are
//! refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::kube_objects::{Key, Kind};
use super::kube_status::Refusal;

/// `core.MaxSecretSize` of kube-apiserver: the sum over all keys, decoded.
pub const MAX_SECRET: usize = 1024 * 1024;

const METADATA: &[&str] = &[
    "name",
    "namespace",
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];
const SECRET: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "data",
    "type",
    "immutable",
];
const LEASE: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
const LEASE_SPEC: &[&str] = &[
    "acquireTime",
    "holderIdentity",
    "leaseDurationSeconds",
    "leaseTransitions",
    "preferredHolder",
    "renewTime",
    "strategy",
];

/// Reads the object of a POST or PUT for `key`; on POST the name comes from the object.
pub fn decode(body: &[u8], kind: Kind) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|e| Refusal::bad_request(format!("the object provided is unrecognized: {e}")))?;
    let value = without_nulls(value);
    let (version, name) = (value["apiVersion"].as_str(), value["kind"].as_str());
    if (version, name) != (Some(kind.api_version()), Some(kind.name())) {
        return Err(Refusal::bad_request(format!(
            "{version:?} {name:?} in the data does not match the expected {:?} {:?}",
            kind.api_version(),
            kind.name()
        )));
    }
    Ok(value)
}

/// JSON null is absence, as in Go's decoder.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

/// Every field is of the right type and known.
pub fn check_types(object: &Value, kind: Kind) -> Result<(), Refusal> {
    let metadata = fields(&object["metadata"], "metadata")?;
    known(metadata, METADATA, "metadata")?;
    for name in ["name", "namespace", "resourceVersion", "uid"] {
        if let Some(value) = metadata.get(name) {
            string(value, &format!("metadata.{name}"))?;
        }
    }
    for name in ["labels", "annotations"] {
        if let Some(values) = metadata.get(name) {
            for (key, value) in fields(values, name)? {
                string(value, &format!("metadata.{name}.{key}"))?;
            }
        }
    }
    let whole = fields(object, "the object")?;
    match kind {
        Kind::Secret => secret_types(whole),
        Kind::Lease => lease_types(whole),
    }
}

fn secret_types(object: &Map<String, Value>) -> Result<(), Refusal> {
    known(object, SECRET, "Secret")?;
    if let Some(immutable) = object.get("immutable")
        && !immutable.is_boolean()
    {
        return Err(undecodable("immutable", "is no boolean"));
    }
    if let Some(kind) = object.get("type") {
        string(kind, "type")?;
    }
    let Some(data) = object.get("data") else {
        return Ok(());
    };
    for (key, value) in fields(data, "data")? {
        let coded = string(value, &format!("data.{key}"))?;
        if STANDARD.decode(coded).is_err() {
            return Err(undecodable(&format!("data.{key}"), "illegal base64 data"));
        }
    }
    Ok(())
}

fn lease_types(object: &Map<String, Value>) -> Result<(), Refusal> {
    known(object, LEASE, "Lease")?;
    let Some(spec) = object.get("spec") else {
        return Ok(());
    };
    let spec = fields(spec, "spec")?;
    known(spec, LEASE_SPEC, "spec")?;
    for name in ["holderIdentity", "strategy", "preferredHolder"] {
        if let Some(value) = spec.get(name) {
            string(value, &format!("spec.{name}"))?;
        }
    }
    for name in ["acquireTime", "renewTime"] {
        if let Some(value) = spec.get(name) {
            let text = string(value, &format!("spec.{name}"))?;
            if !is_micro_time(text) {
                return Err(undecodable(&format!("spec.{name}"), "is no MicroTime"));
            }
        }
    }
    for name in ["leaseDurationSeconds", "leaseTransitions"] {
        if let Some(value) = spec.get(name)
            && value.as_i64().is_none_or(|n| i32::try_from(n).is_err())
        {
            return Err(undecodable(&format!("spec.{name}"), "is no int32"));
        }
    }
    Ok(())
}

/// Go's layout `2006-01-02T15:04:05.000000Z07:00`: exactly six digits after the point.
fn is_micro_time(text: &str) -> bool {
    let fraction = text.split_once('.').map(|(_, rest)| rest);
    let digits = fraction.map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    digits == Some(6) && text.parse::<jiff::Timestamp>().is_ok()
}

/// What the decoded object says makes sense.
pub fn check_values(object: &Value, key: &Key) -> Result<(), Refusal> {
    if !is_subdomain(&key.name) {
        return Err(Refusal::invalid(
            key,
            "metadata.name",
            "a lowercase RFC 1123 subdomain",
        ));
    }
    match key.kind {
        Kind::Secret => secret_values(object, key),
        Kind::Lease => lease_values(object, key),
    }
}

fn secret_values(object: &Value, key: &Key) -> Result<(), Refusal> {
    let mut size = 0;
    for (name, value) in object["data"].as_object().into_iter().flatten() {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if name.is_empty() || name.len() > 253 || !name.bytes().all(legal) {
            return Err(Refusal::invalid(
                key,
                &format!("data[{name}]"),
                "a valid config key",
            ));
        }
        size += STANDARD.decode(value.as_str().unwrap()).unwrap().len();
    }
    if size > MAX_SECRET {
        let why = "Too long: may not be more than 1048576 bytes";
        return Err(Refusal::invalid(key, "data", why));
    }
    Ok(())
}

fn lease_values(object: &Value, key: &Key) -> Result<(), Refusal> {
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n < 1) {
        let field = "spec.leaseDurationSeconds";
        return Err(Refusal::invalid(key, field, "must be greater than 0"));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|n| n < 0) {
        let field = "spec.leaseTransitions";
        return Err(Refusal::invalid(
            key,
            field,
            "must be greater than or equal to 0",
        ));
    }
    Ok(())
}

/// What may not change from one version to the next.
pub fn check_change(old: &Value, new: &Value, key: &Key) -> Result<(), Refusal> {
    if key.kind == Kind::Lease {
        return Ok(());
    }
    if new["type"] != old["type"] {
        return Err(Refusal::invalid(key, "type", "field is immutable"));
    }
    if old["immutable"] == true && (new["immutable"] != true || new["data"] != old["data"]) {
        let why = "field is immutable when `immutable` is set";
        return Err(Refusal::invalid(key, "data", why));
    }
    Ok(())
}

fn is_subdomain(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label =
        |l: &str| !l.is_empty() && l.bytes().all(legal) && !l.starts_with('-') && !l.ends_with('-');
    name.len() <= 253 && name.split('.').all(label)
}

fn fields<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Refusal> {
    value
        .as_object()
        .ok_or_else(|| undecodable(what, "is missing or no object"))
}

fn string<'a>(value: &'a Value, what: &str) -> Result<&'a str, Refusal> {
    value
        .as_str()
        .ok_or_else(|| undecodable(what, "is no string"))
}

fn known(fields: &Map<String, Value>, names: &[&str], what: &str) -> Result<(), Refusal> {
    match fields.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(Refusal::violation(format!(
            "unknown field {name:?} in {what}"
        ))),
        None => Ok(()),
    }
}

fn undecodable(field: &str, why: &str) -> Refusal {
    Refusal::bad_request(format!("the object cannot be handled: {field} {why}"))
}
