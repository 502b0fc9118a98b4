//! Owns what the process has to say about its own state without being unready: a part that goes on
//! with what it had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What is wrong although the process serves, by part. Cloning is shallow.
#[derive(Clone, Debug, Default)]
pub struct Warnings {
    parts: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Warnings {
    /// Says what is wrong with `part`; what was said about it before is forgotten.
    pub fn set(&self, part: &str, why: impl Into<String>) {
        self.parts().insert(part.to_owned(), why.into());
    }

    /// Says that nothing is wrong with `part` any more.
    pub fn clear(&self, part: &str) {
        self.parts().remove(part);
    }

    /// Every part that something is wrong with, and what.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.parts().clone()
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_stands_until_it_is_cleared() {
        let warnings = Warnings::default();
        warnings.set("policy", "first");
        warnings.clone().set("policy", "second");
        assert_eq!(warnings.all()["policy"], "second");
        warnings.clear("policy");
        assert!(warnings.all().is_empty());
    }
}
