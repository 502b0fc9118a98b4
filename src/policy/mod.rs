//! Decides who may ask what of whom. Pure: no clock, no I/O, no logging; what it is asked is all it sees.

mod agent_endpoint;
mod budget_host;
pub mod compile;
mod conflict;
mod counted;
pub mod decision;
pub mod edit;
pub mod engine;
pub mod explain;
mod grant;
pub mod path;
pub mod reading;
mod refusal;
mod rule;
mod scope;
#[cfg(test)]
mod tests;
