//! Owns the hardening settings as written: what the process gives up before it serves.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// What the process gives up before it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HardeningSpec {
    /// What becomes of a protection that this machine does not have.
    #[serde(default)]
    pub mode: HardeningMode,
    /// Whether helper programs (source `exec`) may be started.
    #[serde(default)]
    pub programs: ProgramsMode,
    /// Directories and files that may be read besides those that the documents name: for what later documents
    /// will name, and for links that will lead elsewhere.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// Directories that may be written besides the process's own: for helper programs that keep files.
    #[serde(default)]
    pub write: Vec<PathBuf>,
}

/// What becomes of a protection that this machine does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum HardeningMode {
    /// It is reported, and the process serves without.
    #[default]
    BestEffort,
    /// The process does not start.
    Require,
    /// Capabilities, files and system calls stay as they are. Core dumps stay off.
    Off,
}

/// Whether helper programs may be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProgramsMode {
    /// If a document names one when the process starts; if none does, then never.
    #[default]
    WhenNamed,
    /// Also those that later documents name.
    Always,
}
