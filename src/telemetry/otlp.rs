//! Owns the export of spans over OTLP (http/protobuf): batches, tries again what a collector could not take
//! now, and gives up in time. One thread, so that nothing of it happens where requests are carried.
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::access_log::Record;
use super::gate::SecretSearch;
use super::sampler::Sampler;
use super::semconv::SCOPE;
use super::sink_metrics::{Lost, SinkMetrics};
use super::span::SpanWriter;
use super::traces::{Traces, Waiting};
use super::wire::Message;

/// The way to a collector.
pub trait Collector: Send + Sync {
    /// Sends one request: a body, and its coding.
    fn send(&self, body: Bytes, coding: Coding) -> BoxFuture<'_, Answer>;

    /// The collector, for people: host and port.
    fn name(&self) -> String;
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    #[default]
    Identity,
    /// `gzip`.
    Gzip,
}

/// What came of a request to a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took the batch, but for so many spans.
    Taken {
        /// Spans that it did not want.
        rejected: u64,
    },
    /// It cannot take it now.
    Later {
        /// When it wants to be asked again, if it says so.
        after: Option<Duration>,
        /// What it said, for people.
        why: String,
    },
    /// It will not take it.
    Refused {
        /// What it said, for people.
        why: String,
    },
}

/// What spans are made of and how they go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which exchanges become spans.
    pub sampler: Sampler,
    /// What every span is said to come from.
    pub resource: Vec<(String, String)>,
    /// How bodies are compressed.
    pub coding: Coding,
    /// Batches.
    pub batch: Batches,
}

/// How spans are gathered. The defaults are those of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Spans that may wait; what comes then is dropped.
    pub queue: usize,
    /// The most spans of a batch.
    pub most: usize,
    /// How long a batch gathers.
    pub delay: Duration,
    /// How long a batch may take to be sent, every try included.
    pub patience: Duration,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            queue: 2048,
            most: 512,
            delay: Duration::from_secs(5),
            patience: Duration::from_secs(30),
        }
    }
}

/// The octets of a span, more or less.
const TYPICAL: usize = 1024;
/// The room that a batch begins with, at most.
const MOST_ROOM: usize = 1 << 20;
/// The first wait before another try, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// How long one batch is tried once the process ends.
const LAST_PATIENCE: Duration = Duration::from_secs(4);

/// Starts the thread that writes and sends.
pub fn start(
    settings: Settings,
    collector: Arc<dyn Collector>,
    search: SecretSearch,
    runtime: Handle,
    metrics: SinkMetrics,
) -> io::Result<Traces> {
    let (traces, waiting) = Traces::open(settings.sampler, settings.batch.queue, metrics);
    let mut exporter = Exporter {
        envelope: Envelope::new(&settings.resource),
        batches: settings.batch,
        coding: settings.coding,
        writer: SpanWriter::default(),
        collector,
        search,
        runtime,
        trouble: None,
    };
    std::thread::Builder::new()
        .name("spans".to_owned())
        .spawn(move || exporter.run(&waiting))?;
    Ok(traces)
}

struct Exporter {
    envelope: Envelope,
    batches: Batches,
    coding: Coding,
    writer: SpanWriter,
    collector: Arc<dyn Collector>,
    search: SecretSearch,
    runtime: Handle,
    /// What the collector last failed with, so that it is said once.
    trouble: Option<String>,
}

impl Exporter {
    fn run(&mut self, waiting: &Waiting) {
        let Batches { most, delay, .. } = self.batches;
        loop {
            // Each is written as it comes, while what it says is at hand, and needs no record any more.
            let mut body = self
                .envelope
                .begin(most.saturating_mul(TYPICAL).min(MOST_ROOM));
            let count = waiting.gather(most, delay, |record| {
                self.write(&record, &mut body, waiting.metrics());
            });
            if count == 0 {
                return;
            }
            let body = self.packed(self.envelope.close(body));
            let count = count as u64;
            match self.deliver(body, waiting) {
                Ok(rejected) => {
                    waiting.metrics().spans_sent(count.saturating_sub(rejected));
                    waiting.metrics().spans_lost(Lost::Refused, rejected);
                }
                Err(lost) => waiting.metrics().spans_lost(lost, count),
            }
        }
    }

    fn write(&mut self, record: &Record, body: &mut Message, metrics: &SinkMetrics) {
        let Some(notes) = &record.span else { return };
        let (span, found) = self.writer.write(record, notes, &self.search);
        body.octets(2, span);
        if found > 0 {
            metrics.spans_redacted(found);
            tracing::error!(
                id = record.id,
                found,
                "secrets were taken out of a span; please report this"
            );
        }
    }

