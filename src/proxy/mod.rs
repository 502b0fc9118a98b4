//! The data path: one exchange, whichever door it came through.

pub mod account;
pub mod attempt;
pub mod body;
pub mod dial;
pub mod error;
pub mod exchange;
pub mod expectation;
pub mod headers;
pub mod intercept;
pub mod last_word;
pub mod lease;
pub mod passage;
pub mod refusal;
pub mod replay;
pub mod serve;
pub mod snapshot;
pub mod spool;
pub mod token_call;
pub mod tunnel;
pub mod upgrade;
pub mod upload;
pub mod upstream;
