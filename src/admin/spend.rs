//! Owns what the admin port answers about money: what was spent, and where budgets stand.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::amend_request::find;
use super::api::Admin;
use super::budgets::{left, states};
use super::moment::Edge;
use super::problem::problem;
use super::spend_report::{SpendReport, by};
use super::taken_up::unmet;
use crate::budget::ledger::{Ledger as _, LedgerError};
use crate::budget::sqlite_report::{By, Question, Standing};
use crate::proxy::snapshot::Snapshot;
use crate::telemetry::spend_metrics::BudgetLeft;

/// `?by=agent&from=2026-11-01&until=2026-11-30&agent=…`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpendQuery {
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    until: Option<String>,
    #[serde(default)]
    agent: Option<String>,
}

impl SpendQuery {
    fn question(&self) -> Result<Question, String> {
        let by = match self.by.as_deref() {
            None => By::Agent,
            Some(word) => by(word).ok_or("`by` is agent, model, credential or day")?,
        };
        let edge = |text: &Option<String>| text.as_deref().map(Edge::parse).transpose();
        Ok(Question {
            by,
            from: edge(&self.from)?.map(Edge::start),
            until: edge(&self.until)?.map(Edge::end),
            agent: self.agent.as_deref().map(Into::into),
        })
    }
}

pub(super) async fn spend(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<SpendQuery>, QueryRejection>,
) -> Response {
    let question = match query {
        Ok(Query(query)) => query.question(),
        Err(rejection) => Err(rejection.body_text()),
    };
    let question = match question {
        Ok(question) => question,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let Some(ledger) = (admin.books)() else {
        return Json(SpendReport::empty(&question)).into_response();
    };
    if let Err(error) = ledger.fold().await {
        return problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
    }
    // A long history takes its time, and must not keep requests waiting.
    let path = ledger.path().to_owned();
    let read = move || SpendReport::read(&path, &question);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the process is ending"),
    }
}

/// `?name=…`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetsQuery {
    #[serde(default)]
    name: Option<String>,
}

pub(super) async fn budgets(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<BudgetsQuery>, QueryRejection>,
) -> Response {
    let name = match query {
        Ok(Query(query)) => query.name,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let snapshot = admin.snapshots.load_full();
    if let Some(name) = &name
        && let Err(error) = find(snapshot.budgets.budgets(), name)
    {
        return problem(error.status(), &error.to_string());
    }
    match standing_of(&admin, &snapshot).await {
        Ok(standing) => {
            let states = states(
                &snapshot.budgets,
                name.as_deref(),
                &standing,
                Timestamp::now(),
            );
            Json(json!({ "budgets": states })).into_response()
        }
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// Where limits stand, with what they have taken up from before an edit.
async fn standing_of(admin: &Admin, snapshot: &Snapshot) -> Result<Vec<Standing>, LedgerError> {
    let before = standing(admin).await?;
    let looks = unmet(&snapshot.budgets, &before, &admin.agents);
    let Some(ledger) = (admin.books)().filter(|_| !looks.is_empty()) else {
        return Ok(before);
    };
    let now = Timestamp::now();
    for (labels, limit) in looks {
        ledger.balances(labels, vec![limit], now).await?;
    }
    standing(admin).await
}

/// A slow disk must not keep the other metrics.
const OBSERVED: Duration = Duration::from_secs(2);

/// What metrics tell of money: whether the ledger can be written, if there is one, and where budgets
/// stand.
pub(super) async fn observe(admin: &Admin) -> (Option<Result<(), ()>>, Vec<BudgetLeft>) {
    let Some(ledger) = (admin.books)() else {
        return (None, Vec::new());
    };
    let health = Some(ledger.health().map_err(drop));
    let Ok(Ok(standing)) = tokio::time::timeout(OBSERVED, standing(admin)).await else {
        return (health, Vec::new());
    };
    let snapshot = admin.snapshots.load_full();
    let left = left(&snapshot.budgets, &standing, Timestamp::now());
    (health, left)
}

/// Where limits stand; nothing before the first budget.
pub(super) async fn standing(admin: &Admin) -> Result<Vec<Standing>, LedgerError> {
    match (admin.books)() {
        Some(ledger) => ledger.standing().await,
        None => Ok(Vec::new()),
    }
}
