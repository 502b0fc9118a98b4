//! Owns how the audit log comes to be: its files, its key, what it begins with, and the events that
//! commands add to it beside a running proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;

use super::error::StartError;
use super::settings::Settings;
use super::state::StateDir;
use crate::config::bundle::{Bundle, Document};
use crate::credential::held::Need;
use crate::credential::open::{Patience, SourceContext, open_document};
use crate::policy::engine::Engine;
use crate::telemetry::audit::{AuditLog, AuditTerms};
use crate::telemetry::audit_event::{Changes, Counts, Event, Start};
use crate::telemetry::audit_file::{AuditFile, FileTerms};
use crate::telemetry::audit_key::Signer;
use crate::telemetry::audit_read::{moment, read_newest};
use crate::telemetry::denials::Denials;
use crate::tls::authority::CertificateAuthority;

const SIZE: u64 = 32 << 20;
const AGE: Duration = Duration::from_secs(24 * 3600);
const KEEP: usize = 60;
const HEAD_RECORDS: u64 = 1000;
const HEAD_EVERY: Duration = Duration::from_secs(60);

/// Where the audit log is; nothing where none is kept.
pub fn audit_path(settings: &Settings) -> Option<PathBuf> {
    let spec = &settings.root.spec;
    let in_state = || StateDir::locate(spec.state_dir.as_deref()).file("audit/audit.jsonl");
    let kept = spec.audit.enabled.unwrap_or(true);
    kept.then(|| spec.audit.file.clone().unwrap_or_else(in_state))
}

fn file_terms(settings: &Settings) -> Option<FileTerms> {
    let rotate = &settings.root.spec.audit.rotate;
    Some(FileTerms {
        path: audit_path(settings)?,
        size: rotate.size.map_or(SIZE, |size| size.0.max(1)),
        age: rotate.age.map_or(AGE, |age| age.0),
        keep: rotate.keep.map_or(KEEP, |keep| keep as usize),
    })
}

/// Opens it, with `start` as its first record.
pub async fn open_audit(
    settings: &Settings,
    context: &SourceContext,
    start: Start,
) -> Result<AuditLog, StartError> {
    let spec = &settings.root.spec.audit;
    let Some(file) = file_terms(settings) else {
        return Ok(AuditLog::off());
    };
    let signer = audit_signer(settings, context).await?;
    let terms = AuditTerms {
        file,
        exchanges: spec.exchanges,
        on_failure: spec.on_failure,
        signer,
        head_records: spec.heads.records.map_or(HEAD_RECORDS, u64::from),
        head_every: spec.heads.every.map_or(HEAD_EVERY, |every| every.0),
    };
    let starting = tokio::task::spawn_blocking(move || AuditLog::start(terms, Event::Start(start)));
    let started = starting
        .await
        .map_err(|error| StartError::setting(error, "this is a fault of the program; report it"))?;
    started.map_err(|error| {
        StartError::of(
            error.cure(),
            error,
            "set audit.file to a path this user can write, or audit.onFailure: continue",
        )
    })
}

/// What signs its heads; nothing where no key is named, or no log is kept.
pub async fn audit_signer(
    settings: &Settings,
    context: &SourceContext,
) -> Result<Option<Signer>, StartError> {
    let source = settings.root.spec.audit.signing_key.as_ref();
    let Some(source) = source.filter(|_| audit_path(settings).is_some()) else {
        return Ok(None);
    };
    let name = "audit-signing-key";
    let key = open_document(name, source, Need::Required, Patience::Answer, context).await;
    let pem = key
        .current()
        .map_err(|error| StartError::setting(error, "mend spec.audit.signingKey"))?;
    let signer = Signer::parse(&pem).map_err(|error| {
        StartError::setting(
            format!("spec.audit.signingKey: {error}"),
            "make one with `openssl genpkey -algorithm ed25519 -out audit.key`",
        )
    })?;
    Ok(Some(signer))
}

/// What the log begins with.
pub fn start_event(bundle: &Bundle, policy: &Engine, authority: &CertificateAuthority) -> Start {
    Start {
        version: env!("CARGO_PKG_VERSION"),
        policy: fingerprint(bundle),
        ca: authority.describe().sha256.clone(),
        counts: Counts {
            hosts: policy.host_count(),
            credentials: bundle.credentials.len(),
            budgets: bundle.budgets.len(),
        },
    }
}

/// That an authority was made.
pub fn ca_event(authority: &CertificateAuthority, replaces: Replaces) -> Event {
    let description = authority.describe();
    Event::CaMade {
        sha256: description.sha256.clone(),
        names: description.permitted.as_ref().map(Vec::len),
        kept: match description.certificate_file {
            Some(_) => "file",
            None => "memory",
        },
        replaces: replaces == Replaces::Another,
    }
}

/// Whether a new authority takes the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// There was none.
    None,
    /// There was one.
    Another,
}

