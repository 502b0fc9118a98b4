//! What agents may spend and did spend: limits, windows, and the ledger that holds them.

pub mod book;
pub mod book_keep;
pub mod compile;
pub mod covering;
pub mod desk;
pub mod desk_thread;
pub mod desk_wait;
pub mod entry;
pub mod filed_names;
#[cfg(test)]
mod fixture;
pub mod hold;
pub mod journal;
pub mod ledger;
pub mod limit;
pub mod line;
pub mod rate;
pub mod row;
#[cfg(test)]
mod sample;
pub mod series;
pub mod set;
pub mod span;
pub mod sqlite;
pub mod sqlite_catch_up;
pub mod sqlite_file;
pub mod sqlite_load;
pub mod sqlite_order;
pub mod sqlite_report;
pub mod sqlite_rows;
pub mod sqlite_upkeep;
pub mod sqlite_value;
pub mod sqlite_writer;
pub mod terms;
pub mod window;
