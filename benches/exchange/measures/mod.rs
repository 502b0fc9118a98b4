//! The measures, one a file.

pub mod bodies;
pub mod budget;
pub mod events;
pub mod handshake;
pub mod hosts;
pub mod idle;
pub mod instructions;
pub mod latency;
pub mod peers;
pub mod small;
pub mod spans;
pub mod streams;
