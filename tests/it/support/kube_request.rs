//! Owns how a request to the Kubernetes API is read: path, verb, parameters, media types. What no client
//! of ours should send is a violation.

use http::{HeaderMap, Method};

use super::kube_objects::{Change, Key, Kind, Run};
use super::kube_schema::decode;
use super::kube_status::Refusal;

/// `--max-request-bytes` of kube-apiserver.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// How the object is shown in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Whole,
    /// `PartialObjectMetadata`
    Metadata,
}

/// Finds the object, or the collection for POST.
pub fn key(path: &str) -> Result<Key, Refusal> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (kind, rest) = match segments.as_slice() {
        ["api", "v1", "namespaces", namespace, "secrets", rest @ ..] => {
            (Kind::Secret, (namespace, rest))
        }
        [
            "apis",
            "coordination.k8s.io",
            "v1",
            "namespaces",
            namespace,
            "leases",
            rest @ ..,
        ] => (Kind::Lease, (namespace, rest)),
        _ => return Err(Refusal::unknown_path()),
    };
    let (namespace, rest) = rest;
    let name = match rest {
        [] => "",
        [name] if !name.is_empty() => name,
        _ => return Err(Refusal::unknown_path()),
    };
    Ok(Key {
        kind,
        namespace: (*namespace).to_owned(),
        name: name.to_owned(),
    })
}

/// The verb that RBAC judges.
pub fn verb(method: &Method, key: &Key) -> Result<&'static str, Refusal> {
    match (method.as_str(), key.name.is_empty()) {
        ("GET", false) => Ok("get"),
        ("POST", true) => Ok("create"),
        ("PUT", false) => Ok("update"),
        ("PATCH", false) => Ok("patch"),
        _ => Err(Refusal::method_not_allowed()),
    }
}

pub fn run(verb: &str, query: Option<&str>) -> Result<Run, Refusal> {
    let mut run = Run::Real;
    for pair in query.unwrap_or_default().split('&') {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("", "") => {}
            ("dryRun", "All") if verb != "get" => run = Run::Dry,
            ("fieldManager", name) if verb != "get" && !name.is_empty() => {}
            ("fieldValidation", "Strict" | "Warn" | "Ignore") if verb != "get" => {}
            _ => {
                return Err(Refusal::violation(format!(
                    "unknown parameter {pair:?} for {verb}"
                )));
            }
        }
    }
    Ok(run)
}

pub fn view(headers: &HeaderMap) -> Result<View, Refusal> {
    let accept = headers.get("accept").map(|v| v.to_str().unwrap_or("?"));
    match accept.unwrap_or("*/*") {
        "*/*" | "application/json" => Ok(View::Whole),
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1" => Ok(View::Metadata),
        other => Err(Refusal::not_acceptable(other)),
    }
}

/// What the body asks for; `None` for a read.
pub fn change(
    verb: &str,
    key: &Key,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Change>, Refusal> {
    let sent = headers
        .get("content-type")
        .map(|v| v.to_str().unwrap_or("?"));
    let wanted = match verb {
        "get" if body.is_empty() => return Ok(None),
        "get" => return Err(Refusal::violation("a GET with a body")),
        "patch" => "application/merge-patch+json",
        _ => "application/json",
    };
    if sent != Some(wanted) {
        return Err(Refusal::unsupported(&format!(
            "{sent:?} for {verb}; this server takes {wanted}"
        )));
    }
    match verb {
        "create" => Ok(Some(Change::Create(decode(body, key.kind)?))),
        "update" => Ok(Some(Change::Replace(decode(body, key.kind)?))),
        _ => match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(patch) if patch.is_object() => Ok(Some(Change::Merge(patch))),
            _ => Err(Refusal::bad_request("error decoding patch")),
        },
    }
}
