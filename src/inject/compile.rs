//! Owns the step from an `EgressCredential` as written to one that can be injected; whatever is
//! wrong with it is found here, with its place, and not on the first request.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;

use super::append::Appended;
use super::basic::BasicPlace;
use super::body::BodyPlace;
use super::cookie::CookiePlace;
use super::header::HeaderPlace;
use super::injector::Injector;
use super::path::PathPlace;
use super::placeholder::{
    DEFAULT_REFRESH_SHAPE, DEFAULT_SHAPE, PlaceholderKey, SIGNATURE_SHAPE, check_fixed, check_shape,
};
use super::query::QueryPlace;
use super::table::Held;
use crate::config::bundle::Document;
use crate::config::credential::{
    BasicPosition, EgressCredentialSpec, InjectionMode, OnForeign, PlacementSpec,
};
use crate::config::error::ConfigError;
use crate::config::known_clients::facts;
use crate::config::located::Located;
use crate::config::shape::Shape;
use crate::config::source::{GrantSpec, SourceSpec};
use crate::credential::held::HeldCredential;
use crate::oauth::phantom::Phantoms;
use crate::types::agent::Agent;
use crate::types::host::{Authority, Host, HostPattern};

/// The port a secret may go to when none is written.
const DEFAULT_PORT: u16 = 443;

/// A credential, ready to be injected.
#[derive(Debug)]
pub struct Credential {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub held: Arc<HeldCredential>,
    /// Where it may stand in a head.
    pub placements: Vec<Box<dyn Injector>>,
    /// Where it may stand in a body.
    pub bodies: Vec<BodyPlace>,
    /// When it goes out.
    pub mode: InjectionMode,
    /// What happens to other credentials on its hosts.
    pub on_foreign: OnForeign,
    /// What agents hold instead.
    pub placeholder: Form,
    /// What agents hold in place of a refresh token, where there may be one.
    pub refresh: Option<Shape>,
    /// What a request with the secret must say besides.
    pub appended: Vec<Appended>,
    /// The variables agents find the placeholder in.
    pub env: Vec<String>,
    hosts: Vec<HostPattern>,
    ports: Vec<u16>,
}

/// How a placeholder comes about.
#[derive(Debug, Clone)]
pub enum Form {
    /// The same for every agent.
    Fixed(String),
    /// Derived for each agent, in this shape.
    Derived(Shape),
}

impl Form {
    /// The placeholder of `credential` for `agent`.
    pub fn render(&self, key: &PlaceholderKey, agent: &str, credential: &str) -> String {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Derived(shape) => key.derive(shape, agent, credential),
        }
    }
}

impl Credential {
    /// Whether this host may receive it on some port.
    pub fn is_for(&self, host: &Host) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// What `agent` holds of it.
    pub fn held_by(&self, agent: &Agent, key: &PlaceholderKey) -> Held {
        let placeholder = self.placeholder.render(key, agent.name(), &self.name);
        let derive = |shape, kind| key.derive_part(shape, agent.name(), &self.name, kind);
        let signature = Shape::parse(SIGNATURE_SHAPE).ok();
        let phantoms = self.refresh.as_ref().zip(signature.as_ref());
        Held {
            name: self.name.clone(),
            phantoms: phantoms.map(|(refresh, signature)| Phantoms {
                access: placeholder.clone(),
                refresh: derive(refresh, "refresh"),
                signature: derive(signature, "identity"),
            }),
            placeholder,
        }
    }

    /// Whether it may go exactly there.
    pub fn may_go_to(&self, authority: &Authority) -> bool {
        self.ports.contains(&authority.port) && self.is_for(&authority.host)
    }
}

/// Compiles every credential of a bundle that has a value; finds all errors, not only the first.
pub fn compile(
    documents: &[Document<EgressCredentialSpec>],
    held: &BTreeMap<String, Arc<HeldCredential>>,
) -> Result<Vec<Credential>, Vec<ConfigError>> {
    let mut credentials: Vec<Credential> = Vec::new();
    let mut errors = Vec::new();
    for document in documents {
        let mut reading = Reading {
            document,
            errors: &mut errors,
        };
        let Some(held) = held.get(&document.name) else {
            // A preset's credential that nobody gave a source is not in use.
            if !document.builtin {
                reading.error(
                    "TG0601",
                    "has no source",
                    "write where the secret comes from under `source`",
                );
            }
            continue;
        };
        let credential = reading.credential(held.clone());
        if let Some(other) = credentials.iter().find(|other| clash(other, &credential)) {
            let what = format!(
                "collides with `{}`: same name or same fixed placeholder",
                other.name
            );
            reading.error(
                "TG0602",
                &what,
                "give each credential its own name and its own placeholder",
            );
        }
        credentials.push(credential);
    }
    match errors.is_empty() {
        true => Ok(credentials),
        false => Err(errors),
    }
}

