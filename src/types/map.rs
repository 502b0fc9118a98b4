//! Owns the maps of the hot path: the standard library's, with a hash that is made for short keys.
//!
//! It is seeded at random in each process, but is no defence against somebody who can time many lookups of keys
//! of their own choice. Keys are names from documents, and numbers and ids that are made here; what agents choose is
//! only looked up.

use foldhash::fast::RandomState;

/// See [`std::collections::HashMap`].
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// See [`std::collections::HashSet`].
pub type HashSet<K> = std::collections::HashSet<K, RandomState>;
