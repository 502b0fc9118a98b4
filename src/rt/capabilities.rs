//! Owns the capabilities (capabilities(7)) of the process, and how they are given up.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Gives up every capability but `kept`, which is kept only if it is held, and is not handed to programs.
///
/// Of the calling thread: threads that it starts later have what it has. Nothing comes back through a
/// program that is started, if `no_new_privs` is set or the bounding set could be emptied.
pub fn give_up_all_but(kept: CapabilitySet) -> io::Result<CapabilitySet> {
    for capability in CapabilitySet::all().iter() {
        // Wants CAP_SETPCAP. Who has it not has little to lose, and an old kernel knows fewer of them.
        remove_capability_from_bounding_set(capability).ok();
    }
    // Kernels before 4.3 have no such set.
    clear_ambient_capability_set().ok();
    let kept = capabilities(None)?.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(kept)
}
