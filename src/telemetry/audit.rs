//! Owns the way to the audit log: events are handed over here, and a thread of its own seals and writes
//! them. An exchange waits for the disk only where the operator asks for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::audit_event::Event;
use super::audit_file::{AuditFile, FileError, FileTerms};
use super::audit_key::Signer;
use super::audit_line::Tip;
use super::hand_over::hand_over;
pub use crate::config::audit::{AuditExchanges, OnAuditFailure};

/// How the log is kept.
pub struct AuditTerms {
    /// The files.
    pub file: FileTerms,
    /// Which exchanges are recorded.
    pub exchanges: AuditExchanges,
    /// What becomes of requests while nothing can be written.
    pub on_failure: OnAuditFailure,
    /// What signs heads.
    pub signer: Option<Signer>,
    /// A head is signed after this many records,
    pub head_records: u64,
    /// or this long after the first record without one.
    pub head_every: Duration,
}

/// The log, from the side of those who tell it something. Cloning is shallow.
#[derive(Clone, Default)]
pub struct AuditLog(Option<Arc<Shared>>);

struct Shared {
    queue: SyncSender<Message>,
    exchanges: AuditExchanges,
    on_failure: OnAuditFailure,
    books: Books,
}

/// How the log is doing; shared with the thread.
#[derive(Default)]
struct Books {
    written: AtomicU64,
    lost: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tip: Option<Tip>,
    trouble: Option<FileError>,
}

/// How the log is doing.
#[derive(Clone, Debug, Default)]
pub struct AuditStatus {
    /// Records that this process wrote.
    pub written: u64,
    /// Events that it could not keep until they could be written.
    pub lost: u64,
    /// The chain's end.
    pub tip: Option<Tip>,
    /// Why nothing can be written now.
    pub trouble: Option<FileError>,
}

/// A record that must be written before something goes on could not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written, and nothing goes out with a credential until it can")]
pub struct Unrecorded;

enum Message {
    Event(SystemTime, Box<Event>),
    /// The same, for somebody who waits until it is written.
    Witness(
        SystemTime,
        Box<Event>,
        oneshot::Sender<Result<(), Unrecorded>>,
    ),
    Close(SyncSender<()>),
}

/// Events on their way to the thread.
const QUEUE: usize = 8192;
/// Events that are kept while the file cannot be written; later ones are counted and lost.
const KEPT: usize = 16 * 1024;
/// Lines that are written at once.
const BATCH: usize = 512;
/// How long events gather before they are written, where nobody waits for them.
const GATHER: Duration = Duration::from_millis(10);
/// Longest time between an append and its fsync: what a loss of power may take.
const SYNC: Duration = Duration::from_secs(1);
/// How soon a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long the last records may take. A disk that hangs takes for ever.
const CLOSING: Duration = Duration::from_secs(2);
/// How long a request waits for its record.
const PATIENCE: Duration = Duration::from_secs(5);

