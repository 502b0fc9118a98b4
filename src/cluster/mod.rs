//! What Kubernetes lends to processes that share something: one key of a Secret, written only over the
//! version it was read at, and a Lease that one holder at a time has.

pub mod call;
pub mod connect;
pub mod lease;
pub mod lease_guard;
mod lease_object;
mod lease_record;
pub mod name;
pub mod secret;
