//! Owns everything compiled from the documents of one moment: loaded once per exchange, replaced
//! whole, so that one request never sees two policies.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::budget::set::BudgetSet;
use crate::inject::set::Injectors;
use crate::meter::price_table::PriceTable;
use crate::oauth::local_endpoint::LocalEndpoints;
use crate::policy::engine::Engine;

/// One immutable view.
pub struct Snapshot {
    /// Who may go where.
    pub policy: Engine,
    /// What goes into requests.
    pub injectors: Injectors,
    /// Token endpoints that are answered here.
    pub endpoints: LocalEndpoints,
    /// What agents may spend.
    pub budgets: BudgetSet,
    /// What calls of models cost.
    pub prices: Arc<PriceTable>,
    /// Grows with every reload.
    pub version: u64,
    /// The version that brought these budgets and prices.
    pub counted_since: u64,
}

/// The view in force.
pub struct SnapshotStore {
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
}

impl SnapshotStore {
    /// Starts with `first`.
    pub fn new(first: Snapshot) -> Self {
        let (changed, _) = watch::channel(first.version);
        Self {
            current: ArcSwap::from_pointee(first),
            changed,
        }
    }

    /// The view in force now, for a short look.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The view in force now, to keep across waits.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the view; exchanges that have begun keep theirs.
    pub fn publish(&self, next: Snapshot) {
        let version = next.version;
        self.current.store(Arc::new(next));
        self.changed.send_replace(version);
    }

    /// Wakes connections that outlive a view: tunnels and upgraded streams ask again.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
