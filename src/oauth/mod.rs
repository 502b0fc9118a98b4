//! Tokens that must be renewed: Tollgate is the only owner of a grant, redeems it once at a time across
//! processes, and lets no rotated token be used before it is stored.

pub mod endpoint_error;
mod file_disk;
mod file_trouble;
pub mod owner;
pub mod record;
pub mod sealing;
pub mod store;
pub mod store_file;
pub mod store_memory;
pub mod token;
pub mod transport;
