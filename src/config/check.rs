//! Owns the checks across documents: names that are taken twice, and rules and credentials that do
//! not fit together.

use std::collections::HashMap;

use super::bundle::{Bundle, Document};
use super::credential::EgressCredentialSpec;
use super::documents::Named;
use super::error::ConfigError;
use super::located::Located;
use super::policy::EgressPolicySpec;
use super::reach::first_beyond;
use super::resolve::unknown_credential;
use super::source::{SourceSpec, StoreSpec};
use super::spot;

/// Documents of one kind with a name that another has before them, each once.
pub(super) fn check_names<S>(kind: &str, documents: &[Named<S>], errors: &mut Vec<ConfigError>) {
    let mut firsts: HashMap<&str, &Named<S>> = HashMap::new();
    for named in documents {
        let name = &named.document.name;
        let Some(first) = firsts.get(&**name) else {
            firsts.insert(name, named);
            continue;
        };
        let at = &first.name_at;
        errors.push(
            ConfigError::new("TG0209", format!("{kind} `{name}` is defined twice"))
                .at(named.name_at.clone())
                .label(format!(
                    "first at {}:{}:{}",
                    at.file.name, at.line, at.column
                ))
                .help("rename or remove one of the two"),
        );
    }
}

/// Every credential that a rule names must be there, and may go to every host of that rule.
pub(super) fn check_references(bundle: &Bundle, errors: &mut Vec<ConfigError>) {
    let names: Vec<&str> = bundle.credentials.iter().map(|c| &*c.name).collect();
    for policy in &bundle.policies {
        for rule in &policy.spec.egress {
            for name in &rule.credentials {
                let Some(credential) = bundle.credentials.iter().find(|c| c.name == **name) else {
                    errors.push(unknown_credential(name, &policy.file, &names));
                    continue;
                };
                if let Some(host) = first_beyond(&rule.hosts, &credential.spec.hosts) {
                    errors.push(beyond_reach(policy, credential, host, name));
                }
            }
        }
    }
}

/// One place keeps one grant: two owners would overwrite each other's tokens.
pub(super) fn check_stores(bundle: &Bundle, errors: &mut Vec<ConfigError>) {
    let mut seen: Vec<(&str, &StoreSpec)> = Vec::new();
    for credential in &bundle.credentials {
        let source = credential.spec.source.as_ref().map(|source| &source.value);
        let Some(SourceSpec::Oauth(oauth)) = source else {
            continue;
        };
        let Some(store) = &oauth.store else {
            continue;
        };
        if let Some((first, _)) = seen.iter().find(|(_, other)| same_place(other, store)) {
            let message = format!(
                "the credentials `{first}` and `{}` keep their grants in one place",
                credential.name
            );
            let error = ConfigError::new("TG0313", message)
                .help("give each a file, a Secret or a key of its own");
            errors.push(spot::at(error, &credential.file, store));
        }
        seen.push((&credential.name, store));
    }
}

fn same_place(one: &StoreSpec, other: &StoreSpec) -> bool {
    match (one, other) {
        (StoreSpec::File { path: a, .. }, StoreSpec::File { path: b, .. }) => a == b,
        (StoreSpec::KubernetesSecret(a), StoreSpec::KubernetesSecret(b)) => {
            (&a.name, &a.namespace, a.key()) == (&b.name, &b.namespace, b.key())
        }
        _ => false,
    }
}

fn beyond_reach(
    policy: &Document<EgressPolicySpec>,
    credential: &Document<EgressCredentialSpec>,
    host: &str,
    name: &Located<String>,
) -> ConfigError {
    let error = ConfigError::new(
        "TG0312",
        format!("credential `{}` may not go to `{host}`", **name),
    );
    // Nobody can mend a preset: a document that stands in for its credential is what is wrong.
    if policy.builtin {
        let error = error.help(format!(
            "{} sends it there: add `{host}` to `hosts`, or give this credential another name",
            policy.file.name
        ));
        return match credential.spec.hosts.first() {
            Some(first) => spot::at(error, &credential.file, first),
            None => spot::at_document(error, credential),
        };
    }
    let error = error.help(format!(
        "add `{host}` to the credential's `hosts`, or write a rule of its own for `{host}`"
    ));
    spot::at(error, &policy.file, name)
}
