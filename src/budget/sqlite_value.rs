//! Owns how amounts and texts stand in SQLite's columns.

use std::sync::Arc;

use rusqlite::Row;

use crate::types::usage::{TokenClass, Usage};

/// SQLite's integers have a sign.
pub fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// An amount of a row.
pub fn amount(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index)
        .map(|value| value.max(0).unsigned_abs())
}

/// A text of a row.
pub fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<Arc<str>> {
    let text = row.get_ref(index)?;
    let text = text.as_str().map_err(rusqlite::Error::from);
    text.map(Into::into)
}

/// Seven columns in the order of [`TokenClass::ALL`].
pub fn usage(row: &Row<'_>, first: usize) -> rusqlite::Result<Usage> {
    let mut usage = Usage::default();
    for (index, class) in TokenClass::ALL.into_iter().enumerate() {
        usage[class] = amount(row, first + index)?;
    }
    Ok(usage)
}
