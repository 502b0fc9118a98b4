//! The door operators come through.

pub mod amend;
pub mod amend_request;
pub mod amount;
pub mod api;
pub mod budgets;
pub mod client;
pub mod denials;
pub mod guests;
pub mod moment;
pub mod problem;
pub mod question;
pub mod scrape;
pub mod server;
pub mod spend;
pub mod spend_report;
pub mod taken_up;
pub mod tap;
pub mod witness;