    fn packed(&self, body: Bytes) -> Bytes {
        match self.coding {
            Coding::Identity => body,
            Coding::Gzip => {
                // Writing to memory does not fail.
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(&body).ok();
                packed.finish().unwrap_or_default().into()
            }
        }
    }

    /// Sends a body, as often as it takes and there is time. Says how many spans were not wanted.
    fn deliver(&mut self, body: Bytes, waiting: &Waiting) -> Result<u64, Lost> {
        let begun = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let limit = match waiting.is_closing() {
                true => LAST_PATIENCE.min(self.batches.patience),
                false => self.batches.patience,
            };
            let left = limit.saturating_sub(begun.elapsed());
            let answer = self.attempt(body.clone(), left);
            let (after, why) = match answer {
                Answer::Taken { rejected } => {
                    self.well();
                    return Ok(rejected);
                }
                Answer::Refused { why } => {
                    self.failing(why);
                    return Err(Lost::Refused);
                }
                Answer::Later { after, why } => (after, why),
            };
            self.failing(why);
            let pause = after.unwrap_or(wait).max(wait.mul_f64(jitter(begun)));
            wait = (wait * 2).min(LONGEST_WAIT);
            let end = begun + limit;
            if Instant::now() + pause >= end {
                return Err(match waiting.is_closing() {
                    true => Lost::Shutdown,
                    false => Lost::Unreachable,
                });
            }
            self.pause(pause, waiting);
        }
    }

    fn attempt(&self, body: Bytes, limit: Duration) -> Answer {
        let collector = self.collector.clone();
        let coding = self.coding;
        // Its connection lives on the runtime's threads; this one only waits.
        let sending = self
            .runtime
            .spawn(async move { tokio::time::timeout(limit, collector.send(body, coding)).await });
        let late = |why: &str| Answer::Later {
            after: None,
            why: why.to_owned(),
        };
        match self.runtime.block_on(sending) {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => late("no answer in time"),
            Err(_) => late("the process ends"),
        }
    }

    /// Waits, but not on when the process ends.
    fn pause(&self, pause: Duration, waiting: &Waiting) {
        const STEP: Duration = Duration::from_millis(50);
        let until = Instant::now() + pause;
        let closing = waiting.is_closing();
        while Instant::now() < until && waiting.is_closing() == closing {
            std::thread::sleep(STEP.min(pause));
        }
    }

    fn failing(&mut self, why: String) {
        if self.trouble.is_none() {
            let collector = self.collector.name();
            tracing::warn!(%collector, %why, "spans cannot be sent; what finds no room is dropped and counted");
        }
        self.trouble = Some(why);
    }

    fn well(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(collector = %self.collector.name(), "spans are sent again");
        }
    }
}

/// Between a half and the whole, by the clock: replicas must not come back all at once.
fn jitter(begun: Instant) -> f64 {
    let nanos = begun.elapsed().subsec_nanos() % 1024;
    0.5 + f64::from(nanos) / 2048.0
}

/// What stands before the spans of a request, written once but for two lengths. The spans are written behind room
/// for it: half a megabyte would be copied for each message around them.
struct Envelope {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Envelope {
    fn new(resource: &[(String, String)]) -> Self {
        let mut attributes = Message::default();
        for (key, value) in resource {
            attributes.text_attribute(1, key, value);
        }
        let mut scope = Message::default();
        scope.octets(1, SCOPE.as_bytes());
        scope.octets(2, env!("CARGO_PKG_VERSION").as_bytes());
        let field = |number, message: &Message| {
            let mut field = Message::default();
            field.octets(number, message.bytes());
            field.into_bytes()
        };
        Self {
            resource: field(1, &attributes),
            scope: field(1, &scope),
        }
    }

    /// What the fields `spans` are written to, about so many octets of them.
    fn begin(&self, spans: usize) -> Message {
        Message::behind(self.room(), spans)
    }

    /// `ExportTraceServiceRequest { resource_spans { resource, scope_spans { scope, spans } } }`.
    fn close(&self, body: Message) -> Bytes {
        let mut body = body.into_bytes();
        let room = self.room();
        let scoped = self.scope.len() + body.len() - room;
        let mut head = Message::default();
        head.begin(1, self.resource.len() + Message::begun(2, scoped) + scoped);
        head.raw(&self.resource);
        head.begin(2, scoped);
        head.raw(&self.scope);
        let begin = room - head.bytes().len();
        body[begin..room].copy_from_slice(head.bytes());
        Bytes::from(body).slice(begin..)
    }

    /// Two tags of one octet, each with a length of ten at most.
    fn room(&self) -> usize {
        self.resource.len() + self.scope.len() + 2 * 11
    }
}
