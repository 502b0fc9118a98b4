//! Owns presets in documents: their rules take the place of `preset:`, their credentials fill in what
//! a document leaves out, and what a rule needs and nobody wrote is added.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bundle::{Bundle, Document};
use super::credential::{EgressCredentialSpec, PlaceholderSpec};
use super::error::{ConfigError, SourceFile};
use super::literal::shown;
use super::located::Located;
use super::policy::{
    Action, AmbiguousPaths, EgressPolicySpec, EgressRuleSpec, SniMode, TlsMode, TraceContextMode,
    UnknownCodings,
};
use super::presets;
use super::reach::first_beyond;
use super::spot;
use super::suggest::did_you_mean;

type Policy = Document<EgressPolicySpec>;
type Credential = Document<EgressCredentialSpec>;

/// What was written, with every preset in it, and those named beside the documents, resolved.
pub(super) fn resolve(
    written: Bundle,
    presets: &[Located<String>],
    errors: &mut Vec<ConfigError>,
) -> Bundle {
    let mut resolver = Resolver {
        wanted: BTreeMap::new(),
        errors,
    };
    let own_policies: Vec<String> = written.policies.iter().map(|p| p.name.clone()).collect();
    let mut credentials: Vec<Credential> = written
        .credentials
        .into_iter()
        .map(|credential| resolver.inherit(credential))
        .collect();
    let mut policies = Vec::new();
    for policy in written.policies {
        policies.extend(resolver.expand(policy, &credentials));
    }
    for (index, name) in presets.iter().enumerate() {
        let again = presets[..index].iter().any(|other| **other == **name);
        if let (false, Some(preset)) = (again, resolver.load(name, None)) {
            let replaced = |policy: &Policy| own_policies.contains(&policy.name);
            policies.extend(preset.policies.into_iter().filter(|p| !replaced(p)));
            resolver.want(preset.credentials, |_| true);
        }
    }
    let mut added = resolver.wanted;
    for credential in &credentials {
        added.remove(&credential.name);
    }
    credentials.extend(added.into_values());
    Bundle {
        policies,
        credentials,
        budgets: written.budgets,
    }
}

/// What is said about a name that no preset has. Without a file it came from the command line.
pub(super) fn unknown_preset(
    name: &Located<String>,
    file: Option<&Arc<SourceFile>>,
) -> ConfigError {
    let names = presets::names();
    let mut error = ConfigError::new("TG0301", format!("unknown preset `{}`", shown(name)))
        .help(format!("presets are {}", names.join(", ")));
    if let Some(guess) = did_you_mean(name, names) {
        error = error.label(guess);
    }
    match file {
        Some(file) => spot::at(error, file, name),
        None => error,
    }
}

/// The documents of one preset.
struct Preset {
    policies: Vec<Policy>,
    credentials: Vec<Credential>,
}

struct Resolver<'a> {
    /// Built-in credentials that something needs. Presets that share a name share the document.
    wanted: BTreeMap<String, Credential>,
    errors: &'a mut Vec<ConfigError>,
}

