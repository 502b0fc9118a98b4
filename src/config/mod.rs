//! What the user wrote: documents as they stand in files, with their place kept for every error.

pub mod bundle;
pub mod credential;
pub mod error;
pub mod located;
pub mod policy;
pub mod root;
pub mod shape;
pub mod units;
