//! Owns what is noted for an exchange's span while it runs, beside its record. Everything in it can be shown:
//! it is a number, a name from the documents, or redacted by type.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::redact::{SafeId, SafeText};
use super::semconv::CREDENTIAL_FIELDS;
use super::trace_context::{SpanId, TraceId, TraceState};
use crate::types::model_api::ModelApi;
use crate::types::money::NanoUsd;
use crate::types::said::Said;
use crate::types::usage::Usage;

/// What the span of an exchange says besides its record.
#[derive(Debug, Clone)]
pub struct SpanNotes {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// The agent's span, if it sent one.
    pub parent: Option<SpanId>,
    /// What vendors said besides.
    pub state: Option<TraceState>,
    /// What joins the calls of one run.
    pub invocation: Invocation,
    /// Which credential fields the agent sent.
    pub present: Present,
    /// What the agent calls itself.
    pub user_agent: Option<SafeText>,
    /// The client's session.
    pub conversation: Option<SafeId>,
    /// The one run of the agent.
    pub execution: Option<Arc<str>>,
    /// The versions of the credentials that were put in, in the record's order.
    pub versions: Vec<u64>,
    /// The version of HTTP towards the origin.
    pub protocol: Option<&'static str>,
    /// Until the answer's first octet went on.
    pub first_chunk: Option<Duration>,
    /// Whether the answer came in pieces.
    pub pieces: Pieces,
    /// What was asked of a model.
    pub model: Option<Box<ModelNotes>>,
}

/// Whether an answer came in pieces: the first of them is timed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pieces {
    /// It was one.
    #[default]
    One,
    /// It was a stream of events.
    Many,
}

/// What joins the calls of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invocation {
    /// The agent said so, with a `traceparent`.
    Trace(TraceId),
    /// It did not: the connection, and the request's number on it.
    Connection {
        /// Tells processes and starts apart.
        boot: u64,
        /// The connection.
        connection: u64,
        /// The request's number on it, from 1.
        request: u64,
    },
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(trace) => trace.fmt(f),
            Self::Connection {
                boot,
                connection,
                request,
            } => write!(f, "{boot:x}-{connection:x}-{request:x}"),
        }
    }
}

/// What was asked of a model, and what it came to.
#[derive(Debug, Clone)]
pub struct ModelNotes {
    /// Whose API.
    pub api: ModelApi,
    /// `chat`, `generate_content`, `embeddings`.
    pub operation: &'static str,
    /// The model that was asked for.
    pub asked: Option<SafeText>,
    /// The model that answered.
    pub answered: Option<SafeText>,
    /// Its tokens; nothing where they were not read.
    pub usage: Option<Usage>,
    /// Why the answer ended, and how much of it was reasoning.
    pub said: Said,
    /// What that costs; nothing where no budget counts it.
    pub cost: Option<NanoUsd>,
    /// Whether some of it is estimated.
    pub certainty: Certainty,
    /// The budget that was nearest its end.
    pub budget: Option<BudgetNotes>,
}

/// Whether a cost is what a provider said, or partly estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Certainty {
    /// As the provider said.
    #[default]
    Told,
    /// Partly estimated.
    Estimated,
}

/// Where a budget stood when a call was admitted, or refused.
#[derive(Debug, Clone)]
pub struct BudgetNotes {
    /// Its name.
    pub name: Arc<str>,
    /// What was left, in its own unit: `$5.00`, `1200 tokens`.
    pub remaining: String,
    /// The same as a part of the whole.
    pub ratio: f64,
}

/// Which credential fields were sent: a bit for each of [`CREDENTIAL_FIELDS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Present(u16);

impl Present {
    /// Those that are there.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut bits = 0;
        for name in headers.keys() {
            let mut fields = CREDENTIAL_FIELDS.iter();
            let known = fields.position(|(field, _)| *field == name.as_str());
            bits |= known.map_or(0, |index| 1 << index);
        }
        Self(bits)
    }

    /// The attributes that say so.
    pub fn attributes(self) -> impl Iterator<Item = &'static str> {
        let with_bits = CREDENTIAL_FIELDS.iter().enumerate();
        with_bits
            .filter(move |(index, _)| self.0 & (1 << index) != 0)
            .map(|(_, (_, attribute))| *attribute)
    }
}

/// Fields by which clients name their session, where its value is a UUID: Claude Code, Codex.
static SESSIONS: [HeaderName; 2] = [
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("session-id"),
];

/// What the agent calls itself, and its session.
pub fn client(headers: &HeaderMap) -> (Option<SafeText>, Option<SafeId>) {
    let text = |value: &HeaderValue| value.to_str().ok().map(SafeText::of);
    let user_agent = headers.get(header::USER_AGENT).and_then(text);
    let session = SESSIONS.iter().find_map(|name| headers.get(name));
    let session = session.and_then(|value| SafeId::parse(value.to_str().ok()?));
    (user_agent, session)
}
