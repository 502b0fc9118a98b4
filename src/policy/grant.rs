//! Owns the check that a rule gives a credential only to hosts that the credential itself names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::bundle::{Bundle, Document};
use crate::config::credential::EgressCredentialSpec;
use crate::config::error::ConfigError;
use crate::config::located::Located;
use crate::config::policy::EgressPolicySpec;
use crate::types::host::HostPattern;

/// What each credential allows itself.
#[derive(Default)]
pub(super) struct Grants<'b> {
    by_name: BTreeMap<&'b str, Grant<'b>>,
}

struct Grant<'b> {
    name: Arc<str>,
    document: &'b Document<EgressCredentialSpec>,
    hosts: Vec<HostPattern>,
    ports: Vec<u16>,
}

impl<'b> Grants<'b> {
    /// The port that receives a credential which names none.
    const DEFAULT_PORT: u16 = 443;

    /// Reads the hosts and ports of every credential.
    pub(super) fn of(bundle: &'b Bundle, errors: &mut Vec<ConfigError>) -> Self {
        let mut by_name = BTreeMap::new();
        for document in &bundle.credentials {
            let mut hosts = Vec::new();
            for host in &document.spec.hosts {
                match HostPattern::parse(host) {
                    Ok(pattern) => hosts.push(pattern),
                    Err(error) => errors.push(
                        ConfigError::new("TG0502", error.to_string())
                            .at(document.place(host, host.len()))
                            .label("not a host pattern"),
                    ),
                }
            }
            let ports = document
                .spec
                .ports
                .iter()
                .map(|port| port.value)
                .collect::<Vec<_>>();
            let grant = Grant {
                name: document.name.as_str().into(),
                document,
                hosts,
                ports: match ports.is_empty() {
                    true => vec![Self::DEFAULT_PORT],
                    false => ports,
                },
            };
            by_name.entry(document.name.as_str()).or_insert(grant);
        }
        Self { by_name }
    }

    /// The shared names of the credentials a rule lists, each once.
    pub(super) fn names(&self, listed: &[Located<String>]) -> Arc<[Arc<str>]> {
        let mut names = Vec::new();
        for grant in listed
            .iter()
            .filter_map(|name| self.by_name.get(name.as_str()))
        {
            if !names.contains(&grant.name) {
                names.push(grant.name.clone());
            }
        }
        names.into()
    }

    /// Why a rule cannot give out a credential: nobody made it, or it may not go there.
    pub(super) fn check(
        &self,
        policy: &Document<EgressPolicySpec>,
        name: &Located<String>,
        hosts: &[HostPattern],
        ports: &[Located<u16>],
    ) -> Option<ConfigError> {
        let at = policy.place(name, name.len());
        let Some(grant) = self.by_name.get(name.as_str()) else {
            let unknown =
                ConfigError::new("TG0505", format!("no credential is named `{}`", name.value))
                    .at(at);
            return Some(match self.similar(name) {
                Some(similar) => unknown.label(format!("did you mean `{similar}`?")),
                None => unknown.help("add an EgressCredential with this name"),
            });
        };
        let place = format!("{}:{}", grant.document.file.name, grant.document.line);
        if let Some(host) = hosts.iter().find(|host| !grant.covers(host)) {
            return Some(
                ConfigError::new("TG0506", format!("the credential `{}` may not go to {host}", name.value))
                    .at(at)
                    .label("this rule is for more hosts than the credential")
                    .help(format!("add {host} to `hosts` of the credential at {place}, or give the host a rule of its own")),
            );
        }
        // Nothing is injected on cleartext, so port 80 stands in many rules without a meaning for credentials.
        let port = ports
            .iter()
            .find(|port| port.value != 80 && !grant.ports.contains(&port.value))?;
        Some(
            ConfigError::new(
                "TG0506",
                format!(
                    "the credential `{}` may not go to port {}",
                    name.value, port.value
                ),
            )
            .at(policy.place(port, port.value.to_string().len()))
            .help(format!(
                "add {} to `ports` of the credential at {place}",
                port.value
            )),
        )
    }

    fn similar(&self, name: &str) -> Option<&str> {
        let scored = self
            .by_name
            .keys()
            .map(|known| (strsim::jaro_winkler(known, name), *known));
        let (score, known) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (score > 0.8).then_some(known)
    }
}

impl Grant<'_> {
    /// Whether every host that `wanted` names may receive the credential.
    fn covers(&self, wanted: &HostPattern) -> bool {
        self.hosts.iter().any(|own| match (own, wanted) {
            (own, HostPattern::Exact(host)) => own.matches(host),
            (HostPattern::Below(own), HostPattern::Below(name)) => {
                name == own
                    || name
                        .strip_suffix(&**own)
                        .is_some_and(|head| head.ends_with('.'))
            }
            (HostPattern::Exact(_), HostPattern::Below(_)) => false,
        })
    }
}
