//! Owns what `tollgate check` says of the files and keys that are the process's own. Nothing is said of what is well.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::finding::{Finding, State, finding};
use crate::app::audit::{audit_path, audit_signer};
use crate::app::error::StartError;
use crate::app::identity::fetch;
use crate::app::settings::Settings;
use crate::app::state::StateDir;
use crate::budget::set::BudgetSet;
use crate::budget::sqlite_file::read_only;
use crate::config::audit::OnAuditFailure;
use crate::config::root::AccessLogSpec;
use crate::config::source::SourceSpec;
use crate::credential::open::SourceContext;
use crate::types::cure::Cure;

/// What is written to see whether there is room, in octets.
const PROBE: usize = 64 << 10;

/// What a start would find wrong with them.
pub(super) async fn check_files(
    settings: &Settings,
    sources: &SourceContext,
    budgets: &BudgetSet,
) -> Vec<Finding> {
    let spec = &settings.root.spec;
    let mut findings = Vec::new();
    if !budgets.is_empty() {
        findings.extend(ledger(&settings.ledger));
    }
    let path = audit_path(settings);
    findings.extend(
        path.and_then(|path| unwritable("audit log", &path))
            .map(|audit| {
                // It serves all the same, and keeps events until it can write them.
                match spec.audit.on_failure {
                    OnAuditFailure::Continue => audit.of(State::Warning),
                    OnAuditFailure::Refuse => audit,
                }
            }),
    );
    if let Err(error) = audit_signer(settings, sources).await {
        findings.push(failed("audit log", error));
    }
    let state = StateDir::locate(spec.state_dir.as_deref());
    findings.extend(unwritable("state directory", &state.file("admin.token")));
    if let AccessLogSpec::File(path) = &spec.access_log {
        findings.extend(unwritable("access log", path));
    }
    for (part, file, source) in [
        ("admin token", "admin.token", &spec.admin.token),
        ("placeholder key", "placeholder.key", &spec.placeholders.key),
    ] {
        if let Err(error) = own_secret(settings, sources, file, source.as_ref()).await {
            findings.push(failed(part, error));
        }
    }
    findings
}

/// One of another program, or of a later version. One that is in use is its proxy's.
fn ledger(path: &Path) -> Option<Finding> {
    let foreign = match path.exists() {
        true => read_only(path).err(),
        false => None,
    };
    let foreign = foreign.filter(|error| error.cure() == Cure::Change);
    match foreign {
        Some(error) => Some(finding("ledger", State::Failed, error.to_string(), None)),
        None => unwritable("ledger", path),
    }
}

async fn own_secret(
    settings: &Settings,
    sources: &SourceContext,
    file: &str,
    source: Option<&SourceSpec>,
) -> Result<(), StartError> {
    match source {
        Some(source) => fetch(file, source, sources).await.map(drop),
        // A start makes one where there is none.
        None => StateDir::locate(settings.root.spec.state_dir.as_deref())
            .existing_secret(file)
            .map(drop),
    }
}

/// A file that cannot be written, or made: it has its lock or its successor beside it.
fn unwritable(part: &'static str, path: &Path) -> Option<Finding> {
    // A relative path has the present directory above it.
    let mut above = path.ancestors().skip(1).map(|above| match above {
        above if above.as_os_str().is_empty() => Path::new("."),
        above => above,
    });
    let directory = above.find(|above| above.exists()).map(|above| {
        let is_other = (!above.is_dir()).then_some(Errno::NOTDIR);
        (above, is_other)
    });
    let own = path.exists().then(|| {
        let is_other = path.is_dir().then_some(Errno::ISDIR);
        (path, is_other)
    });
    let refused = |(at, is_other): (_, Option<Errno>)| {
        let refused = is_other.or_else(|| access(at, Access::WRITE_OK).err());
        Some((at, refused?))
    };
    let wrong = directory.into_iter().chain(own).find_map(refused);
    let Some((at, error)) = wrong else {
        return full(part, path, directory?.0);
    };
    let message = format!(
        "{} cannot be written: {}: {error}",
        path.display(),
        at.display()
    );
    let help = "name a path that this user can write".to_owned();
    Some(finding(part, State::Failed, message, Some(help)))
}

/// A disk, or a quota, that has no room: nothing but writing tells.
fn full(part: &'static str, path: &Path, directory: &Path) -> Option<Finding> {
    let real = path.canonicalize().ok();
    if real.as_ref().is_some_and(|real| !real.is_file()) {
        return None;
    }
    // A link leads to another disk.
    let directory = real.as_deref().and_then(Path::parent).unwrap_or(directory);
    let error = probe(directory).err().filter(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    })?;
    let message = format!(
        "{} cannot be written: {}: {error}",
        path.display(),
        directory.display()
    );
    let help = "make room there, or name a path on another disk".to_owned();
    Some(finding(part, State::Failed, message, Some(help)))
}

/// Writes as much as a new ledger, and takes it back.
fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".tollgate-check-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    let written = file.write_all(&[0; PROBE]).and_then(|()| file.sync_data());
    std::fs::remove_file(&path).and(written)
}

fn failed(part: &'static str, error: StartError) -> Finding {
    let what = error.to_string();
    let help = match error {
        StartError::Setting { help, .. } => help,
        StartError::Temporary { help, .. } => Some(help),
        StartError::Config(_) => None,
    };
    finding(part, State::Failed, what, help)
}
