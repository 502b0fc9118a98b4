//! Owns what is known of an agent's body while it passes: how much has come, whether it broke off or came to a
//! halt, and whether the origin still waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by whoever passes the body on and whoever writes the record.
#[derive(Debug, Default)]
pub struct Uploaded {
    octets: AtomicU64,
    broken: AtomicBool,
    slow: AtomicBool,
    answered: AtomicBool,
}

impl Uploaded {
    /// So many more have come.
    pub fn add(&self, octets: usize) {
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// How many have come.
    pub fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }

    /// The agent ended it in the middle.
    pub fn broke_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether the agent ended it in the middle: what the origin then says is not the origin's fault.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Nothing came of it for too long, which ends it.
    pub fn came_to_a_halt(&self) {
        self.slow.store(true, Ordering::Relaxed);
        self.broke_off();
    }

    /// Whether it ended since nothing came of it any more.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// The origin is asked.
    pub fn asked(&self) {
        self.answered.store(false, Ordering::Relaxed);
    }

    /// The origin has answered: what is still to come of it may wait for what the answer says.
    pub fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the origin has answered.
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}
