//! Owns the ways in which an agent's own call to a token endpoint is refused, in words for the agent and
//! for the person behind it.

use std::sync::Arc;

use http::StatusCode;

/// Why an agent's call to a token endpoint is not answered with placeholders. Holds nothing of the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It is no request of RFC 6749, or one with more than one reading.
    #[error("the token request cannot be read: {0}")]
    Malformed(&'static str),
    /// It is too long to be one.
    #[error("the token request is longer than {0} bytes")]
    TooLong(u64),
    /// A kind of grant that would give the agent a token of its own.
    #[error(
        "agents cannot ask for this kind of grant here: the credential `{0}` is owned by the proxy"
    )]
    Unsupported(Arc<str>),
    /// There is no login, and agents may not bring one.
    #[error("the credential `{0}` has no login, and one that an agent runs is not taken over")]
    LoginNeeded(Arc<str>),
    /// It is not known yet whether there is one.
    #[error("it is not known yet whether the credential `{0}` has a login")]
    NotReady(Arc<str>),
    /// The endpoint gave no answer.
    #[error("the login was not completed: {0}")]
    Unanswered(String),
    /// The endpoint gave tokens, and they cannot be kept.
    #[error("the login of the credential `{credential}` cannot be kept: {why}")]
    NotKept {
        /// The credential.
        credential: Arc<str>,
        /// What the store says.
        why: String,
    },
    /// The endpoint's answer might show the agent a secret.
    #[error("the endpoint's answer is held back: {0}")]
    Withheld(String),
}

impl CallError {
    /// The status the agent gets. Nothing here makes a client throw its login away: for that it takes
    /// `invalid_grant`.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::TooLong(_) | Self::Unsupported(_) => StatusCode::BAD_REQUEST,
            Self::LoginNeeded(_) => StatusCode::FORBIDDEN,
            Self::NotReady(_) | Self::NotKept { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unanswered(_) | Self::Withheld(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// A stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::TooLong(_) => "malformed_token_call",
            Self::Unsupported(_) => "unsupported_grant_type",
            Self::LoginNeeded(_) => "login_needed",
            Self::NotReady(_) => "login_not_known",
            Self::Unanswered(_) => "token_endpoint",
            Self::NotKept { .. } => "login_not_kept",
            Self::Withheld(_) => "token_answer_withheld",
        }
    }

    /// Whether the same call may succeed by itself a moment later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::NotReady(_) | Self::NotKept { .. })
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Malformed(_) | Self::TooLong(_) => {
                "send the parameters once, as a form or as a flat JSON object (RFC 6749, section 4)".to_owned()
            }
            Self::Unsupported(_) => "go on with the placeholder that stands for the token".to_owned(),
            Self::LoginNeeded(name) => {
                format!("the operator runs `tollgate creds login {name}`; the agent can do nothing")
            }
            Self::NotReady(_) => "try again in a second".to_owned(),
            Self::Unanswered(_) => {
                "begin the login anew; the code that was sent may be used up".to_owned()
            }
            Self::NotKept { credential, .. } => format!(
                "the operator makes room or mends the store, as `tollgate creds check {credential}` says, then begin the login anew"
            ),
            Self::Withheld(_) => {
                "if `tollgate creds list` shows a login, begin the login anew: it is then answered with placeholders".to_owned()
            }
        }
    }
}
