//! Owns where exchanges become spans: sampled when they begin, handed over when they have ended, and never
//! waited for. What finds no room is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;

use super::access_log::Record;
use super::sampler::Sampler;
use super::sink_metrics::{Lost, SinkMetrics};
use super::span_notes::{Invocation, Pieces, Present, SpanNotes, client};
use super::trace_context::{
    Ids, Recorded, SpanId, TRACEPARENT, TraceContext, TraceId, TraceState, outgoing,
};

/// The way spans go. Cloning is shallow.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    sampler: Sampler,
    ids: Ids,
    queue: SyncSender<Handed>,
    closing: AtomicBool,
    over: AtomicBool,
    closed: watch::Receiver<bool>,
    metrics: SinkMetrics,
}

/// What is handed over.
pub(super) enum Handed {
    /// An exchange that has ended.
    Record(Arc<Record>),
    /// Nothing: look whether it is over.
    Wake,
}

/// The receiving end.
pub(super) struct Waiting {
    queue: Receiver<Handed>,
    traces: Arc<Inner>,
    closed: watch::Sender<bool>,
}

/// Where an exchange stands in a trace. It goes on at the origin, where a rule says so, whether or not it is
/// recorded.
#[derive(Clone, Debug)]
pub struct Position {
    trace: TraceId,
    span: SpanId,
    parent: Option<SpanId>,
    state: Option<TraceState>,
    recorded: Recorded,
}

impl Position {
    /// The fields that an origin goes on from.
    pub fn outgoing(&self) -> [(HeaderName, HeaderValue); 2] {
        outgoing(self.trace, self.span, self.recorded, self.state.as_ref())
    }

    /// The notes for the span of a request with this head; nothing where it is not recorded.
    pub fn notes(self, headers: &HeaderMap, unnamed: Invocation) -> Option<Box<SpanNotes>> {
        if self.recorded == Recorded::No {
            return None;
        }
        let (user_agent, conversation) = client(headers);
        Some(Box::new(SpanNotes {
            invocation: match self.parent {
                Some(_) => Invocation::Trace(self.trace),
                None => unnamed,
            },
            trace: self.trace,
            span: self.span,
            parent: self.parent,
            state: self.state,
            present: Present::of(headers),
            user_agent,
            conversation,
            execution: None,
            versions: Vec::new(),
            protocol: None,
            first_chunk: None,
            pieces: Pieces::One,
            model: None,
        }))
    }
}

impl Traces {
    /// Spans go nowhere.
    pub fn off() -> Self {
        Self(None)
    }

    /// Room for `queue` exchanges that wait, and where they come out.
    pub(super) fn open(sampler: Sampler, queue: usize, metrics: SinkMetrics) -> (Self, Waiting) {
        let (sender, receiver) = sync_channel(queue.max(1));
        let (over, closed) = watch::channel(false);
        let inner = Arc::new(Inner {
            sampler,
            ids: Ids::default(),
            queue: sender,
            closing: AtomicBool::new(false),
            over: AtomicBool::new(false),
            closed,
            metrics,
        });
        let waiting = Waiting {
            queue: receiver,
            traces: inner.clone(),
            closed: over,
        };
        (Self(Some(inner)), waiting)
    }

    /// Where a request stands that begins now; nothing where no spans are made. A context whose ids hold what
    /// `holds_secret` finds counts as absent: ids are written down, and an agent chooses them.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        holds_secret: impl Fn(&[u8]) -> bool,
    ) -> Option<Position> {
        let inner = self.0.as_ref()?;
        let context = TraceContext::of(headers);
        let context = context.filter(|_| {
            let parent = headers.get(TRACEPARENT);
            !parent.is_some_and(|parent| holds_secret(parent.as_bytes()))
        });
        let parent = context.as_ref().map(|context| context.parent);
        let trace = parent.map_or_else(|| inner.ids.trace(), |parent| parent.trace);
        Some(Position {
            trace,
            span: inner.ids.span(),
            parent: parent.map(|parent| parent.span),
            state: context.and_then(|context| context.state),
            recorded: inner.sampler.decide(parent.as_ref(), trace),
        })
    }

    /// Hands an exchange over that has ended, if it was noted for a span.
    pub fn record(&self, record: &Arc<Record>) {
        let Some(inner) = self.0.as_ref().filter(|_| record.span.is_some()) else {
            return;
        };
        if inner.over.load(Ordering::Acquire) {
            return inner.metrics.spans_lost(Lost::Shutdown, 1);
        }
        match inner.queue.try_send(Handed::Record(record.clone())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => inner.metrics.spans_lost(Lost::QueueFull, 1),
            Err(TrySendError::Disconnected(_)) => inner.metrics.spans_lost(Lost::Shutdown, 1),
        }
    }

    /// Sends what is left, for at most `patience`; what comes later is dropped.
    pub async fn close(&self, patience: Duration) {
        let Some(inner) = &self.0 else { return };
        inner.closing.store(true, Ordering::Release);
        // A full queue needs no waking.
        inner.queue.try_send(Handed::Wake).ok();
        let mut closed = inner.closed.clone();
        let done = closed.wait_for(|closed| *closed);
        if tokio::time::timeout(patience, done).await.is_err() {
            tracing::warn!("the last spans were not sent before the process ended");
        }
    }
}

/// How often the queue is looked at while a batch gathers. To be woken by each exchange would cost its thread
/// a system call.
const LOOK: Duration = Duration::from_millis(20);

impl Waiting {
    /// Gathers a batch, and hands on each as it comes: the batch is full, or `delay` has passed since its first, or it
    /// is the last. How many there were; none once nothing comes any more.
    pub(super) fn gather(
        &self,
        most: usize,
        delay: Duration,
        mut take: impl FnMut(Arc<Record>),
    ) -> usize {
        let mut taken = |handed| match handed {
            Handed::Record(record) => {
                take(record);
                1
            }
            Handed::Wake => 0,
        };
        let mut count = 0;
        let mut waited = Duration::ZERO;
        loop {
            let step = match (count, self.is_closing()) {
                (_, true) => Duration::ZERO,
                // Nothing to do: whoever comes first wakes it.
                (0, false) => Duration::MAX,
                (_, false) => LOOK,
            };
            let handed = match step {
                Duration::ZERO => self.queue.try_recv().map_err(|_| RecvTimeoutError::Timeout),
                Duration::MAX => self
                    .queue
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                step => {
                    std::thread::sleep(step);
                    waited += step;
                    self.queue.try_recv().map_err(|_| RecvTimeoutError::Timeout)
                }
            };
            match handed {
                Ok(handed) => count += taken(handed),
                Err(RecvTimeoutError::Disconnected) => return count,
                Err(RecvTimeoutError::Timeout) if self.is_closing() => return count,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while count < most
                && let Ok(handed) = self.queue.try_recv()
            {
                count += taken(handed);
            }
            if count >= most || waited >= delay && count > 0 {
                return count;
            }
        }
    }

    /// Whether the process ends.
    pub(super) fn is_closing(&self) -> bool {
        self.traces.closing.load(Ordering::Acquire)
    }

    pub(super) fn metrics(&self) -> &SinkMetrics {
        &self.traces.metrics
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.traces.over.store(true, Ordering::Release);
        self.closed.send_replace(true);
    }
}
