//! Owns every way an exchange can fail: whose fault it is, the status it becomes, and what to do.

use std::io;

use http::StatusCode;

use super::budget_refusal::{BudgetRefusal, Why};
use super::dial::DialError;
use crate::budget::ledger::Balance;
use crate::identity::identifier::Unidentified;
use crate::inject::error::InjectError;
use crate::net::resolve::ResolveError;
use crate::net::violation::Violation;
use crate::oauth::call_error::CallError;
use crate::policy::decision::{Denial, RuleRef};
use crate::scrub::coding::UnknownCoding;
use crate::types::host::{Authority, HostError};
use crate::types::limits::{OriginLimits, RequestLimits};
use crate::types::reached::{Amount, Limit, Reached};

/// What is wrong with an answer that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
    /// No head came that can be read.
    #[error("broke the connection or sent no valid HTTP")]
    Head,
    /// A head came that is too large to be read.
    #[error(
        "sent a head of more than {} or {} fields, the most that `spec.limits.origins.headSize` and `headFields` let it, or a length next to 2^64",
        Amount::Bytes(.0.head_size as u64),
        .0.head_fields
    )]
    LargeHead(OriginLimits),
    /// Nothing of a body came behind the head, or what is no body.
    #[error("broke off its answer before its body began, or sent no valid HTTP")]
    Body,
    /// The body's first octets are not in the coding that the head tells.
    #[error("sent a body that is not what its Content-Encoding says")]
    Coding,
}

/// Why an exchange ended here rather than at the origin.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The agent's bytes have more than one reading, or none.
    #[error("{}", .0.message())]
    Ambiguous(Violation),
    /// A limit of the process is reached.
    #[error("{0}")]
    Limit(#[from] Reached),
    /// The head is well-formed and still not acceptable.
    #[error("{0}")]
    Malformed(&'static str),
    /// The target cannot be parsed.
    #[error("the request's target is not acceptable: {0}")]
    Target(#[from] HostError),
    /// The connection was opened for another host than the request names.
    #[error("the request names another host than {target}, which the connection was opened for")]
    Misdirected {
        /// What the connection is for.
        target: Authority,
    },
    /// TRACE, or CONNECT where none belongs.
    #[error("this method is refused here")]
    Method,
    /// The caller is unknown.
    #[error("{0}")]
    Unidentified(#[from] Unidentified),
    /// Policy says no.
    #[error("{}", .0.message)]
    Denied(Box<Denial>),
    /// The first path segment names no route.
    #[error("the path begins with no route of this proxy")]
    Route {
        /// What would work.
        known: String,
    },
    /// A base-URL request whose Host is a public name: a web page that rebinds DNS, not an agent.
    #[error("the Host field names a public host that is not this proxy")]
    ForeignHost,
    /// A credential cannot be injected.
    #[error("{}", .0.message())]
    Injection(Box<InjectError>),
    /// A body that must be read whole is larger than its bound.
    #[error(
        "the body is larger than {limit} bytes, the bound for bodies that a credential goes into"
    )]
    BodyTooLarge {
        /// The bound.
        limit: u64,
    },
    /// The agent's body broke off.
    #[error("the request body ended early")]
    AgentBody,
    /// The origin was not reached.
    #[error("{0}")]
    Dial(DialError),
    /// The origin did not answer in time.
    #[error("{authority} sent no response head in time")]
    Silent {
        /// Who.
        authority: Authority,
    },
    /// The origin answered something that is no answer.
    #[error("{authority} {fault}")]
    Origin {
        /// Who.
        authority: Authority,
        /// What is wrong with it.
        fault: OriginFault,
    },
    /// The origin's answer cannot be searched for the secret that its request had.
    #[error(
        "{authority} answered with {coding}, so its answer cannot be searched for the secret that the request had"
    )]
    Unsearchable {
        /// Who.
        authority: Authority,
        /// In what.
        coding: UnknownCoding,
        /// The rule that could let it pass.
        rule: Option<RuleRef>,
    },
    /// An agent's own call to a token endpoint is refused.
    #[error("{0}")]
    TokenCall(#[from] CallError),
    /// A budget says no.
    #[error("{0}")]
    Budget(Box<BudgetRefusal>),
    /// The audit log cannot be written, and the operator wants nothing to leave unrecorded.
    #[error("the audit log cannot be written, and no credential goes out until it can")]
    Unrecorded,
    /// The process is ending.
    #[error("the proxy is shutting down; this is not a denial")]
    Draining,
}

