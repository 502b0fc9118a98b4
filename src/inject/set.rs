//! Owns the order in which a request is examined and changed: set, swap, look for what is left
//! over, and judge what is foreign. Pure, without I/O: secrets are already in memory.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use quick_cache::sync::Cache;

use super::basic::{decode, smuggles};
use super::body::{BodySwap, BodyTarget};
use super::compile::{Credential, Form, compile};
use super::disguise::Disguises;
use super::error::{InjectError, Misuse, Position};
use super::foreign::{Standing, WELL_KNOWN, examine, strictest};
use super::header::single;
use super::injector::{InjectedCredential, Outgoing, Reveal};
use super::leftover;
use super::placeholder::{PlaceholderKey, Recognizer};
use super::table::AgentTable;
use crate::config::bundle::Bundle;
use crate::config::credential::{InjectionMode, OnForeign};
use crate::config::error::ConfigError;
use crate::credential::held::HeldCredential;
use crate::oauth::phantom::Phantoms;
use crate::types::agent::Agent;
use crate::types::host::{Authority, Host};
use crate::types::intent::Scheme;
use crate::types::secret::Secret;

/// Tables of agents seen lately; a table that was evicted is built again.
const CACHED_AGENTS: usize = 1024;

/// All credentials of one moment, ready to be injected.
#[derive(Debug)]
pub struct Injectors {
    credentials: Vec<Credential>,
    by_name: HashMap<Arc<str>, usize>,
    key: PlaceholderKey,
    recognizer: Arc<Recognizer>,
    tables: Cache<Agent, Arc<AgentTable>>,
    disguises: ArcSwapOption<(Vec<u64>, Arc<Disguises>)>,
}

/// What a permit says of credentials.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// Those that apply to this request.
    pub applicable: &'a [Arc<str>],
    /// Those that any rule has for this host.
    pub guarding: &'a [Arc<str>],
}

/// Which placeholders an agent is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// All: whether the secrets are there is not known here.
    All,
    /// All but those of optional credentials that are not there.
    Usable,
}

/// Whose placeholder a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// The agent's own, of this credential.
    Own(Option<Arc<str>>),
    /// Another agent's.
    Stranger,
    /// It is none of ours.
    Nobody,
}

/// Where a request goes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The host and port the permit is for.
    pub authority: &'a Authority,
    /// Whether the way there is verified TLS.
    pub scheme: Scheme,
}

/// What was done to a request head.
#[derive(Debug, Default)]
pub struct Injected {
    /// Each credential that went in, once per kind of place.
    pub credentials: Vec<InjectedCredential>,
    /// Each secret that went in, with the placeholder that stands for it in the response.
    pub needles: Vec<(Arc<Secret>, String)>,
    /// A swap that waits for the body.
    pub body: Option<BodySwap>,
    /// Where a credential of the agent's own was removed.
    pub stripped: Vec<Position>,
}

impl Injectors {
    /// Compiles the credentials of a bundle. `held` has the value of each that is in use.
    pub fn compile(
        bundle: &Bundle,
        held: &BTreeMap<String, Arc<HeldCredential>>,
        key: PlaceholderKey,
    ) -> Result<Self, Vec<ConfigError>> {
        let credentials = compile(&bundle.credentials, held)?;
        let names = credentials.iter().map(|credential| credential.name.clone());
        let shapes = credentials.iter().flat_map(|c| {
            let own = match &c.placeholder {
                Form::Derived(shape) => Some(shape.clone()),
                Form::Fixed(_) => None,
            };
            own.into_iter().chain(c.refresh.clone())
        });
        Ok(Self {
            by_name: names.zip(0..).collect(),
            recognizer: Arc::new(Recognizer::new(key.clone(), shapes)),
            tables: Cache::new(CACHED_AGENTS),
            disguises: ArcSwapOption::empty(),
            credentials,
            key,
        })
    }

    /// What `agent` holds instead of the credential of this name.
    pub fn placeholder(&self, agent: &Agent, credential: &str) -> Option<String> {
        let index = self.by_name.get(credential)?;
        self.table(agent).placeholder(*index).map(str::to_owned)
    }

    /// What `agent` holds instead of the tokens of the grant that is the credential of this name.
    pub fn phantoms(&self, agent: &Agent, credential: &str) -> Option<Phantoms> {
        let index = self.by_name.get(credential)?;
        self.table(agent).phantoms(*index).cloned()
    }

    /// Whose placeholder `text` is, or holds.
    pub fn whose(&self, agent: &Agent, text: &[u8]) -> Whose {
        let table = self.table(agent);
        if let Some(index) = table.find_decoded(text) {
            return Whose::Own(table.name(index).cloned());
        }
        match examine(text, &self.recognizer) {
            Standing::Ours => Whose::Stranger,
            Standing::Nothing | Standing::Foreign => Whose::Nobody,
        }
    }

