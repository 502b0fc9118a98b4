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
use super::traces::{Next, Traces, Waiting};
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
        let mut batch = Vec::with_capacity(self.batches.most);
        while let Next::Batch = waiting.gather(self.batches.most, self.batches.delay, &mut batch) {
            let body = self.body(&batch, waiting.metrics());
            let count = batch.len() as u64;
            // What is sent needs no record any more, and a slow collector takes its time.
            batch.clear();
            match self.deliver(body, waiting) {
                Ok(rejected) => {
                    waiting.metrics().spans_sent(count.saturating_sub(rejected));
                    waiting.metrics().spans_lost(Lost::Refused, rejected);
                }
                Err(lost) => waiting.metrics().spans_lost(lost, count),
            }
        }
    }

    /// The request that carries a batch.
    fn body(&mut self, batch: &[Arc<Record>], metrics: &SinkMetrics) -> Bytes {
        let mut spans = Message::default();
        for record in batch {
            let Some(notes) = &record.span else { continue };
            let (span, found) = self.writer.write(record, notes, &self.search);
            spans.octets(2, span);
            if found > 0 {
                metrics.spans_redacted(found);
                tracing::error!(
                    id = record.id,
                    found,
                    "secrets were taken out of a span; please report this"
                );
            }
        }
        let body = self.envelope.around(spans.bytes());
        match self.coding {
            Coding::Identity => body.into(),
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

/// What stands around the spans of a request, written once.
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
        Self {
            resource: attributes.into_bytes(),
            scope: scope.into_bytes(),
        }
    }

    /// `ExportTraceServiceRequest { resource_spans { resource, scope_spans { scope, spans } } }`.
    fn around(&self, spans: &[u8]) -> Vec<u8> {
        let mut scoped = Message::default();
        scoped.octets(1, &self.scope);
        let mut scoped = scoped.into_bytes();
        // They are fields of this message already.
        scoped.extend_from_slice(spans);
        let mut inner = Message::default();
        inner.octets(1, &self.resource);
        inner.octets(2, &scoped);
        let mut whole = Message::default();
        whole.octets(1, inner.bytes());
        whole.into_bytes()
    }
}
