//! Owns reloading: new documents become a new snapshot, or are refused whole and the old one stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::authority::covers;
use super::credentials::Credentials;
use super::error::StartError;
use super::settings::Settings;
use crate::config::error::ConfigError;
use crate::inject::placeholder::PlaceholderKey;
use crate::inject::set::Injectors;
use crate::policy::compile::compile;
use crate::proxy::account::Ledgers;
use crate::proxy::snapshot::{Snapshot, SnapshotStore};
use crate::rt::ready::Readiness;
use crate::tls::authority::CertificateAuthority;

/// Everything a reload needs.
pub struct Reloader {
    pub(super) settings: Settings,
    pub(super) credentials: Arc<Credentials>,
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) key: PlaceholderKey,
    pub(super) authority: Arc<CertificateAuthority>,
    pub(super) readiness: Readiness,
    pub(super) ledgers: Arc<Ledgers>,
}

/// The part of readiness that a bad reload shows in. It does not block: the old policy is in force.
const LONGEST_MESSAGE: usize = 2000;

impl Reloader {
    /// Reads the documents again. The answer is one sentence; an error leaves everything as it was.
    pub async fn reload(&mut self) -> Result<String, String> {
        let started = Instant::now();
        match self.attempt().await {
            Ok(summary) => {
                self.ledgers.metrics().reloaded("ok");
                let summary = format!(
                    "policy reloaded: {summary} ({:.1} ms)",
                    started.elapsed().as_secs_f64() * 1e3
                );
                tracing::info!("{summary}");
                Ok(summary)
            }
            Err(error) => {
                self.ledgers.metrics().reloaded("error");
                let text = describe(&error);
                tracing::error!(errors = %text, "the new policy is not used; the old one stays in force");
                Err(text)
            }
        }
    }

    async fn attempt(&mut self) -> Result<String, StartError> {
        if let Some(file) = &self.settings.config_file {
            // The process's own settings need a start; which documents it reads does not.
            let fresh = Settings::load(file)?;
            self.settings.documents = fresh.documents;
            self.settings.presets = fresh.presets;
        }
        let bundle = self.settings.bundle()?;
        let policy = compile(&bundle)?;
        covers(&self.authority, &policy)?;
        let held = self.credentials.open(&bundle).await;
        let injectors = Injectors::compile(&bundle, &held, self.key.clone())?;
        let version = self.snapshots.load().version + 1;
        let summary = format!(
            "version {version}, {} hosts, {} credentials",
            policy.host_count(),
            held.len()
        );
        self.snapshots.publish(Snapshot {
            policy,
            injectors,
            version,
        });
        self.credentials.keep(&held);
        self.readiness.unblock("policy");
        Ok(summary)
    }

    /// Directories whose changes mean that documents may have changed.
    pub fn watched(&self) -> Vec<PathBuf> {
        let directory = |path: &PathBuf| match path.is_dir() {
            true => path.clone(),
            false => match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
                Some(parent) => parent.to_path_buf(),
                None => path.clone(),
            },
        };
        let mut directories: Vec<PathBuf> = self.settings.documents.iter().map(directory).collect();
        directories.extend(self.settings.config_file.iter().map(directory));
        directories.sort();
        directories.dedup();
        directories
    }

    /// The texts of all documents, to tell a change from a touch.
    pub fn texts(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<PathBuf> = self.settings.config_file.iter().cloned().collect();
        for path in &self.settings.documents {
            match std::fs::read_dir(path) {
                Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
                Err(_) => files.push(path.clone()),
            }
        }
        files.sort();
        files.dedup();
        files
            .into_iter()
            .filter(|path| path.is_file())
            .map(|path| {
                let text = std::fs::read(&path).unwrap_or_default();
                (path, text)
            })
            .collect()
    }
}

fn describe(error: &StartError) -> String {
    let text = match error {
        StartError::Config(errors) => errors
            .iter()
            .map(ConfigError::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        StartError::Setting {
            what,
            help: Some(help),
        } => format!("{what}; {help}"),
        other => other.to_string(),
    };
    text.chars().take(LONGEST_MESSAGE).collect()
}

/// Wakes the receiver when something in `directories` changes, and once a minute in any case:
/// mounted ConfigMaps change by renaming a link beside the files, and some file systems tell nothing.
pub fn watch(directories: &[PathBuf]) -> mpsc::Receiver<()> {
    let (wake, woken) = mpsc::channel(1);
    let tick = wake.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A wake-up that is already waiting says the same.
            wake.try_send(()).ok();
        }
    });
    let watcher = match watcher {
        Ok(mut watcher) => {
            for directory in directories {
                add(&mut watcher, directory);
            }
            Some(watcher)
        }
        Err(error) => {
            tracing::warn!(%error, "file changes are noticed once a minute only");
            None
        }
    };
    tokio::spawn(async move {
        let _watcher = watcher;
        let mut minute = tokio::time::interval(Duration::from_secs(60));
        minute.tick().await;
        loop {
            tokio::select! {
                _ = minute.tick() => if tick.send(()).await.is_err() { return },
                () = tick.closed() => return,
            }
        }
    });
    woken
}

fn add(watcher: &mut impl Watcher, directory: &Path) {
    if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
        tracing::warn!(directory = %directory.display(), %error, "cannot watch; changes are noticed once a minute only");
    }
}
