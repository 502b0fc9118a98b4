//! Owns why a budget refuses a request, and how that is told so that each client stops or waits as it
//! should: statuses and fields were measured with Claude Code, Codex and the SDKs.

use std::fmt::{self, Write as _};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::budget::ledger::{Balance, Shortage};
use crate::types::agent::Agent;
use crate::types::model_api::ModelApi;

/// A request that a budget refuses.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct BudgetRefusal {
    /// The API whose language the refusal is told in; nothing where the host is no model's.
    pub api: Option<ModelApi>,
    /// Who asked.
    pub agent: Agent,
    /// Why.
    pub why: Why,
}

/// Why a budget refuses.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// It does not fit before the window ends.
    #[error("egress budget exhausted: {}", told(.0))]
    Exhausted(Box<Shortage>),
    /// It fits once requests in flight settle.
    #[error("egress budget held by requests in flight: {}", told(.0))]
    Contended(Box<Shortage>),
    /// Too many requests in too short a time.
    #[error("budget {budget} lets no more requests through just now")]
    Rate {
        /// The budget.
        budget: String,
        /// When one more fits.
        after: Duration,
    },
    /// Too many requests at once.
    #[error("budget {budget} lets no more requests through at once")]
    AtOnce {
        /// The budget.
        budget: String,
    },
    /// Documents were read again while it waited.
    #[error("the budgets changed while the request waited")]
    Changed,
    /// The books cannot be written.
    #[error("the spending ledger cannot be written; nothing that costs money is sent until it can")]
    Unavailable,
    /// The model has no price.
    #[error("budget {budget} counts money, and the model `{model}` has no price")]
    UnknownModel {
        /// The budget.
        budget: String,
        /// The model.
        model: String,
    },
    /// Nothing says what the endpoint costs.
    #[error("budget {budget} cannot count what this endpoint costs")]
    Unmetered {
        /// The budget.
        budget: String,
    },
    /// The same, asked by WebSocket.
    #[error("budget {budget} cannot count what a WebSocket costs")]
    WebSocket {
        /// The budget.
        budget: String,
    },
    /// The body cannot be read for what it may cost.
    #[error("the request cannot be priced: {reason}")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// The body is packed in a way that is not undone here.
    #[error("the request cannot be priced: {reason}")]
    Packed {
        /// What is wrong with it.
        reason: String,
    },
}

/// What a client is to do with a refusal.
enum Advice {
    /// The same request never fits before long.
    Stop,
    /// It may fit after this many seconds; never above 60, since clients obey it to the letter.
    Wait(u64),
}

