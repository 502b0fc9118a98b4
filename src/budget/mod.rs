//! What agents may spend and did spend: limits, windows, and the ledger that holds them.

pub mod ledger;
pub mod limit;
