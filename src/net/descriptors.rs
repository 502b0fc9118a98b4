//! Owns how many sockets and files this process may have open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all that may be taken without privileges: a connection needs two, and the usual 1024 is a limit
/// for programs that use select(2). Returns what is in force; `None` is no limit.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, all) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = ?limit.current, "the number of open files stays as it is");
            limit.current
        }
    }
}