/// The longest that a client is told to wait. The SDKs of Anthropic and OpenAI sleep for whatever they are told.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl BudgetRefusal {
    /// The budget, if one refuses by name.
    pub fn budget(&self) -> Option<&str> {
        match &self.why {
            Why::Exhausted(shortage) | Why::Contended(shortage) => {
                Some(&shortage.balance.limit.budget)
            }
            Why::Rate { budget, .. }
            | Why::AtOnce { budget }
            | Why::UnknownModel { budget, .. }
            | Why::Unmetered { budget }
            | Why::WebSocket { budget } => Some(budget),
            Why::Changed | Why::Unavailable | Why::Unreadable { .. } | Why::Packed { .. } => None,
        }
    }

    /// The status: 402 ends Claude Code's turn after one request and 429 makes it wait; Codex repeats
    /// every 402, and stops at 429 without `retry-after`. A budget may name another.
    pub fn status(&self) -> StatusCode {
        if let Why::Exhausted(shortage) = &self.why
            && let Some(own) = shortage.balance.limit.exhausted_status
            && let Ok(own) = StatusCode::from_u16(own)
        {
            return own;
        }
        match (&self.why, self.api) {
            (Why::Exhausted(_), Some(ModelApi::Anthropic) | None) => StatusCode::PAYMENT_REQUIRED,
            (Why::Exhausted(_), Some(ModelApi::Bedrock)) => StatusCode::BAD_REQUEST,
            (Why::Exhausted(_) | Why::Contended(_) | Why::Rate { .. } | Why::AtOnce { .. }, _) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            (Why::Unavailable | Why::Changed, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Why::UnknownModel { .. }, _) => StatusCode::NOT_FOUND,
            (Why::Unmetered { .. }, _) => StatusCode::FORBIDDEN,
            (Why::WebSocket { .. }, _) => StatusCode::UPGRADE_REQUIRED,
            (Why::Unreadable { .. }, _) => StatusCode::BAD_REQUEST,
            (Why::Packed { .. }, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// The stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self.why {
            Why::Exhausted(_) => "budget_exhausted",
            Why::Contended(_) => "budget_contended",
            Why::Rate { .. } => "budget_rate",
            Why::AtOnce { .. } => "budget_concurrency",
            Why::Unavailable => "ledger_unavailable",
            Why::Changed => "budget_changed",
            Why::UnknownModel { .. } => "unknown_model",
            Why::Unmetered { .. } | Why::WebSocket { .. } => "unmetered",
            Why::Unreadable { .. } => "unreadable_call",
            Why::Packed { .. } => "unreadable_coding",
        }
    }

    fn advice(&self) -> Advice {
        match &self.why {
            Why::Contended(_) | Why::Unavailable => Advice::Wait(5),
            Why::AtOnce { .. } => Advice::Wait(2),
            Why::Changed => Advice::Wait(1),
            Why::Rate { after, .. } if *after <= LONGEST_WAIT => {
                let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                Advice::Wait(whole.max(1))
            }
            _ => Advice::Stop,
        }
    }

    /// Whether the same request may succeed by itself a moment later.
    pub fn is_temporary(&self) -> bool {
        matches!(self.advice(), Advice::Wait(_))
    }

    /// What the one who reads it should do.
    pub fn remedy(&self) -> &'static str {
        match &self.why {
            Why::Exhausted(_) => {
                "Tell the operator, who can raise it with `tollgate budget raise`."
            }
            Why::Contended(_) | Why::AtOnce { .. } | Why::Rate { .. } | Why::Changed => {
                "This is not a denial; the same request may succeed shortly."
            }
            Why::Unavailable => {
                "Try again in a few seconds; the operator finds the cause in the proxy's log."
            }
            Why::UnknownModel { .. } => {
                "Use a model with a known price, or ask the operator to add one to the price file or to set `unknownModel`."
            }
            Why::Unmetered { .. } => {
                "Use an endpoint whose answers tell their usage, or ask the operator to name this one under `unmetered` with a fixed price."
            }
            Why::WebSocket { .. } => "Send the same request by POST.",
            Why::Unreadable { .. } => {
                "Send a request with one unambiguous reading; retrying this one will not help."
            }
            Why::Packed { .. } => "Send the body without Content-Encoding.",
        }
    }

    /// The text for people and for the model that reads it.
    pub fn text(&self) -> String {
        let agent = &self.agent;
        match &self.why {
            Why::Exhausted(shortage) => format!(
                "Egress budget exhausted: {} for agent {agent}, {}.{} Not retryable. {}",
                budget_name(shortage),
                amounts(shortage),
                resets(&shortage.balance),
                self.remedy()
            ),
            Why::Contended(shortage) => format!(
                "Egress budget held by requests in flight: {} for agent {agent}, {}. {}",
                budget_name(shortage),
                amounts(shortage),
                self.remedy()
            ),
            why => {
                let text = why.to_string();
                let mut letters = text.chars();
                let first: String = letters
                    .next()
                    .into_iter()
                    .flat_map(char::to_uppercase)
                    .collect();
                format!(
                    "Refused by the egress proxy: {first}{}, for agent {agent}. {}",
                    letters.as_str(),
                    self.remedy()
                )
            }
        }
    }

    /// The body, in the words of the API that was asked.
    pub fn body(&self, text: &str, id: &str) -> Value {
        let status = self.status();
        match self.api {
            Some(ModelApi::OpenAI | ModelApi::Azure) => {
                let (kind, code) = match &self.why {
                    Why::Exhausted(_) => ("insufficient_quota", "insufficient_quota"),
                    Why::Contended(_) | Why::Rate { .. } | Why::AtOnce { .. } => {
                        ("rate_limit_error", "rate_limit_exceeded")
                    }
                    Why::Unavailable | Why::Changed => ("server_error", "overloaded"),
                    Why::UnknownModel { .. } => ("invalid_request_error", "model_not_found"),
                    Why::Unmetered { .. } => ("permission_error", self.reason()),
                    Why::WebSocket { .. } => ("invalid_request_error", "upgrade_required"),
                    Why::Unreadable { .. } | Why::Packed { .. } => {
                        ("invalid_request_error", self.reason())
                    }
                };
                json!({"error": {"message": text, "type": kind, "param": null, "code": code}})
            }
            Some(ModelApi::Gemini | ModelApi::Vertex) => {
                let name = match &self.why {
                    Why::Exhausted(_)
                    | Why::Contended(_)
                    | Why::Rate { .. }
                    | Why::AtOnce { .. } => "RESOURCE_EXHAUSTED",
                    Why::Unavailable | Why::Changed => "UNAVAILABLE",
                    Why::UnknownModel { .. } => "NOT_FOUND",
                    Why::Unmetered { .. } => "PERMISSION_DENIED",
                    _ => "INVALID_ARGUMENT",
                };
                json!({"error": {"code": status.as_u16(), "message": text, "status": name}})
            }
            Some(ModelApi::Bedrock) => json!({"message": text}),
            Some(ModelApi::Ollama) => json!({"error": text}),
            Some(ModelApi::Anthropic) | None => json!({
                "type": "error",
                "error": {"type": self.anthropic_kind(), "message": text},
                "request_id": format!("tollgate_{id}"),
            }),
        }
    }

    fn anthropic_kind(&self) -> &'static str {
        match &self.why {
            Why::Exhausted(_) => "billing_error",
            Why::Contended(_) | Why::Rate { .. } | Why::AtOnce { .. } => "rate_limit_error",
            Why::Unavailable | Why::Changed => "overloaded_error",
            Why::UnknownModel { .. } => "not_found_error",
            Why::Unmetered { .. } => "permission_error",
            Why::WebSocket { .. } | Why::Unreadable { .. } | Why::Packed { .. } => {
                "invalid_request_error"
            }
        }
    }

    /// The fields that make clients stop or wait, and the state of the budget.
    pub fn mark(&self, headers: &mut HeaderMap) {
        match self.advice() {
            Advice::Stop => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Advice::Wait(seconds) => {
                headers.insert(http::header::RETRY_AFTER, seconds.into());
            }
        }
        if self.api == Some(ModelApi::Bedrock) {
            let kind = match &self.why {
                Why::Exhausted(_) => "ServiceQuotaExceededException",
                Why::Contended(_) | Why::Rate { .. } | Why::AtOnce { .. } => "ThrottlingException",
                Why::Unavailable | Why::Changed => "ServiceUnavailableException",
                Why::UnknownModel { .. } => "ResourceNotFoundException",
                Why::Unmetered { .. } => "AccessDeniedException",
                _ => "ValidationException",
            };
            headers.insert("x-amzn-errortype", HeaderValue::from_static(kind));
        }
        if matches!(self.why, Why::WebSocket { .. }) {
            headers.insert(http::header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
        }
        if let Why::Exhausted(shortage) | Why::Contended(shortage) = &self.why {
            tell_balance(headers, &shortage.balance);
        }
    }
}