fn clash(one: &Credential, other: &Credential) -> bool {
    let same_value = match (&one.placeholder, &other.placeholder) {
        (Form::Fixed(one), Form::Fixed(other)) => one == other,
        _ => false,
    };
    one.name == other.name || same_value
}

/// Reads one document and notes what is wrong with it.
struct Reading<'a> {
    document: &'a Document<EgressCredentialSpec>,
    errors: &'a mut Vec<ConfigError>,
}

impl Reading<'_> {
    fn credential(&mut self, held: Arc<HeldCredential>) -> Credential {
        let spec = &self.document.spec;
        let mode = spec.mode.unwrap_or_default();
        let (placements, bodies) = self.placements(mode);
        Credential {
            name: self.document.name.as_str().into(),
            held,
            placements,
            bodies,
            mode,
            on_foreign: spec.on_foreign.unwrap_or_default(),
            placeholder: self.placeholder(),
            refresh: self.refresh(),
            appended: self.appended(),
            env: spec
                .placeholder
                .as_ref()
                .map_or_else(Vec::new, |p| p.env.clone()),
            hosts: self.hosts(),
            ports: match spec.ports.is_empty() {
                true => vec![DEFAULT_PORT],
                false => spec.ports.iter().map(|port| port.value).collect(),
            },
        }
    }

    fn hosts(&mut self) -> Vec<HostPattern> {
        let written = &self.document.spec.hosts;
        if written.is_empty() {
            let help = "list under `hosts` which hosts may receive the secret";
            self.error("TG0603", "may go to no host", help);
        }
        let mut hosts = Vec::new();
        for host in written {
            match HostPattern::parse(host) {
                Ok(pattern) => hosts.push(pattern),
                Err(error) => self.error_at(
                    host,
                    host.len(),
                    "TG0604",
                    "has a host that is none",
                    &error.to_string(),
                ),
            }
        }
        hosts
    }

    fn placements(&mut self, mode: InjectionMode) -> (Vec<Box<dyn Injector>>, Vec<BodyPlace>) {
        let (mut head, mut bodies) = (Vec::new(), Vec::new());
        let written = &self.document.spec.placements;
        if written.is_empty() {
            let help = "list under `placements` where the placeholder may stand, for example `- bearer: {}`";
            self.error("TG0605", "has no placement", help);
        }
        for (index, placement) in written.iter().enumerate() {
            let what = "has a placement that cannot be used";
            match injector(placement) {
                Ok(Some(injector)) => head.push(injector),
                Ok(None) => {}
                Err(why) => self.error_at(placement, 1, "TG0606", what, &why),
            }
            match body(placement) {
                Ok(body) => bodies.extend(body),
                Err(why) => self.error_at(placement, 1, "TG0606", what, &why),
            }
            if mode == InjectionMode::Set
                && index == 0
                && let Err(why) = settable(placement)
            {
                self.error_at(
                    placement,
                    1,
                    "TG0607",
                    "cannot be set in its first placement",
                    why,
                );
            }
        }
        (head, bodies)
    }

    fn placeholder(&mut self) -> Form {
        let spec = self.document.spec.placeholder.as_ref();
        if let Some(value) = spec.and_then(|spec| spec.value.as_ref()) {
            if let Err(why) = check_fixed(value) {
                self.error_at(
                    value,
                    value.len(),
                    "TG0608",
                    "has a placeholder that cannot be used",
                    &why,
                );
            }
            return Form::Fixed(value.value.clone());
        }
        let default = Located::unwritten(DEFAULT_SHAPE.to_owned());
        let written = spec
            .and_then(|spec| spec.shape.as_ref())
            .unwrap_or(&default);
        match self.shape(written) {
            Some(shape) => Form::Derived(shape),
            // Never used: the error keeps the documents from being loaded.
            None => Form::Fixed(String::new()),
        }
    }

    fn refresh(&mut self) -> Option<Shape> {
        let spec = &self.document.spec;
        let source = spec.source.as_ref().map(|source| &source.value);
        let Some(SourceSpec::Oauth(oauth)) = source else {
            return None;
        };
        if oauth.grant != (GrantSpec::RefreshToken {}) {
            return None;
        }
        let client = oauth.client.as_ref();
        let known = client.and_then(|client| facts(client.value).refresh_shape);
        let default = Located::unwritten(known.unwrap_or(DEFAULT_REFRESH_SHAPE).to_owned());
        let placeholder = spec.placeholder.as_ref();
        let written = placeholder.and_then(|spec| spec.refresh_shape.as_ref());
        self.shape(written.unwrap_or(&default))
    }

    fn shape(&mut self, written: &Located<String>) -> Option<Shape> {
        let shape = Shape::parse(written)
            .map_err(|error| error.to_string())
            .and_then(|shape| check_shape(&shape).map(|()| shape));
        let what = "has a placeholder shape that cannot be used";
        shape
            .inspect_err(|why| self.error_at(written, written.len(), "TG0609", what, why))
            .ok()
    }

    fn appended(&mut self) -> Vec<Appended> {
        let written = &self.document.spec.request_headers;
        let mut appended = Vec::new();
        for header in written {
            match Appended::new(&header.name, &header.append) {
                Ok(one) => appended.push(one),
                Err(why) => {
                    let what = "has a request header that cannot be sent";
                    self.error_at(header, 1, "TG0606", what, &why);
                }
            }
        }
        appended
    }

    fn error(&mut self, code: &'static str, what: &str, help: &str) {
        let here = Located {
            value: (),
            line: self.document.line,
            column: 1,
        };
        self.error_at(&here, 1, code, what, help);
    }

    fn error_at<T>(
        &mut self,
        at: &Located<T>,
        length: usize,
        code: &'static str,
        what: &str,
        help: &str,
    ) {
        let message = format!("the credential `{}` {what}", self.document.name);
        let place = self.document.place(at, length);
        self.errors
            .push(ConfigError::new(code, message).at(place).help(help));
    }
}

