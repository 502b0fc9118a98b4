//! Owns which hosts' calls budgets count, as far as policy must know: what is counted is read, and never
//! passes through a tunnel.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::budget::EgressBudgetSpec;
use crate::config::bundle::{Bundle, Document};
use crate::config::policy::{Mode, TlsMode};
use crate::types::agent::Agent;
use crate::types::agent_index::AgentIndex;
use crate::types::host::{Host, HostPattern};
use crate::types::model_api::ModelApi;

use super::rule::Rule;
use super::scope::{Scope, Selector};

/// What budgets count.
#[derive(Debug, Default)]
pub(super) struct Counted {
    groups: Vec<Group>,
    /// The group of each budget, and its name.
    agents: AgentIndex<(usize, Arc<str>)>,
    signer: Signer,
}

/// Budgets that count the same hosts.
#[derive(Debug)]
struct Group {
    /// Empty for the hosts of model APIs.
    hosts: Vec<HostPattern>,
    scopes: Vec<Scope>,
}

/// Which names the certificate authority may sign; any while nobody said.
#[derive(Clone, Default)]
struct Signer(Option<Arc<dyn Fn(&Host) -> bool + Send + Sync>>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.0.is_some() { "limited" } else { "any" };
        write!(f, "Signer({said})")
    }
}

impl Counted {
    /// What the budgets of `bundle` count. What is wrong with their hosts and names is said elsewhere.
    pub(super) fn of(bundle: &Bundle) -> Self {
        let mut counted = Self::default();
        let mut known: BTreeMap<Vec<HostPattern>, usize> = BTreeMap::new();
        for budget in &bundle.budgets {
            let selector = &budget.spec.selector;
            let hosts = selector.hosts.iter();
            let mut hosts: Vec<_> = hosts.filter_map(|h| HostPattern::parse(h).ok()).collect();
            hosts.sort();
            hosts.dedup();
            let group = *known.entry(hosts).or_insert_with_key(|hosts| {
                counted.groups.push(Group {
                    hosts: hosts.clone(),
                    scopes: Vec::new(),
                });
                counted.groups.len() - 1
            });
            let name = name_of(budget);
            for agent in &selector.agents {
                counted.agents.file(agent, (group, name.clone()));
            }
            let selectors = selector.agents.iter();
            let selectors = selectors.filter_map(|agent| Selector::parse(agent).ok());
            let scope = match selector.agents.is_empty() {
                true => {
                    counted.agents.everyone((group, name));
                    Scope::everyone(Mode::Enforce)
                }
                false => Scope::of(selectors, Mode::Enforce),
            };
            counted.groups[group].scopes.push(scope);
        }
        counted
    }

    /// Whether there is no budget.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// A budget that counts this agent's calls to this host, if there is one.
    pub(super) fn by(
        &self,
        agent: &Agent,
        host: &Host,
        api: Option<ModelApi>,
    ) -> Option<&Arc<str>> {
        let mut budgets = self.agents.of(agent);
        let (_, name) = budgets.find(|(group, _)| self.groups[*group].counts(host, api))?;
        Some(name)
    }

    /// Whether a budget counts every call that this rule lets pass to these hosts, for some agent.
    pub(super) fn all_of(&self, rule: &Rule, pattern: &HostPattern) -> bool {
        let api = rule.api.or_else(|| known_api(pattern));
        let mut groups = self
            .groups
            .iter()
            .filter(|group| match group.hosts.is_empty() {
                true => api.is_some(),
                false => group.hosts.iter().any(|own| own.contains(pattern)),
            });
        groups.any(|group| group.meets(&rule.scope))
    }

    /// Whether the authority may sign this name.
    pub(super) fn may_sign(&self, host: &Host) -> bool {
        self.signer.0.as_ref().is_none_or(|signs| signs(host))
    }

    pub(super) fn signed_by(&mut self, signs: impl Fn(&Host) -> bool + Send + Sync + 'static) {
        self.signer = Signer(Some(Arc::new(signs)));
    }

    /// Hosts that are counted and that only a wider rule, or a mode, lets agents reach.
    pub(super) fn beyond_rules(
        &self,
        scopes: &[Arc<Scope>],
        hosts: &[(&HostPattern, &[Arc<Rule>])],
    ) -> Vec<HostPattern> {
        let mut found = Vec::new();
        for group in &self.groups {
            let known = ModelApi::WELL_KNOWN.iter();
            let known = known.filter_map(|name| HostPattern::parse(name).ok());
            let counted: Vec<_> = match group.hosts.is_empty() {
                true => known.collect(),
                false => group.hosts.clone(),
            };
            let open = |scope: &Arc<Scope>| scope.mode != Mode::Enforce && group.meets(scope);
            let open = scopes.iter().any(open);
            let lets = |rule: &Arc<Rule>| {
                rule.allows() && rule.tls != TlsMode::Passthrough && group.meets(&rule.scope)
            };
            let reached = |pattern: &HostPattern| {
                let mut wider = hosts.iter().filter(|(wide, _)| wide.contains(pattern));
                wider.any(|(_, rules)| rules.iter().any(lets))
            };
            found.extend(
                counted
                    .into_iter()
                    .filter(|pattern| open || reached(pattern)),
            );
        }
        found
    }
}

impl Group {
    fn counts(&self, host: &Host, api: Option<ModelApi>) -> bool {
        match self.hosts.is_empty() {
            true => api.is_some(),
            false => self.hosts.iter().any(|pattern| pattern.matches(host)),
        }
    }

    /// Whether some agent is meant by one of its budgets and by `scope`.
    fn meets(&self, scope: &Scope) -> bool {
        self.scopes.iter().any(|own| own.overlaps(scope))
    }
}

fn name_of(budget: &Document<EgressBudgetSpec>) -> Arc<str> {
    match &budget.namespace {
        Some(namespace) => format!("{namespace}/{}", budget.name).into(),
        None => budget.name.as_str().into(),
    }
}

fn known_api(pattern: &HostPattern) -> Option<ModelApi> {
    match pattern {
        HostPattern::Exact(host) => ModelApi::of_host(host),
        HostPattern::Below(_) => None,
    }
}
