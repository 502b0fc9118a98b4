//! Owns the short forms of tests: policies from text, questions from a line, answers as a line.

use std::sync::Arc;

use http::Method;

use crate::config::bundle::{Bundle, Document};
use crate::config::error::{ConfigError, SourceFile};
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, RequestLine, Scheme};

use crate::policy::compile::compile;
use crate::policy::decision::{Denial, Permit, Treatment};
use crate::policy::engine::Engine;
use crate::policy::explain::{Explanation, explain};

/// Credentials that most tests share.
const CREDENTIALS: [(&str, &str); 4] = [
    (
        "anthropic",
        "hosts: [api.anthropic.com, '*.anthropic.com']\nports: [443, 8443]",
    ),
    ("github", "hosts: [api.github.com, '*.github.com']"),
    ("spare", "hosts: [api.anthropic.com]"),
    ("npm", "hosts: [registry.npmjs.org]"),
];

fn document<S: serde::de::DeserializeOwned>(name: &str, file: &str, text: &str) -> Document<S> {
    Document {
        name: name.to_owned(),
        namespace: None,
        uid: None,
        file: Arc::new(SourceFile {
            name: file.to_owned(),
            text: text.to_owned(),
        }),
        line: 1,
        builtin: false,
        spec: serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")),
    }
}

/// Policies `a.yaml`, `b.yaml`, ... with the shared credentials.
pub(super) fn bundle(policies: &[&str]) -> Bundle {
    let named = |(index, text): (usize, &&str)| {
        let name = char::from(b'a' + u8::try_from(index).unwrap()).to_string();
        document(&name, &format!("{name}.yaml"), text)
    };
    Bundle {
        policies: policies.iter().enumerate().map(named).collect(),
        credentials: CREDENTIALS
            .iter()
            .map(|(name, text)| document(name, "credentials.yaml", text))
            .collect(),
        budgets: Vec::new(),
    }
}

/// The same beside budgets `x`, `y`, ... of these specs.
pub(super) fn with_budgets(
    policies: &[&str],
    budgets: &[&str],
) -> Result<Engine, Vec<ConfigError>> {
    let mut bundle = bundle(policies);
    for (index, text) in budgets.iter().enumerate() {
        let name = char::from(b'x' + u8::try_from(index).unwrap()).to_string();
        bundle
            .budgets
            .push(document(&name, &format!("{name}.yaml"), text));
    }
    compile(&bundle)
}

pub(super) fn engine(policies: &[&str]) -> Engine {
    compile(&bundle(policies)).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

pub(super) fn errors(policies: &[&str]) -> Vec<ConfigError> {
    compile(&bundle(policies)).err().unwrap_or_default()
}

/// What is wrong with a policy beside a credential `login` of this text.
pub(super) fn with_login(credential: &str, policy: &str) -> Vec<ConfigError> {
    let mut bundle = bundle(&[policy]);
    bundle
        .credentials
        .push(document("login", "login.yaml", credential));
    compile(&bundle).err().unwrap_or_default()
}

/// Hands `then` the intent that `ask` describes: `POST https://host/path`, `CONNECT host:443`.
pub(super) fn with_intent<T>(
    agent: &str,
    ask: &str,
    then: impl FnOnce(&EgressIntent<'_>) -> T,
) -> T {
    let agent = Agent::parse(agent).unwrap();
    let (verb, target) = ask.split_once(' ').unwrap();
    if verb == "CONNECT" {
        return then(&EgressIntent {
            agent: &agent,
            authority: &Authority::parse(target, None).unwrap(),
            scheme: Scheme::Https,
            request: None,
        });
    }
    let method = Method::from_bytes(verb.as_bytes()).unwrap();
    let (scheme, rest) = match target.strip_prefix("http://") {
        Some(rest) => (Scheme::Http, rest),
        None => (Scheme::Https, target.strip_prefix("https://").unwrap()),
    };
    let (host, path) = rest.split_at(rest.find(['/', '*']).unwrap_or(rest.len()));
    then(&EgressIntent {
        agent: &agent,
        authority: &Authority::parse(host, Some(scheme.default_port())).unwrap(),
        scheme,
        request: Some(RequestLine {
            method: &method,
            path,
        }),
    })
}

pub(super) fn ask(engine: &Engine, agent: &str, ask: &str) -> Result<Permit, Denial> {
    with_intent(agent, ask, |intent| engine.authorize(intent))
}

pub(super) fn why(engine: &Engine, agent: &str, ask: &str) -> Explanation {
    with_intent(agent, ask, |intent| explain(engine, intent))
}

/// A decision in one line: `intercept a.yaml:3 [github]`, `tunnel`, `deny path_not_allowed`.
pub(super) fn verdict(engine: &Engine, agent: &str, asked: &str) -> String {
    let permit = match ask(engine, agent, asked) {
        Ok(permit) => permit,
        Err(denial) => return format!("deny {}", denial.reason),
    };
    let mut line = match permit.treatment() {
        Treatment::Intercept => "intercept".to_owned(),
        Treatment::Tunnel(_) => "tunnel".to_owned(),
    };
    if let Some(rule) = permit.rule() {
        line += &format!(" {rule}");
    }
    if !permit.credentials().is_empty() {
        line += &format!(" [{}]", permit.credentials().join(" "));
    }
    if let Some(denial) = permit.would_deny() {
        line += &format!(" would deny {}", denial.reason);
    }
    line
}

/// Asks every question of a table on behalf of `agent`.
pub(super) fn table(policies: &[&str], rows: &[(&str, &str)]) {
    let engine = engine(policies);
    for (asked, expected) in rows {
        assert_eq!(&verdict(&engine, "agent", asked), expected, "{asked}");
    }
}
