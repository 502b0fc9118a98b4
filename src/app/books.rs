//! Owns how budgets, prices and the ledger come to be, at the start and when documents change.

use std::sync::Arc;

use super::error::StartError;
use super::settings::Settings;
use super::state::StateDir;
use crate::budget::set::BudgetSet;
use crate::budget::sqlite::SqliteLedger;
use crate::config::bundle::Bundle;
use crate::config::check_budget::unpriced;
use crate::meter::price_table::{self, PriceTable};
use crate::proxy::spending::Spending;

/// What the documents of one moment say about money.
pub struct Books {
    /// What may be spent.
    pub budgets: BudgetSet,
    /// What it costs.
    pub prices: Arc<PriceTable>,
}

/// Compiles budgets and prices.
pub fn read_books(settings: &Settings, bundle: &Bundle) -> Result<Books, StartError> {
    let prices = price_table::load(settings.root.spec.prices.file.as_deref())?;
    let budgets = BudgetSet::compile(bundle)?.filed_by(&prices.other_names());
    let unpriced = unpriced(bundle, |model| prices.knows(model));
    if !unpriced.is_empty() {
        return Err(unpriced.into());
    }
    Ok(Books { budgets, prices })
}

/// Compiles budgets and prices, and opens the ledger if there is none yet and a budget needs it.
pub async fn open_books(
    settings: &Settings,
    bundle: &Bundle,
    spending: &Spending,
    ledger: &LedgerKeeper,
) -> Result<Books, StartError> {
    let Books { budgets, prices } = read_books(settings, bundle)?;
    if !budgets.is_empty() && spending.ledger().is_none() {
        let opened = ledger.open(settings).await?;
        spending.keep(opened);
    }
    if let Some(ledger) = spending.ledger() {
        let limits = budgets.budgets().iter().flat_map(|budget| &*budget.limits);
        ledger.configure(limits.cloned().collect());
    }
    Ok(Books { budgets, prices })
}

/// The process's own ledger, once it is open: it is closed in good order at the end.
#[derive(Default)]
pub struct LedgerKeeper(std::sync::OnceLock<Arc<SqliteLedger>>);

impl LedgerKeeper {
    /// The ledger, if a budget has asked for it.
    pub fn get(&self) -> Option<&Arc<SqliteLedger>> {
        self.0.get()
    }

    async fn open(&self, settings: &Settings) -> Result<Arc<SqliteLedger>, StartError> {
        let path = settings.ledger.clone();
        if settings.root.spec.ledger.file.is_none() {
            StateDir::locate(path.parent()).create()?;
        }
        // Opening settles what a crash left, which may take its time on a slow disk.
        let opening = tokio::task::spawn_blocking(move || SqliteLedger::open(&path));
        let opened = opening.await.map_err(|error| {
            StartError::setting(error, "this is a fault of the program; report it")
        })?;
        let ledger = opened.map_err(|error| {
            StartError::of(
                error.cure(),
                error,
                "set ledger.file to a path on storage that lasts and that this user can write; a file that is new there knows nothing of what was spent",
            )
        })?;
        Ok(self.0.get_or_init(|| ledger).clone())
    }

    /// Writes what is left and closes the books.
    pub async fn close(&self) {
        if let Some(ledger) = self.get()
            && let Err(error) = ledger.close().await
        {
            tracing::error!(%error, "the ledger was not closed in good order");
        }
    }
}
