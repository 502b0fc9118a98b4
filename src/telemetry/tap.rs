//! Owns the live view of exchanges: whoever watches gets each record as it is settled. A watcher that does
//! not keep up loses records and is told how many; no exchange ever waits for one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::access_log::{Record, Verdict};
use crate::types::agent::Agent;

/// Records that wait for one watcher.
const BACKLOG: usize = 1024;
/// Watchers at once.
pub const MOST: usize = 16;

/// Where records are shown. Cloning is shallow.
#[derive(Clone, Default)]
pub struct Tap(Arc<Watchers>);

#[derive(Default)]
struct Watchers {
    count: AtomicUsize,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    watchers: Vec<Watcher>,
    closed: bool,
}

struct Watcher {
    wish: Wish,
    records: mpsc::Sender<Arc<Record>>,
    missed: Arc<AtomicU64>,
}

/// What somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Exchanges of this agent.
    pub agent: Option<String>,
    /// Exchanges with this host, or with hosts below it (`*.example.com`).
    pub host: Option<String>,
    /// Which decisions.
    pub decisions: Decisions,
}

/// Which decisions somebody wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decisions {
    /// All.
    #[default]
    All,
    /// What was refused, or would be in `enforce` mode.
    Denied,
}

impl Wish {
    /// Whether this record is wanted.
    pub fn covers(&self, record: &Record) -> bool {
        let denied = record.decision != Verdict::Allow;
        let agent = record.agent.as_ref().map_or("", Agent::name);
        (self.decisions == Decisions::All || denied)
            && self.agent.as_deref().is_none_or(|wanted| wanted == agent)
            && self.host.as_deref().is_none_or(|wanted| {
                let host = record.authority.as_ref().map(|a| a.host.to_string());
                host.is_some_and(|host| is_host(wanted, &host))
            })
    }
}

fn is_host(wanted: &str, host: &str) -> bool {
    match wanted.strip_prefix('*') {
        Some(below) if below.starts_with('.') => host.ends_with(below),
        _ => wanted.eq_ignore_ascii_case(host),
    }
}

/// What a watcher hears.
#[derive(Debug)]
pub enum Heard {
    /// An exchange.
    Record(Arc<Record>),
    /// So many were left out here, since it did not keep up.
    Missed(u64),
}

/// One watcher's side. Dropping it ends the watch.
pub struct Watch {
    records: mpsc::Receiver<Arc<Record>>,
    missed: Arc<AtomicU64>,
}

impl Watch {
    /// What comes next; nothing once the process ends.
    pub async fn next(&mut self) -> Option<Heard> {
        let record = match self.records.try_recv() {
            Ok(record) => record,
            Err(_) => {
                // What was left out came after everything that was waiting.
                match self.missed.swap(0, Ordering::Relaxed) {
                    0 => self.records.recv().await?,
                    missed => return Some(Heard::Missed(missed)),
                }
            }
        };
        Some(Heard::Record(record))
    }
}

impl Tap {
    /// Begins to watch; nothing if too many do already, or the process ends.
    pub fn watch(&self, wish: Wish) -> Option<Watch> {
        let mut list = self.list();
        list.watchers.retain(|watcher| !watcher.records.is_closed());
        if list.closed || list.watchers.len() >= MOST {
            return None;
        }
        let (sender, records) = mpsc::channel(BACKLOG);
        let missed = Arc::new(AtomicU64::new(0));
        list.watchers.push(Watcher {
            wish,
            records: sender,
            missed: missed.clone(),
        });
        self.0.count.store(list.watchers.len(), Ordering::Relaxed);
        Some(Watch { records, missed })
    }

    /// Shows a record to whoever watches.
    pub fn show(&self, record: &Arc<Record>) {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut list = self.list();
        list.watchers.retain(|watcher| {
            if !watcher.wish.covers(record) {
                return !watcher.records.is_closed();
            }
            match watcher.records.try_send(record.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watcher.missed.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
        self.0.count.store(list.watchers.len(), Ordering::Relaxed);
    }

    /// Ends every watch, once what is waiting was heard.
    pub fn close(&self) {
        let mut list = self.list();
        list.closed = true;
        list.watchers.clear();
        self.0.count.store(0, Ordering::Relaxed);
    }

    fn list(&self) -> std::sync::MutexGuard<'_, List> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::access_log::tests::record;
    use super::*;

    #[tokio::test]
    async fn a_slow_watcher_loses_what_does_not_fit_and_is_told_how_much() {
        let tap = Tap::default();
        let mut watch = tap.watch(Wish::default()).unwrap();
        for number in 0..BACKLOG + 7 {
            tap.show(&Arc::new(record("scan", number as u16)));
        }
        for number in 0..BACKLOG {
            let Some(Heard::Record(record)) = watch.next().await else {
                panic!("record {number} is not there");
            };
            assert_eq!(record.status, Some(number as u16));
        }
        assert!(matches!(watch.next().await, Some(Heard::Missed(7))));
        tap.show(&Arc::new(record("scan", 1)));
        assert!(matches!(watch.next().await, Some(Heard::Record(_))));
        tap.close();
        assert!(watch.next().await.is_none());
        assert!(tap.watch(Wish::default()).is_none(), "the process ends");
    }

    #[tokio::test]
    async fn each_watcher_gets_what_it_asked_for() {
        let tap = Tap::default();
        let wish = |agent: Option<&str>, host: Option<&str>, decisions| Wish {
            agent: agent.map(ToOwned::to_owned),
            host: host.map(ToOwned::to_owned),
            decisions,
        };
        for (wish, wanted) in [
            (wish(None, None, Decisions::All), true),
            (wish(Some("scan"), None, Decisions::All), true),
            (wish(Some("other"), None, Decisions::All), false),
            (wish(None, Some("api.example.com"), Decisions::Denied), true),
            (wish(None, Some("*.example.com"), Decisions::All), true),
            (wish(None, Some("example.com"), Decisions::All), false),
            (wish(None, Some("*ple.com"), Decisions::All), false),
        ] {
            assert_eq!(wish.covers(&record("scan", 403)), wanted, "{wish:?}");
        }
        let watches: Vec<Watch> = (0..MOST)
            .map(|_| tap.watch(Wish::default()).unwrap())
            .collect();
        assert!(tap.watch(Wish::default()).is_none(), "one too many");
        drop(watches);
        tap.watch(Wish::default()).unwrap();
    }
}
