//! Owns what the admin port answers: states and decisions, never a credential's value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::problem::problem;
use super::question::Question;
use crate::budget::ledger::Ledger as _;
use crate::budget::sqlite::SqliteLedger;
use crate::credential::held::{CredentialState, CredentialStatus, HeldCredential};
use crate::inject::set::Named;
use crate::oauth::owner::GrantOwner;
use crate::policy::explain::explain;
use crate::proxy::account::Ledgers;
use crate::proxy::snapshot::SnapshotStore;
use crate::rt::drain::Drain;
use crate::rt::protection::Protection;
use crate::rt::ready::Warnings;
use crate::tls::authority::CertificateAuthority;
use crate::tls::leaf::LeafStore;
use crate::tls::trust::TrustFiles;
use crate::types::agent::Agent;
use crate::types::secret::Secret;

/// Lists the open credentials.
pub type ListCredentials = Box<dyn Fn() -> Vec<Arc<HeldCredential>> + Send + Sync>;

/// Finds who owns the grant behind a credential.
pub type FindOwner = Box<dyn Fn(&str) -> Option<GrantOwner> + Send + Sync>;

/// Finds the ledger, once a budget has asked for one.
pub type FindBooks = Box<dyn Fn() -> Option<Arc<SqliteLedger>> + Send + Sync>;

/// What operators ask the process to do.
pub enum Order {
    /// Read the documents again and say what came of it.
    Reload(oneshot::Sender<Result<String, String>>),
    /// End as after SIGTERM.
    Quit,
}

/// What the admin port knows.
pub struct Admin {
    /// What a caller of the API must show.
    pub token: Secret,
    /// Policy in force.
    pub snapshots: Arc<SnapshotStore>,
    /// Open credentials.
    pub credentials: ListCredentials,
    /// Owners of grants.
    pub owners: FindOwner,
    /// The ledger of budgets.
    pub books: FindBooks,
    /// Metrics and log.
    pub ledgers: Arc<Ledgers>,
    /// Certificates.
    pub leaves: Arc<LeafStore>,
    /// The authority.
    pub authority: Arc<CertificateAuthority>,
    /// What is wrong besides credentials, although the process serves.
    pub warnings: Warnings,
    /// Open connections.
    pub drain: Drain,
    /// Orders to the process.
    pub orders: mpsc::Sender<Order>,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// What agents trust.
    pub trust: TrustFiles,
    /// What the process gave up before it served.
    pub protections: Vec<Protection>,
    /// The agent that `why` means when none is named.
    pub default_agent: Agent,
    /// Agents that may call.
    pub agents: Vec<Agent>,
}

impl Admin {
    /// What keeps the process from being ready, by part.
    pub fn blocked(&self) -> BTreeMap<String, String> {
        let mut blocked = BTreeMap::new();
        for credential in (self.credentials)().iter().filter(|c| !c.is_ready()) {
            let why = credential
                .current()
                .err()
                .map_or_else(String::new, |error| error.reason);
            blocked.insert(format!("credential {}", credential.name()), why);
        }
        if self.drain.is_draining() {
            blocked.insert("shutdown".to_owned(), "the process is ending".to_owned());
        }
        blocked
    }

    /// What is wrong although the process is ready, by part: a policy that is not used, a credential
    /// that goes on with its last good value, a login that is gone.
    fn warnings(&self) -> BTreeMap<String, String> {
        let mut warnings = self.warnings.all();
        for credential in (self.credentials)().iter().filter(|c| c.is_ready()) {
            let status = credential.status();
            let why = match (status.state, status.last_error) {
                (CredentialState::Failing, Some(error)) if credential.current().is_ok() => {
                    format!("{error}; the last good value is still used")
                }
                (CredentialState::Failing, Some(error)) if status.version > 0 => error,
                (CredentialState::NeedsLogin | CredentialState::Expired, Some(error)) => error,
                _ => continue,
            };
            warnings.insert(format!("credential {}", status.name), why);
        }
        let audit = self.ledgers.sinks().audit.status().unwrap_or_default();
        match audit.trouble {
            Some(error) => {
                warnings.insert("audit".to_owned(), error.to_string());
            }
            None if audit.lost > 0 => {
                let why = format!("{} records were lost since the start", audit.lost);
                warnings.insert("audit".to_owned(), why);
            }
            None => {}
        }
        if let Some(Err(error)) = (self.books)().map(|ledger| ledger.health()) {
            warnings.insert("ledger".to_owned(), error.to_string());
        }
        warnings
    }

