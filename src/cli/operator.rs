//! Owns how commands of operators speak with the running proxy: one call, and what becomes of a refusal.

use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::context::Context;
use crate::admin::client::{AdminClient, Lines};
use crate::app::audit::add_event;
use crate::app::error::StartError;
use crate::app::settings::Settings;
use crate::telemetry::audit_event::Event;

/// What the running proxy said.
pub enum Heard<T> {
    /// It did what was asked.
    Done(T),
    /// It did not, and says why.
    Refused(String),
    /// No proxy is there.
    Nobody(String),
}

impl<T> Heard<T> {
    /// The same, where nothing can be done without a running proxy.
    pub fn needs_proxy(self) -> Result<Result<T, String>, StartError> {
        match self {
            Self::Done(answer) => Ok(Ok(answer)),
            Self::Refused(why) => Ok(Err(why)),
            Self::Nobody(what) => Err(StartError::Temporary {
                what,
                help: "is `tollgate serve` running, with this configuration?".to_owned(),
            }),
        }
    }
}

/// Asks the running proxy.
pub async fn ask<T: DeserializeOwned>(
    context: &Context,
    settings: &Settings,
    target: &str,
) -> Result<Heard<T>, StartError> {
    call(context, settings, Method::GET, target, None).await
}

/// Tells the running proxy to do something.
pub async fn tell<T: DeserializeOwned>(
    context: &Context,
    settings: &Settings,
    target: &str,
    order: &impl Serialize,
) -> Result<Heard<T>, StartError> {
    let order = serde_json::to_vec(order).map_err(|error| StartError::setting(error, ""))?;
    call(context, settings, Method::POST, target, Some(order)).await
}

/// Watches the running proxy.
pub async fn watch(
    context: &Context,
    settings: &Settings,
    target: &str,
) -> Result<Heard<Lines>, StartError> {
    let client = match client(context, settings).await? {
        Ok(client) => client,
        Err(nobody) => return Ok(Heard::Nobody(nobody)),
    };
    match client.watch(target).await {
        Ok((status, lines)) if status.is_success() => Ok(Heard::Done(lines)),
        Ok((StatusCode::UNAUTHORIZED, _)) => Err(other_token()),
        Ok((status, lines)) => Ok(Heard::Refused(refusal(status, &lines.rest().await))),
        Err(error) => Ok(Heard::Nobody(error.to_string())),
    }
}

/// The way to the admin port, or why nobody can be there.
async fn client(
    context: &Context,
    settings: &Settings,
) -> Result<Result<AdminClient, String>, StartError> {
    match context.admin_token(settings).await {
        Ok(token) => Ok(Ok(AdminClient {
            address: context.admin_address(Some(settings)),
            token: Some(token),
        })),
        Err(StartError::Temporary { what, .. }) => Ok(Err(what)),
        Err(error) => Err(error),
    }
}

async fn call<T: DeserializeOwned>(
    context: &Context,
    settings: &Settings,
    method: Method,
    target: &str,
    order: Option<Vec<u8>>,
) -> Result<Heard<T>, StartError> {
    let client = match client(context, settings).await? {
        Ok(client) => client,
        Err(nobody) => return Ok(Heard::Nobody(nobody)),
    };
    let help = match method == Method::GET {
        true => "try it again; other connections may have taken all that the admin port has",
        false => "`tollgate budget show` tells what came of it",
    };
    let (status, body) = match client.send(method, target, order).await {
        Ok(answer) => answer,
        Err(error) if error.is_nobody() => return Ok(Heard::Nobody(error.to_string())),
        // What was asked may have been done.
        Err(error) => {
            return Err(StartError::Temporary {
                what: error.to_string(),
                help: help.to_owned(),
            });
        }
    };
    if status == StatusCode::UNAUTHORIZED {
        return Err(other_token());
    }
    if status.is_success() {
        let answer = serde_json::from_slice(&body);
        return answer.map(Heard::Done).map_err(|error| {
            StartError::setting(
                format!("the running proxy answers with something else: {error}"),
                "is it of this version? restart it after an update",
            )
        });
    }
    Ok(Heard::Refused(refusal(status, &body)))
}

fn other_token() -> StartError {
    StartError::setting(
        "the running proxy does not take this admin token",
        "is it the proxy of this configuration? check --admin, --config and admin.token",
    )
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let why = answer["error"]["message"].as_str();
    why.map_or_else(
        || format!("the running proxy answers {status}"),
        ToOwned::to_owned,
    )
}

/// Adds what a command did to the audit log. The command is done: where that fails, it is said.
pub fn recorded(context: &Context, settings: &Settings, event: Event) {
    if let Err(error) = add_event(settings, event) {
        context
            .printer
            .note(&format!("warning: this is not in the audit log: {error}"));
    }
}

/// Who gives the order, for the audit: the login name, the one behind `sudo` first.
pub fn myself() -> String {
    let named = |name: &str| {
        let value = std::env::var_os(name)?.into_string().ok()?;
        let fit = !value.trim().is_empty() && !value.chars().any(char::is_control);
        fit.then_some(value)
    };
    match (
        named("SUDO_USER"),
        named("USER").or_else(|| named("LOGNAME")),
    ) {
        (Some(person), _) => person,
        (None, Some(user)) => user,
        (None, None) => format!("uid {}", rustix::process::getuid().as_raw()),
    }
}
