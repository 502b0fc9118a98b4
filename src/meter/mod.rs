//! Reading what calls of models will use and did use, and what that costs.

pub mod call;
pub mod endpoint;
mod field;
mod gathered;
pub mod hide_usage;
pub mod json;
mod path;
pub mod reading;
pub mod scan;
pub mod scan_error;
mod scan_fields;
mod scan_prompt;
mod scan_tools;
pub mod unpack;
pub mod usage_option;
