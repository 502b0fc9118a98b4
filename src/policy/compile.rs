//! Owns the step from documents to an engine, and every error that only all documents together show.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use http::Method;

use crate::config::bundle::{Bundle, Document};
use crate::config::error::{ConfigError, Place};
use crate::config::located::Located;
use crate::config::policy::{AmbiguousPaths, EgressPolicySpec, EgressRuleSpec, HttpMatchSpec};
use crate::types::host::{Authority, HostPattern};

use super::agent_endpoint;
use super::budget_host;
use super::conflict::{self, Filed};
use super::counted::Counted;
use super::decision::{DialProfile, RuleRef, Timeouts};
use super::engine::{Engine, HostRules, Route};
use super::grant::Grants;
use super::path::{PathPattern, PathPatternError};
use super::rule::{DEFAULT_PORTS, RequestMatch, Rule};
use super::scope::{Scope, Selector};

/// Compiles all policies, or says everything that is wrong with them.
pub fn compile(bundle: &Bundle) -> Result<Engine, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut compiler = Compiler {
        counted: Counted::of(bundle),
        grants: Grants::of(bundle, &mut errors),
        errors,
        ..Compiler::default()
    };
    for policy in &bundle.policies {
        compiler.policy(policy);
    }
    let engine = compiler.finish()?;
    let mut errors = agent_endpoint::unreachable(&engine, bundle);
    errors.extend(budget_host::unreadable(&engine, bundle));
    match errors.is_empty() {
        true => Ok(engine),
        false => Err(errors),
    }
}

#[derive(Default)]
struct Compiler<'b> {
    counted: Counted,
    grants: Grants<'b>,
    errors: Vec<ConfigError>,
    scopes: Vec<Arc<Scope>>,
    hosts: BTreeMap<HostPattern, Vec<Filed>>,
    routes: BTreeMap<Arc<str>, (Route, Place)>,
    /// Equal profiles are one, so that their connections are shared.
    dials: HashSet<Arc<DialProfile>>,
}

type PolicyDocument = Document<EgressPolicySpec>;

impl<'b> Compiler<'b> {
    fn finish(mut self) -> Result<Engine, Vec<ConfigError>> {
        for (pattern, rules) in &self.hosts {
            conflict::between(pattern, rules, &mut self.errors);
            conflict::with_budgets(pattern, rules, &self.counted, &mut self.errors);
        }
        if !self.errors.is_empty() {
            return Err(conflict::without_repetitions(self.errors));
        }
        let rules = || self.hosts.values().flatten();
        let mut engine = Engine {
            names_apis: rules().any(|filed| filed.rule.api.is_some()),
            counted: self.counted,
            scopes: self.scopes,
            routes: self
                .routes
                .into_iter()
                .map(|(name, (route, _))| (name, route))
                .collect(),
            default_dial: self
                .dials
                .get(&DialProfile::default())
                .cloned()
                .unwrap_or_default(),
            exact: HashMap::default(),
            below: HashMap::default(),
        };
        for (pattern, filed) in self.hosts {
            let rules = HostRules {
                pattern: pattern.clone(),
                rules: filed.into_iter().map(|filed| filed.rule).collect(),
            };
            match pattern {
                HostPattern::Exact(host) => engine.exact.insert(host, rules),
                HostPattern::Below(name) => engine.below.insert(name, rules),
            };
        }
        Ok(engine)
    }

    fn policy(&mut self, policy: &'b PolicyDocument) {
        let scope = Arc::new(self.scope(policy));
        self.scopes.push(scope.clone());
        for written in &policy.spec.egress {
            self.rule(policy, &scope, written);
        }
    }

    fn scope(&mut self, policy: &PolicyDocument) -> Scope {
        let names = &policy.spec.agents.names;
        if names.is_empty() {
            return Scope::everyone(policy.spec.mode);
        }
        let mut selectors = Vec::new();
        for name in names {
            match Selector::parse(name) {
                Ok(selector) => selectors.push(selector),
                Err(error) => self.error(
                    ConfigError::new("TG0510", error.to_string())
                        .at(policy.place(name, name.len()))
                        .label("no agent can have this name"),
                ),
            }
        }
        Scope::of(selectors, policy.spec.mode)
    }