impl Resolver<'_> {
    fn load(&mut self, name: &Located<String>, file: Option<&Arc<SourceFile>>) -> Option<Preset> {
        let Some(found) = presets::documents(name) else {
            self.errors.push(unknown_preset(name, file));
            return None;
        };
        self.errors.extend(found.errors);
        Some(Preset {
            policies: found.policies.into_iter().map(|p| p.document).collect(),
            credentials: found.credentials.into_iter().map(|c| c.document).collect(),
        })
    }

    fn want(&mut self, credentials: Vec<Credential>, needed: impl Fn(&str) -> bool) {
        for credential in credentials.into_iter().filter(|c| needed(&c.name)) {
            self.wanted
                .entry(credential.name.clone())
                .or_insert(credential);
        }
    }

    /// Fills in what a credential leaves to its preset; what is written wins.
    fn inherit(&mut self, mut credential: Credential) -> Credential {
        let Some(name) = credential.spec.preset.take() else {
            return credential;
        };
        let Some(preset) = self.load(&name, Some(&credential.file)) else {
            return credential;
        };
        let names: Vec<&str> = preset.credentials.iter().map(|c| &*c.name).collect();
        let only = (names.len() == 1).then_some(0);
        let of = |wanted: &str| names.iter().position(|name| *name == wanted);
        let Some(index) = of(&credential.name).or_else(|| of(&name)).or(only) else {
            let error = ConfigError::new(
                "TG0329",
                format!("preset `{}` has no credential `{}`", *name, credential.name),
            )
            .help(match names.as_slice() {
                [] => "name its hosts and placements here instead".to_owned(),
                names => format!("name this document like one of {}", names.join(", ")),
            });
            self.errors.push(spot::at(error, &credential.file, &name));
            return credential;
        };
        fill_in(&mut credential.spec, &preset.credentials[index].spec, &name);
        credential
    }

    /// A policy as several documents: its own rules, and those of each preset it names. The latter
    /// keep the preset as their file, and have the policy's name, mode and agents.
    fn expand(&mut self, mut policy: Policy, own: &[Credential]) -> Vec<Policy> {
        let rules = std::mem::take(&mut policy.spec.egress);
        let (by_preset, plain): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| rule.preset.is_some());
        policy.spec.egress = plain;
        let expanded: Vec<Policy> = by_preset
            .iter()
            .flat_map(|rule| self.expand_rule(&policy, rule, own))
            .collect();
        std::iter::once(policy).chain(expanded).collect()
    }

    fn expand_rule(
        &mut self,
        policy: &Policy,
        rule: &Located<EgressRuleSpec>,
        own: &[Credential],
    ) -> Vec<Policy> {
        if holds_more_than_credentials(rule) {
            let error = ConfigError::new(
                "TG0302",
                "a rule with `preset` says more than `credentials`",
            )
            .help("a preset brings its own hosts and limits; write another rule for the rest");
            self.errors.push(spot::at(error, &policy.file, rule));
        }
        let Some(preset) = rule
            .preset
            .as_ref()
            .and_then(|name| self.load(name, Some(&policy.file)))
        else {
            return Vec::new();
        };
        let Preset {
            mut policies,
            credentials,
        } = preset;
        if !rule.credentials.is_empty() {
            self.replace_credentials(policy, rule, own, &mut policies, &credentials);
        }
        let named: Vec<String> = policies
            .iter()
            .flat_map(|policy| &policy.spec.egress)
            .flat_map(|rule| rule.credentials.iter().map(|name| name.value.clone()))
            .collect();
        self.want(credentials, |name| named.iter().any(|n| n == name));
        for expanded in &mut policies {
            expanded.name.clone_from(&policy.name);
            expanded.namespace.clone_from(&policy.namespace);
            expanded.spec.mode = policy.spec.mode;
            expanded.spec.agents = policy.spec.agents.clone();
        }
        policies
    }

    /// Each rule of the preset that names credentials gets those of the user's that reach its hosts.
    fn replace_credentials(
        &mut self,
        policy: &Policy,
        rule: &Located<EgressRuleSpec>,
        own: &[Credential],
        expanded: &mut [Policy],
        builtin: &[Credential],
    ) {
        let known = || own.iter().chain(builtin);
        let mut rules: Vec<&mut Located<EgressRuleSpec>> = expanded
            .iter_mut()
            .flat_map(|policy| &mut policy.spec.egress)
            .filter(|rule| !rule.credentials.is_empty())
            .collect();
        for rule in &mut rules {
            rule.value.credentials.clear();
        }
        for name in &rule.credentials {
            let Some(credential) = known().find(|credential| credential.name == **name) else {
                let names: Vec<&str> = known().map(|credential| &*credential.name).collect();
                self.errors
                    .push(unknown_credential(name, &policy.file, &names));
                continue;
            };
            let mut used = false;
            for rule in &mut rules {
                if first_beyond(&rule.hosts, &credential.spec.hosts).is_none() {
                    used = true;
                    let here = Located {
                        value: name.value.clone(),
                        line: rule.line,
                        column: rule.column,
                    };
                    rule.value.credentials.push(here);
                }
            }
            if !used {
                let error = ConfigError::new(
                    "TG0312",
                    format!("credential `{}` reaches no host of this preset", **name),
                )
                .help("add the preset's hosts to the credential, or name another");
                self.errors.push(spot::at(error, &policy.file, name));
            }
        }
    }
}

