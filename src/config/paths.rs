//! Owns what a relative path in a document is relative to: the directory of its file.

use std::path::{Path, PathBuf};

use super::credential::EgressCredentialSpec;
use super::policy::EgressPolicySpec;
use super::root::{AccessLogSpec, RootsSpec, TollgateConfigSpec};
use super::source::{GrantSpec, OAuthSpec, SourceSpec, StoreSpec};

/// The directory that relative paths in `file` start from.
pub(super) fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn anchor_policy(spec: &mut EgressPolicySpec, dir: &Path) {
    for upstream in spec
        .egress
        .iter_mut()
        .filter_map(|rule| rule.value.upstream.as_mut())
    {
        for path in [
            &mut upstream.ca_file,
            &mut upstream.client_certificate_file,
            &mut upstream.client_key_file,
        ] {
            anchor_each(path, dir);
        }
    }
}

pub(super) fn anchor_credential(spec: &mut EgressCredentialSpec, dir: &Path) {
    if let Some(source) = &mut spec.source {
        anchor_source(&mut source.value, dir);
    }
}

pub(super) fn anchor_config(spec: &mut TollgateConfigSpec, dir: &Path) {
    for document in &mut spec.documents {
        anchor(&mut document.value, dir);
    }
    for path in [
        &mut spec.ca.certificate_file,
        &mut spec.ca.key_file,
        &mut spec.ca.ephemeral_dir,
        &mut spec.state_dir,
        &mut spec.audit.file,
        &mut spec.ledger.file,
        &mut spec.prices.file,
        &mut spec.telemetry.otlp.ca_file,
        &mut spec.telemetry.otlp.client_certificate_file,
        &mut spec.telemetry.otlp.client_key_file,
    ] {
        anchor_each(path, dir);
    }
    let besides = spec.hardening.read.iter_mut();
    for path in besides.chain(&mut spec.hardening.write) {
        anchor(path, dir);
    }
    if let RootsSpec::File(path) = &mut spec.upstream.roots {
        anchor(path, dir);
    }
    if let AccessLogSpec::File(path) = &mut spec.access_log {
        anchor(path, dir);
    }
    let own = spec
        .admin
        .token
        .iter_mut()
        .chain(&mut spec.placeholders.key)
        .chain(&mut spec.audit.signing_key);
    let agents = spec
        .identity
        .agents
        .iter_mut()
        .map(|agent| &mut agent.token);
    let collector = spec.telemetry.otlp.headers.values_mut();
    for source in own.chain(agents).chain(collector) {
        anchor_source(source, dir);
    }
}

fn anchor_source(source: &mut SourceSpec, dir: &Path) {
    match source {
        SourceSpec::Env { .. } => {}
        SourceSpec::File { path, .. } => anchor(path, dir),
        // A program without a slash is looked up in PATH, as execvp(3) does.
        SourceSpec::Exec { command, .. } => {
            if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
                let mut path = PathBuf::from(&*program);
                anchor(&mut path, dir);
                if let Some(text) = path.to_str() {
                    text.clone_into(program);
                }
            }
        }
        SourceSpec::Oauth(oauth) => anchor_oauth(oauth, dir),
    }
}

fn anchor_oauth(oauth: &mut OAuthSpec, dir: &Path) {
    anchor_each(&mut oauth.ca_file, dir);
    if let Some(StoreSpec::File { path, key_file }) =
        oauth.store.as_mut().map(|store| &mut store.value)
    {
        anchor(path, dir);
        anchor_each(key_file, dir);
    }
    let key = match &mut oauth.grant {
        GrantSpec::JwtBearer { key, .. } | GrantSpec::GithubApp { key, .. } => Some(key),
        GrantSpec::RefreshToken {} | GrantSpec::ClientCredentials {} => None,
    };
    for source in key
        .into_iter()
        .chain(&mut oauth.client_secret)
        .chain(&mut oauth.seed)
    {
        anchor_source(source, dir);
    }
}

fn anchor_each(path: &mut Option<PathBuf>, dir: &Path) {
    if let Some(path) = path {
        anchor(path, dir);
    }
}

fn anchor(path: &mut PathBuf, dir: &Path) {
    // An empty path stays one, and is refused as such.
    if path.is_relative() && !path.as_os_str().is_empty() {
        *path = dir.join(&*path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::parse;
    use super::*;

    #[test]
    fn relative_paths_start_from_the_directory_of_the_file() {
        let dir = directory_of(Path::new("/etc/tollgate/tollgate.yaml"));
        let mut spec: TollgateConfigSpec = parse(
            "{documents: [policies, /abs], ca: {keyFile: k}, accessLog: {file: log}, \
             upstream: {roots: {file: roots.pem}}, \
             prices: {file: prices.yaml}, hardening: {read: [later], write: [/cache]}, \
             telemetry: {otlp: {caFile: c.pem, headers: {x: {file: {path: h}}}}}, \
             admin: {token: {file: {path: t}}}, placeholders: {key: {exec: {command: [./k, -v]}}}}",
        )
        .unwrap();
        anchor_config(&mut spec, &dir);
        let documents: Vec<&Path> = spec.documents.iter().map(|d| d.value.as_path()).collect();
        assert_eq!(
            documents,
            [Path::new("/etc/tollgate/policies"), Path::new("/abs")]
        );
        assert_eq!(spec.ca.key_file, Some("/etc/tollgate/k".into()));
        assert_eq!(spec.prices.file, Some("/etc/tollgate/prices.yaml".into()));
        assert_eq!(spec.hardening.read, [Path::new("/etc/tollgate/later")]);
        assert_eq!(spec.hardening.write, [Path::new("/cache")]);
        let otlp = &spec.telemetry.otlp;
        assert_eq!(otlp.ca_file, Some("/etc/tollgate/c.pem".into()));
        assert!(matches!(&otlp.headers["x"], SourceSpec::File { path, .. }
            if path == Path::new("/etc/tollgate/h")));
        assert_eq!(
            spec.access_log,
            AccessLogSpec::File("/etc/tollgate/log".into())
        );
        assert_eq!(
            spec.upstream.roots,
            RootsSpec::File("/etc/tollgate/roots.pem".into())
        );
        assert!(
            matches!(&spec.admin.token, Some(SourceSpec::File { path, .. })
            if path == Path::new("/etc/tollgate/t"))
        );
        assert!(
            matches!(&spec.placeholders.key, Some(SourceSpec::Exec { command, .. })
            if command == &["/etc/tollgate/./k", "-v"])
        );
        assert_eq!(directory_of(Path::new("tollgate.yaml")), Path::new("."));
    }

    #[test]
    fn a_program_without_a_slash_is_left_to_path() {
        let mut spec: EgressCredentialSpec =
            parse("source: {exec: {command: [gh, auth, token]}}").unwrap();
        anchor_credential(&mut spec, Path::new("/etc"));
        assert!(
            matches!(&spec.source.unwrap().value, SourceSpec::Exec { command, .. }
            if command[0] == "gh")
        );
    }

    #[test]
    fn certificates_of_a_rule_are_found_beside_the_policy() {
        let mut spec: EgressPolicySpec =
            parse("egress: [{hosts: [a.com], upstream: {caFile: ca.pem}}]").unwrap();
        anchor_policy(&mut spec, Path::new("/p"));
        let upstream = spec.egress[0].upstream.clone().unwrap();
        assert_eq!(upstream.ca_file, Some("/p/ca.pem".into()));
    }
}