impl AuditLog {
    /// Records nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Begins to record.
    ///
    /// Errors: the first record could not be written, and the operator wants no request to pass
    /// unrecorded; or there can be no thread.
    pub fn start(terms: AuditTerms, first: Event) -> Result<Self, FileError> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            queue,
            exchanges: terms.exchanges,
            on_failure: terms.on_failure,
            books: Books::default(),
        });
        let mut writer = Writer {
            file: AuditFile::new(terms.file),
            signer: terms.signer,
            head_records: terms.head_records.max(1),
            head_every: terms.head_every,
            kept: vec![(SystemTime::now(), first)],
            told_lost: 0,
            unsigned: 0,
            unsigned_since: None,
            unsynced_since: None,
            retry: None,
            shared: Arc::downgrade(&shared),
        };
        let begun = writer.write(&shared.books);
        let trouble = shared.books.state().trouble.clone();
        if let (Err(Unrecorded), Some(error), OnAuditFailure::Refuse) =
            (begun, trouble, terms.on_failure)
        {
            return Err(error);
        }
        let thread = std::thread::Builder::new().name("audit-log".to_owned());
        let end = ThreadEnd(Arc::downgrade(&shared));
        let work = move || {
            let _end = end;
            writer.run(&messages);
        };
        match thread.spawn(work) {
            Ok(_) => Ok(Self(Some(shared))),
            Err(error) => Err(FileError::no_thread(&error)),
        }
    }

    /// Whether exchanges that passed are recorded, too.
    pub fn records_all(&self) -> bool {
        let shared = self.0.as_ref();
        shared.is_some_and(|shared| shared.exchanges == AuditExchanges::All)
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands an event over; never waits.
    pub fn note(&self, event: Event) {
        let Some(shared) = &self.0 else { return };
        let message = Message::Event(SystemTime::now(), Box::new(event));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            shared.queue.try_send(message)
        {
            shared.books.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands an event over that comes before what it tells. With `onFailure: refuse` this returns once it
    /// is in the file.
    pub async fn witness(&self, event: Event) -> Result<(), Unrecorded> {
        let Some(shared) = &self.0 else { return Ok(()) };
        if shared.on_failure == OnAuditFailure::Continue {
            self.note(event);
            return Ok(());
        }
        let (written, wait) = oneshot::channel();
        let message = Message::Witness(SystemTime::now(), Box::new(event), written);
        let patience = Instant::now() + PATIENCE;
        let mut message = Some(message);
        while let Some(waiting) = message.take() {
            match shared.queue.try_send(waiting) {
                Ok(()) => {}
                Err(TrySendError::Full(waiting)) if Instant::now() < patience => {
                    message = Some(waiting);
                    tokio::time::sleep(GATHER).await;
                }
                Err(_) => return Err(Unrecorded),
            }
        }
        match tokio::time::timeout_at(patience.into(), wait).await {
            Ok(Ok(written)) => written,
            _ => Err(Unrecorded),
        }
    }

    /// How it is doing; nothing where it is off.
    pub fn status(&self) -> Option<AuditStatus> {
        let books = &self.0.as_ref()?.books;
        let state = books.state();
        Some(AuditStatus {
            written: books.written.load(Ordering::Relaxed),
            lost: books.lost.load(Ordering::Relaxed),
            tip: state.tip,
            trouble: state.trouble.clone(),
        })
    }

    /// Writes that the process ends, and everything before it; waits for that at most two seconds.
    pub fn close(&self) {
        let Some(shared) = &self.0 else { return };
        let lost = shared.books.lost.load(Ordering::Relaxed);
        let deadline = Instant::now() + CLOSING;
        let stop = Message::Event(SystemTime::now(), Box::new(Event::Stop { lost }));
        let (done, wait) = sync_channel(1);
        if hand_over(&shared.queue, stop, deadline)
            && hand_over(&shared.queue, Message::Close(done), deadline)
        {
            let left = deadline.saturating_duration_since(Instant::now());
            wait.recv_timeout(left).ok();
        }
    }
}

impl Books {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes with the thread, however that ends: nobody is to believe that a log is kept which nobody writes.
struct ThreadEnd(Weak<Shared>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        // It ends well when nobody has the log any more.
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        let error = FileError::thread_ended();
        tracing::error!(%error, "nothing is recorded any more");
        shared.books.state().trouble = Some(error);
    }
}

/// The thread that writes.
struct Writer {
    file: AuditFile,
    signer: Option<Signer>,
    head_records: u64,
    head_every: Duration,
    /// Events that are not written yet.
    kept: Vec<(SystemTime, Event)>,
    /// How many lost events the log knows of.
    told_lost: u64,
    unsigned: u64,
    unsigned_since: Option<Instant>,
    unsynced_since: Option<Instant>,
    retry: Option<Instant>,
    shared: Weak<Shared>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let first = match self.due() {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let Some(shared) = self.shared.upgrade() else {
                return;
            };
            match first {
                Ok(first) => self.take(first, messages, &shared.books),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.keep_up(&shared.books);
        }
    }

    /// When there is something to do without anybody asking.
    fn due(&self) -> Option<Instant> {
        // A head that could not be written waits with everything else: it is due, and would be for ever.
        let signs = self.signer.is_some() && self.retry.is_none();
        let head = self.unsigned_since.filter(|_| signs);
        [
            head.and_then(|since| since.checked_add(self.head_every)),
            self.unsynced_since.map(|since| since + SYNC),
            self.retry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes what is there, and writes it.
    fn take(&mut self, first: Message, messages: &Receiver<Message>, books: &Books) {
        if matches!(first, Message::Event(..)) {
            std::thread::sleep(GATHER);
        }
        let (mut waiting, mut closing) = (Vec::new(), Vec::new());
        let mut witnessed = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(message) = next.take() {
            match message {
                Message::Event(time, event) => self.keep(time, *event, books),
                Message::Witness(time, event, written) => {
                    witnessed.push((time, *event));
                    waiting.push(written);
                }
                Message::Close(done) => closing.push(done),
            }
            taken += 1;
            if taken < BATCH {
                next = messages.try_recv().ok();
            }
        }
        let behind = self.kept.len();
        self.kept.append(&mut witnessed);
        // A file that failed a moment ago is not asked again for every event, but is for who waits.
        let blocked = self.retry.is_some_and(|retry| Instant::now() < retry) && waiting.is_empty();
        let written = match blocked && closing.is_empty() {
            true => Err(Unrecorded),
            false => self.write(books),
        };
        if written.is_err() {
            // Nothing goes out with these credentials, so they are not recorded as used later.
            self.kept.truncate(behind);
        }
        for one in waiting {
            one.send(written).ok();
        }
        if !closing.is_empty() {
            self.end(books);
        }
        for one in closing {
            one.send(()).ok();
        }
    }

    fn keep(&mut self, time: SystemTime, event: Event, books: &Books) {
        match self.kept.len() < KEPT {
            true => self.kept.push((time, event)),
            false => {
                books.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes everything that is kept, or nothing.
    fn write(&mut self, books: &Books) -> Result<(), Unrecorded> {
        let lost = books.lost.load(Ordering::Relaxed);
        let now = SystemTime::now();
        if lost > self.told_lost {
            let records = lost - self.told_lost;
            self.kept.push((now, Event::Lost { records }));
        }
        if self.kept.is_empty() {
            return Ok(());
        }
        let count = self.kept.len() as u64;
        let signs = self.unsigned + count >= self.head_records;
        let signer = self.signer.as_ref().filter(|_| signs);
        let outcome = self.file.append(now, &self.kept, signer);
        match outcome {
            Ok(tip) => {
                self.kept.clear();
                self.told_lost = lost;
                self.wrote(tip, count, books);
                if signs {
                    self.signed(books);
                }
                Ok(())
            }
            Err(error) => {
                if lost > self.told_lost {
                    self.kept.pop();
                }
                self.failed(error, books);
                Err(Unrecorded)
            }
        }
    }

    fn wrote(&mut self, tip: Tip, count: u64, books: &Books) {
        books.written.fetch_add(count, Ordering::Relaxed);
        let now = Instant::now();
        self.retry = None;
        self.unsigned += count;
        self.unsigned_since.get_or_insert(now);
        self.unsynced_since.get_or_insert(now);
        let mut state = books.state();
        state.tip = Some(tip);
        if state.trouble.take().is_some() {
            tracing::info!("the audit log can be written again");
        }
    }

    fn failed(&mut self, error: FileError, books: &Books) {
        self.retry = Some(Instant::now() + RETRY);
        let mut state = books.state();
        if state.trouble.as_ref() != Some(&error) {
            tracing::error!(%error, "events are kept in memory until the audit log can be written");
        }
        state.trouble = Some(error);
    }

    /// A head was just signed: whoever keeps it elsewhere can tell later that nothing was cut off.
    fn signed(&mut self, books: &Books) {
        self.unsigned = 0;
        self.unsigned_since = None;
        self.sync(books);
        if let Some(tip) = books.state().tip.filter(|_| self.signer.is_some()) {
            tracing::info!(seq = tip.seq, head = %tip.hash, "the audit log is signed");
        }
    }

    /// Tries again, signs and syncs what is due.
    fn keep_up(&mut self, books: &Books) {
        let now = Instant::now();
        if self.retry.is_some_and(|retry| retry <= now) {
            self.retry = None;
            self.write(books).ok();
        }
        let due =
            |since: Option<Instant>, after| since.is_some_and(|since| since.elapsed() >= after);
        if due(self.unsigned_since, self.head_every) && self.retry.is_none() {
            self.sign(books);
        }
        if due(self.unsynced_since, SYNC) {
            self.sync(books);
        }
    }

    fn sign(&mut self, books: &Books) {
        if self.signer.is_none() {
            self.unsigned_since = None;
            return;
        }
        if self.unsigned == 0 {
            return;
        }
        match self
            .file
            .append(SystemTime::now(), &[], self.signer.as_ref())
        {
            Ok(tip) => {
                self.wrote(tip, 1, books);
                self.signed(books);
            }
            Err(error) => self.failed(error, books),
        }
    }

    fn sync(&mut self, books: &Books) {
        self.unsynced_since = None;
        if let Err(error) = self.file.sync() {
            self.failed(error, books);
        }
    }

    fn end(&mut self, books: &Books) {
        self.sign(books);
        self.sync(books);
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
