//! Owns how amounts and texts stand in SQLite's columns.

use std::sync::Arc;

use rusqlite::Row;

use crate::types::usage::{TokenClass, Usage};

/// No call of a model uses so many tokens, or costs so many nano-dollars (a million dollars): an answer that
/// says so is wrong, or wants the sums that its row is in to be.
const MOST: i64 = 1 << 50;

/// SQLite's integers have a sign.
pub fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// What one call used or cost, for its row.
pub fn counted(amount: u64) -> i64 {
    whole(amount).min(MOST)
}

/// SQL for the sum of a column of amounts. `sum()` fails for everybody's rows where one of them makes it
/// overflow; this one ends at the largest integer, and is exact below 2^53 (<https://sqlite.org/lang_aggfunc.html#sumunc>,
/// <https://sqlite.org/lang_expr.html#castexpr>).
pub fn sum(column: &str) -> String {
    format!("CAST(total({column}) AS INTEGER)")
}

/// The sums of the seven columns that [`usage`] reads.
pub fn sums_of_usage() -> String {
    TokenClass::ALL.map(|class| sum(class.as_str())).join(", ")
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
