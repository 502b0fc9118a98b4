//! The door operators come through.

pub mod api;
pub mod client;
pub mod problem;
pub mod question;
pub mod server;
