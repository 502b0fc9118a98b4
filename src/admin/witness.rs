//! Owns what the audit log is told of the admin port: every order, every watch, and everyone who was turned
//! away; and what the port tells of the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::api::Admin;
use crate::telemetry::audit_event::Event;

/// Records a call once it is answered. Looking at numbers and names is not recorded.
pub(super) async fn witness(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(String::new, |path| path.as_str().to_owned());
    let method = match *request.method() {
        Method::POST => "POST",
        Method::GET => "GET",
        _ => "other",
    };
    let response = next.run(request).await;
    let status = response.status();
    if method != "GET" || path == "/v1/tap" || status == StatusCode::UNAUTHORIZED {
        admin.ledgers.sinks().audit.note(Event::Admin {
            path,
            method,
            status: status.as_u16(),
        });
    }
    response
}

/// How the audit log is doing. The head is worth keeping elsewhere: `audit verify --expect-head` then finds
/// whatever was cut off after it.
pub(super) async fn audit(State(admin): State<Arc<Admin>>) -> Response {
    let Some(status) = admin.ledgers.sinks().audit.status() else {
        return Json(json!({ "enabled": false })).into_response();
    };
    Json(json!({
        "enabled": true,
        "records": status.written,
        "lost": status.lost,
        "seq": status.tip.map(|tip| tip.seq),
        "head": status.tip.map(|tip| tip.hash.to_string()),
        "trouble": status.trouble.map(|error| error.to_string()),
    }))
    .into_response()
}
