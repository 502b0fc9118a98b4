//! Tasks, shutdown, and what is wrong meanwhile.

pub mod deadline;
pub mod drain;
pub mod pace;
pub mod ready;