impl From<Denial> for ProxyError {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

impl From<DialError> for ProxyError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Resolve(ResolveError::Full(reached)) => Self::Limit(reached),
            other => Self::Dial(other),
        }
    }
}

impl From<InjectError> for ProxyError {
    fn from(error: InjectError) -> Self {
        Self::Injection(Box::new(error))
    }
}

impl ProxyError {
    /// What `violation` comes down to where these limits hold.
    pub fn of(violation: Violation, limits: &RequestLimits) -> Self {
        match violation.reached(limits) {
            Some(reached) => Self::Limit(reached),
            None => Self::Ambiguous(violation),
        }
    }

    /// Whether the connection it happened on cannot be used any further.
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::Ambiguous(_) => true,
            Self::Limit(reached) => reached.limit.ends_connection(),
            _ => false,
        }
    }

    /// The status the agent gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Limit(reached) => limit_status(reached.limit),
            Self::Ambiguous(Violation::LongTarget) => StatusCode::URI_TOO_LONG,
            Self::Ambiguous(Violation::LongName | Violation::LongTrailers) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Ambiguous(_) | Self::Malformed(_) | Self::Target(_) | Self::AgentBody => {
                StatusCode::BAD_REQUEST
            }
            Self::Misdirected { .. } | Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unidentified(_) => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Route { .. } => StatusCode::NOT_FOUND,
            Self::Injection(error) => injection_status(error),
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Dial(error) => error.status(),
            Self::Silent { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Origin { .. } | Self::Unsearchable { .. } => StatusCode::BAD_GATEWAY,
            Self::TokenCall(error) => error.status(),
            Self::Budget(refusal) => refusal.status(),
            Self::Unrecorded | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A stable word for logs, metrics and `Proxy-Status` details.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Limit(reached) => reached.limit.reason(),
            Self::Ambiguous(_) => "ambiguous_request",
            Self::Malformed(_) | Self::Target(_) => "malformed_request",
            Self::Misdirected { .. } => "host_mismatch",
            Self::ForeignHost => "foreign_host",
            Self::Method => "method_refused",
            Self::Unidentified(_) => "unidentified",
            Self::Denied(denial) => denial.reason.as_str(),
            Self::Route { .. } => "unknown_route",
            Self::Injection(error) => error.as_str(),
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::AgentBody => "request_body",
            Self::Dial(error) => error.stage(),
            Self::Silent { .. } => "response_timeout",
            Self::Origin { .. } => "origin_error",
            Self::Unsearchable { .. } => "unknown_coding",
            Self::TokenCall(error) => error.reason(),
            Self::Budget(refusal) => refusal.reason(),
            Self::Unrecorded => "audit_unavailable",
            Self::Draining => "draining",
        }
    }

    /// The error type of RFC 9209, section 2.3.
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.proxy_status(),
            Self::Silent { .. } => "http_response_timeout",
            Self::Origin { .. } => "http_protocol_error",
            Self::Unsearchable { .. } => "http_response_content_coding",
            Self::Ambiguous(_)
            | Self::Malformed(_)
            | Self::Target(_)
            | Self::AgentBody
            | Self::BodyTooLarge { .. } => "http_request_error",
            Self::Unrecorded | Self::Draining => "destination_unavailable",
            Self::Limit(reached) => match limit_status(reached.limit).is_server_error() {
                // The words of RFC 9209, section 2.3.16, for one that is out of capacity itself.
                true => "proxy_internal_error",
                false => "http_request_error",
            },
            _ => "http_request_denied",
        }
    }

    /// Whether the same request may succeed by itself a moment later.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Silent { .. } | Self::Origin { .. } | Self::Unrecorded | Self::Draining
        ) || matches!(self, Self::Dial(error) if error.is_temporary())
            || matches!(self, Self::TokenCall(error) if error.is_temporary())
            || matches!(self, Self::Budget(refusal) if refusal.is_temporary())
            || matches!(self, Self::Limit(reached) if reached.limit.passes())
    }

    /// Where the budget stands that refused it, if one did.
    pub fn balance(&self) -> Option<&Balance> {
        let Self::Budget(refusal) = self else {
            return None;
        };
        match &refusal.why {
            Why::Exhausted(shortage) | Why::Contended(shortage) => Some(&shortage.balance),
            _ => None,
        }
    }

    /// The rule that decided or came nearest.
    pub fn rule(&self) -> Option<&RuleRef> {
        match self {
            Self::Denied(denial) => denial.nearest.as_ref(),
            Self::Unsearchable { rule, .. } => rule.as_ref(),
            _ => None,
        }
    }

    /// The budget that refused.
    pub fn budget(&self) -> Option<&str> {
        match self {
            Self::Budget(refusal) => refusal.budget(),
            _ => None,
        }
    }

    /// What the one who reads it should do.
    pub fn remedy(&self) -> String {
        match self {
            Self::Denied(denial) => denial.remedy.clone(),
            Self::Injection(error) => error.remedy().to_owned(),
            Self::Dial(error) => error.remedy(),
            Self::TokenCall(error) => error.remedy(),
            Self::Budget(refusal) => refusal.remedy().to_owned(),
            Self::Route { known, .. } => format!("The routes are: {known}."),
            Self::Unidentified(_) => {
                "Ask the operator for this agent's proxy URL; it has the form http://NAME:TOKEN@host:port.".to_owned()
            }
            Self::Misdirected { .. } | Self::ForeignHost => {
                "Open a connection for the host that the request names.".to_owned()
            }
            Self::Limit(reached) => reached.remedy(),
            Self::Ambiguous(_) | Self::Malformed(_) | Self::Target(_) | Self::Method | Self::AgentBody => {
                "Send a request with one unambiguous reading; retrying this one will not help.".to_owned()
            }
            Self::BodyTooLarge { .. } => "Send a smaller body, or ask the operator to raise the limit.".to_owned(),
            Self::Silent { .. } | Self::Origin { .. } => {
                "The origin is at fault or out of reach; trying again later may help.".to_owned()
            }
            Self::Unsearchable { rule, .. } => {
                let place = rule.as_ref().map_or_else(String::new, |rule| format!(" at {rule}"));
                format!(
                    "Ask for gzip, deflate, br or zstd, or for no compression; where the origin is trusted not to repeat \
                     the secret, the operator can set `unknownCodings: Pass`{place}."
                )
            }
            Self::Unrecorded => {
                "Try again in a moment; the operator finds the cause on /readyz.".to_owned()
            }
            Self::Draining => "Try again in a second.".to_owned(),
        }
    }
}

