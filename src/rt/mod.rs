//! Tasks, shutdown, and what is wrong meanwhile.

pub mod drain;
pub mod ready;
