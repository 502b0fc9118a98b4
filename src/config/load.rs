//! Owns reading documents from files and directories: what is there is read, resolved and checked,
//! and all that is wrong with it is reported at once.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle::Bundle;
use super::check::{check_names, check_references, check_stores};
use super::check_budget::check_budget;
use super::check_credential::check_credential;
use super::check_limits::check_limits;
use super::check_policy::check_policy;
use super::check_source::source_error;
use super::documents::{Author, Found, Named, Wanted, read};
use super::error::{ConfigError, Place, SourceFile};
use super::literal::{self, shown};
use super::located::Located;
use super::paths::{anchor_config, anchor_credential, anchor_policy, directory_of};
use super::presets;
use super::resolve::{resolve, unknown_preset};
use super::root::TollgateConfigSpec;
use super::spot;

/// Far beyond what anybody writes, far below what would hurt.
const MAX_FILE: u64 = 1 << 20;

/// The `TollgateConfig` of a process.
#[derive(Debug, Clone)]
pub struct RootDocument {
    /// `metadata.name`.
    pub name: String,
    /// The file it stands in.
    pub file: Arc<SourceFile>,
    /// The directory that its relative paths start from; the paths in `spec` have it in front.
    pub dir: PathBuf,
    /// What was written.
    pub spec: TollgateConfigSpec,
}

/// Reads the one `TollgateConfig` in a file. Policies, credentials and budgets beside it are for
/// [`load_bundle`].
pub fn load_config(path: &Path) -> Result<RootDocument, Vec<ConfigError>> {
    let text = read_text(path).map_err(|error| vec![error])?;
    let mut found = read(
        &path.display().to_string(),
        &text,
        Author::User,
        Wanted::Config,
    );
    let mut errors = std::mem::take(&mut found.errors);
    check_names("TollgateConfig", &found.configs, &mut errors);
    let mut configs = found.configs.into_iter();
    let Some(Named {
        mut document,
        name_at,
    }) = configs.next()
    else {
        if errors.is_empty() {
            errors.push(
                ConfigError::new(
                    "TG0211",
                    format!("{} holds no TollgateConfig", path.display()),
                )
                .help("begin one with `kind: TollgateConfig`"),
            );
        }
        return Err(errors);
    };
    let twice = configs.filter(|other| other.document.name != document.name);
    errors.extend(twice.map(|other| {
        ConfigError::new("TG0212", "a process has one TollgateConfig")
            .at(other.name_at)
            .label(format!("the first is on line {}", name_at.line))
            .help("put both into one document")
    }));
    check_config(&document.spec, &document.file, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let dir = directory_of(path);
    anchor_config(&mut document.spec, &dir);
    Ok(RootDocument {
        name: document.name,
        file: document.file,
        dir,
        spec: document.spec,
    })
}

fn check_config(spec: &TollgateConfigSpec, file: &Arc<SourceFile>, errors: &mut Vec<ConfigError>) {
    for preset in &spec.presets {
        if presets::source(preset).is_none() {
            errors.push(unknown_preset(preset, Some(file)));
        }
    }
    for (what, source) in [
        ("`spec.admin.token`", &spec.admin.token),
        ("`spec.placeholders.key`", &spec.placeholders.key),
        ("`spec.audit.signingKey`", &spec.audit.signing_key),
    ] {
        errors.extend(
            source
                .as_ref()
                .and_then(|source| source_error(what, source)),
        );
    }
    check_limits(&spec.limits, file, errors);
    for agent in &spec.identity.agents {
        let what = format!("the token of agent `{}`", shown(&agent.name));
        if let Some(error) = source_error(&what, &agent.token) {
            errors.push(spot::at(error, file, &agent.name));
        }
    }
}

/// Reads policies, credentials and budgets from files and directories, and adds `presets` for all agents.
///
/// Of a directory, every `*.yaml` and `*.yml` is read in the order of names; directories below it and
/// hidden entries (Kubernetes' `..data` among them) are not. `TollgateConfig`s are passed over.
pub fn load_bundle(
    paths: &[PathBuf],
    presets: &[Located<String>],
) -> Result<Bundle, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut policies = Vec::new();
    let mut credentials = Vec::new();
    let mut budgets = Vec::new();
    for path in files(paths, &mut errors) {
        let Some(found) = read_resources(&path, &mut errors) else {
            continue;
        };
        policies.extend(found.policies);
        credentials.extend(found.credentials);
        budgets.extend(found.budgets);
    }
    check_names("EgressPolicy", &policies, &mut errors);
    check_names("EgressCredential", &credentials, &mut errors);
    check_names("EgressBudget", &budgets, &mut errors);
    // A document that could not be read must not make its name unknown in others.
    let complete = errors.is_empty();
    let written = Bundle {
        policies: policies.into_iter().map(|p| p.document).collect(),
        credentials: credentials.into_iter().map(|c| c.document).collect(),
        budgets: budgets.into_iter().map(|b| b.document).collect(),
    };
    let mut resolution_errors = Vec::new();
    let bundle = resolve(written, presets, &mut resolution_errors);
    if !complete {
        resolution_errors.retain(|error| !depends_on_other_documents(error));
    }
    errors.extend(resolution_errors);
    for policy in &bundle.policies {
        check_policy(policy, &mut errors);
    }
    for credential in &bundle.credentials {
        check_credential(credential, &mut errors);
    }
    for budget in &bundle.budgets {
        check_budget(budget, &mut errors);
    }
    if errors.is_empty() {
        check_references(&bundle, &mut errors);
        check_stores(&bundle, &mut errors);
    }
    match errors.is_empty() {
        true => Ok(bundle),
        false => Err(errors),
    }
}

