//! Owns the API behind the tokens: it lets live ones in and remembers everybody who came.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;

use super::super::messages::{self, Account};
use super::super::origin::Origin;
use super::super::recorded::{Recorded, sha256};
use super::super::reply::{self, Reply};
use super::clock::Clock;
use super::ledger::{Ledger, Worth};
use super::mint::Shape;

/// Why a request was let in or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Live,
    /// This long after its end.
    Expired {
        since: Duration,
    },
    /// With its login.
    Revoked,
    /// By `revoke_access`: no client could know.
    Withdrawn,
    /// Never issued: a placeholder, or nonsense.
    Unknown,
    /// No bearer token, or more than one.
    Missing,
    /// The token is live, and the API was told to refuse it.
    Unwanted,
}

/// One request as the API saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub token: Option<String>,
    pub verdict: Verdict,
    pub body_length: usize,
    /// Hexadecimal SHA-256.
    pub body_hash: String,
}

/// What decides on requests.
pub struct Guard {
    ledger: Arc<Ledger>,
    unwanted: Mutex<usize>,
    seen: Mutex<Vec<Seen>>,
    changed: Notify,
}

impl Guard {
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            unwanted: Mutex::default(),
            seen: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub fn answer(&self, head: &Recorded, body: &[u8]) -> Reply {
        let token = match head.all("authorization")[..] {
            [one] => one.strip_prefix("Bearer ").map(ToOwned::to_owned),
            _ => None,
        };
        let verdict = self.judge(token.as_deref());
        let hash: String = sha256(body).iter().map(|b| format!("{b:02x}")).collect();
        self.seen.lock().unwrap().push(Seen {
            method: head.method.to_string(),
            target: head.target.clone(),
            token,
            verdict,
            body_length: body.len(),
            body_hash: hash.clone(),
        });
        self.changed.notify_waiters();
        let is_claude = self.ledger.mint.shape == Shape::Claude;
        // Claude Code asks some side questions without a credential, and goes on without an answer.
        if is_claude && verdict == Verdict::Missing && head.path() != "/v1/messages" {
            return messages::error(404, "not_found_error", "not found");
        }
        if verdict != Verdict::Live {
            return messages::error(
                401,
                "authentication_error",
                "Invalid authentication credentials",
            );
        }
        if head.path() == "/v1/indiscreet" {
            let truth = self.ledger.truth();
            return reply::json(200, &json!([truth.access_token(), truth.refresh_token()]));
        }
        if head.path() == "/v1/messages" {
            let body = serde_json::from_slice(body).unwrap_or_default();
            return messages::converse(head, &body, Account::OAuth);
        }
        if is_claude && head.path().starts_with("/api/") {
            return self.claude(head);
        }
        let echo = json!({
            "method": head.method.as_str(),
            "path": head.path(),
            "length": body.len(),
            "sha256": hash,
        });
        reply::json(200, &echo)
    }

    /// What Claude Code asks for after a login or a refresh.
    fn claude(&self, head: &Recorded) -> Reply {
        if head.path() != "/api/oauth/profile" {
            return messages::error(404, "not_found_error", "not found");
        }
        let account = &self.ledger.mint.account;
        let profile = json!({
            "account": {"uuid": account, "email": "dev@example.com", "display_name": "Dev"},
            "organization": {
                "uuid": account, "name": "Example", "organization_type": "claude_max",
                "rate_limit_tier": "default_claude_max_5x",
            },
        });
        reply::json(200, &profile)
    }

    fn judge(&self, token: Option<&str>) -> Verdict {
        let Some(token) = token else {
            return Verdict::Missing;
        };
        match self.ledger.worth(token) {
            Worth::Expired { since } => Verdict::Expired { since },
            Worth::Revoked => Verdict::Revoked,
            Worth::Withdrawn => Verdict::Withdrawn,
            Worth::Unknown => Verdict::Unknown,
            Worth::Live => {
                let mut unwanted = self.unwanted.lock().unwrap();
                match unwanted.checked_sub(1) {
                    Some(left) => {
                        *unwanted = left;
                        Verdict::Unwanted
                    }
                    None => Verdict::Live,
                }
            }
        }
    }
}

/// A running API that accepts the tokens of one [`TokenServer`](super::server::TokenServer).
pub struct ProtectedApi {
    pub origin: Arc<Origin>,
    pub(super) guard: Arc<Guard>,
}

impl ProtectedApi {
    pub(super) async fn start(names: &[&str], ledger: Arc<Ledger>, clock: Arc<Clock>) -> Self {
        let guard = Arc::new(Guard::new(ledger));
        let judge = guard.clone();
        let origin = Origin::tls(names, move |mut exchange| {
            let (guard, clock) = (judge.clone(), clock.clone());
            async move {
                match exchange.complete_body().await {
                    Some(body) => clock.date(guard.answer(&exchange.head, &body)),
                    None => exchange.hangup().now().await,
                }
            }
        });
        Self {
            origin: Arc::new(origin.await),
            guard,
        }
    }

    /// The next requests with a live token get 401 all the same.
    pub fn refuse_next(&self, requests: usize) {
        *self.guard.unwanted.lock().unwrap() = requests;
    }

    /// Every request that came whole, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.guard.seen.lock().unwrap().clone()
    }

    /// Waits for a request.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let found = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let changed = self.guard.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = self.seen().into_iter().find(&wanted) {
                    return found;
                }
                changed.await;
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("the API never saw {what}: {:#?}", self.seen()))
    }

    /// Every request carried a token that was live, or that no client could know to be dead.
    #[track_caller]
    pub fn assert_no_stale_token(&self) {
        let stale: Vec<Seen> = self
            .seen()
            .into_iter()
            .filter(|seen| {
                matches!(
                    seen.verdict,
                    Verdict::Expired { .. } | Verdict::Revoked | Verdict::Unknown
                )
            })
            .collect();
        assert!(stale.is_empty(), "{stale:#?}");
    }
}
