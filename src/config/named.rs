//! Owns the question which files and programs documents name.

use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::root::{AccessLogSpec, RootsSpec, TollgateConfigSpec};
use super::source::{OAuthSpec, SourceSpec, StoreSpec};

/// What documents name, for whoever must see to it that it can be reached.
#[derive(Debug, Default)]
pub struct NamedFiles<'a> {
    /// Files that are read.
    pub read: Vec<NamedFile<'a>>,
    /// Files that are made and replaced beside others.
    pub written: Vec<NamedFile<'a>>,
    /// Programs that are started.
    pub programs: Vec<NamedProgram<'a>>,
    /// Whether a store lies in a Kubernetes cluster.
    pub cluster: bool,
}

/// A file, and what it is for.
#[derive(Debug, Clone, Copy)]
pub struct NamedFile<'a> {
    /// The document and the part of it, as a person would say it.
    pub what: What<'a>,
    /// Where it is.
    pub path: &'a Path,
}

/// A helper program.
#[derive(Debug, Clone, Copy)]
pub struct NamedProgram<'a> {
    /// Who names it.
    pub what: What<'a>,
    /// The first word of its command.
    pub program: &'a str,
}

/// Who names something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// A field of the process's own settings.
    Setting(&'static str),
    /// A credential.
    Credential(&'a str),
    /// A policy.
    Policy(&'a str),
}

impl std::fmt::Display for What<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setting(field) => write!(f, "spec.{field}"),
            Self::Credential(name) => write!(f, "the credential `{name}`"),
            Self::Policy(name) => write!(f, "the policy `{name}`"),
        }
    }
}

impl<'a> NamedFiles<'a> {
    /// Of the process's own settings. Its documents and directories are not among them.
    pub fn of_config(spec: &'a TollgateConfigSpec) -> Self {
        let mut named = Self::default();
        let otlp = &spec.telemetry.otlp;
        for (field, path) in [
            ("prices.file", &spec.prices.file),
            ("telemetry.otlp.caFile", &otlp.ca_file),
            (
                "telemetry.otlp.clientCertificateFile",
                &otlp.client_certificate_file,
            ),
            ("telemetry.otlp.clientKeyFile", &otlp.client_key_file),
        ] {
            named.reads(What::Setting(field), path);
        }
        for (field, path) in [
            ("ca.certificateFile", &spec.ca.certificate_file),
            ("ca.keyFile", &spec.ca.key_file),
            ("audit.file", &spec.audit.file),
            ("ledger.file", &spec.ledger.file),
        ] {
            named.writes(What::Setting(field), path.as_deref());
        }
        if let RootsSpec::File(path) = &spec.upstream.roots {
            let what = What::Setting("upstream.roots.file");
            named.read.push(NamedFile { what, path });
        }
        if let AccessLogSpec::File(path) = &spec.access_log {
            named.writes(What::Setting("accessLog.file"), Some(path));
        }
        let own = [
            ("admin.token", &spec.admin.token),
            ("placeholders.key", &spec.placeholders.key),
            ("audit.signingKey", &spec.audit.signing_key),
        ];
        for (field, source) in own {
            named.sources(What::Setting(field), source.iter());
        }
        let agents = spec.identity.agents.iter().map(|agent| &agent.token);
        named.sources(What::Setting("identity.agents"), agents);
        let headers = otlp.headers.values();
        named.sources(What::Setting("telemetry.otlp.headers"), headers);
        named
    }

    /// Adds those of policies and credentials.
    #[must_use]
    pub fn and_of(mut self, bundle: &'a Bundle) -> Self {
        for policy in &bundle.policies {
            let what = What::Policy(&policy.name);
            let rules = policy.spec.egress.iter();
            for upstream in rules.filter_map(|rule| rule.value.upstream.as_ref()) {
                self.reads(what, &upstream.ca_file);
                self.reads(what, &upstream.client_certificate_file);
                self.reads(what, &upstream.client_key_file);
            }
        }
        for credential in &bundle.credentials {
            let what = What::Credential(&credential.name);
            let source = credential.spec.source.as_ref().map(|source| &source.value);
            self.sources(what, source.into_iter());
        }
        self
    }