    fn rule(
        &mut self,
        policy: &'b PolicyDocument,
        scope: &Arc<Scope>,
        written: &'b Located<EgressRuleSpec>,
    ) {
        let before = self.errors.len();
        let spec = &written.value;
        let place = policy.place(written, 1);
        let hosts = self.patterns(policy, written);
        let requests = self.requests(policy, spec);
        self.ports(policy, spec);
        self.errors.extend(conflict::within(&place, spec));
        for name in &spec.credentials {
            let problem = self.grants.check(policy, name, &hosts, &spec.ports);
            self.errors.extend(problem);
        }
        self.route(policy, scope, spec, &hosts);
        if self.errors.len() > before {
            return;
        }
        let rule = Arc::new(Rule {
            place: RuleRef {
                policy: policy.name.as_str().into(),
                file: last_name(&policy.file.name).into(),
                line: written.line,
            },
            scope: scope.clone(),
            ports: ports_of(spec).into(),
            requests: requests.into(),
            reads_requests: !spec.http.is_empty(),
            action: spec.action,
            tls: spec.tls,
            sni: spec.sni,
            api: spec.api,
            ambiguous_paths: spec.ambiguous_paths,
            trace_context: spec.trace_context,
            unknown_codings: spec.unknown_codings,
            credentials: self.grants.names(&spec.credentials),
            dial: self.dial(spec),
        });
        for host in hosts {
            let filed = Filed {
                rule: rule.clone(),
                place: place.clone(),
            };
            self.hosts.entry(host).or_default().push(filed);
        }
    }

    /// The hosts of a rule, each once.
    fn patterns(
        &mut self,
        policy: &PolicyDocument,
        written: &Located<EgressRuleSpec>,
    ) -> Vec<HostPattern> {
        if written.hosts.is_empty() {
            let error = match &written.preset {
                Some(preset) => ConfigError::new(
                    "TG0501",
                    format!("the preset `{}` is not resolved", preset.value),
                )
                .at(policy.place(preset, preset.len()))
                .help("list the built-in ones with `tollgate gen presets`"),
                None => ConfigError::new("TG0501", "a rule names no hosts")
                    .at(policy.place(written, 1))
                    .help("add `hosts: [api.example.com]`"),
            };
            self.error(error);
        }
        let mut patterns = Vec::new();
        for host in &written.hosts {
            match HostPattern::parse(host) {
                Ok(pattern) if patterns.contains(&pattern) => {}
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.error(
                    ConfigError::new("TG0502", error.to_string())
                        .at(policy.place(host, host.len()))
                        .label("not a host pattern")
                        .help("write `api.example.com`, `*.example.com` or an IP address"),
                ),
            }
        }
        patterns
    }

    fn requests(&mut self, policy: &PolicyDocument, spec: &EgressRuleSpec) -> Vec<RequestMatch> {
        if spec.http.is_empty() {
            return vec![RequestMatch::any()];
        }
        let mut requests = Vec::new();
        for http in &spec.http {
            let methods = self.methods(policy, http);
            if http.paths.is_empty() {
                requests.push(RequestMatch {
                    methods,
                    path: PathPattern::any(),
                });
                continue;
            }
            for path in &http.paths {
                match self.path(policy, path, spec.ambiguous_paths) {
                    Ok(path) => requests.push(RequestMatch {
                        methods: methods.clone(),
                        path,
                    }),
                    Err(error) => self.error(error),
                }
            }
        }
        requests
    }

    fn path(
        &self,
        policy: &PolicyDocument,
        path: &Located<String>,
        ambiguous: AmbiguousPaths,
    ) -> Result<PathPattern, ConfigError> {
        let lenient = PathPattern::lenient_parse(path);
        let parsed = match ambiguous {
            AmbiguousPaths::Pass => lenient.clone(),
            AmbiguousPaths::Refuse => PathPattern::parse(path),
        };
        parsed.map_err(|error| {
            let wrong = ConfigError::new("TG0503", error.to_string())
                .at(policy.place(path, path.len()))
                .label("not a path pattern");
            match error {
                PathPatternError::Ambiguous(_) if lenient.is_ok() => {
                    wrong.help("such paths are refused unless the rule says `ambiguousPaths: Pass`")
                }
                _ => wrong.help("write `/v1/messages`, `/v1/*/files` or `/v1/**`"),
            }
        })
    }

