//! Owns how it is told whether one protection of the process is in force.

use serde::{Deserialize, Serialize};

/// One thing that the process has given up, or has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Its name, as metrics and the admin port have it.
    pub name: String,
    /// Whether it is in force.
    pub force: Force,
    /// The same in a word, for the line that says the process is ready.
    pub word: String,
    /// What it keeps from happening, or why it does not.
    pub detail: String,
}

/// Whether a protection is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    /// As far as it goes.
    Full,
    /// Less than on other machines or with other documents; the detail says what is left out.
    Part,
    /// Not at all, although it was wanted.
    Missing,
    /// Not at all: the configuration says so.
    Off,
}

impl Protection {
    /// One in force, as far as it goes.
    pub fn full(name: &str, word: &str, detail: impl Into<String>) -> Self {
        Self::new(name, Force::Full, word, detail)
    }

    /// One whose state `force` is.
    pub fn new(name: &str, force: Force, word: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            force,
            word: word.to_owned(),
            detail: detail.into(),
        }
    }

    /// Whether it holds at least in part.
    pub fn holds(&self) -> bool {
        matches!(self.force, Force::Full | Force::Part)
    }
}
