//! Tasks, shutdown and readiness.

pub mod drain;
pub mod ready;
