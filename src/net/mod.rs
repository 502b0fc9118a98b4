//! Sockets: binding, names to addresses, bytes before and beside HTTP.

pub mod calm;
pub mod client_hello;
pub mod closing;
pub mod descriptors;
pub mod frames;
pub mod framing;
pub mod gate;
pub mod greeting;
pub mod guard;
pub mod places;
pub mod relay;
pub mod resolve;
pub mod rewind;
pub mod room;
pub mod silence;
pub mod socket;
pub mod stall;
pub mod violation;
