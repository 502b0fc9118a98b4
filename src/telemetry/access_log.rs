//! Owns the access log: one JSON object a line, one line an exchange. A record can hold no secret:
//! its fields are names, numbers and redacted views.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use http::Method;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::redact::SafeTarget;
use super::span_notes::SpanNotes;
use super::trace_context::TraceId;
use crate::policy::decision::RuleRef;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::money::NanoUsd;

/// One exchange, or one tunnel, from its first byte to its last.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Record {
    /// When it began.
    #[serde(serialize_with = "timestamp")]
    #[schemars(with = "String")]
    pub time: SystemTime,
    /// The id that a refusal shows as `x-tollgate-request-id`.
    pub id: String,
    /// The address it came from.
    #[schemars(with = "String")]
    pub peer: SocketAddr,
    /// Who asked; absent before identification.
    #[serde(serialize_with = "name", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub agent: Option<Agent>,
    /// The door: `connect`, `absolute-form`, `base-url`.
    pub ingress: &'static str,
    /// `request`, `tunnel` or `connect`.
    pub kind: Kind,
    /// The method; absent for tunnels.
    #[serde(serialize_with = "display", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub method: Option<Method>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host and port.
    #[serde(serialize_with = "display", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub authority: Option<Authority>,
    /// Path and query, redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub target: Option<SafeTarget>,
    /// The agent's protocol: `HTTP/1.1`, `HTTP/2.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// What was decided: `allow`, `deny`, or `report` where it went although `enforce` would refuse it.
    pub decision: Verdict,
    /// Why it was refused, or what `enforce` would have refused: a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The deciding rule, as `file:line`.
    #[serde(serialize_with = "display", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub rule: Option<RuleRef>,
    /// Names of the credentials that were injected.
    #[serde(serialize_with = "names", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub credentials: Vec<Arc<str>>,
    /// What a call of a model used and cost; absent where no budget counts it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Box<CostRecord>>,
    /// Whether the origin was asked twice, the second time with a renewed credential.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// What became of an agent's own call to a token endpoint; `credentials` then says whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_call: Option<&'static str>,
    /// How often the answer repeated a secret, and the placeholder took its place.
    #[serde(skip_serializing_if = "is_zero")]
    pub scrubbed: u64,
    /// The status the agent got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Body bytes from the agent.
    pub request_bytes: u64,
    /// Body bytes to the agent.
    pub response_bytes: u64,
    /// Until the origin's response head arrived.
    #[serde(
        serialize_with = "millis",
        rename = "upstream_ms",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<f64>")]
    pub upstream: Option<Duration>,
    /// What the proxy added before the answer began: policy, credentials, budgets, renewals, and bodies
    /// that are read whole; absent where no origin answered.
    #[serde(
        serialize_with = "millis",
        rename = "added_ms",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<f64>")]
    pub added: Option<Duration>,
    /// From first to last byte.
    #[serde(serialize_with = "millis", rename = "duration_ms")]
    #[schemars(with = "Option<f64>")]
    pub duration: Option<Duration>,
    /// How it ended, when not well: a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<&'static str>,
    /// The trace that its span is in; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub trace_id: Option<TraceId>,
    /// What its span says besides.
    #[serde(skip)]
    pub span: Option<Box<SpanNotes>>,
}

/// What a call of a model used and cost.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CostRecord {
    /// The model that was asked for.
    #[serde(serialize_with = "text")]
    #[schemars(with = "String")]
    pub model: Arc<str>,
    /// Tokens of the prompt, whatever their class.
    pub input_tokens: u64,
    /// Tokens of the prompt that came from a cache; they are among `input_tokens`.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// What that costs, in US dollars, as a decimal number in a string.
    #[serde(serialize_with = "dollars")]
    #[schemars(with = "String")]
    pub cost_usd: NanoUsd,
    /// Whether some of it is estimated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An HTTP exchange.
    Request,
    /// Bytes passed unread.
    Tunnel,
    /// A CONNECT that was refused or whose TLS failed.
    Connect,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It went to the origin.
    Allow,
    /// It did not.
    Deny,
    /// It went, though `enforce` would refuse it.
    Report,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn timestamp<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    match jiff::Timestamp::try_from(*time) {
        Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
        Err(_) => serializer.serialize_none(),
    }
}

fn name<S: Serializer>(agent: &Option<Agent>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(agent.as_ref().map_or("", Agent::name))
}

fn names<S: Serializer>(names: &[Arc<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(AsRef::<str>::as_ref))
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn dollars<S: Serializer>(cost: &NanoUsd, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cost.to_string().trim_start_matches('$'))
}

fn display<S: Serializer>(
    value: &Option<impl std::fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn millis<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3),
        None => serializer.serialize_none(),
    }
}

/// Records on their way to the writer: formatting happens there, never on an exchange's thread.
#[derive(Clone)]
pub struct AccessLog {
    queue: Option<SyncSender<Message>>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Record(Arc<Record>),
    Flush(SyncSender<()>),
}

/// Records that wait for the disk; past that they are dropped and counted, never waited for.
const QUEUE: usize = 8192;

impl AccessLog {
    /// Writes nothing.
    pub fn off() -> Self {
        Self {
            queue: None,
            dropped: Arc::default(),
        }
    }

    /// Writes to standard output.
    pub fn stdout() -> io::Result<Self> {
        Self::to(Box::new(io::stdout()))
    }

    /// Appends to a file, made with mode 0600.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file: File = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot write the access log {}: {error}", path.display()),
                )
            })?;
        Self::to(Box::new(file))
    }

    fn to(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(out, &records))?;
        Ok(Self {
            queue: Some(queue),
            dropped: Arc::default(),
        })
    }

    /// Hands a record over.
    pub fn record(&self, record: Arc<Record>) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(Message::Record(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records that were lost because the writer did not keep up or failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything recorded so far is written, at most two seconds.
    pub fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, wait) = sync_channel(1);
        if queue.send(Message::Flush(done)).is_ok() {
            wait.recv_timeout(Duration::from_secs(2)).ok();
        }
    }
}

/// Bytes that go out at once.
const BUFFER: usize = 64 * 1024;
/// How long records gather before they are written. To wake the writer for each of them costs the
/// exchange's thread a system call, and the machine two changes of thread.
const GATHER: Duration = Duration::from_millis(10);

/// Lines are flushed whenever the queue runs empty, so a quiet log is never further behind.
fn write(out: Box<dyn Write + Send>, records: &Receiver<Message>) {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    while let Ok(first) = records.recv() {
        if matches!(first, Message::Record(_)) {
            std::thread::sleep(GATHER);
        }
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Record(record) => {
                    let written =
                        serde_json::to_writer(&mut out, &*record).map_err(io::Error::from);
                    if written.and_then(|()| out.write_all(b"\n")).is_err() {
                        return;
                    }
                }
                Message::Flush(done) => {
                    if out.flush().is_err() || done.send(()).is_err() {
                        return;
                    }
                }
            }
            next = records.try_recv().ok();
        }
        if out.flush().is_err() {
            return;
        }
    }
}
