//! What the user wrote: documents as they stand in files, with their place kept for every error.

pub mod bundle;
pub mod credential;
pub mod documents;
pub mod error;
pub mod explain;
pub mod literal;
pub mod located;
pub mod policy;
pub mod presets;
pub mod recover;
pub mod render;
pub mod root;
pub mod shape;
pub mod suggest;
pub mod units;
pub mod yaml;
