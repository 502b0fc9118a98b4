//! What is put into a request: the secret, exactly where its placeholder stood, and nowhere else.

pub mod append;
pub mod basic;
pub mod body;
pub mod compile;
pub mod cookie;
pub mod disguise;
pub mod error;
pub mod foreign;
pub mod header;
pub mod injector;
pub mod json;
pub mod leftover;
pub mod path;
pub mod percent;
pub mod placeholder;
pub mod query;
pub mod set;
pub mod table;

#[cfg(test)]
mod tests;
