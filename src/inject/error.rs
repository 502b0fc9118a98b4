//! Owns every way an injection can fail, in words for the agent that reads them: what happened and
//! what to do. No text holds a secret, a placeholder or anything the agent sent as a value.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

/// A place in a request where a credential may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// A header field.
    Header(HeaderName),
    /// A query parameter, by its configured name.
    Query(Arc<str>),
    /// The path.
    Path,
    /// The path or query outside of any configured place.
    Target,
    /// A cookie, by its configured name.
    Cookie(Arc<str>),
    /// A field of the body, by its configured JSON pointer.
    Body(Arc<str>),
}

impl Position {
    /// The kind of place, in one word: header names are the agent's to choose.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Query(_) => "query",
            Self::Path => "path",
            Self::Target => "target",
            Self::Cookie(_) => "cookie",
            Self::Body(_) => "body",
        }
    }
}

/// Longest header name that is repeated in a text; names are the agent's to choose.
const LONGEST_NAME: usize = 40;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) if name.as_str().len() > LONGEST_NAME => f.write_str("a header"),
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Query(name) => write!(f, "the query parameter `{name}`"),
            Self::Path => f.write_str("the path"),
            Self::Target => f.write_str("the path or query"),
            Self::Cookie(name) => write!(f, "the cookie `{name}`"),
            Self::Body(pointer) => write!(f, "the body's field `{pointer}`"),
        }
    }
}

/// How a placeholder was misused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// Its credential does not apply to this request: another host, port or rule.
    Elsewhere,
    /// Its credential applies, but none of its placements is where it stands.
    Misplaced,
    /// It was made for another agent.
    Stranger,
}

impl Misuse {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Elsewhere => "elsewhere",
            Self::Misplaced => "misplaced",
            Self::Stranger => "stranger",
        }
    }
}

/// Why a request does not go out. The head may be half changed by then and must be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InjectError {
    /// A placeholder of ours stands where it does not belong.
    Canary {
        /// Whose placeholder it is, if that can be told.
        credential: Option<Arc<str>>,
        /// Where it stands.
        position: Position,
        /// What is wrong with that.
        misuse: Misuse,
    },
    /// A credential that is not the placeholder, on a host with a credential.
    Foreign {
        /// Where it stands.
        position: Position,
    },
    /// The placeholder is in its place, but there is no secret to put there.
    Unavailable {
        /// The credential.
        credential: Arc<str>,
        /// What is wrong with it.
        reason: String,
    },
    /// The placeholder is in its place, but the way to the origin is not TLS.
    Cleartext {
        /// The credential.
        credential: Arc<str>,
    },
    /// Two credentials where one belongs.
    Duplicate {
        /// Where they stand.
        position: Position,
    },
    /// What surrounds the credential cannot be read, or not be written with the secret in it.
    Malformed {
        /// Where.
        position: Position,
        /// What is wrong.
        what: &'static str,
    },
    /// A body that may hold a placeholder is larger than what is read for it.
    BodyTooLarge {
        /// The bound, in bytes.
        limit: u64,
    },
    /// A body that may hold a placeholder is compressed or multipart.
    EncodedBody {
        /// Which of the two.
        what: &'static str,
    },
}

impl InjectError {
    /// A stable word for logs, metrics and machines.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Canary { .. } => "canary",
            Self::Foreign { .. } => "foreign_credential",
            Self::Unavailable { .. } => "credential_unavailable",
            Self::Cleartext { .. } => "cleartext_credential",
            Self::Duplicate { .. } => "duplicate_credential",
            Self::Malformed { .. } => "malformed_credential",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::EncodedBody { .. } => "encoded_body",
        }
    }

    /// The credential concerned, if one is known.
    pub fn credential(&self) -> Option<&str> {
        match self {
            Self::Canary { credential, .. } => credential.as_deref(),
            Self::Unavailable { credential, .. } | Self::Cleartext { credential } => {
                Some(credential)
            }
            _ => None,
        }
    }

    /// What happened.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// What whoever sent the request can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Canary { misuse, .. } => match misuse {
                Misuse::Elsewhere => {
                    "send the placeholder only to the hosts of its credential; this use was recorded"
                }
                Misuse::Misplaced => {
                    "send the placeholder only in the places its credential lists under `placements`, once and unchanged; this use was recorded"
                }
                Misuse::Stranger => {
                    "use the placeholder this agent was given (`tollgate env` prints it); this use was recorded"
                }
            },
            Self::Foreign { .. } => {
                "use the placeholder this agent was given (`tollgate env` prints it), or send no credential at all"
            }
            Self::Unavailable { .. } => {
                "this cannot be mended by retrying or from inside the agent; ask the operator to look at `tollgate creds`"
            }
            Self::Cleartext { .. } => "use https:// instead of http://",
            Self::Duplicate { .. } => "send the credential once",
            Self::Malformed { .. } => "send the request as the API's documentation shows it",
            Self::BodyTooLarge { .. } => {
                "send a smaller body, or ask the operator to raise the placement's `limit`"
            }
            Self::EncodedBody { .. } => "send the body as plain JSON, without Content-Encoding",
        }
    }
}

impl fmt::Display for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canary {
                credential,
                position,
                misuse,
            } => {
                match credential {
                    Some(name) => write!(f, "the placeholder of the credential `{name}`")?,
                    None => f.write_str("a placeholder")?,
                }
                write!(f, " stands in {position}, ")?;
                f.write_str(match misuse {
                    Misuse::Elsewhere => "but its credential does not apply to this request",
                    Misuse::Misplaced => "where its credential does not go",
                    Misuse::Stranger => "but it was made for another agent",
                })
            }
            Self::Foreign { position } => write!(
                f,
                "{position} holds a credential that Tollgate did not give to this agent"
            ),
            Self::Unavailable { credential, reason } => {
                write!(f, "the credential `{credential}` cannot be used: {reason}")
            }
            Self::Cleartext { credential } => write!(
                f,
                "the credential `{credential}` never goes out over cleartext http"
            ),
            Self::Duplicate { position } => write!(f, "{position} is there more than once"),
            Self::Malformed { position, what } => write!(f, "{position} {what}"),
            Self::BodyTooLarge { limit } => write!(
                f,
                "the body is larger than the {limit} bytes that are searched for the placeholder"
            ),
            Self::EncodedBody { what } => write!(
                f,
                "the body is {what}, so the placeholder in it cannot be replaced"
            ),
        }
    }
}

impl std::error::Error for InjectError {}
