//! Tokens that must be renewed: Tollgate is the only owner of a grant, redeems it once at a time across
//! processes, and lets no rotated token be used before it is stored.

pub mod agent_call;
mod answer;
pub mod asking;
mod assertion;
mod body;
pub mod call_error;
mod claims;
mod clock;
pub mod device;
pub mod endpoint;
pub mod endpoint_error;
mod file_disk;
mod file_trouble;
#[cfg(test)]
mod fixture;
pub mod grant;
pub mod grant_secrets;
pub mod holding;
pub mod import;
pub mod local_endpoint;
pub mod login;
pub mod login_error;
pub mod manager;
pub mod owner;
pub mod phantom;
pub mod record;
pub mod redeem;
mod refusal;
pub mod requester;
pub mod rewrite;
mod schedule;
#[cfg(test)]
mod scripted;
pub mod sealing;
mod seconds;
pub mod seed;
pub mod settings;
pub mod sightings;
pub mod store;
pub mod store_file;
pub mod store_kubernetes;
pub mod store_memory;
pub mod token;
pub mod transport;
