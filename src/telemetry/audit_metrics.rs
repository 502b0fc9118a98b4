//! Owns what is counted of the audit log. It is read off the log before each scrape.

use prometheus::{Error, IntCounter, IntGauge, Registry};

use super::audit::AuditStatus;
use super::families;

/// The metrics of the audit log.
pub struct AuditMetrics {
    ok: IntGauge,
    records: IntCounter,
    seq: IntGauge,
}

impl AuditMetrics {
    /// Registers everything once.
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            ok: families::AUDIT_OK.int_gauge(registry)?,
            records: families::AUDIT_RECORDS.int_counter(registry)?,
            seq: families::AUDIT_SEQ.int_gauge(registry)?,
        })
    }

    /// How the log is doing; nothing where it is off.
    pub(super) fn observe(&self, status: Option<&AuditStatus>) {
        let Some(status) = status else {
            return self.ok.set(1);
        };
        self.ok.set(i64::from(status.trouble.is_none()));
        let new = status.written.saturating_sub(self.records.get());
        self.records.inc_by(new);
        let seq = status.tip.map_or(0, |tip| tip.seq);
        self.seq.set(i64::try_from(seq).unwrap_or(i64::MAX));
    }
}
