//! Owns the decision: from an intent to a permit or a denial, by looking at the rules of one host only.

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use crate::config::policy::{
    AmbiguousPaths, Mode, SniMode, TlsMode, TraceContextMode, UnknownCodings,
};
use crate::types::agent::Agent;
use crate::types::host::{Authority, Host, HostPattern};
use crate::types::intent::{EgressIntent, RequestLine, Scheme};
use crate::types::model_api::ModelApi;

use super::counted::Counted;
use super::decision::{Denial, DenialReason, DialProfile, Permit, Treatment};
use super::reading::{Ambiguity, LenientReading};
use super::refusal::Refusal;
use super::rule::{Rank, Rule};
use super::scope::Scope;
use crate::types::map::HashMap;

/// All policies, compiled. Immutable; a reload makes a new one.
#[derive(Debug, Default)]
pub struct Engine {
    /// What budgets count.
    pub(super) counted: Counted,
    /// Whether some rule names the model API of its hosts.
    pub(super) names_apis: bool,
    pub(super) scopes: Vec<Arc<Scope>>,
    pub(super) exact: HashMap<Host, HostRules>,
    /// Keyed by the name that a wildcard stands in front of.
    pub(super) below: HashMap<Arc<str>, HostRules>,
    pub(super) routes: BTreeMap<Arc<str>, Route>,
    /// How hosts are dialled that no rule names.
    pub(super) default_dial: Arc<DialProfile>,
}

/// The rules of one host pattern, in the order they were written.
#[derive(Debug)]
pub(super) struct HostRules {
    pub(super) pattern: HostPattern,
    pub(super) rules: Vec<Arc<Rule>>,
}

/// A name on the base-URL door.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) authority: Authority,
    pub(super) scopes: Vec<Arc<Scope>>,
}

impl Engine {
    /// Decides whether a connection or a request may go out. Nothing is resolved or dialled before.
    ///
    /// Modes come last: what the rules refuse passes in `report` and `open`, but without credentials
    /// where no rule allows the host.
    pub fn authorize(&self, intent: &EgressIntent<'_>) -> Result<Permit, Denial> {
        match self.decide(intent) {
            Ok(permit) => Ok(permit),
            Err(refusal) => self.soften(intent, refusal),
        }
    }

    /// The host that a name on the base-URL door stands for, if a policy of this agent has it.
    pub fn route(&self, agent: &Agent, name: &str) -> Option<&Authority> {
        let route = self.routes.get(name)?;
        let for_agent = route.scopes.iter().any(|scope| scope.covers(agent));
        for_agent.then_some(&route.authority)
    }

