//! Owns the words of a refusal: the error shape that the agent's own library knows, with the reason,
//! the rule, and what to do. It is read by SDKs and by the model behind them.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use super::budget_refusal::BudgetRefusal;
use super::error::ProxyError;
use crate::oauth::call_error::CallError;
use crate::types::host::{Authority, Host};

/// How the one who asked wants errors told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `{"type":"error","error":{"type","message"}}`.
    Anthropic,
    /// `{"error":{"message","type","code"}}`.
    OpenAi,
    /// `{"error":{"code","message","status"}}` (google.rpc.Status).
    Google,
    /// `{"message","documentation_url"}`.
    GitHub,
    /// `grpc-status` and `grpc-message` in a head without body.
    Grpc,
    /// `{"error","error_description"}` (RFC 6749, section 5.2).
    OAuth,
    /// One line, as git prints after `remote:`.
    Text,
}

impl Dialect {
    /// Told from the host and the request's own head.
    pub fn of(target: Option<&Authority>, headers: &HeaderMap) -> Self {
        let starts = |name: header::HeaderName, prefix: &str| {
            headers
                .get(name)
                .is_some_and(|v| v.as_bytes().starts_with(prefix.as_bytes()))
        };
        if starts(header::CONTENT_TYPE, "application/grpc") {
            return Self::Grpc;
        }
        if starts(header::USER_AGENT, "git/") {
            return Self::Text;
        }
        match target.map(|t| &t.host) {
            Some(Host::Name(name)) => match name.as_ref() {
                "api.openai.com" | "chatgpt.com" => Self::OpenAi,
                "api.github.com" | "github.com" => Self::GitHub,
                name if name.ends_with(".googleapis.com") => Self::Google,
                _ => Self::Anthropic,
            },
            _ => Self::Anthropic,
        }
    }
}

/// The refusal as a response. `id` is what the access log calls the exchange.
pub fn response(error: &ProxyError, dialect: Dialect, id: &str) -> Response<Bytes> {
    let text = message(error);
    let status = error.status();
    if let ProxyError::Budget(refusal) = error {
        return budget(error, refusal, id);
    }
    let (content_type, body) = match dialect {
        Dialect::Grpc => return grpc(error, &text, id),
        Dialect::Text => ("text/plain; charset=utf-8", format!("{text}\n")),
        _ => (
            "application/json",
            body(error, dialect, &text, id).to_string(),
        ),
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    mark(headers, error, id);
    response
}

/// A budget's refusal is told in the words of the API that was asked, whoever asks.
fn budget(error: &ProxyError, refusal: &BudgetRefusal, id: &str) -> Response<Bytes> {
    let body = refusal.body(&refusal.text(), id).to_string();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    mark(headers, error, id);
    response
}

/// Reason first, then the rule, then what to do.
pub fn message(error: &ProxyError) -> String {
    let mut text = match error {
        ProxyError::Denied(_) | ProxyError::Injection(_) => {
            format!("Blocked by egress policy: {error}.")
        }
        ProxyError::Dial(_) | ProxyError::Silent { .. } | ProxyError::Origin { .. } => {
            format!("Egress proxy: {error}.")
        }
        _ => format!("Refused by the egress proxy: {error}."),
    };
    while text.ends_with("..") {
        text.pop();
    }
    let remedy = error.remedy();
    let mut letters = remedy.chars();
    if let Some(first) = letters.next() {
        text.push(' ');
        text.extend(first.to_uppercase());
        text.push_str(letters.as_str());
        if !text.ends_with('.') {
            text.push('.');
        }
    }
    text
}

fn body(error: &ProxyError, dialect: Dialect, text: &str, id: &str) -> serde_json::Value {
    let status = error.status();
    let kind = match status {
        StatusCode::BAD_REQUEST
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "invalid_request_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        s if s.is_server_error() => "api_error",
        _ => "permission_error",
    };
    match dialect {
        Dialect::OpenAi => {
            json!({"error": {"message": text, "type": kind, "param": null, "code": error.reason()}})
        }
        Dialect::Google => {
            json!({"error": {"code": status.as_u16(), "message": text, "status": google_status(status)}})
        }
        Dialect::GitHub => json!({"message": text, "status": status.as_str()}),
        Dialect::OAuth => json!({"error": oauth_error(error), "error_description": text}),
        _ => json!({
            "type": "error",
            "error": {"type": kind, "message": text},
            "request_id": format!("tollgate_{id}"),
        }),
    }
}

/// Never `invalid_grant`: clients take that for the end of their login.
fn oauth_error(error: &ProxyError) -> &'static str {
    match error {
        ProxyError::TokenCall(CallError::Unsupported(_)) => "unsupported_grant_type",
        error if error.status() == StatusCode::BAD_REQUEST => "invalid_request",
        error if error.is_temporary() => "temporarily_unavailable",
        error if error.status().is_server_error() => "server_error",
        _ => "access_denied",
    }
}

fn google_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST => "INVALID_ARGUMENT",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
        s if s.is_server_error() => "UNAVAILABLE",
        _ => "PERMISSION_DENIED",
    }
}

/// gRPC errors are HTTP 200 with the status in the head ("Trailers-Only", gRPC over HTTP/2).
fn grpc(error: &ProxyError, text: &str, id: &str) -> Response<Bytes> {
    let code = match error.status() {
        StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST => "3",
        StatusCode::NOT_FOUND => "12",
        StatusCode::TOO_MANY_REQUESTS => "8",
        s if s.is_server_error() => "14",
        _ => "7",
    };
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Ok(message) = HeaderValue::from_str(&ascii(text)) {
        headers.insert("grpc-message", message);
    }
    mark(headers, error, id);
    response
}

/// What tells our refusals from the origin's errors.
fn mark(headers: &mut HeaderMap, error: &ProxyError, id: &str) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("x-tollgate-request-id", id);
    set("proxy-status", &proxy_status(error));
    if let Some(rule) = error.rule() {
        set("x-tollgate-rule", &ascii(&rule.to_string()));
    }
    match error.is_temporary() {
        _ if matches!(error, ProxyError::Budget(_)) => {}
        true => set("retry-after", "1"),
        // SDKs repeat 4xx and 5xx by rules of their own; this header ends that.
        false => set("x-should-retry", "false"),
    }
    match error {
        ProxyError::Unidentified(_) => set("proxy-authenticate", "Basic realm=\"tollgate\""),
        ProxyError::Dial(_) | ProxyError::Silent { .. } | ProxyError::Origin { .. } => {
            set("x-tollgate-stage", error.reason());
        }
        ProxyError::Limit(reached) => {
            set("x-tollgate-decision", "deny");
            set("x-tollgate-limit", reached.limit.setting());
        }
        _ => set("x-tollgate-decision", "deny"),
    }
    if let ProxyError::Budget(refusal) = error {
        refusal.mark(headers);
    }
}

/// `tollgate; error=http_request_denied; details="…"` (RFC 9209, section 2.1).
fn proxy_status(error: &ProxyError) -> String {
    let details = ascii(&error.to_string())
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!(
        "tollgate; error={}; details=\"{}: {details}\"",
        error.proxy_status(),
        error.reason()
    )
}

/// The cause of a refused CONNECT, for its reason phrase: the only part that clients show.
pub fn reason_phrase(error: &ProxyError) -> String {
    let text = ascii(&error.to_string());
    text.chars().take(200).collect()
}

/// Header values and reason phrases carry visible ASCII only.
fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == ' ' || c.is_ascii_graphic() {
                c
            } else {
                '?'
            }
        })
        .collect()
}