/// Adds an event of a command to the log, whether a proxy runs or not.
///
/// Errors say why it could not be: what the command did is done by then.
pub fn add_event(settings: &Settings, event: Event) -> Result<(), String> {
    let Some(terms) = file_terms(settings) else {
        return Ok(());
    };
    let now = SystemTime::now();
    let mut file = AuditFile::new(terms);
    file.append(now, &[(now, event)], None)
        .and_then(|_| file.sync())
        .map_err(|error| error.to_string())
}

/// Fills the table of refusals with those of the last week that the log tells of, up to `until`. Of a very
/// large log only the newest files are read.
pub fn recall(path: &Path, denials: &Denials, until: Timestamp) {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    const MOST: u64 = 256 << 20;
    // A log that cannot be read is told of when it is written, or verified.
    read_newest(path, Some(until - WEEK), MOST, |_, record| {
        if moment(&record).is_some_and(|moment| moment < until) {
            denials.note_audited(&record);
        }
    })
    .ok();
}

/// SHA-256 of every file that documents stand in, in order: name, length and text of each.
pub fn fingerprint(bundle: &Bundle) -> String {
    let mut context = Context::new(&SHA256);
    let mut seen = BTreeSet::new();
    let policies = bundle.policies.iter().map(|d| &d.file);
    let credentials = bundle.credentials.iter().map(|d| &d.file);
    let budgets = bundle.budgets.iter().map(|d| &d.file);
    let files: BTreeMap<&str, &str> = policies
        .chain(credentials)
        .chain(budgets)
        .filter(|file| seen.insert(file.name.as_str()))
        .map(|file| (file.name.as_str(), file.text.as_str()))
        .collect();
    for (name, text) in files {
        context.update(format!("{name}\n{}\n", text.len()).as_bytes());
        context.update(text.as_bytes());
    }
    let digest = context.finish();
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The documents of one moment, as far as the next ones are compared with them.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// SHA-256 of all of them.
    pub fingerprint: String,
    policies: BTreeMap<String, String>,
    credentials: BTreeMap<String, String>,
    budgets: BTreeMap<String, String>,
}

impl Inventory {
    /// Of these documents.
    pub fn of(bundle: &Bundle) -> Self {
        Self {
            fingerprint: fingerprint(bundle),
            policies: written(&bundle.policies),
            credentials: written(&bundle.credentials),
            budgets: written(&bundle.budgets),
        }
    }

    /// How `next` differs, hosts aside.
    pub fn changes(&self, next: &Self) -> Changes {
        let changed = |old: &BTreeMap<String, String>, new: &BTreeMap<String, String>| {
            new.iter()
                .filter(|(name, text)| old.get(*name) != Some(*text))
                .count()
        };
        let removed = |old: &BTreeMap<String, String>, new: &BTreeMap<String, String>| {
            old.keys().filter(|name| !new.contains_key(*name)).count()
        };
        Changes {
            policies_changed: changed(&self.policies, &next.policies),
            policies_removed: removed(&self.policies, &next.policies),
            credentials_changed: changed(&self.credentials, &next.credentials),
            credentials_removed: removed(&self.credentials, &next.credentials),
            budgets_changed: changed(&self.budgets, &next.budgets),
            budgets_removed: removed(&self.budgets, &next.budgets),
            ..Changes::default()
        }
    }
}

/// Each document by its name, as it is understood: comments and order of fields are no change, another
/// line is none either.
fn written<S: std::fmt::Debug>(documents: &[Document<S>]) -> BTreeMap<String, String> {
    let text = |document: &Document<S>| {
        let lines = format!("{:?}", document.spec);
        let mut hash = Context::new(&SHA256);
        hash.update(without_places(&lines).as_bytes());
        let hash = hash.finish();
        hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    };
    let name = |document: &Document<S>| match &document.namespace {
        Some(namespace) => format!("{namespace}/{}", document.name),
        None => document.name.clone(),
    };
    documents.iter().map(|d| (name(d), text(d))).collect()
}

/// A value's `Debug` without the lines and columns that [`crate::config::located::Located`] keeps.
fn without_places(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["line: ", "column: "]
        .iter()
        .filter_map(|w| rest.find(w))
        .min()
    {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let number = from.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        rest = from[number..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load_bundle;

    fn inventory(text: &str) -> Inventory {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        Inventory::of(&load_bundle(&[file], &[]).unwrap())
    }

    fn policy(name: &str, host: &str) -> String {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{egress: [{{hosts: [{host}]}}]}}\n"
        )
    }

    #[test]
    fn what_changed_is_told_by_document_and_not_by_line() {
        let one = inventory(&policy("a", "a.com"));
        let moved = inventory(&format!("# first\n\n{}", policy("a", "a.com")));
        assert_ne!(one.fingerprint, moved.fingerprint);
        assert_eq!(one.changes(&moved), Changes::default());
        let other = inventory(&(policy("a", "b.com") + &policy("c", "c.com")));
        let changes = one.changes(&other);
        assert_eq!((changes.policies_changed, changes.policies_removed), (2, 0));
        let back = other.changes(&one);
        assert_eq!((back.policies_changed, back.policies_removed), (1, 1));
    }
}
