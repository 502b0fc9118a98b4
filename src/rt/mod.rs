//! Tasks, files, shutdown, what the process may do, and what is wrong meanwhile.

pub mod capabilities;
pub mod confine;
pub mod deadline;
pub mod drain;
pub mod file;
pub mod lock;
pub mod mounts;
pub mod pace;
pub mod protection;
pub mod ready;
pub mod syscalls;
