//! Tasks, files, shutdown, and what is wrong meanwhile.

pub mod deadline;
pub mod drain;
pub mod file;
pub mod lock;
pub mod mounts;
pub mod pace;
pub mod ready;
