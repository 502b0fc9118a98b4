//! Owns what is known of an agent's body while it passes: how much has come, whether it broke off, and why.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by whoever passes the body on and whoever writes the record.
#[derive(Debug, Default)]
pub struct Uploaded {
    octets: AtomicU64,
    broken: AtomicBool,
    slow: AtomicBool,
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

    /// It was given up here, since nothing of it came any more.
    pub fn was_slow(&self) {
        self.slow.store(true, Ordering::Relaxed);
        self.broke_off();
    }

    /// Whether it was given up here, since nothing of it came any more.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether the agent ended it in the middle: what the origin then says is not the origin's fault.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}