/// What is said about a name that no credential has.
pub(super) fn unknown_credential(
    name: &Located<String>,
    file: &Arc<SourceFile>,
    known: &[&str],
) -> ConfigError {
    let mut error = ConfigError::new("TG0311", format!("unknown credential `{}`", shown(name)))
        .help(match known {
            [] => "write an EgressCredential of this name".to_owned(),
            known => format!("credentials are {}", known.join(", ")),
        });
    if let Some(guess) = did_you_mean(name, known.iter().copied()) {
        error = error.label(guess);
    }
    spot::at(error, file, name)
}

fn holds_more_than_credentials(rule: &EgressRuleSpec) -> bool {
    // Every field by name: a new one must be thought about here.
    let EgressRuleSpec {
        preset: _,
        credentials: _,
        hosts,
        ports,
        action,
        tls,
        http,
        ambiguous_paths,
        unknown_codings,
        route,
        allow_addresses,
        sni,
        api,
        trace_context,
        upstream,
        timeouts,
    } = rule;
    !hosts.is_empty()
        || !ports.is_empty()
        || *action != Action::Allow
        || *tls != TlsMode::Auto
        || !http.is_empty()
        || *ambiguous_paths != AmbiguousPaths::Refuse
        || *unknown_codings != UnknownCodings::Refuse
        || route.is_some()
        || !allow_addresses.is_empty()
        || *sni != SniMode::Required
        || api.is_some()
        || *trace_context != TraceContextMode::Drop
        || upstream.is_some()
        || timeouts.is_some()
}

/// Inherited values stand where the preset is named: that line of the user's file made them so.
fn fill_in(own: &mut EgressCredentialSpec, preset: &EgressCredentialSpec, at: &Located<String>) {
    inherit_list(&mut own.hosts, &preset.hosts, at);
    inherit_list(&mut own.ports, &preset.ports, at);
    inherit_list(&mut own.placements, &preset.placements, at);
    inherit_list(&mut own.request_headers, &preset.request_headers, at);
    own.mode = own.mode.or(preset.mode);
    own.on_foreign = own.on_foreign.or(preset.on_foreign);
    let Some(inherited) = &preset.placeholder else {
        return;
    };
    let placeholder = own.placeholder.get_or_insert_with(PlaceholderSpec::default);
    if placeholder.value.is_none() && placeholder.shape.is_none() {
        placeholder.value = inherited.value.as_ref().map(|value| moved(value, at));
        placeholder.shape = inherited.shape.as_ref().map(|shape| moved(shape, at));
    }
    if placeholder.refresh_shape.is_none() {
        let shape = inherited.refresh_shape.as_ref();
        placeholder.refresh_shape = shape.map(|shape| moved(shape, at));
    }
    if placeholder.env.is_empty() {
        placeholder.env.clone_from(&inherited.env);
    }
}

fn inherit_list<T: Clone>(own: &mut Vec<Located<T>>, preset: &[Located<T>], at: &Located<String>) {
    if own.is_empty() {
        own.extend(preset.iter().map(|value| moved(value, at)));
    }
}

fn moved<T: Clone>(value: &Located<T>, at: &Located<String>) -> Located<T> {
    Located {
        value: value.value.clone(),
        line: at.line,
        column: at.column,
    }
}
