//! Owns the access log: one JSON object a line, one line an exchange. A record can hold no secret:
//! its fields are names, numbers and redacted views.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::hand_over::hand_over;
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
    /// The version of each of them, in the same order: 1 for the first value since the start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credential_versions: Vec<u64>,
    /// The budget that refused it.
    #[serde(serialize_with = "optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub budget: Option<Arc<str>>,
    /// The placeholder that stood where it does not belong: `credential`, if known, `place` and `misuse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRecord>,
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
    /// Until the first octet of the answer's body went on to the agent: of a stream, the time to the first
    /// token.
    #[serde(
        serialize_with = "millis",
        rename = "ttft_ms",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<f64>")]
    pub first_byte: Option<Duration>,
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

/// A credential that went out with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsedCredential {
    /// Its name.
    #[serde(serialize_with = "text")]
    pub name: Arc<str>,
    /// The version of its value.
    pub version: u64,
    /// The kind of place it went to.
    pub placement: &'static str,
}

/// A placeholder that stood where it does not belong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CanaryRecord {
    /// Whose placeholder it is, if that can be told.
    #[serde(serialize_with = "optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub credential: Option<Arc<str>>,
    /// The kind of place it stood in.
    pub place: &'static str,
    /// `elsewhere`, `misplaced` or `stranger`.
    pub misuse: &'static str,
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

fn optional<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => serializer.serialize_str(text),
        None => serializer.serialize_none(),
    }
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
    lost: Arc<Lost>,
}

/// Records that are not in the log.
#[derive(Default)]
struct Lost {
    /// The writer did not keep up.
    queued: AtomicU64,
    /// They could not be written.
    unwritten: AtomicU64,
}

enum Message {
    Record(Arc<Record>),
    Reopen,
    Flush(SyncSender<()>),
}

/// How long what is recorded may take at the end. A pipe that nobody reads takes for ever.
const FLUSH: Duration = Duration::from_secs(2);

/// Records that wait for the disk; past that they are dropped and counted, never waited for.
const QUEUE: usize = 8192;

impl AccessLog {
    /// Writes nothing.
    pub fn off() -> Self {
        Self {
            queue: None,
            lost: Arc::default(),
        }
    }

    /// Writes to standard output.
    pub fn stdout() -> io::Result<Self> {
        Self::to(Output::Stdout)
    }

    /// Appends to a file, made with mode 0600. Where the file is moved away (`logrotate`), a new one is made
    /// within a second, or at once when [`AccessLog::reopen`] says so.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = LogFile::open(path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot write the access log {}: {error}", path.display()),
            )
        })?;
        Self::to(Output::File(file))
    }

    fn to(output: Output) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let lost = Arc::<Lost>::default();
        let writer = Writer {
            output,
            text: Vec::with_capacity(BUFFER),
            lines: 0,
            lost: lost.clone(),
            failing: false,
        };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&messages))?;
        Ok(Self {
            queue: Some(queue),
            lost,
        })
    }

    /// Hands a record over.
    pub fn record(&self, record: Arc<Record>) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(Message::Record(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.queued.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records that were lost because the writer did not keep up.
    pub fn dropped(&self) -> u64 {
        self.lost.queued.load(Ordering::Relaxed)
    }

    /// Records that were lost because they could not be written.
    pub fn unwritten(&self) -> u64 {
        self.lost.unwritten.load(Ordering::Relaxed)
    }

    /// Looks now whether the file was moved away. The writer may be busy; then it looks within a second.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.try_send(Message::Reopen).ok();
        }
    }

    /// Waits until everything recorded so far is written, at most two seconds.
    pub fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, wait) = sync_channel(1);
        let deadline = Instant::now() + FLUSH;
        if hand_over(queue, Message::Flush(done), deadline) {
            let left = deadline.saturating_duration_since(Instant::now());
            wait.recv_timeout(left).ok();
        }
    }
}

/// Bytes that go out at once.
const BUFFER: usize = 64 * 1024;
/// How long records gather before they are written. To wake the writer for each of them costs the
/// exchange's thread a system call, and the machine two changes of thread.
const GATHER: Duration = Duration::from_millis(10);
/// How often the writer looks whether its file was moved away.
const LOOK: Duration = Duration::from_secs(1);

enum Output {
    Stdout,
    File(LogFile),
}

