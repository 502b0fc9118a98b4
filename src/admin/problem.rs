//! Owns how the admin port says that something is wrong.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// A JSON error with one sentence.
pub fn problem(status: StatusCode, message: &str) -> Response {
    (
        status,
        axum::Json(serde_json::json!({ "error": { "message": message } })),
    )
        .into_response()
}
