//! Owns what the process has given up, and what documents may therefore no longer ask of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::StartError;
use crate::config::named::NamedFiles;
use crate::rt::confine::Borders;
use crate::rt::protection::Protection;
use crate::rt::syscalls::Programs;

/// What the process has given up.
#[derive(Debug, Clone, Default)]
pub struct GivenUp {
    /// How far each protection is in force.
    pub protections: Vec<Protection>,
    /// What files are left to it; nothing where all are.
    pub files: Option<Files>,
    /// Whether it can start programs no more.
    pub programs: bool,
}

/// The files that are left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// To read; nothing where all are.
    pub read: Option<BTreeSet<PathBuf>>,
    /// To write, and to read.
    pub write: BTreeSet<PathBuf>,
    /// Whether the files of a Kubernetes cluster are among them.
    pub cluster: bool,
}

impl Files {
    /// Those within `borders`, which were drawn for what is `named`.
    pub fn within(borders: &Borders, programs: Programs, named: &NamedFiles<'_>) -> Self {
        Self {
            read: (programs == Programs::None).then(|| borders.read.clone()),
            write: borders.write.clone(),
            cluster: named.cluster || programs == Programs::Started,
        }
    }

    fn may_be_read(&self, path: &Path) -> bool {
        let Some(read) = &self.read else {
            return true;
        };
        let place = place(path);
        let mut left = read.iter().chain(&self.write);
        left.any(|directory| place.starts_with(directory))
    }

    fn may_be_written(&self, path: &Path) -> bool {
        let place = place(path);
        self.write
            .iter()
            .any(|directory| place.starts_with(directory))
    }
}

impl GivenUp {
    /// Whether new documents stand where they can still be read.
    pub fn admits_documents(&self, documents: &[PathBuf]) -> Result<(), StartError> {
        let files = self.files.iter();
        match files
            .flat_map(|files| documents.iter().filter(|path| !files.may_be_read(path)))
            .next()
        {
            Some(path) => Err(beyond("spec.documents", path, "read")),
            None => Ok(()),
        }
    }

    /// Whether what documents name can still be done. Said here, because the kernel's own answer would be
    /// "permission denied", whatever the file's mode.
    pub fn admits(&self, named: &NamedFiles<'_>) -> Result<(), StartError> {
        if let Some(named) = named.programs.first().filter(|_| self.programs) {
            return Err(StartError::setting(
                format!(
                    "{} names the helper `{}`, but this process has given up starting programs: nothing named one when it started",
                    named.what, named.program
                ),
                "restart it, or set spec.hardening.programs to Always before a later start",
            ));
        }
        let Some(files) = &self.files else {
            return Ok(());
        };
        if named.cluster && !files.cluster {
            return Err(StartError::setting(
                "a store lies in a Kubernetes Secret, but this process has given up reading the pod's ServiceAccount: no store did when it started",
                RESTART,
            ));
        }
        let mut read = named.read.iter();
        if let Some(named) = read.find(|named| !files.may_be_read(named.path)) {
            return Err(beyond(&named.what.to_string(), named.path, "read"));
        }
        let mut written = named.written.iter();
        match written.find(|named| !files.may_be_written(named.path)) {
            Some(named) => Err(beyond(&named.what.to_string(), named.path, "write")),
            None => Ok(()),
        }
    }
}

const RESTART: &str = "restart it: what may be done is settled at the start";

fn beyond(what: &str, path: &Path, right: &str) -> StartError {
    StartError::setting(
        format!(
            "{what} names {}, which is outside of what this process may {right} since its start",
            path.display()
        ),
        format!(
            "restart it, or name the directory under spec.hardening.{right} before a later start"
        ),
    )
}

/// Where a path leads, links resolved as far as it is there.
pub fn place(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for there in absolute.ancestors() {
        if let Ok(real) = std::fs::canonicalize(there) {
            return match absolute.strip_prefix(there) {
                Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
                _ => real,
            };
        }
    }
    absolute
}
