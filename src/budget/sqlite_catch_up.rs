//! Owns how the tables catch up with a journal that another process left behind.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use super::journal::{decode, is_empty, replay};
use super::ledger::LedgerError;
use super::sqlite_file::{LedgerFile, broken, folded, set_folded, unreachable};
use super::sqlite_rows::{self, Prices};

/// Writes to the tables what only the journal has, and waits for the disk. The number of the last record.
pub fn catch_up(file: &mut LedgerFile) -> Result<u64, LedgerError> {
    let connection = &mut file.connection;
    replay_into(connection, &file.path).map_err(|trouble| match trouble {
        Trouble::Tables(error) => broken(&file.path, &error),
        Trouble::Journal(error) => unreachable(&file.path, &error),
    })
}

/// The same for whoever only reads: as far as nobody has the ledger open, who would do it by themselves.
pub fn catch_up_beside(path: &Path) {
    if is_empty(path) {
        return;
    }
    let Ok(mut file) = LedgerFile::open_unused(path) else {
        return;
    };
    if let Err(error) = catch_up(&mut file) {
        tracing::warn!(%error, "the latest calls are missing in what is read");
    }
}

fn replay_into(connection: &mut Connection, path: &Path) -> Result<u64, Trouble> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut prices, now) = (Prices::default(), Timestamp::now());
    let number = replay(path, folded(&transaction)?, |record| {
        write_record(&transaction, record, &mut prices, now).map_err(Trouble::from)
    })?;
    set_folded(&transaction, number)?;
    transaction.commit()?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(number)
}

/// Writes the rows of a record.
pub fn write_record(
    connection: &Connection,
    record: &[u8],
    prices: &mut Prices,
    now: Timestamp,
) -> rusqlite::Result<()> {
    for row in decode(record) {
        let row = row.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        sqlite_rows::write(connection, &row, prices, now)?;
    }
    Ok(())
}

enum Trouble {
    Tables(rusqlite::Error),
    Journal(io::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Tables(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Journal(error)
    }
}
