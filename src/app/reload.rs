//! Owns reloading: new documents become a new snapshot, or are refused whole and the old one stays.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::audit::Inventory;
use super::authority::{covers, signer};
use super::books::{LedgerKeeper, open_books};
use super::credentials::Credentials;
use super::error::StartError;
use super::settings::Settings;
use crate::config::error::ConfigError;
use crate::config::named::NamedFiles;
use crate::credential::open::Patience;
use crate::inject::placeholder::PlaceholderKey;
use crate::inject::set::Injectors;
use crate::policy::compile::compile;
use crate::proxy::account::Ledgers;
use crate::proxy::snapshot::{Snapshot, SnapshotStore};
use crate::proxy::spending::Spending;
use crate::rt::ready::Warnings;
use crate::telemetry::audit_event::{Changes, Event};
use crate::tls::authority::CertificateAuthority;

/// Everything a reload needs.
pub struct Reloader {
    pub(super) settings: Settings,
    /// The documents in force, as far as the next are compared with them.
    pub(super) inventory: Inventory,
    pub(super) credentials: Arc<Credentials>,
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) key: PlaceholderKey,
    pub(super) authority: Arc<CertificateAuthority>,
    pub(super) warnings: Warnings,
    pub(super) ledgers: Arc<Ledgers>,
    pub(super) spending: Arc<Spending>,
    pub(super) keeper: Arc<LedgerKeeper>,
    /// The fingerprint of the documents, taken before they were read.
    pub(super) seen: u64,
}

/// The part under which a bad reload is warned of. It blocks nothing: the old policy is in force.
const PART: &str = "policy";
const LONGEST_MESSAGE: usize = 2000;
/// A new policy must be in force within 5 s: a credential that is slower comes after it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Editors and mounts change files in several steps.
const SETTLE: Duration = Duration::from_millis(100);
/// Documents that keep changing for this long are read as they are.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

impl Reloader {
    /// Reads the documents again. The answer is one sentence. An error leaves in force what is; which documents are
    /// looked at is then as the settings say now, and a ledger that budgets first asked for may be open.
    pub async fn reload(&mut self) -> Result<String, String> {
        let started = Instant::now();
        self.seen = documents(&self.settings).fingerprint().await;
        let attempt = self.attempt().await;
        let audit = &self.ledgers.sinks().audit;
        match attempt {
            Ok((summary, event)) => {
                audit.note(event);
                self.ledgers.metrics().reloaded("ok");
                self.warnings.clear(PART);
                let summary = format!(
                    "policy reloaded: {summary} ({:.1} ms)",
                    started.elapsed().as_secs_f64() * 1e3
                );
                tracing::info!("{summary}");
                Ok(summary)
            }
            Err(error) => {
                self.ledgers.metrics().reloaded("error");
                audit.note(Event::PolicyRejected {
                    policy: self.inventory.fingerprint.clone(),
                });
                let text = describe(&error);
                tracing::error!(errors = %text, "the new policy is not used; the old one stays in force");
                self.warnings.set(
                    PART,
                    format!("{text}; this policy is not used, the last good one stays in force"),
                );
                Err(text)
            }
        }
    }

    /// Reloads if the documents are not what they were, once they have stopped changing.
    pub async fn reload_if_changed(&mut self) {
        let documents = documents(&self.settings);
        if documents.fingerprint().await == self.seen {
            return;
        }
        // Half of a file that is being written would be refused by itself; waiting spares its author the warning.
        documents.settled().await;
        // The outcome is logged; nobody waits for it.
        self.reload().await.ok();
    }