    /// The value of the credential of this name.
    pub fn held(&self, credential: &str) -> Option<&Arc<HeldCredential>> {
        let index = self.by_name.get(credential)?;
        self.credentials.get(*index).map(|c| &c.held)
    }

    /// The variables `agent` finds placeholders in, each list with its placeholder.
    ///
    /// Clients prefer one variable to another by its being set, so what a proxy cannot inject should
    /// not be named to its agent.
    pub fn placeholder_env(&self, agent: &Agent, which: Named) -> Vec<(Vec<String>, String)> {
        let table = self.table(agent);
        let named = self
            .credentials
            .iter()
            .enumerate()
            .filter(|(_, c)| !c.env.is_empty())
            .filter(|(_, c)| which == Named::All || c.held.current().is_ok() || !c.held.is_ready());
        named
            .filter_map(|(index, c)| Some((c.env.clone(), table.placeholder(index)?.to_owned())))
            .collect()
    }

    /// Whether a text holds one of the secrets, in any form it could be written in.
    pub fn holds_secret(&self, text: &[u8]) -> bool {
        self.disguises().stand_in(text)
    }

    /// The present values, made ready to be looked for once for each change of one of them.
    fn disguises(&self) -> Arc<Disguises> {
        let versions = || self.credentials.iter().map(|c| c.held.value_version());
        let known = self.disguises.load();
        if let Some(known) = &*known
            && known.0.iter().copied().eq(versions())
        {
            return known.1.clone();
        }
        let before = versions().collect();
        let held = self.credentials.iter().filter_map(|c| c.held.last());
        let secrets = held.flat_map(|last| std::iter::once(last.secret).chain(last.beside));
        let disguises = Arc::new(Disguises::of(secrets));
        self.disguises
            .store(Some(Arc::new((before, disguises.clone()))));
        disguises
    }

    /// Changes a request head so that it may go to `target`: secrets stand where the agent's
    /// placeholders stood. `granted` names the credentials that the policy's permit grants.
    ///
    /// After an error the head may be half changed and must not be used any more.
    pub fn apply(
        &self,
        agent: &Agent,
        target: &Target<'_>,
        granted: &Granted<'_>,
        head: &mut Parts,
    ) -> Result<Injected, InjectError> {
        let table = self.table(agent);
        let guarding = self.guarding(granted, &target.authority.host);
        let present: Vec<&HeaderName> = WELL_KNOWN
            .iter()
            .filter(|name| head.headers.contains_key(*name))
            .collect();
        let mut pass = Pass {
            injectors: self,
            target,
            applicable: granted.applicable,
            guarding: &guarding,
            present: &present,
            table: &table,
            outgoing: Outgoing::default(),
            settled: Vec::new(),
            stripped: Vec::new(),
        };
        pass.refuse_doubles(head)?;
        pass.refuse_smuggling(head)?;
        pass.refuse_cleartext_set()?;
        pass.set(head)?;
        pass.swap(head)?;
        pass.refuse_leftovers(head)?;
        pass.judge_foreign(head)?;
        let body = pass.body(&table, head)?;
        pass.append(head);
        Ok(Injected {
            credentials: pass.outgoing.credentials,
            needles: pass.outgoing.needles,
            body,
            stripped: pass.stripped,
        })
    }

    /// The credentials that rules have for this host, whatever the path, the port and the scheme:
    /// they make the host one where foreign credentials are judged.
    fn guarding(&self, granted: &Granted<'_>, host: &Host) -> Vec<(usize, &Credential)> {
        let mut found: Vec<(usize, &Credential)> = Vec::new();
        for name in granted.applicable.iter().chain(granted.guarding) {
            let Some(index) = self.by_name.get(name).copied() else {
                continue;
            };
            let Some(credential) = self.credentials.get(index) else {
                continue;
            };
            if credential.is_for(host) && !found.iter().any(|(known, _)| *known == index) {
                found.push((index, credential));
            }
        }
        found
    }

    fn table(&self, agent: &Agent) -> Arc<AgentTable> {
        let build = || {
            let held = self.credentials.iter().map(|c| c.held_by(agent, &self.key));
            Ok::<_, Infallible>(Arc::new(AgentTable::new(held)))
        };
        match self.tables.get_or_insert_with(agent, build) {
            Ok(table) => table,
            Err(never) => match never {},
        }
    }
}

/// One request's way through the stages.
struct Pass<'a> {
    injectors: &'a Injectors,
    target: &'a Target<'a>,
    applicable: &'a [Arc<str>],
    guarding: &'a [(usize, &'a Credential)],
    /// The well-known credential fields that the agent sent.
    present: &'a [&'static HeaderName],
    table: &'a AgentTable,
    outgoing: Outgoing,
    /// Positions that hold a secret by now.
    settled: Vec<Position>,
    stripped: Vec<Position>,
}

