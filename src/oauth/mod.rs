//! Tokens that must be renewed: Tollgate is the only owner of a grant, redeems it once at a time across
//! processes, and lets no rotated token be used before it is stored.

pub mod endpoint_error;
pub mod owner;
pub mod record;
pub mod store;
pub mod token;
pub mod transport;
