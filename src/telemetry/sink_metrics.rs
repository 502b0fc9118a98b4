//! Owns what is counted of telemetry itself: what was sent, what was lost, and what the last gate took out.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::families;

/// The metrics of sinks.
#[derive(Clone)]
pub struct SinkMetrics {
    sent: IntCounter,
    dropped: IntCounterVec,
    redacted: IntCounterVec,
}

/// Why spans were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// They found no room to wait in.
    QueueFull,
    /// The collector was not reached, or had no time for them.
    Unreachable,
    /// The collector would not take them.
    Refused,
    /// The process ended first.
    Shutdown,
}

impl Lost {
    const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::Unreachable,
        Self::Refused,
        Self::Shutdown,
    ];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
        }
    }
}

const SPANS: &str = "spans";

impl SinkMetrics {
    /// Registers everything once; `dropped` is shared by all sinks.
    pub(super) fn new(of: &Registry, dropped: IntCounterVec) -> Result<Self, prometheus::Error> {
        let sent = families::SPANS_SENT.int_counter(of)?;
        let redacted = families::REDACTIONS.int_counters(of)?;
        // An alert on a counter needs it to be there from the start.
        for reason in Lost::ALL {
            dropped.with_label_values(&[SPANS, reason.as_str()]);
        }
        for sink in [SPANS, "log"] {
            redacted.with_label_values(&[sink]);
        }
        Ok(Self {
            sent,
            dropped,
            redacted,
        })
    }

    /// A collector has taken these spans.
    pub fn spans_sent(&self, count: u64) {
        self.sent.inc_by(count);
    }

    /// These spans are lost.
    pub fn spans_lost(&self, why: Lost, count: u64) {
        let labels = [SPANS, why.as_str()];
        self.dropped.with_label_values(&labels).inc_by(count);
    }

    /// So many texts of spans had a secret taken out.
    pub fn spans_redacted(&self, count: u64) {
        self.redacted.with_label_values(&[SPANS]).inc_by(count);
    }

    /// So many lines of the process's own log were withheld since the start.
    pub fn log_withheld(&self, total: u64) {
        let counter = self.redacted.with_label_values(&["log"]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}