    fn status(&self) -> Vec<CredentialStatus> {
        (self.credentials)().iter().map(|c| c.status()).collect()
    }
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let blocked = admin.blocked();
    let status = if blocked.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({
            "ready": blocked.is_empty(),
            "blocked": blocked,
            "warnings": admin.warnings(),
        })),
    )
        .into_response()
}

pub(super) async fn credentials(State(admin): State<Arc<Admin>>) -> Response {
    Json(json!({ "credentials": admin.status() })).into_response()
}

/// Renews a token now. It goes on if whoever asked leaves.
pub(super) async fn refresh(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Response {
    let status = admin.status().into_iter().find(|s| s.name == name);
    let Some(status) = status else {
        return problem(
            StatusCode::NOT_FOUND,
            &format!("there is no credential `{name}`"),
        );
    };
    let Some(owner) = (admin.owners)(&name) else {
        let why = format!(
            "`{name}` comes from {}, which is read anew when it changes; only OAuth tokens are refreshed here",
            status.source
        );
        return problem(StatusCode::CONFLICT, &why);
    };
    match owner.refresh().await {
        Ok(renewed) => {
            let expires_at = renewed
                .expires_at
                .and_then(|at| jiff::Timestamp::try_from(at).ok());
            Json(json!({
                "name": name,
                "generation": renewed.generation,
                "expiresAt": expires_at.map(|at| format!("{at:.0}")),
            }))
            .into_response()
        }
        Err(error) => problem(StatusCode::BAD_GATEWAY, &error.to_string()),
    }
}

pub(super) async fn hardening(State(admin): State<Arc<Admin>>) -> Response {
    Json(json!({ "protections": admin.protections })).into_response()
}

pub(super) async fn ca(State(admin): State<Arc<Admin>>) -> Response {
    Json(admin.authority.describe()).into_response()
}

/// Who may go where, in numbers and names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicySummary {
    version: u64,
    hosts: usize,
    intercepted: Vec<String>,
    routes: Vec<(String, String)>,
    open_connections: usize,
}

pub(super) async fn policy(State(admin): State<Arc<Admin>>) -> Response {
    let snapshot = admin.snapshots.load();
    Json(PolicySummary {
        version: snapshot.version,
        hosts: snapshot.policy.host_count(),
        intercepted: snapshot
            .policy
            .intercepted_hosts()
            .iter()
            .map(ToString::to_string)
            .collect(),
        routes: snapshot
            .policy
            .routes()
            .map(|(n, a)| (n.to_owned(), a.to_string()))
            .collect(),
        open_connections: admin.drain.open(),
    })
    .into_response()
}

/// `?url=https://…&method=POST&agent=…`.
#[derive(Deserialize)]
pub(super) struct WhyQuery {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    agent: Option<String>,
}

pub(super) async fn why(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<WhyQuery>,
) -> Response {
    let agent = match query.agent.as_deref().map(Agent::parse).transpose() {
        Ok(agent) => agent.unwrap_or_else(|| admin.default_agent.clone()),
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let question = match Question::parse(&query.url, query.method.as_deref()) {
        Ok(question) => question,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    let snapshot = admin.snapshots.load();
    let explanation = explain(&snapshot.policy, &question.intent(&agent));
    Json(json!({ "explanation": explanation, "text": explanation.to_string() })).into_response()
}

/// `?agent=…`.
#[derive(Deserialize)]
pub(super) struct EnvironmentQuery {
    agent: String,
}

/// What an agent's environment is made of. Placeholders open nothing elsewhere; its token is not told.
pub(super) async fn environment(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<EnvironmentQuery>,
) -> Response {
    let agent = match Agent::parse(&query.agent) {
        Ok(agent) => agent,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let snapshot = admin.snapshots.load();
    Json(json!({
        "listen": admin.listen,
        "ca": admin.trust.ca,
        "bundle": admin.trust.bundle,
        "placeholders": snapshot.injectors.placeholder_env(&agent, Named::Usable),
    }))
    .into_response()
}

pub(super) async fn reload(State(admin): State<Arc<Admin>>) -> Response {
    let (answer, result) = oneshot::channel();
    if admin.orders.send(Order::Reload(answer)).await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the process is ending");
    }
    match result.await {
        Ok(Ok(summary)) => Json(json!({ "result": summary })).into_response(),
        Ok(Err(errors)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &errors),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the process is ending"),
    }
}

pub(super) async fn quit(State(admin): State<Arc<Admin>>) -> Response {
    match admin.orders.send(Order::Quit).await {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({ "result": "draining" }))).into_response(),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the process is ending"),
    }
}