    async fn attempt(&mut self) -> Result<(String, Event), StartError> {
        if let Some(file) = &self.settings.config_file {
            // The process's own settings need a start; which documents it reads does not.
            let fresh = Settings::load(file)?;
            self.settings.given_up.admits_documents(&fresh.documents)?;
            self.settings.documents = fresh.documents;
            self.settings.presets = fresh.presets;
        }
        let bundle = self.settings.bundle()?;
        let named = NamedFiles::default().and_of(&bundle);
        self.settings.given_up.admits(&named)?;
        let policy = compile(&bundle)?;
        covers(&self.authority, &policy)?;
        let policy = policy.signed_by(signer(&self.authority));
        let open = self
            .credentials
            .open(&bundle, Patience::UpTo(PATIENCE))
            .await;
        open.fit()?;
        let injectors = Injectors::compile(&bundle, &open.held, self.key.clone())?;
        let books = open_books(&self.settings, &bundle, &self.spending, &self.keeper).await?;
        let version = self.snapshots.load().version + 1;
        let summary = format!(
            "version {version}, {} hosts, {} credentials",
            policy.host_count(),
            open.held.len()
        );
        let inventory = Inventory::of(&bundle);
        let before = self.snapshots.load_full();
        let changes = self.inventory.changes(&inventory);
        // Calls that wait for room are sent back where these change, and not for anything else.
        let counts_alike = changes.budgets_changed + changes.budgets_removed == 0
            && books.prices.sha256() == before.prices.sha256();
        let counted_since = match counts_alike {
            true => before.counted_since,
            false => version,
        };
        let event = Event::PolicyReloaded {
            policy: inventory.fingerprint.clone(),
            before: self.inventory.fingerprint.clone(),
            changes: Changes {
                hosts_added: policy.hosts_beyond(&before.policy),
                hosts_removed: before.policy.hosts_beyond(&policy),
                ..changes
            },
        };
        self.inventory = inventory;
        self.snapshots.publish(Snapshot {
            policy,
            injectors,
            endpoints: open.endpoints(),
            budgets: books.budgets,
            prices: books.prices,
            version,
            counted_since,
        });
        self.credentials.keep(&bundle, &open);
        Ok((summary, event))
    }
}

/// Where the documents are.
pub fn documents(settings: &Settings) -> Documents {
    let own = settings.config_file.iter();
    let prices = settings.root.spec.prices.file.iter();
    Documents(
        own.chain(prices)
            .chain(&settings.documents)
            .cloned()
            .collect(),
    )
}

/// Files and directories with documents.
#[derive(Debug)]
pub struct Documents(BTreeSet<PathBuf>);

impl Documents {
    /// A number that differs when a text does. Looking beats being told: mounted ConfigMaps change by
    /// renaming a link beside the files, directories are replaced whole, and some file systems tell
    /// nothing. It also tells a change from a touch.
    pub async fn fingerprint(&self) -> u64 {
        let paths = self.0.clone();
        // A mount that hangs must not take a thread that carries requests.
        let looking = tokio::task::spawn_blocking(move || fingerprint(&paths));
        looking.await.unwrap_or_default()
    }

    /// Waits until nothing changes any more.
    async fn settled(&self) {
        let patience = Instant::now() + SETTLE_LIMIT;
        let mut last = self.fingerprint().await;
        loop {
            tokio::time::sleep(SETTLE).await;
            let now = self.fingerprint().await;
            if now == last || Instant::now() >= patience {
                return;
            }
            last = now;
        }
    }
}

fn fingerprint(paths: &BTreeSet<PathBuf>) -> u64 {
    let mut files = BTreeSet::new();
    for path in paths {
        match std::fs::read_dir(path) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => {
                files.insert(path.clone());
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    for file in files.iter().filter(|file| file.is_file()) {
        file.hash(&mut hasher);
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
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
        }
        | StartError::Temporary { what, help } => format!("{what}; {help}"),
        other => other.to_string(),
    };
    text.chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fingerprint_differs_when_a_text_does_and_not_when_a_file_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        let documents = Documents([dir.path().to_owned(), dir.path().join("none")].into());
        let write = async |text: &str| {
            std::fs::write(&file, text).unwrap();
            documents.settled().await;
            documents.fingerprint().await
        };
        let first = write("one").await;
        assert_eq!(write("one").await, first);
        assert_ne!(write("two").await, first);
        assert_eq!(write("one").await, first);
        std::fs::rename(&file, dir.path().join("b.yaml")).unwrap();
        assert_ne!(documents.fingerprint().await, first);
    }
}
