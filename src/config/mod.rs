//! What the user wrote: documents as they stand in files, with their place kept for every error.

pub mod agent_env;
pub mod bundle;
pub mod check;
pub mod check_credential;
pub mod check_policy;
pub mod credential;
pub mod documents;
pub mod error;
pub mod explain;
pub mod literal;
pub mod load;
pub mod located;
pub mod paths;
pub mod policy;
pub mod presets;
pub mod reach;
pub mod recover;
pub mod render;
pub mod resolve;
pub mod root;
pub mod schema;
pub mod shape;
pub mod spot;
pub mod suggest;
pub mod units;
pub mod yaml;
