//! Owns the strict reading of a token request: one body format, known parameters once each, one way
//! of client authentication.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::{Value, json};

use super::super::recorded::Recorded;
use super::super::reply::{self, Reply};
use super::ledger::covers;
use super::mint::Shape;
use super::settings::{BodyMode, ClientAuth, Settings, grant};

/// Why a request gets no token (RFC 6749, section 5.2).
#[derive(Clone, Debug)]
pub struct Refused {
    pub status: u16,
    pub error: &'static str,
    pub why: String,
    /// What OpenAI calls it, if it has a name for it.
    pub code: Option<&'static str>,
    /// The client broke the protocol, which no honest client does.
    pub breach: Breach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    No,
    Yes,
}

impl Refused {
    /// A request that no honest client sends.
    pub fn breach(error: &'static str, why: impl Into<String>) -> Self {
        Self {
            status: 400,
            error,
            why: why.into(),
            code: None,
            breach: Breach::Yes,
        }
    }

    /// A request in good order that is not granted.
    pub fn no(error: &'static str, why: impl Into<String>) -> Self {
        Self {
            breach: Breach::No,
            ..Self::breach(error, why)
        }
    }

    fn client(why: impl Into<String>) -> Self {
        Self {
            status: 401,
            ..Self::breach("invalid_client", why)
        }
    }

    /// With OpenAI's name for it.
    #[must_use]
    pub fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub fn reply(&self, shape: Shape) -> Reply {
        if let (Shape::Codex, Some(code)) = (shape, self.code) {
            let error = json!({"message": self.why, "type": "invalid_request_error", "param": null, "code": code});
            return reply::json(401, &json!({"error": error}));
        }
        let body = json!({"error": self.error, "error_description": self.why});
        let answer = reply::with(reply::json(self.status, &body), "cache-control", "no-store");
        match self.status {
            401 => reply::with(answer, "www-authenticate", "Basic realm=\"token\""),
            _ => answer,
        }
    }
}

/// The parameters of a request that is in good order.
#[derive(Debug)]
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The lifetime that the client asks for, where the provider lets it.
    pub fn lifetime(&self) -> Option<Duration> {
        let seconds = self.get("expires_in")?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// One that was found to be there.
    pub fn need(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }
}

/// Reads a request for the token endpoint.
pub fn token(settings: &Settings, head: &Recorded, body: &[u8]) -> Result<Parameters, Refused> {
    let sent = parse(settings, head, body)?;
    let grant_type = sent.get("grant_type").cloned().unwrap_or_default();
    let (needed, optional) = match grant_type.as_str() {
        grant::REFRESH => (&["refresh_token"][..], &["scope"][..]),
        grant::CODE => (&["code", "redirect_uri", "code_verifier"][..], &[][..]),
        grant::CLIENT => (&[][..], &["scope"][..]),
        grant::JWT => (&["assertion"][..], &["scope"][..]),
        grant::DEVICE => (&["device_code"][..], &[][..]),
        // Codex asks for an API key and goes on without one.
        grant::EXCHANGE if settings.shape == Shape::Codex => {
            return Err(Refused::no(
                "invalid_request",
                "this account has no API key",
            ));
        }
        other => {
            let why = format!("grant_type {other:?}");
            return Err(Refused::breach("unsupported_grant_type", why));
        }
    };
    let mode = settings.mode_of(&grant_type);
    if content_type(head) != Some(mode.media_type()) {
        let why = format!("a {grant_type} request comes as {} here", mode.media_type());
        return Err(Refused::breach("invalid_request", why));
    }
    let known = |name: &str| {
        ["grant_type", "client_id"].contains(&name)
            || needed.contains(&name)
            || optional.contains(&name)
            || settings
                .extras
                .iter()
                .any(|(g, n)| (*g, *n) == (grant_type.as_str(), name))
            || (name == "client_secret" && settings.client_auth == ClientAuth::Post)
    };
    complete(&sent, needed, known)?;
    // A service account's assertion says who asks (RFC 7523, section 2.1).
    let sent = Parameters(sent);
    if grant_type != grant::JWT || sent.get("client_id").is_some() {
        authenticate(settings, head, &sent)?;
    }
    Ok(sent)
}

/// Reads a request for another endpoint.
pub fn other(
    settings: &Settings,
    head: &Recorded,
    body: &[u8],
    mode: BodyMode,
    needed: &[&str],
    optional: &[&str],
) -> Result<Parameters, Refused> {
    let sent = parse(settings, head, body)?;
    if content_type(head) != Some(mode.media_type()) {
        let why = format!("this endpoint takes {}", mode.media_type());
        return Err(Refused::breach("invalid_request", why));
    }
    complete(&sent, needed, |name| {
        needed.contains(&name)
            || optional.contains(&name)
            || (name == "client_secret" && settings.client_auth == ClientAuth::Post)
    })?;
    match sent.get("scope") {
        Some(scope) if !covers(&settings.scope, scope) => {
            Err(Refused::breach("invalid_scope", scope))
        }
        _ => Ok(Parameters(sent)),
    }
}

