//! What agents may spend and did spend: limits, windows, and the ledger that holds them.

pub mod compile;
pub mod covering;
#[cfg(test)]
mod fixture;
pub mod ledger;
pub mod limit;
pub mod rate;
pub mod set;
pub mod terms;
pub mod book;
pub mod entry;
pub mod ledger;
pub mod limit;
pub mod line;
#[cfg(test)]
mod sample;
pub mod series;
pub mod span;
pub mod sqlite;
pub mod sqlite_file;
pub mod sqlite_report;
pub mod sqlite_rows;
pub mod sqlite_writer;