    fn methods(&mut self, policy: &PolicyDocument, http: &HttpMatchSpec) -> Box<[Method]> {
        let mut methods = Vec::new();
        for written in &http.methods {
            match parse_method(written) {
                Ok(method) => methods.push(method),
                Err(guess) => {
                    let error =
                        ConfigError::new("TG0504", format!("`{}` is not a method", written.value))
                            .at(policy.place(written, written.len()));
                    self.error(match guess {
                        Some(guess) => error.label(format!("did you mean `{guess}`?")),
                        None => error.help("methods are single words in capitals: GET, POST"),
                    });
                }
            }
        }
        methods.into()
    }

    fn ports(&mut self, policy: &PolicyDocument, spec: &EgressRuleSpec) {
        for port in spec.ports.iter().filter(|port| port.value == 0) {
            self.error(ConfigError::new("TG0511", "0 is not a port").at(policy.place(port, 1)));
        }
    }

    fn route(
        &mut self,
        policy: &PolicyDocument,
        scope: &Arc<Scope>,
        spec: &EgressRuleSpec,
        hosts: &[HostPattern],
    ) {
        let Some(route) = &spec.route else {
            return;
        };
        let place = policy.place(route, route.len());
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if route.is_empty() || !route.bytes().all(plain) {
            return self.error(
                ConfigError::new("TG0508", format!("`{}` cannot name a route", route.value))
                    .at(place)
                    .label("use a to z, 0 to 9 and `-`"),
            );
        }
        let [HostPattern::Exact(host)] = hosts else {
            return self.error(
                ConfigError::new(
                    "TG0508",
                    "a route wants exactly one host without a wildcard",
                )
                .at(place)
                .help("give this host a rule of its own"),
            );
        };
        let port = spec.ports.first().map_or(443, |port| port.value);
        let authority = Authority::new(host.clone(), port);
        let (known, first) = self.routes.entry(route.as_str().into()).or_insert_with(|| {
            let route = Route {
                authority: authority.clone(),
                scopes: Vec::new(),
            };
            (route, place.clone())
        });
        known.scopes.push(scope.clone());
        if known.authority != authority {
            let error = ConfigError::new(
                "TG0403",
                format!(
                    "the route `{}` stands for {} and for {authority}",
                    route.value, known.authority
                ),
            )
            .at(place)
            .label(format!(
                "stands for {} at {}:{}",
                known.authority, first.file.name, first.line
            ));
            self.error(error);
        }
    }

    fn dial(&mut self, spec: &EgressRuleSpec) -> Arc<DialProfile> {
        let usual = Timeouts::default();
        let written = spec.timeouts.unwrap_or_default();
        let mut allow_addresses = spec
            .allow_addresses
            .iter()
            .map(ipnet::IpNet::trunc)
            .collect::<Vec<_>>();
        allow_addresses.sort();
        allow_addresses.dedup();
        let profile = Arc::new(DialProfile {
            allow_addresses,
            upstream: spec.upstream.clone().unwrap_or_default(),
            timeouts: Timeouts {
                connect: written.connect.map_or(usual.connect, |span| span.0),
                tls: written.tls.map_or(usual.tls, |span| span.0),
                response_headers: written
                    .response_headers
                    .map_or(usual.response_headers, |span| span.0),
                idle: written.idle.map_or(usual.idle, |span| span.0),
                agent_idle: written.agent_idle.map_or(usual.agent_idle, |span| span.0),
            },
        });
        if let Some(known) = self.dials.get(&profile) {
            return known.clone();
        }
        self.dials.insert(profile.clone());
        profile
    }

    fn error(&mut self, error: ConfigError) {
        self.errors.push(error);
    }
}

/// `scan.yaml` of `/etc/tollgate/scan.yaml`; a preset's name as it is.
fn last_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn ports_of(spec: &EgressRuleSpec) -> Vec<u16> {
    match spec.ports.is_empty() {
        true => DEFAULT_PORTS.to_vec(),
        false => spec.ports.iter().map(|port| port.value).collect(),
    }
}

/// Parses a method, or guesses which one was meant. A typo in a rule that refuses would let pass
/// what it names, so whatever is one slip away from a common method is taken for one.
fn parse_method(text: &str) -> Result<Method, Option<&'static str>> {
    const COMMON: [&str; 8] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
    ];
    let capitals = text.to_ascii_uppercase();
    let near = COMMON
        .into_iter()
        .find(|common| strsim::osa_distance(common, &capitals) <= 1);
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if near == Some(text) => Ok(method),
        Ok(method) if near.is_none() && text == capitals => Ok(method),
        _ => Err(near),
    }
}
