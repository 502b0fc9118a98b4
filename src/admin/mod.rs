//! The door operators come through.

pub mod api;
pub mod client;
pub mod server;
