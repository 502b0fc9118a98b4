//! Owns what is wrong with a document: what, where, why, and the edit that mends it.

use std::fmt;
use std::sync::Arc;

/// A text that documents were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// How a person finds it: a path, `<preset anthropic>`, `<command line>`.
    pub name: String,
    /// Its whole text, for the frame around an error.
    pub text: String,
}

/// A span of a source file. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
    /// How many characters to underline; at least 1.
    pub length: u32,
}

/// One thing that keeps documents from being loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Stable code, usable as an anchor in the reference (`TG0203`).
    pub code: &'static str,
    /// What failed, in the user's words; one sentence without a full stop.
    pub message: String,
    /// Where it stands, if it stands anywhere.
    pub place: Option<Place>,
    /// What stands under the caret (`did you mean `methods`?`).
    pub label: Option<String>,
    /// The command or edit that mends it.
    pub help: Option<String>,
}

impl ConfigError {
    /// An error that has no place yet.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: None,
            label: None,
            help: None,
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Says what stands under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Says how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for ConfigError {
    /// One line: `scan.yaml:3:5: unknown key `metods` (did you mean `methods`?)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}:{}: ", place.file.name, place.line, place.column)?;
        }
        f.write_str(&self.message)?;
        match &self.label {
            Some(label) => write!(f, " ({label})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}