fn injector(placement: &PlacementSpec) -> Result<Option<Box<dyn Injector>>, String> {
    Ok(Some(match placement {
        PlacementSpec::Header { name, format } => {
            Box::new(HeaderPlace::new(header_name(name)?, format.as_deref())?)
        }
        PlacementSpec::Bearer {} => Box::new(HeaderPlace::bearer()),
        PlacementSpec::Basic { position, username } => {
            if username.as_ref().is_some_and(|name| name.contains(':')) {
                return Err("a user name has no colon (RFC 7617)".to_owned());
            }
            Box::new(BasicPlace::new(*position, username.clone()))
        }
        PlacementSpec::Query { name } => Box::new(QueryPlace::new(name)?),
        PlacementSpec::Path { template } => Box::new(PathPlace::new(template)?),
        PlacementSpec::Cookie { name } => Box::new(CookiePlace::new(name)?),
        PlacementSpec::Body { .. } => return Ok(None),
    }))
}

fn body(placement: &PlacementSpec) -> Result<Option<BodyPlace>, String> {
    match placement {
        PlacementSpec::Body { pointer, limit } => {
            BodyPlace::new(pointer, limit.map(|size| size.0)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Headers that frame or route a request: a secret there would never arrive, or break it.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn header_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{name}` is no header name"))?;
    match RESERVED.contains(&parsed.as_str()) {
        true => Err(format!("the header `{parsed}` cannot hold a credential")),
        false => Ok(parsed),
    }
}

fn settable(placement: &PlacementSpec) -> Result<(), &'static str> {
    match placement {
        PlacementSpec::Path { .. } | PlacementSpec::Body { .. } => {
            Err("`mode: set` needs a header, query parameter or cookie as its first placement")
        }
        PlacementSpec::Basic {
            position: BasicPosition::Any | BasicPosition::Password,
            username: None,
        } => Err("with `mode: set`, write the `username` to send beside the secret"),
        _ => Ok(()),
    }
}
