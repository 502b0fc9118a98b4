//! Owns how a Kubernetes API server says no: `metav1.Status` with its code and reason.

use serde_json::{Value, json};

use super::kube_objects::{Key, Kind};
use super::reply::{self, Reply};

/// A request that is not granted.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Value,
    /// A client of ours must never send such a request: it is remembered as a violation.
    pub violation: bool,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
            violation: false,
        }
    }

    fn about(mut self, kind: Kind, name: &str) -> Self {
        self.details = json!({"name": name, "group": kind.group(), "kind": kind.plural()});
        self
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(user: &str, verb: &str, key: &Key) -> Self {
        let (plural, group) = (key.kind.plural(), key.kind.group());
        let message = format!(
            "{plural} {:?} is forbidden: User {user:?} cannot {verb} resource {plural:?} in API group {group:?} in the namespace {:?}",
            key.name, key.namespace
        );
        Self::new(403, "Forbidden", message).about(key.kind, &key.name)
    }

    /// What a webhook says comes from whoever wrote the webhook.
    pub fn denied(key: &Key, body: &[u8]) -> Self {
        let quoted = String::from_utf8_lossy(body);
        let message =
            format!("admission webhook \"policy.example.com\" denied the request: {quoted}");
        Self::new(403, "Forbidden", message).about(key.kind, &key.name)
    }

    pub fn not_found(key: &Key) -> Self {
        let message = format!("{} {:?} not found", key.kind.plural(), key.name);
        Self::new(404, "NotFound", message).about(key.kind, &key.name)
    }

    pub fn already_exists(key: &Key) -> Self {
        let message = format!("{} {:?} already exists", key.kind.plural(), key.name);
        Self::new(409, "AlreadyExists", message).about(key.kind, &key.name)
    }

    pub fn conflict(key: &Key, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {:?}: {why}",
            key.kind.plural(),
            key.name
        );
        Self::new(409, "Conflict", message).about(key.kind, &key.name)
    }

    /// The object was understood and is wrong at `field`.
    pub fn invalid(key: &Key, field: &str, why: &str) -> Self {
        let message = format!("{:?} {:?} is invalid: {field}: {why}", key.kind, key.name);
        let mut refusal = Self::new(422, "Invalid", message).about(key.kind, &key.name);
        refusal.details["causes"] = json!([{"field": field, "message": why}]);
        refusal
    }

    /// The body was not understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// Something that no client of ours sends, though the real server might let it pass.
    pub fn violation(message: impl Into<String>) -> Self {
        Self {
            violation: true,
            ..Self::bad_request(message)
        }
    }

    pub fn too_large() -> Self {
        let message = "Request entity too large: limit is 3145728";
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn too_many_requests() -> Self {
        let message = "the server has received too many requests and has asked us to try again";
        Self::new(429, "TooManyRequests", message)
    }

    pub fn broken(code: u16) -> Self {
        let reason = match code {
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self::new(code, reason, "Internal error occurred")
    }

    pub fn unsupported(what: &str) -> Self {
        let mut refusal = Self::new(415, "UnsupportedMediaType", what);
        refusal.violation = true;
        refusal
    }

    pub fn not_acceptable(what: &str) -> Self {
        let mut refusal = Self::new(406, "NotAcceptable", what);
        refusal.violation = true;
        refusal
    }

    pub fn unknown_path() -> Self {
        let message = "the server could not find the requested resource";
        let mut refusal = Self::new(404, "NotFound", message);
        refusal.violation = true;
        refusal
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut refusal = Self::new(405, "MethodNotAllowed", message);
        refusal.violation = true;
        refusal
    }

    pub fn reply(&self) -> Reply {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        reply::json(self.code, &status)
    }
}