    fn reads(&mut self, what: What<'a>, path: &'a Option<PathBuf>) {
        self.read
            .extend(path.as_deref().map(|path| NamedFile { what, path }));
    }

    fn writes(&mut self, what: What<'a>, path: Option<&'a Path>) {
        self.written
            .extend(path.map(|path| NamedFile { what, path }));
    }

    fn sources(&mut self, what: What<'a>, sources: impl Iterator<Item = &'a SourceSpec>) {
        for source in sources.flat_map(SourceSpec::with_nested) {
            match source {
                SourceSpec::Env { .. } => {}
                SourceSpec::File { path, .. } => self.read.push(NamedFile { what, path }),
                SourceSpec::Exec { command, .. } => {
                    let program = command.first().map_or("", String::as_str);
                    self.programs.push(NamedProgram { what, program });
                }
                SourceSpec::Oauth(oauth) => self.oauth(what, oauth),
            }
        }
    }

    fn oauth(&mut self, what: What<'a>, oauth: &'a OAuthSpec) {
        self.reads(what, &oauth.ca_file);
        match oauth.store.as_ref().map(|store| &store.value) {
            Some(StoreSpec::File { path, key_file }) => {
                self.writes(what, Some(path));
                self.reads(what, key_file);
            }
            Some(StoreSpec::KubernetesSecret(_)) => self.cluster = true,
            Some(StoreSpec::Memory {}) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::load_bundle;
    use super::super::yaml::parse;
    use super::*;

    #[test]
    fn every_file_and_program_of_the_documents_is_found() {
        let config: TollgateConfigSpec = parse(
            "{ca: {certificateFile: /w/1, keyFile: /w/2}, accessLog: {file: /w/3}, audit: {file: /w/4, \
             signingKey: {file: {path: /r/1}}}, ledger: {file: /w/5}, upstream: {roots: {file: /r/2}}, \
             prices: {file: /r/3}, admin: {token: {file: {path: /r/4}}}, \
             placeholders: {key: {exec: {command: [/p/1, -v]}}}, \
             identity: {agents: [{name: a, token: {file: {path: /r/5}}}]}, \
             telemetry: {otlp: {caFile: /r/6, clientCertificateFile: /r/7, clientKeyFile: /r/8, \
             headers: {x: {file: {path: /r/9}}}}}}",
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        let head = "apiVersion: tollgate.dev/v1alpha1\nkind: ";
        let text = format!(
            "---\n{head}EgressPolicy\nmetadata: {{name: p}}\nspec: {{egress: [{{hosts: [a.com], upstream: \
             {{caFile: /r/10, clientCertificateFile: /r/11, clientKeyFile: /r/12}}}}]}}\n\
             ---\n{head}EgressCredential\nmetadata: {{name: c}}\nspec:\n  hosts: [a.com]\n  placements: [{{bearer: {{}}}}]\n  \
             source:\n    oauth:\n      clientId: x\n      tokenEndpoint: https://a.com/t\n      caFile: /r/13\n      \
             seed: {{file: {{path: /r/14}}}}\n      clientSecret: {{exec: {{command: [p2]}}}}\n      \
             store: {{file: {{path: /w/6, keyFile: /r/15}}}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let bundle = load_bundle(&[file], &[]).unwrap();
        let named = NamedFiles::of_config(&config).and_of(&bundle);
        let all = |of: &[NamedFile<'_>], sign: &str| {
            let mut numbers: Vec<u32> = of
                .iter()
                .map(|n| n.path.to_str().unwrap().strip_prefix(sign).unwrap())
                .map(|n| n.parse().unwrap())
                .collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(all(&named.read, "/r/"), (1..=15).collect::<Vec<_>>());
        assert_eq!(all(&named.written, "/w/"), (1..=6).collect::<Vec<_>>());
        let programs: Vec<_> = named.programs.iter().map(|p| p.program).collect();
        assert_eq!(programs, ["/p/1", "p2"]);
        let said = named.programs[1].what.to_string();
        assert_eq!(said, "the credential `c`");
    }
}