impl<'a> Pass<'a> {
    fn guarding(&self) -> impl Iterator<Item = (usize, &'a Credential)> + use<'a> {
        self.guarding.iter().copied()
    }

    /// Those of them that may go out with this request.
    fn active(&self) -> impl Iterator<Item = (usize, &'a Credential)> + use<'a> {
        let (target, applicable) = (self.target, self.applicable);
        self.guarding().filter(move |(_, credential)| {
            target.scheme == Scheme::Https
                && applicable.contains(&credential.name)
                && credential.may_go_to(target.authority)
        })
    }

    fn refuse_doubles(&self, head: &Parts) -> Result<(), InjectError> {
        if self.guarding.is_empty() {
            return Ok(());
        }
        for name in self.present {
            single(&head.headers, name)?;
        }
        Ok(())
    }

    fn refuse_smuggling(&self, head: &Parts) -> Result<(), InjectError> {
        let rule = strictest(self.guarding().map(|(_, c)| c.on_foreign));
        let judged = rule.is_some_and(|rule| rule != OnForeign::Pass);
        if let Some(name) = head
            .headers
            .keys()
            .find(|name| judged && self.is_disguised(name))
        {
            let position = Position::Header(name.clone());
            return Err(InjectError::Foreign { position });
        }
        let value = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        match (rule, value) {
            (None | Some(OnForeign::Pass), _) | (_, None) => Ok(()),
            (Some(_), Some(value)) if smuggles(value, self.table) => Err(InjectError::Foreign {
                position: Position::Header(AUTHORIZATION),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a field is called like one that carries credentials, with `_` for `-`: gateways of
    /// the CGI kind (RFC 3875, section 4.1.18) take both for the same.
    fn is_disguised(&self, name: &HeaderName) -> bool {
        if !name.as_str().contains('_') {
            return false;
        }
        let plain = name.as_str().replace('_', "-");
        let mut places = self.guarding().flat_map(|(_, c)| &c.placements);
        WELL_KNOWN.iter().any(|known| known.as_str() == plain)
            || places.any(|place| match place.position() {
                Position::Header(own) => own != *name && own.as_str().replace('_', "-") == plain,
                _ => false,
            })
    }

    fn refuse_cleartext_set(&self) -> Result<(), InjectError> {
        let mut set = self
            .guarding()
            .filter(|(_, c)| c.mode == InjectionMode::Set);
        match (self.target.scheme, set.next()) {
            (Scheme::Http, Some((_, credential))) => Err(InjectError::Cleartext {
                credential: credential.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Puts credentials of mode `set` in their first placement, over whatever stands there. A
    /// placeholder of something else is still a canary.
    fn set(&mut self, head: &mut Parts) -> Result<(), InjectError> {
        for (index, credential) in self.active().filter(|(_, c)| c.mode == InjectionMode::Set) {
            let Some(placement) = credential.placements.first() else {
                continue;
            };
            let position = placement.position();
            if self.settled.contains(&position) {
                return Err(InjectError::Duplicate { position });
            }
            if let Some(standing) = placement.standing(head)? {
                match self.find_in(&standing) {
                    Some(found) if found == index => {}
                    Some(found) => return Err(self.canary(found, position)),
                    None => match examine(&standing, &self.injectors.recognizer) {
                        Standing::Nothing => {}
                        Standing::Ours => return Err(strangers(position)),
                        Standing::Foreign => self.stripped.push(position.clone()),
                    },
                }
            }
            let mut reveal = reveal(self.table, index, credential, &mut self.outgoing);
            placement.put(head, &mut reveal)?;
            self.settled.push(position);
        }
        Ok(())
    }

    /// Puts each secret where its placeholder stands, in as many of its placements as it does.
    fn swap(&mut self, head: &mut Parts) -> Result<(), InjectError> {
        for (index, credential) in self.active() {
            for placement in &credential.placements {
                let mut reveal = reveal(self.table, index, credential, &mut self.outgoing);
                if placement.swap(head, &mut reveal)? {
                    self.settled.push(placement.position());
                }
            }
        }
        Ok(())
    }

    /// No placeholder of this agent may be left anywhere, none of another agent where credentials
    /// stand; hosts without any credential are no exception.
    fn refuse_leftovers(&self, head: &Parts) -> Result<(), InjectError> {
        if let Some(left) = leftover::find(head, self.table) {
            return Err(self.canary(left.credential, left.position));
        }
        for &name in self.present {
            let position = Position::Header(name.clone());
            for value in head.headers.get_all(name) {
                self.is_foreign(&position, Some(value.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Examines every credential position of a host with a credential.
    fn judge_foreign(&mut self, head: &mut Parts) -> Result<(), InjectError> {
        let Some(rule) = strictest(self.guarding().map(|(_, c)| c.on_foreign)) else {
            return Ok(());
        };
        // What `set` put in a field that was not there needs no judgement.
        for &name in self.present {
            let position = Position::Header(name.clone());
            let standing = single(&head.headers, name)?;
            if self.is_foreign(&position, standing)? {
                self.act(rule, position, || {
                    head.headers.remove(name);
                    Ok(())
                })?;
            }
        }
        for (_, credential) in self.guarding() {
            for placement in &credential.placements {
                let position = placement.position();
                let standing = placement.standing(head)?;
                if self.is_foreign(&position, standing.as_deref())? {
                    self.act(rule, position, || placement.strip(head))?;
                }
            }
        }
        Ok(())
    }

    fn is_foreign(
        &self,
        position: &Position,
        standing: Option<&[u8]>,
    ) -> Result<bool, InjectError> {
        let Some(value) = standing else {
            return Ok(false);
        };
        if self.settled.contains(position) {
            return Ok(false);
        }
        match examine(value, &self.injectors.recognizer) {
            Standing::Nothing => Ok(false),
            Standing::Ours => Err(strangers(position.clone())),
            Standing::Foreign => Ok(true),
        }
    }

    fn act(
        &mut self,
        rule: OnForeign,
        position: Position,
        strip: impl FnOnce() -> Result<(), InjectError>,
    ) -> Result<(), InjectError> {
        match rule {
            OnForeign::Pass => Ok(()),
            OnForeign::Refuse => Err(InjectError::Foreign { position }),
            OnForeign::Strip => {
                strip()?;
                self.stripped.push(position);
                Ok(())
            }
        }
    }

    fn body(&self, table: &Arc<AgentTable>, head: &Parts) -> Result<Option<BodySwap>, InjectError> {
        let mut targets = Vec::new();
        // Bodies are read for the credentials of the deciding rule only: on a path without one a large
        // upload must pass unread.
        let applicable = |credential: &Credential| self.applicable.contains(&credential.name);
        for (index, credential) in self.guarding().filter(|(_, c)| applicable(c)) {
            for place in &credential.bodies {
                let position = place.position();
                targets.push(BodyTarget {
                    place: place.clone(),
                    credential: credential.name.clone(),
                    held: credential.held.clone(),
                    placeholder: table.placeholder(index).unwrap_or_default().to_owned(),
                    barred: match self.active().any(|(other, _)| other == index) {
                        true => None,
                        false => Some(self.canary(index, position)),
                    },
                });
            }
        }
        if targets.is_empty() {
            return Ok(None);
        }
        let rule = strictest(self.guarding().map(|(_, c)| c.on_foreign)).unwrap_or_default();
        let recognizer = self.injectors.recognizer.clone();
        BodySwap::prepare(targets, table.clone(), recognizer, rule, head).map(Some)
    }

    /// Says besides what the credentials that went in ask for.
    fn append(&self, head: &mut Parts) {
        for (_, credential) in self.guarding() {
            let mut sent = self.outgoing.credentials.iter();
            if sent.any(|sent| sent.name == credential.name) {
                for word in &credential.appended {
                    word.apply(&mut head.headers);
                }
            }
        }
    }

    fn find_in(&self, standing: &[u8]) -> Option<usize> {
        let found = self.table.find_decoded(standing);
        found.or_else(|| self.table.find_decoded(&decode(standing)?.1))
    }

    /// What to say of a placeholder of this agent that was not swapped.
    fn canary(&self, index: usize, position: Position) -> InjectError {
        let guarding = self.guarding().any(|(other, _)| other == index);
        let name = self.table.name(index).cloned();
        match (name, self.target.scheme) {
            (Some(credential), Scheme::Http) if guarding => InjectError::Cleartext { credential },
            (credential, _) => InjectError::Canary {
                credential,
                position,
                misuse: match self.active().any(|(other, _)| other == index) {
                    true => Misuse::Misplaced,
                    false => Misuse::Elsewhere,
                },
            },
        }
    }
}

fn strangers(position: Position) -> InjectError {
    InjectError::Canary {
        credential: None,
        position,
        misuse: Misuse::Stranger,
    }
}

fn reveal<'r>(
    table: &'r AgentTable,
    index: usize,
    credential: &'r Credential,
    outgoing: &'r mut Outgoing,
) -> Reveal<'r> {
    let placeholder = table.placeholder(index).unwrap_or_default();
    Reveal::new(
        &credential.name,
        &credential.held,
        placeholder,
        table,
        outgoing,
    )
}
