//! Owns why the process cannot start: what, and what to do, for a person at a terminal.

use crate::config::error::ConfigError;
use crate::types::cure::Cure;

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The documents are wrong.
    #[error("the configuration cannot be used")]
    Config(Vec<ConfigError>),
    /// Something of this machine is: a file, a port, a key.
    #[error("{what}")]
    Setting {
        /// What failed.
        what: String,
        /// What to do.
        help: Option<String>,
    },
    /// Something that may be gone in a moment: a port in use, a full disk.
    #[error("{what}")]
    Temporary {
        /// What failed.
        what: String,
        /// What to do.
        help: String,
    },
}

impl StartError {
    /// A setting that cannot be used, with the way out.
    pub fn setting(what: impl ToString, help: impl Into<String>) -> Self {
        Self::Setting {
            what: what.to_string(),
            help: Some(help.into()),
        }
    }

    /// The same, or what may be gone the next time: whoever starts the process then starts it again.
    pub fn of(cure: Cure, what: impl ToString, help: impl Into<String>) -> Self {
        match cure {
            Cure::Change => Self::setting(what, help),
            Cure::Time => Self::Temporary {
                what: what.to_string(),
                help: help.into(),
            },
        }
    }
}

impl From<Vec<ConfigError>> for StartError {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self::Config(errors)
    }
}
