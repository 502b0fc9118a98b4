//! Tasks, shutdown, what is wrong meanwhile, and files.

pub mod drain;
pub mod file;
pub mod lock;
pub mod mounts;
pub mod ready;
