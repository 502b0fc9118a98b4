//! Owns what the process gives up before it serves, and says what is in force.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

/// What is in force.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Hardening {
    /// Core dumps are off and other processes of this user cannot read our memory (`PR_SET_DUMPABLE`).
    pub no_dumps: bool,
    /// Nothing this process starts gains privileges.
    pub no_new_privileges: bool,
}

/// Whose privileges are given up for good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// This process's, and with it those of every program it starts.
    GiveUp,
    /// None: the program it runs is the user's own and may need sudo.
    Keep,
}

/// Gives up what serving does not need. Failing is reported, not fatal: old kernels lack some of it.
pub fn harden(privileges: Privileges) -> Hardening {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let cores = match privileges {
        Privileges::GiveUp => setrlimit(Resource::Core, none).is_ok(),
        Privileges::Keep => true,
    };
    let dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok();
    let hardening = Hardening {
        no_dumps: cores && dumpable,
        no_new_privileges: privileges == Privileges::GiveUp && set_no_new_privs(true).is_ok(),
    };
    tracing::debug!(?hardening, "hardened");
    hardening
}
