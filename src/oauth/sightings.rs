//! Owns since when a process has seen what other processes have begun: their clocks may be wrong.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::record::Intent;

/// Since when intents of other processes have been seen, by their id.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<HashMap<String, Instant>>);

impl Sightings {
    /// How long this intent has been seen; the others are forgotten.
    pub(super) fn since(&self, intent: &Intent) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, _| *id == intent.id);
        seen.entry(intent.id.clone())
            .or_insert_with(Instant::now)
            .elapsed()
    }
}
