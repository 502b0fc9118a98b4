//! Reading what calls of models will use and did use, and what that costs.

pub mod call;
pub mod endpoint;
pub mod reading;