/// Unknown or unfitting credentials.
fn depends_on_other_documents(error: &ConfigError) -> bool {
    matches!(error.code, "TG0311" | "TG0312")
}

fn read_resources(path: &Path, errors: &mut Vec<ConfigError>) -> Option<Found> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) => {
            errors.push(error);
            return None;
        }
    };
    let name = path.display().to_string();
    let mut found = read(&name, &text, Author::User, Wanted::Resources);
    errors.append(&mut found.errors);
    let dir = directory_of(path);
    for policy in &mut found.policies {
        anchor_policy(&mut policy.document.spec, &dir);
    }
    for credential in &mut found.credentials {
        anchor_credential(&mut credential.document.spec, &dir);
    }
    Some(found)
}

/// The files behind `paths`, each once.
fn files(paths: &[PathBuf], errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => match directory(path) {
                Ok(more) => files.extend(more),
                Err(error) => errors.push(error),
            },
            // What cannot be read says so when it is read.
            _ => files.push(path.clone()),
        }
    }
    let mut seen = Vec::new();
    files.retain(|file| {
        let real = fs::canonicalize(file).unwrap_or_else(|_| file.clone());
        let new = !seen.contains(&real);
        seen.push(real);
        new
    });
    files
}

fn directory(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| is_document(file))
        .collect();
    files.sort();
    match files.is_empty() {
        true => Err(
            ConfigError::new("TG0106", format!("{} holds no document", path.display())).help(
                "put `*.yaml` files into it; hidden files and directories in it are not read",
            ),
        ),
        false => Ok(files),
    }
}

fn is_document(file: &Path) -> bool {
    let hidden = file
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = file.extension().is_some_and(|e| e == "yaml" || e == "yml");
    // A dangling link is one that somebody meant to be read.
    !hidden && yaml && !file.is_dir()
}

pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(
            ConfigError::new("TG0104", format!("{} is larger than 1 MiB", path.display()))
                .help("put its documents into several files of one directory"),
        );
    }
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // YAML takes all three for a line's end (YAML 1.2.2, section 5.4); below there is only one.
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    let name = path.display();
    match error.kind() {
        ErrorKind::NotFound => ConfigError::new("TG0101", format!("{name} does not exist"))
            .help("check the path; relative ones in a file start from that file's directory"),
        ErrorKind::PermissionDenied => {
            ConfigError::new("TG0102", format!("{name} may not be read by this user"))
                .help("change its owner or mode, or run as another user")
        }
        _ => ConfigError::new("TG0102", format!("{name} cannot be read: {error}")),
    }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> ConfigError {
    let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let before = String::from_utf8_lossy(good);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let text = String::from_utf8_lossy(error.as_bytes());
    let place = Place {
        file: Arc::new(SourceFile {
            name: path.display().to_string(),
            text: literal::cover(&text, &[]),
        }),
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
        length: 1,
    };
    ConfigError::new("TG0103", format!("{} is not UTF-8", path.display()))
        .at(place)
        .label("not a character")
        .help("save the file as UTF-8")
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