fn complete(
    sent: &BTreeMap<String, String>,
    needed: &[&str],
    known: impl Fn(&str) -> bool,
) -> Result<(), Refused> {
    if let Some(unknown) = sent.keys().find(|name| !known(name)) {
        let why = format!("{unknown} has no place in this request");
        return Err(Refused::breach("invalid_request", why));
    }
    let mut missing = needed.iter().filter(|name| !sent.contains_key(**name));
    match missing.next() {
        Some(name) => Err(Refused::breach(
            "invalid_request",
            format!("{name} is missing"),
        )),
        None => Ok(()),
    }
}

fn parse(
    settings: &Settings,
    head: &Recorded,
    body: &[u8],
) -> Result<BTreeMap<String, String>, Refused> {
    let invalid = |why: &str| Refused::breach("invalid_request", why);
    if head.method != "POST" {
        return Err(Refused {
            status: 405,
            ..invalid("a token request is a POST")
        });
    }
    if head.target.contains('?') {
        return Err(invalid("a token request has no query"));
    }
    let name = head.authority.split(':').next().unwrap_or_default();
    if !settings.names.iter().any(|n| n == name) {
        return Err(invalid("this is not the token server's name"));
    }
    let pairs = match content_type(head) {
        Some(kind) if kind == BodyMode::Form.media_type() => {
            let text = std::str::from_utf8(body).map_err(|_| invalid("the form is no text"))?;
            form(text).ok_or_else(|| invalid("the form is not well encoded"))?
        }
        Some(kind) if kind == BodyMode::Json.media_type() => {
            object(body).map_err(|why| invalid(&why))?
        }
        other => return Err(invalid(&format!("content-type {other:?}"))),
    };
    let mut sent = BTreeMap::new();
    for (name, value) in pairs {
        if value.is_empty() {
            return Err(invalid(&format!("{name} is empty")));
        }
        if sent.insert(name.clone(), value).is_some() {
            return Err(invalid(&format!("{name} came twice")));
        }
    }
    Ok(sent)
}

/// The one value of the field, to the letter.
fn content_type(head: &Recorded) -> Option<&str> {
    match head.all("content-type")[..] {
        [one] => Some(one),
        _ => None,
    }
}

/// `application/x-www-form-urlencoded`; `None` where it is not encoded as it must be.
pub fn form(text: &str) -> Option<Vec<(String, String)>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let pairs = text.split('&').map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((decoded(name)?, decoded(value)?))
    });
    pairs.collect()
}

fn decoded(text: &str) -> Option<String> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"*-._~+%".contains(&c);
    let well_formed = text.split('%').skip(1).all(|after| {
        let code = after.as_bytes().get(..2);
        code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
    });
    if !well_formed || !text.bytes().all(plain) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    decoded.ok().map(|d| d.into_owned())
}

/// The members of a JSON object, in order and with those that came twice.
fn object(body: &[u8]) -> Result<Vec<(String, String)>, String> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let members = json.deserialize_map(Members).map_err(|e| e.to_string())?;
    json.end().map_err(|e| e.to_string())?;
    let members = members.into_iter().map(|(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(number) => Ok((name, number.to_string())),
        other => Err(format!("{name} is {other}")),
    });
    members.collect()
}

/// One way of authentication and no other (RFC 6749, section 2.3).
pub fn authenticate(
    settings: &Settings,
    head: &Recorded,
    sent: &Parameters,
) -> Result<(), Refused> {
    let authorization = head.all("authorization");
    let id = sent.get("client_id");
    let id_fits = id == Some(settings.client_id.as_str());
    match &settings.client_auth {
        ClientAuth::Basic => {
            let [field] = authorization[..] else {
                return Err(Refused::client("HTTP Basic is needed, once"));
            };
            let (user, password) = basic(field)
                .ok_or_else(|| Refused::client("HTTP Basic of two form-encoded parts is needed"))?;
            if user != settings.client_id || password != settings.client_secret {
                return Err(Refused::client("another client"));
            }
            match id {
                Some(_) if !id_fits => Err(Refused::client("two different client identifiers")),
                _ => Ok(()),
            }
        }
        _ if !authorization.is_empty() => Err(Refused::client("Authorization has no place here")),
        ClientAuth::Post if sent.get("client_secret") != Some(settings.client_secret.as_str()) => {
            Err(Refused::client("client_secret is missing or wrong"))
        }
        _ if !id_fits => Err(Refused::client("client_id is missing or another client's")),
        _ => Ok(()),
    }
}

/// Both parts are form-encoded before they are joined (RFC 6749, section 2.3.1).
fn basic(field: &str) -> Option<(String, String)> {
    let plain = STANDARD.decode(field.strip_prefix("Basic ")?).ok()?;
    let plain = String::from_utf8(plain).ok()?;
    let (user, password) = plain.split_once(':')?;
    Some((decoded(user)?, decoded(password)?))
}
