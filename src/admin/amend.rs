//! Owns what operators change about budgets while the process runs: more room for a while, and a fresh
//! start of a window. Who asked, and why, is kept in the ledger beside what it was before.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::amend_request::{
    AimError, AmendRequest, agent_exists, find, in_window, limit, scope, window_name,
};
use super::amount::{Amount, Measure, Rounding};
use super::api::Admin;
use super::budgets::{window_of, zone};
use super::moment::{Until, rfc3339, zone_name};
use super::problem::problem;
use super::spend::standing;
use crate::budget::ledger::{Amendment, Change, LedgerError};
use crate::budget::limit::Limit;
use crate::budget::sqlite_report::Standing;
use crate::telemetry::audit_event::{BudgetChange, Event};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum AmendError {
    #[error(transparent)]
    Aim(#[from] AimError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl IntoResponse for AmendError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Aim(error) => error.status(),
            Self::Ledger(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        problem(status, &self.to_string())
    }
}

pub(super) async fn raise(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    request: Result<Json<AmendRequest>, JsonRejection>,
) -> Response {
    match request {
        Ok(Json(request)) => match raised(&admin, &name, &request).await {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => error.into_response(),
        },
        Err(rejection) => problem(rejection.status(), &rejection.body_text()),
    }
}

pub(super) async fn reset(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    request: Result<Json<AmendRequest>, JsonRejection>,
) -> Response {
    match request {
        Ok(Json(request)) => match was_reset(&admin, &name, &request).await {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => error.into_response(),
        },
        Err(rejection) => problem(rejection.status(), &rejection.body_text()),
    }
}

async fn raised(admin: &Admin, name: &str, request: &AmendRequest) -> Result<Value, AmendError> {
    let wrong = |why: String| AmendError::Aim(AimError::Wrong(why));
    request.signed()?;
    let by = request
        .by
        .as_deref()
        .ok_or_else(|| wrong("`by` is missing: 5usd, 100000tokens or 20requests".to_owned()))?;
    let by = Amount::parse(by).map_err(wrong)?;
    let snapshot = admin.snapshots.load_full();
    let budget = find(snapshot.budgets.budgets(), name)?;
    let limit = limit(budget, by.measure, request.window.as_deref())?;
    let now = Timestamp::now();
    let rows = standing(admin).await?;
    let known = known(&rows, limit);
    // For whom comes before until when: nobody is raised until any time.
    agent_exists(request, &admin.agents, &known)?;
    let until = end(limit, request.until.as_deref(), now).map_err(wrong)?;
    let scope = scope(limit, request, &known)?;
    let amendment = Amendment::Raise {
        by: by.value,
        until,
    };
    let (old, new) = change(admin, limit, scope.clone(), amendment, request).await?;
    tracing::info!(
        budget = %limit.budget,
        scope = scope.as_deref().unwrap_or("all"),
        unit = by.measure.as_str(),
        window = window_name(&limit.window),
        old = by.measure.show(old),
        new = by.measure.show(new),
        until = until.map_or_else(|| "never".to_owned(), rfc3339),
        reason = request.reason,
        who = request.who,
        "a budget was raised"
    );
    admin
        .ledgers
        .sinks()
        .audit
        .note(Event::BudgetRaised(BudgetChange {
            budget: limit.budget.to_string(),
            scope: scope.as_deref().unwrap_or("all").to_owned(),
            window: window_name(&limit.window),
            old: by.measure.show(old),
            new: by.measure.show(new),
            until: until.map(rfc3339),
            who: request.who.clone(),
            why: request.reason.clone(),
        }));
    let amount = |value| by.measure.json(value, Rounding::Down);
    Ok(json!({
        "budget": &*limit.budget,
        "scope": scope.as_deref().unwrap_or("all"),
        "unit": by.measure.as_str(),
        "window": window_name(&limit.window),
        "timeZone": zone_name(&zone(limit)),
        "at": rfc3339(now),
        "old": amount(old),
        "new": amount(new),
        "until": until.map(rfc3339),
        "who": request.who,
        "reason": request.reason,
    }))
}

async fn was_reset(admin: &Admin, name: &str, request: &AmendRequest) -> Result<Value, AmendError> {
    request.signed()?;
    if request.by.is_some() || request.until.is_some() {
        let why = "`by` and `until` are for a raise; a reset has neither";
        return Err(AimError::Wrong(why.to_owned()).into());
    }
    let snapshot = admin.snapshots.load_full();
    let budget = find(snapshot.budgets.budgets(), name)?;
    let limits = in_window(budget, request.window.as_deref())?;
    let rows = standing(admin).await?;
    // All of them are found before the first is changed.
    let mut aims = Vec::new();
    for limit in limits {
        let known = known(&rows, limit);
        agent_exists(request, &admin.agents, &known)?;
        aims.push((limit, scope(limit, request, &known)?));
    }
    let now = Timestamp::now();
    let mut changed = Vec::new();
    for (limit, scope) in aims {
        let (old, new) = change(admin, limit, scope.clone(), Amendment::Reset, request).await?;
        let measure = Measure::of(&limit.unit);
        tracing::info!(
            budget = %limit.budget,
            scope = scope.as_deref().unwrap_or("all"),
            unit = measure.as_str(),
            window = window_name(&limit.window),
            old = measure.show(old),
            new = measure.show(new),
            reason = request.reason,
            who = request.who,
            "what was spent of a budget was reset"
        );
        admin
            .ledgers
            .sinks()
            .audit
            .note(Event::BudgetReset(BudgetChange {
                budget: limit.budget.to_string(),
                scope: scope.as_deref().unwrap_or("all").to_owned(),
                window: window_name(&limit.window),
                old: measure.show(old),
                new: measure.show(new),
                until: None,
                who: request.who.clone(),
                why: request.reason.clone(),
            }));
        changed.push(json!({
            "scope": scope.as_deref().unwrap_or("all"),
            "unit": measure.as_str(),
            "window": window_name(&limit.window),
            "old": measure.json(old, Rounding::Up),
            "new": measure.json(new, Rounding::Up),
        }));
    }
    Ok(json!({
        "budget": &*budget.name,
        "at": rfc3339(now),
        "limits": changed,
        "who": request.who,
        "reason": request.reason,
    }))
}

/// Has the ledger write it; the value before and after.
async fn change(
    admin: &Admin,
    limit: &Arc<Limit>,
    scope: Option<Arc<str>>,
    amendment: Amendment,
    request: &AmendRequest,
) -> Result<(u64, u64), LedgerError> {
    let ledger = (admin.books)()
        .ok_or_else(|| LedgerError::new("the ledger is not open; see the log for why"))?;
    let change = Change {
        limit: limit.clone(),
        scope,
        amendment,
        reason: request.reason.clone(),
        who: request.who.clone(),
    };
    let amended = ledger.amend(change).await?;
    Ok((amended.old, amended.new))
}

/// When a raise ends: with the present window, unless something else is said.
fn end(limit: &Limit, until: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, String> {
    match until {
        Some(text) => Until::parse(text)?.resolve(now, &zone(limit)),
        None => match window_of(limit, now) {
            Some((_, end)) => Ok(Some(end)),
            None => Err(format!(
                "`until` is missing: a window `{}` has no end by itself; say until when, or `never`",
                window_name(&limit.window)
            )),
        },
    }
}

/// The groups that a limit has counted.
fn known(rows: &[Standing], limit: &Limit) -> Vec<Arc<str>> {
    let own = rows.iter().filter(|row| *row.limit == *limit.id);
    own.map(|row| row.scope.clone()).collect()
}
