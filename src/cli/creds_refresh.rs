//! Owns `tollgate creds refresh`: a token is renewed by the running proxy, or here if none runs.

use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::args::Format;
use super::context::{Context, block_on};
use super::moment::relative;
use super::output::Exit;
use crate::admin::client::AdminClient;
use crate::app::error::StartError;

/// A renewal waits for the lock of whoever renews already, then for the endpoint.
const PATIENCE: Duration = Duration::from_secs(180);

/// Renews; 1 if it could not be done, with what to do.
pub fn refresh(context: &Context, name: &str) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let answer = block_on(async {
        let token = context.admin_token(&settings).await.ok()?;
        let client = AdminClient {
            address: context.admin_address(Some(&settings)),
            token: Some(token),
        };
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let target = format!("/v1/credentials/{name}/refresh");
        client
            .call_within(PATIENCE, Method::POST, &target)
            .await
            .ok()
    })?;
    let Some((status, body)) = answer else {
        return Err(StartError::Temporary {
            what: "no proxy runs with this configuration".to_owned(),
            help: "start it with `tollgate serve`".to_owned(),
        });
    };
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == StatusCode::OK {
        tell(context, &answer);
        return Ok(Exit::Ok);
    }
    let why = answer["error"]["message"]
        .as_str()
        .unwrap_or("the running proxy refused");
    Ok(context.printer.problem(why, "", Exit::No))
}

/// `claude-login: refreshed, expires in 8h`.
fn tell(context: &Context, renewed: &Value) {
    if context.printer.format == Format::Json {
        return context.printer.json(renewed);
    }
    let name = renewed["name"].as_str().unwrap_or_default();
    let at: Option<Timestamp> = renewed["expiresAt"].as_str().and_then(|at| at.parse().ok());
    let until = at.map(|at| format!(", expires {}", relative(at, Timestamp::now())));
    context
        .printer
        .out(&format!("{name}: refreshed{}", until.unwrap_or_default()));
}