    /// All names on the base-URL door, sorted.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &Authority)> {
        self.routes
            .iter()
            .map(|(n, route)| (&**n, &route.authority))
    }

    /// The hosts whose TLS is ended here for at least one agent, sorted.
    pub fn intercepted_hosts(&self) -> Vec<HostPattern> {
        let mut patterns = self
            .hosts()
            .filter(|host| {
                host.rules
                    .iter()
                    .any(|rule| rule.allows() || rule.answers_inside())
            })
            .filter(|host| {
                let counted =
                    |rule: &Rule| rule.allows() && self.counted.all_of(rule, &host.pattern);
                let mut rules = host.rules.iter();
                rules.any(|rule| rule.intercepts() || counted(rule))
            })
            .map(|host| host.pattern.clone())
            .collect::<Vec<_>>();
        patterns.sort();
        patterns
    }

    /// What a new certificate authority should be able to sign: the hosts whose TLS is ended here, and
    /// those that a wide rule or an open mode lets agents reach and whose calls a budget counts.
    pub fn signed_hosts(&self) -> Vec<HostPattern> {
        let mut patterns = self.intercepted_hosts();
        let hosts = self.hosts().map(|host| (&host.pattern, &*host.rules));
        let hosts = hosts.collect::<Vec<_>>();
        patterns.extend(self.counted.beyond_rules(&self.scopes, &hosts));
        patterns.sort();
        patterns.dedup();
        patterns
    }

    /// Tells which names the certificate authority may sign. Where it may not, calls that a budget counts
    /// are refused rather than tunnelled.
    #[must_use]
    pub fn signed_by(mut self, signs: impl Fn(&Host) -> bool + Send + Sync + 'static) -> Self {
        self.counted.signed_by(signs);
        self
    }

    /// The model API that a host speaks: what the narrowest rule for it says, or else what is known of
    /// its name.
    fn api_of(&self, authority: &Authority) -> Option<ModelApi> {
        let said = |rules: &HostRules| {
            let mut rules = rules.rules.iter();
            rules.find_map(|rule| rule.api.filter(|_| rule.ports.contains(&authority.port)))
        };
        let written = match self.names_apis {
            true => self.matching(&authority.host).find_map(said),
            false => None,
        };
        written.or_else(|| ModelApi::of_host(&authority.host))
    }

    /// A budget that counts what is asked for, if there is one.
    pub(super) fn counted_by(&self, intent: &EgressIntent<'_>) -> Option<&Arc<str>> {
        if self.counted.is_empty() {
            return None;
        }
        let authority = intent.authority;
        let api = self.api_of(authority);
        self.counted.by(intent.agent, &authority.host, api)
    }

    /// Whether what a budget counts can be read here: not where its bytes are to pass unread, and not
    /// where no certificate for the host can be had.
    fn readable<'e>(
        &self,
        intent: &EgressIntent<'_>,
        permit: Permit,
        passes: Option<&'e Rule>,
    ) -> Result<Permit, Refusal<'e>> {
        if permit.treatment != Treatment::Intercept
            || intent.scheme != Scheme::Https
            || self.counted_by(intent).is_none()
        {
            return Ok(permit);
        }
        if passes.is_some() || !self.counted.may_sign(&intent.authority.host) {
            return Err(Refusal::new(DenialReason::UncountedTunnel, passes));
        }
        Ok(permit)
    }

    /// How the rules name a host: the narrowest pattern for it, whoever its rules are for.
    pub fn name_of(&self, host: &Host) -> Option<&HostPattern> {
        self.matching(host).next().map(|named| &named.pattern)
    }

    /// How many host patterns the rules name.
    pub fn host_count(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// The strictest mode of this agent's policies; `Enforce` for an agent without any.
    pub fn mode_for(&self, agent: &Agent) -> Mode {
        self.mode(agent).unwrap_or(Mode::Enforce)
    }

    /// Whether a policy is for this agent.
    pub(super) fn covers(&self, agent: &Agent) -> bool {
        self.mode(agent).is_some()
    }

    /// Whether this rule stands under a pattern that matches the host.
    pub(super) fn names_host(&self, rule: &Rule, host: &Host) -> bool {
        let mut rules = self.matching(host).flat_map(|own| &own.rules);
        rules.any(|own| std::ptr::eq(&**own, rule))
    }

    /// How many host patterns rules name that `other` does not.
    pub fn hosts_beyond(&self, other: &Self) -> usize {
        let known: std::collections::BTreeSet<String> =
            other.hosts().map(|own| own.pattern.to_string()).collect();
        let own = self.hosts().map(|own| own.pattern.to_string());
        own.filter(|pattern| !known.contains(pattern)).count()
    }

    fn mode(&self, agent: &Agent) -> Option<Mode> {
        let covering = self.scopes.iter().filter(|scope| scope.covers(agent));
        covering.map(|scope| scope.mode).max()
    }

    fn hosts(&self) -> impl Iterator<Item = &HostRules> {
        self.exact.values().chain(self.below.values())
    }

    /// Every host pattern that matches, narrowest first: one lookup for each label.
    pub(super) fn matching(&self, host: &Host) -> impl Iterator<Item = &HostRules> {
        let exact = self.exact.get(host);
        let wider = parents(host).filter_map(|name| self.below.get(name));
        exact.into_iter().chain(wider)
    }

    /// The narrowest pattern with a rule for this agent. Its rules alone decide: who restricts
    /// `api.github.com` must not be undone by `*.github.com`.
    pub(super) fn claim(&self, agent: &Agent, host: &Host) -> Option<&HostRules> {
        self.matching(host)
            .find(|claim| claim.rules.iter().any(|rule| rule.scope.covers(agent)))
    }

    /// The decision of the rules alone, whatever the mode.
    pub(super) fn decide<'e>(&'e self, intent: &EgressIntent<'_>) -> Result<Permit, Refusal<'e>> {
        let host = &intent.authority.host;
        let Some(claim) = self.claim(intent.agent, host) else {
            return Err(match host {
                Host::Ip(_) => Refusal::new(DenialReason::IpLiteral, None),
                Host::Name(_) => {
                    let neighbour = self.neighbour(intent.agent, host);
                    Refusal::new(DenialReason::HostNotAllowed, neighbour)
                }
            });
        };
        let panel = Panel::of(self, claim, intent);
        if panel.rules().next().is_none() {
            let mut rules = claim
                .rules
                .iter()
                .filter(|rule| rule.scope.covers(intent.agent));
            let nearest = rules
                .clone()
                .find(|rule| rule.allows())
                .or_else(|| rules.next());
            return Err(Refusal::new(
                DenialReason::PortNotAllowed,
                nearest.map(|rule| &**rule),
            ));
        }
        let permit = match intent.request {
            None => panel.connection(intent),
            Some(line) => panel.request(intent, line),
        }?;
        self.readable(intent, permit, panel.passing())
    }

    /// A rule for a host near to one that no rule names: `*.a.com` for `a.com`, `a.com` for `x.a.com`.
    fn neighbour(&self, agent: &Agent, host: &Host) -> Option<&Rule> {
        let sibling = host.name().and_then(|name| self.below.get(name));
        let parent = parents(host).filter_map(|n| self.exact.get(&Host::Name(n.into())));
        let mut rules = sibling
            .into_iter()
            .chain(parent)
            .flat_map(|near| &near.rules);
        let rule = rules.find(|rule| rule.allows() && rule.scope.covers(agent))?;
        Some(rule)
    }

    /// Applies the agent's mode to what the rules refuse.
    fn soften(&self, intent: &EgressIntent<'_>, refusal: Refusal<'_>) -> Result<Permit, Denial> {
        let Some(mode) = self.mode(intent.agent) else {
            return Err(Refusal::new(DenialReason::NoPolicyForAgent, None).denial(intent));
        };
        let claim = self.claim(intent.agent, &intent.authority.host);
        let panel = claim.map(|claim| Panel::of(self, claim, intent));
        let allowed = panel
            .as_ref()
            .and_then(|panel| panel.allowing().next().map(|rule| (panel, rule)));
        // An address that a rule names only to refuse it is no better off than one no rule names.
        let bare_address = intent.authority.host.ip().is_some() && allowed.is_none();
        let strict = mode == Mode::Enforce || refusal.reason.holds_in_every_mode();
        if strict || bare_address {
            return Err(refusal.denial(intent));
        }
        let would_deny = (mode == Mode::Report).then(|| Box::new(refusal.denial(intent)));
        let permit = match allowed {
            Some((panel, rule)) => Permit {
                credentials: match intent.request {
                    Some(_) => union(panel.allowing()),
                    None => Arc::default(),
                },
                rule: None,
                would_deny,
                ..panel.permit(intent, rule)
            },
            None => Permit {
                authority: intent.authority.clone(),
                scheme: intent.scheme,
                rule: None,
                api: self.api_of(intent.authority),
                trace_context: TraceContextMode::Drop,
                treatment: match self.counted_by(intent) {
                    Some(_) => Treatment::Intercept,
                    None => Treatment::Tunnel(SniMode::Required),
                },
                credentials: Arc::default(),
                guarding: Arc::default(),
                dial: self.default_dial.clone(),
                unknown_codings: UnknownCodings::Refuse,
                would_deny,
            },
        };
        let readable = self.readable(intent, permit, None);
        readable.map_err(|refusal| refusal.denial(intent))
    }
}

