//! Where secrets come from: each is fetched in the background and held in memory, so no request
//! ever waits for a source.

pub mod env;
pub mod exec;
pub mod exec_answer;
pub mod file;
pub mod held;
pub mod open;
pub mod source;
