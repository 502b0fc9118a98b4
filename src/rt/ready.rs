//! Owns readiness: the process is ready while nothing blocks it, and says what does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What keeps the process from being ready, by name. Cloning is shallow.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    blocked: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// Says that `part` is not ready, and why.
    pub fn block(&self, part: &str, why: impl Into<String>) {
        self.parts().insert(part.to_owned(), why.into());
    }

    /// Says that `part` is ready.
    pub fn unblock(&self, part: &str) {
        self.parts().remove(part);
    }

    /// Every part that is not ready, with its reason.
    pub fn blocked(&self) -> BTreeMap<String, String> {
        self.parts().clone()
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