/// A file that may be moved away while it is written.
struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
    /// The last line in it is half a line.
    torn: bool,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            looked: Instant::now(),
            torn: false,
        })
    }

    /// Appends all of these lines, or the first few: a disk that is full cuts anywhere. The error comes with
    /// how many lines there are.
    fn append(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        if self.torn {
            self.file.write_all(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut done = 0;
        while done < lines.len() {
            match self.file.write(&lines[done..]) {
                Ok(0) => return Err((self.mend(&lines[..done]), io::ErrorKind::WriteZero.into())),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((self.mend(&lines[..done]), error)),
            }
        }
        Ok(())
    }

    /// Takes the half line back that `written` ends with; returns how many whole ones stand before it.
    fn mend(&mut self, written: &[u8]) -> u64 {
        let whole = memchr::memrchr(b'\n', written).map_or(0, |end| end + 1);
        let half = (written.len() - whole) as u64;
        if half > 0 {
            let length = self.file.metadata().map(|about| about.len());
            let cut = length.and_then(|length| self.file.set_len(length.saturating_sub(half)));
            self.torn = cut.is_err();
        }
        memchr::memchr_iter(b'\n', &written[..whole]).count() as u64
    }

    /// Makes a new file if `path` does not lead to this one any more.
    fn follow(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        let own = self.file.metadata()?;
        let same = std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
        if !same {
            *self = Self::open(&self.path)?;
        }
        Ok(())
    }
}

struct Writer {
    output: Output,
    text: Vec<u8>,
    lines: u64,
    lost: Arc<Lost>,
    failing: bool,
}

impl Writer {
    /// Lines are written whenever the queue runs empty, so a quiet log is never further behind.
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            if matches!(first, Message::Record(_)) {
                std::thread::sleep(GATHER);
            }
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Record(record) => self.add(&record),
                    Message::Reopen => {
                        self.write();
                        if let Output::File(file) = &mut self.output {
                            // A path that is gone is told of when something is to be written.
                            file.follow().ok();
                        }
                    }
                    Message::Flush(done) => {
                        self.write();
                        done.send(()).ok();
                    }
                }
                next = messages.try_recv().ok();
            }
            self.write();
        }
    }

    fn add(&mut self, record: &Record) {
        let start = self.text.len();
        if serde_json::to_writer(&mut self.text, record).is_err() {
            self.text.truncate(start);
            self.lost.unwritten.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.text.push(b'\n');
        self.lines += 1;
        if self.text.len() >= BUFFER {
            self.write();
        }
    }

    /// Writes what there is. What cannot be written is lost and counted; the next lines are tried again.
    fn write(&mut self) {
        if self.text.is_empty() {
            return;
        }
        let written = match &mut self.output {
            Output::Stdout => {
                let mut out = io::stdout().lock();
                let written = out.write_all(&self.text).and_then(|()| out.flush());
                written.map_err(|error| (0, error))
            }
            Output::File(file) if file.looked.elapsed() >= LOOK => {
                let followed = file.follow().map_err(|error| (0, error));
                followed.and_then(|()| file.append(&self.text))
            }
            Output::File(file) => file.append(&self.text),
        };
        match written {
            Ok(()) => self.failing = false,
            Err((kept, error)) => {
                let lost = self.lines - kept;
                self.lost.unwritten.fetch_add(lost, Ordering::Relaxed);
                if !self.failing {
                    tracing::error!(%error, "the access log cannot be written; records are lost");
                }
                self.failing = true;
            }
        }
        self.text.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A refusal of this agent's for `api.example.com`.
    pub(in super::super) fn record(agent: &str, status: u16) -> Record {
        Record {
            time: SystemTime::now(),
            id: "1-1".to_owned(),
            peer: ([127, 0, 0, 1], 1).into(),
            agent: Agent::parse(agent).ok(),
            ingress: "connect",
            kind: Kind::Request,
            method: Some(Method::GET),
            scheme: "https",
            authority: Authority::parse("api.example.com:443", None).ok(),
            target: None,
            protocol: None,
            decision: Verdict::Deny,
            reason: Some("path_not_allowed"),
            rule: None,
            credentials: Vec::new(),
            credential_versions: Vec::new(),
            budget: None,
            canary: None,
            cost: None,
            replayed: false,
            token_call: None,
            scrubbed: 0,
            status: Some(status),
            request_bytes: 0,
            response_bytes: 0,
            upstream: None,
            added: None,
            first_byte: None,
            duration: None,
            end: None,
            trace_id: None,
            span: None,
        }
    }

    #[test]
    fn a_file_that_is_moved_away_is_followed_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (
            dir.path().join("access.log"),
            dir.path().join("access.log.1"),
        );
        let log = AccessLog::file(&path).unwrap();
        log.record(Arc::new(record("a", 1)));
        log.flush();
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        log.record(Arc::new(record("a", 2)));
        log.flush();
        let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&old), lines(&path)), (1, 1));
    }

    #[test]
    fn a_writer_that_takes_nothing_is_not_waited_for_longer_than_was_said() {
        let (queue, _held) = sync_channel(1);
        let log = AccessLog {
            queue: Some(queue),
            lost: Arc::default(),
        };
        log.record(Arc::new(record("a", 1)));
        log.record(Arc::new(record("a", 2)));
        assert_eq!((log.dropped(), log.unwritten()), (1, 0));
        let begun = Instant::now();
        log.flush();
        assert!(begun.elapsed() >= FLUSH);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/access.log");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let log = AccessLog::file(&path).unwrap();
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        std::thread::sleep(LOOK);
        log.record(Arc::new(record("a", 1)));
        log.flush();
        assert_eq!((log.dropped(), log.unwritten()), (0, 1));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::thread::sleep(LOOK);
        log.record(Arc::new(record("a", 2)));
        log.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }
}
