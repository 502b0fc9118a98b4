//! Owns what is counted of the audit log.

use prometheus::{IntGauge, Registry};

use super::audit::AuditStatus;

/// The metrics of the audit log. They are read off it before each scrape.
#[derive(Clone)]
pub struct AuditMetrics {
    ok: IntGauge,
    records: IntGauge,
    lost: IntGauge,
    seq: IntGauge,
}

impl AuditMetrics {
    /// Registers everything once.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            ok: gauge(
                "tollgate_audit_ok",
                "1 while the audit log can be written; 0 also where it is off",
            )?,
            records: gauge(
                "tollgate_audit_records",
                "Audit records written since the start",
            )?,
            lost: gauge(
                "tollgate_audit_lost",
                "Audit records lost since the start, because they could not be written in time",
            )?,
            seq: gauge(
                "tollgate_audit_seq",
                "The number of the last audit record; it falls when somebody cuts the log",
            )?,
        })
    }

    /// How the log is doing; nothing where it is off.
    pub fn observe(&self, status: Option<&AuditStatus>) {
        let saturating = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let Some(status) = status else { return };
        self.ok.set(i64::from(status.trouble.is_none()));
        self.records.set(saturating(status.written));
        self.lost.set(saturating(status.lost));
        self.seq
            .set(saturating(status.tip.map_or(0, |tip| tip.seq)));
    }
}
