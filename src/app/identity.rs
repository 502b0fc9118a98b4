//! Owns who may call and what they hold: agents, their tokens, and their placeholders.

use std::sync::Arc;

use super::credentials::{Credentials, Ownership};
use super::error::StartError;
use super::settings::Settings;
use super::state::StateDir;
use crate::config::root::ExecutionSpec;
use crate::config::source::SourceSpec;
use crate::credential::held::Need;
use crate::credential::open::{Patience, SourceContext, open};
use crate::identity::identifier::{Identifier, TokenTable};
use crate::inject::placeholder::PlaceholderKey;
use crate::inject::set::{Injectors, Named};
use crate::types::agent::Agent;
use crate::types::secret::Secret;

/// Who may call.
///
/// Errors: a name that names no agent, a token that is missing or too short.
pub async fn open_identity(
    settings: &Settings,
    context: &SourceContext,
) -> Result<Identifier, StartError> {
    let spec = &settings.root.spec.identity;
    let parse = |name: &str| {
        Agent::parse(name)
            .map_err(|error| StartError::setting(error, "change the name under spec.identity"))
    };
    if let (Some(fixed), false) = (&spec.fixed, spec.agents.is_empty()) {
        return Err(StartError::setting(
            format!(
                "spec.identity has both `fixed: {}` and `agents`",
                fixed.value
            ),
            "keep `fixed` where one agent uses this proxy, `agents` where several do",
        ));
    }
    if spec.agents.is_empty() {
        let agent = match &spec.fixed {
            Some(name) => parse(name)?,
            None => default_name()?,
        };
        let execution = spec.execution.as_ref();
        let execution = execution.map(|execution| name_of(execution)).transpose()?;
        return Ok(Identifier::Fixed(agent, execution));
    }
    if spec.execution.is_some() {
        return Err(StartError::setting(
            "spec.identity has both `execution` and `agents`, and this process serves many executions of each",
            "keep `execution` where one agent uses this proxy",
        ));
    }
    let mut tokens = TokenTable::default();
    for agent in &spec.agents {
        let what = format!("token of agent {}", agent.name.value);
        let token = fetch(&what, &agent.token, context).await?;
        if token.len() < 16 {
            return Err(StartError::setting(
                format!(
                    "the token of agent `{}` is shorter than 16 characters",
                    agent.name.value
                ),
                "make one with `openssl rand -hex 32`",
            ));
        }
        tokens.add(parse(&agent.name)?, token).map_err(|other| {
            StartError::setting(
                format!(
                    "the agents `{}` and `{}` have the same token",
                    other.name(),
                    agent.name.value
                ),
                "give each agent a token of its own: `openssl rand -hex 32`",
            )
        })?;
    }
    Ok(Identifier::Tokens(tokens))
}

/// What an execution is called in the ledger.
///
/// Errors: a variable that is not set, or holds no name.
fn name_of(execution: &ExecutionSpec) -> Result<Arc<str>, StartError> {
    const LONGEST: usize = 128;
    let variable = match execution {
        ExecutionSpec::Made(name) => return Ok(name.as_str().into()),
        ExecutionSpec::Env(variable) => variable,
    };
    let name = std::env::var(&variable.value).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match (1..=LONGEST).contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(name.into()),
        false => Err(StartError::setting(
            format!(
                "spec.identity.execution: the variable {} is not set, or names no execution",
                variable.value
            ),
            "set it to up to 128 letters, digits, `-`, `_` and `.`; in Kubernetes from `fieldRef: { fieldPath: metadata.uid }`",
        )),
    }
}

/// The agent of a process that was told no name.
pub fn default_name() -> Result<Agent, StartError> {
    Agent::parse(Agent::DEFAULT_NAME).map_err(|error| StartError::setting(error, ""))
}

/// What derived placeholders are keyed with.
pub async fn placeholder_key(
    settings: &Settings,
    context: &SourceContext,
) -> Result<PlaceholderKey, StartError> {
    let key = match &settings.root.spec.placeholders.key {
        Some(source) => fetch("placeholder-key", source, context).await?,
        None => {
            StateDir::locate(settings.root.spec.state_dir.as_deref()).secret("placeholder.key")?
        }
    };
    PlaceholderKey::new(key.expose())
        .map_err(|error| StartError::setting(error, "make one with `openssl rand -hex 32`"))
}

/// A secret of the process's own, read once.
pub async fn fetch(
    name: &str,
    source: &SourceSpec,
    context: &SourceContext,
) -> Result<Secret, StartError> {
    let held = open(name, source, Need::Required, Patience::Answer, context).await;
    match held.current() {
        Ok(secret) => Ok(Secret::new(secret.expose().to_vec())),
        Err(error) => Err(StartError::setting(
            error,
            "mend its source and start again",
        )),
    }
}

/// What one agent is given.
pub struct AgentView {
    /// Who.
    pub agent: Agent,
    /// Its token, where several agents are told apart.
    pub token: Option<Secret>,
    /// Names of variables, and the placeholder they hold.
    pub placeholders: Vec<(Vec<String>, String)>,
    /// Every placeholder.
    pub injectors: Injectors,
}

/// What `name`, or the process's one agent, is given, told from the documents alone.
pub async fn agent_view(
    settings: &Settings,
    context: &SourceContext,
    name: Option<&str>,
) -> Result<AgentView, StartError> {
    let identifier = open_identity(settings, context).await?;
    let agents = identifier.agents();
    let known = || {
        agents
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let agent = match name {
        Some(name) => agents
            .iter()
            .find(|agent| agent.name() == name)
            .cloned()
            .ok_or_else(|| {
                StartError::setting(
                    format!("there is no agent `{name}`"),
                    format!("the agents are: {}", known()),
                )
            })?,
        None if agents.len() > 1 => {
            return Err(StartError::setting(
                "this proxy serves several agents",
                format!("name one with --agent: {}", known()),
            ));
        }
        None => agents.first().cloned().map_or_else(default_name, Ok)?,
    };
    let bundle = settings.bundle()?;
    let ownership = Ownership::Seen(settings.grants.clone());
    let open = Credentials::new(context.clone(), ownership)
        .open(&bundle, Patience::Answer)
        .await;
    let injectors = Injectors::compile(
        &bundle,
        &open.held,
        placeholder_key(settings, context).await?,
    )?;
    let token = identifier
        .token_of(&agent)
        .map(|token| Secret::new(token.expose().to_vec()));
    let placeholders = injectors.placeholder_env(&agent, Named::All);
    Ok(AgentView {
        agent,
        token,
        placeholders,
        injectors,
    })
}