fn limit_status(limit: Limit) -> StatusCode {
    match limit {
        Limit::HeadSize | Limit::HeadFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Limit::HeadTime
        | Limit::BodyIdle
        | Limit::IdleConnection
        | Limit::Ping
        | Limit::OriginPing
        | Limit::TunnelStart
        | Limit::Handshake => StatusCode::REQUEST_TIMEOUT,
        Limit::AgentConnections
        | Limit::AddressConnections
        | Limit::AgentStreams
        | Limit::AgentReadBodies
        | Limit::AgentMints => StatusCode::TOO_MANY_REQUESTS,
        Limit::Connections
        | Limit::Streams
        | Limit::ReadBodies
        | Limit::Windows
        | Limit::WebSocketFrame
        | Limit::Mints
        | Limit::Lookups => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn injection_status(error: &InjectError) -> StatusCode {
    match error {
        InjectError::Canary { .. }
        | InjectError::Foreign { .. }
        | InjectError::Cleartext { .. } => StatusCode::FORBIDDEN,
        InjectError::Duplicate { .. } | InjectError::Malformed { .. } => StatusCode::BAD_REQUEST,
        InjectError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        InjectError::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        InjectError::EncodedBody { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    }
}

/// Finds the first error of type `E` in a chain of causes.
pub fn cause<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An io::Error carries its cause without listing it as its source.
        if let Some(inner) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            && let Some(found) = cause::<E>(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}
