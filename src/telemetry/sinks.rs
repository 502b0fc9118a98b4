//! Owns where the record of an exchange goes: the access log, the audit log, whoever watches, and the table
//! of what was refused of late. All of them get the same record, which is redacted by its types.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::access_log::{AccessLog, Record, UsedCredential, Verdict};
use super::audit::{AuditLog, Unrecorded};
use super::audit_event::{Event, Exchange};
use super::denials::Denials;
use super::tap::Tap;
use super::traces::Traces;
use crate::types::money::NanoUsd;

/// Everything that records go to. Cloning is shallow.
#[derive(Clone)]
pub struct Sinks {
    /// One line for each exchange.
    pub log: AccessLog,
    /// What matters to security.
    pub audit: AuditLog,
    /// Whoever watches.
    pub tap: Tap,
    /// What was refused of late.
    pub denials: Denials,
    /// Spans.
    pub traces: Traces,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    exchanges: AtomicU64,
    denied: AtomicU64,
    nano_usd: AtomicU64,
}

/// What there was since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Exchanges and tunnels.
    pub exchanges: u64,
    /// Those of them that were refused.
    pub denied: u64,
    /// What calls that a budget counts cost.
    pub cost: NanoUsd,
}

impl Sinks {
    /// With nobody watching, and nothing refused yet.
    pub fn new(log: AccessLog, audit: AuditLog, traces: Traces) -> Self {
        Self {
            log,
            audit,
            tap: Tap::default(),
            denials: Denials::default(),
            traces,
            tally: Arc::default(),
        }
    }

    /// Takes the record of an exchange that is over.
    pub fn settle(&self, mut record: Box<Record>) {
        let tally = &self.tally;
        tally.exchanges.fetch_add(1, Ordering::Relaxed);
        if let Some(cost) = &record.cost {
            tally.nano_usd.fetch_add(cost.cost_usd.0, Ordering::Relaxed);
        }
        if record.decision == Verdict::Deny {
            tally.denied.fetch_add(1, Ordering::Relaxed);
        }
        self.denials.note(&record);
        if self.audit.is_on()
            && let Some(event) = told(&record, &self.audit)
        {
            self.audit.note(event);
        }
        if record.span.is_some()
            && let Some(target) = &mut record.target
        {
            target.detach();
        }
        let record = Arc::new(*record);
        self.traces.record(&record);
        self.tap.show(&record);
        self.log.record(record);
    }

    /// Credentials are about to go out with this exchange's request.
    pub async fn uses(
        &self,
        record: &Record,
        credentials: Vec<UsedCredential>,
    ) -> Result<(), Unrecorded> {
        match self.audit.is_on() {
            true => {
                let used = Event::CredentialUsed(Exchange::of(record, credentials));
                self.audit.witness(used).await
            }
            false => Ok(()),
        }
    }

    /// What there was since the start.
    pub fn sum(&self) -> Sum {
        Sum {
            exchanges: self.tally.exchanges.load(Ordering::Relaxed),
            denied: self.tally.denied.load(Ordering::Relaxed),
            cost: NanoUsd(self.tally.nano_usd.load(Ordering::Relaxed)),
        }
    }
}

/// What the audit log is told of an exchange that is over. That a credential went out was told before.
fn told(record: &Record, audit: &AuditLog) -> Option<Event> {
    let exchange = || Exchange::of(record, Vec::new());
    Some(match record.decision {
        Verdict::Deny if record.canary.is_some() => Event::Canary(exchange()),
        Verdict::Deny => Event::Refused(exchange()),
        Verdict::Report => Event::WouldRefuse(exchange()),
        Verdict::Allow if record.token_call.is_some() => Event::TokenCall(exchange()),
        Verdict::Allow if audit.records_all() => Event::Allowed(exchange()),
        Verdict::Allow => return None,
    })
}
