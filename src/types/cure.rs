//! Owns whether what failed may do so no more when it is tried again.

/// What it takes for a failure to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// Time, or room, or another process that ends: the same is tried again.
    Time,
    /// A person who changes something: a path, a mode, a file.
    Change,
}