/// Writes where a budget stands: its own values only.
pub fn tell_balance(headers: &mut HeaderMap, balance: &Balance) {
    let unit = &balance.limit.unit;
    let spent = balance.settled.saturating_add(balance.held);
    let mut text = String::with_capacity(64);
    let mut tell = |name: &HeaderName, value: Option<&dyn fmt::Display>| {
        text.clear();
        let written = value.is_some_and(|value| write!(text, "{value}").is_ok());
        // What an origin says under these names is not ours.
        match HeaderValue::from_str(&text) {
            Ok(value) if written => headers.insert(name, value),
            _ => headers.remove(name),
        };
    };
    let resets = balance.resets.map(Second);
    let [id, limit, spent_so_far, remaining, reset] = &BALANCE_FIELDS;
    tell(id, Some(&balance.limit.budget));
    tell(limit, Some(&unit.show(balance.max)));
    tell(spent_so_far, Some(&unit.show(spent)));
    tell(remaining, Some(&unit.show(balance.remaining())));
    tell(reset, resets.as_ref().map(|at| at as _));
}

/// Where a budget stands, field by field.
static BALANCE_FIELDS: [HeaderName; 5] = [
    HeaderName::from_static("x-tollgate-budget-id"),
    HeaderName::from_static("x-tollgate-budget-limit"),
    HeaderName::from_static("x-tollgate-budget-spent"),
    HeaderName::from_static("x-tollgate-budget-remaining"),
    HeaderName::from_static("x-tollgate-budget-reset"),
];

/// `2026-11-22T00:00:00Z`.
struct Second(Timestamp);

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

fn told(shortage: &Shortage) -> String {
    format!("{}, {}", budget_name(shortage), amounts(shortage))
}

fn budget_name(shortage: &Shortage) -> String {
    format!("budget {}", shortage.balance.limit.budget)
}

fn amounts(shortage: &Shortage) -> String {
    let balance = &shortage.balance;
    let unit = &balance.limit.unit;
    let spent = balance.settled.saturating_add(balance.held);
    let in_flight = match balance.reserved {
        0 => String::new(),
        reserved => format!(", held by requests in flight {}", unit.show(reserved)),
    };
    format!(
        "limit {}, spent {}{in_flight}, this request may need {}",
        unit.show(balance.max),
        unit.show(spent),
        unit.show(shortage.asked)
    )
}

fn resets(balance: &Balance) -> String {
    match balance.resets {
        Some(at) => format!(" Resets {}.", Second(at)),
        None => " It does not reset by itself.".to_owned(),
    }
}

#[cfg(test)]
#[path = "budget_refusal_tests.rs"]
mod tests;
