//! What agents may spend and did spend: limits, windows, and the ledger that holds them.

pub mod compile;
pub mod covering;
#[cfg(test)]
mod fixture;
pub mod ledger;
pub mod limit;
pub mod set;
pub mod terms;
