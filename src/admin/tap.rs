//! Owns the live view of exchanges as the API gives it: one JSON object a line, for as long as somebody
//! reads and the process runs.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::json;

use super::api::Admin;
use super::problem::problem;
use crate::telemetry::tap::{Decisions, Heard, Watch, Wish};

/// `?agent=…&host=…&denied=true`.
#[derive(Deserialize)]
pub(super) struct TapQuery {
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    denied: Option<bool>,
}

/// Each line is a record of the access log, or `{"missed": N}` where the reader did not keep up. The first
/// one is `{"watching": true}`; what comes after it is not missed.
pub(super) async fn tap(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<TapQuery>,
) -> Response {
    let wish = Wish {
        agent: query.agent,
        host: query.host,
        decisions: match query.denied {
            Some(true) => Decisions::Denied,
            _ => Decisions::All,
        },
    };
    let Some(watch) = admin.ledgers.sinks().tap.watch(wish) else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many are watching already, or the process is ending",
        );
    };
    let lines = unfold(View::Opened(watch), |view| async move {
        let (line, next) = match view {
            View::Opened(watch) => (line(&json!({ "watching": true })), View::Open(watch)),
            View::Open(mut watch) => {
                let line = match watch.next().await? {
                    Heard::Record(record) => line(&*record),
                    Heard::Missed(missed) => line(&json!({ "missed": missed })),
                };
                (line, View::Open(watch))
            }
        };
        Some((Ok::<_, Infallible>(line), next))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

enum View {
    Opened(Watch),
    Open(Watch),
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