/// The names above a host: `b.c` and `c` for `a.b.c`.
fn parents(host: &Host) -> impl Iterator<Item = &str> {
    iter::successors(host.name(), |name| name.split_once('.').map(|(_, up)| up)).skip(1)
}

/// The rules that decide about one intent: those of the claiming pattern, of the agent, on the port.
struct Panel<'e, 'i> {
    engine: &'e Engine,
    claim: &'e HostRules,
    agent: &'i Agent,
    port: u16,
}

/// The most specific match of a request.
#[derive(Clone, Copy)]
struct Winner<'e> {
    rank: Rank,
    rule: &'e Rule,
    /// Whether another rule matched in the same rank.
    tied: bool,
}

impl<'e, 'i> Panel<'e, 'i> {
    fn of(engine: &'e Engine, claim: &'e HostRules, intent: &EgressIntent<'i>) -> Self {
        Self {
            engine,
            claim,
            agent: intent.agent,
            port: intent.authority.port,
        }
    }

    fn rules(&self) -> impl Iterator<Item = &'e Rule> {
        let (agent, port) = (self.agent, self.port);
        let rules = self.claim.rules.iter().map(|rule| &**rule);
        rules.filter(move |rule| rule.concerns(agent, port))
    }

    fn allowing(&self) -> impl Iterator<Item = &'e Rule> {
        self.rules().filter(|rule| rule.allows())
    }

    /// A rule that wants the bytes to pass unread.
    fn passing(&self) -> Option<&'e Rule> {
        self.allowing()
            .find(|rule| rule.tls == TlsMode::Passthrough)
    }

    /// A connection may stand if some request on it may be allowed, or if a rule wants its refusals
    /// told inside TLS: clients that retry a refused tunnel for long take a quick 403 at once.
    fn connection(&self, intent: &EgressIntent<'_>) -> Result<Permit, Refusal<'e>> {
        let inside = || self.rules().find(|rule| rule.answers_inside());
        match self.allowing().next().or_else(inside) {
            Some(rule) => Ok(Permit {
                credentials: Arc::default(),
                ..self.permit(intent, rule)
            }),
            None => Err(self.nothing_allowed()),
        }
    }

    fn request(
        &self,
        intent: &EgressIntent<'_>,
        line: RequestLine<'_>,
    ) -> Result<Permit, Refusal<'e>> {
        let minds = self.rules().any(Rule::minds_ambiguity);
        let ambiguity = if minds {
            Ambiguity::find(line.path)
        } else {
            None
        };
        let disguised = ambiguity.is_some() || LenientReading::has_parameters(line.path);
        let lenient = disguised.then(|| LenientReading::of(line.path));
        let winner = self.winner(line, lenient.as_ref());
        if let Some(lenient) = lenient.as_ref().filter(|_| ambiguity.is_some()) {
            let passed = winner.filter(|won| {
                let opted_in = won.rule.ambiguous_paths == AmbiguousPaths::Pass;
                // A path that climbs out of what a rule names must not reach it by being sent unread.
                let undoes = lenient.climbs && self.rules().any(Rule::reads_paths);
                won.rule.allows() && opted_in && !undoes
            });
            if passed.is_none() {
                let nearest = winner.map(|won| won.rule).or_else(|| self.rules().next());
                return Err(Refusal::new(DenialReason::AmbiguousPath, nearest));
            }
        }
        let Some(won) = winner else {
            return Err(self.unmatched(line));
        };
        if !won.rule.allows() {
            return Err(Refusal::new(DenialReason::DeniedByRule, Some(won.rule)));
        }
        let mut permit = self.permit(intent, won.rule);
        if won.tied {
            permit.credentials = union(
                self.matches(line, None)
                    .filter(|(rank, _)| *rank == won.rank)
                    .map(|(_, rule)| rule),
            );
        }
        Ok(permit)
    }

    /// Everything that matches a request, with its rank. A path that some servers read otherwise is matched as it stands
    /// and, by rules that refuse, also as a lenient origin reads it.
    fn matches<'p>(
        &'p self,
        line: RequestLine<'p>,
        lenient: Option<&'p LenientReading>,
    ) -> impl Iterator<Item = (Rank, &'e Rule)> + use<'e, 'i, 'p> {
        self.rules().flat_map(move |rule| {
            let lenient = lenient.filter(|_| !rule.allows());
            let requests = rule.requests.iter().filter(move |request| {
                let admits = match rule.allows() {
                    true => request.admits(line.method),
                    false => request.admits_leniently(line.method),
                };
                admits
                    && (request.path.matches(line.path.as_bytes())
                        || lenient.is_some_and(|reading| request.path.matches(&reading.path)))
            });
            requests.map(move |request| (request.rank(), rule))
        })
    }

    /// The most specific match; between equals, one that refuses.
    fn winner(
        &self,
        line: RequestLine<'_>,
        lenient: Option<&LenientReading>,
    ) -> Option<Winner<'e>> {
        let mut best: Option<Winner<'e>> = None;
        for (rank, rule) in self.matches(line, lenient) {
            match &mut best {
                Some(won) if won.rank > rank => {}
                Some(won) if won.rank == rank && (rule.allows() || !won.rule.allows()) => {
                    won.tied |= !std::ptr::eq(won.rule, rule);
                }
                _ => {
                    best = Some(Winner {
                        rank,
                        rule,
                        tied: false,
                    })
                }
            }
        }
        best
    }

    /// Why a host is refused whose rules only refuse: all of it by one of them, or for want of another.
    fn nothing_allowed(&self) -> Refusal<'e> {
        match self.rules().find(|rule| rule.matches_everything()) {
            Some(rule) => Refusal::new(DenialReason::DeniedByRule, Some(rule)),
            None => Refusal::new(DenialReason::HostNotAllowed, self.rules().next()),
        }
    }

    /// Why no rule matched a request: its method, or else its path.
    fn unmatched(&self, line: RequestLine<'_>) -> Refusal<'e> {
        let by_path = self
            .allowing()
            .flat_map(|rule| rule.requests.iter().map(move |request| (request, rule)))
            .filter(|(request, _)| request.path.matches(line.path.as_bytes()))
            .max_by_key(|(request, _)| request.rank());
        if let Some((_, rule)) = by_path {
            return Refusal::new(DenialReason::MethodNotAllowed, Some(rule));
        }
        let Some(first) = self.allowing().next() else {
            return self.nothing_allowed();
        };
        let by_method = self
            .allowing()
            .find(|rule| rule.requests.iter().any(|r| r.admits(line.method)));
        Refusal::new(
            DenialReason::PathNotAllowed,
            Some(by_method.unwrap_or(first)),
        )
    }

    /// The credentials of all the host's rules, whatever their port. Shared when the deciding rule has them all.
    fn guarding(&self, rule: &Rule) -> Arc<[Arc<str>]> {
        let rules = || {
            let rules = self.claim.rules.iter().map(|rule| &**rule);
            rules.filter(|rule| rule.allows() && rule.scope.covers(self.agent))
        };
        let known = |name: &Arc<str>| rule.credentials.contains(name);
        match rules().all(|other| other.credentials.iter().all(known)) {
            true => rule.credentials.clone(),
            false => union(rules()),
        }
    }

    fn permit(&self, intent: &EgressIntent<'_>, rule: &Rule) -> Permit {
        Permit {
            authority: intent.authority.clone(),
            scheme: intent.scheme,
            rule: Some(rule.place.clone()),
            api: self.engine.api_of(intent.authority),
            trace_context: rule.trace_context,
            treatment: match self.rules().any(Rule::intercepts)
                || self.engine.counted_by(intent).is_some()
            {
                true => Treatment::Intercept,
                false => Treatment::Tunnel(rule.sni),
            },
            credentials: rule.credentials.clone(),
            guarding: self.guarding(rule),
            dial: rule.dial.clone(),
            unknown_codings: rule.unknown_codings,
            would_deny: None,
        }
    }
}

/// The credentials of several rules, each once, in the order of the rules.
fn union<'e>(rules: impl Iterator<Item = &'e Rule>) -> Arc<[Arc<str>]> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for name in rules.flat_map(|rule| rule.credentials.iter()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.into()
}
