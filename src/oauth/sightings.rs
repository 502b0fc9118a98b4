//! Owns what one process knows of intents that no record tells: since when it has seen another's, and
//! that one of its own came to nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::record::Intent;

/// What is known of the intents of one grant.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The id of the intent that stands there, and since when it was seen.
    seen: Option<(String, Instant)>,
    /// The id of one of our own that may stand there, though nothing was asked after it.
    void: Option<String>,
}

impl Sightings {
    /// How long this intent has been seen here, by a clock that nobody sets.
    pub(super) fn since(&self, intent: &Intent) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &known.seen {
            Some((id, since)) if *id == intent.id => since.elapsed(),
            _ => {
                known.seen = Some((intent.id.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Remembers that nothing was asked after this intent: whether it was stored is not known.
    pub(super) fn came_to_nothing(&self, id: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.void = Some(id.to_owned());
    }

    /// Whether nothing was asked after this intent.
    pub(super) fn is_void(&self, intent: &Intent) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.void.as_deref() == Some(&intent.id)
    }
}
