//! Owns `tollgate creds refresh`: a token is renewed by the running proxy, or here if none runs.

use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::args::Format;
use super::context::{Context, block_on};
use super::moment::relative;
use super::operator::{myself, recorded};
use super::output::Exit;
use crate::admin::client::AdminClient;
use crate::app::error::StartError;
use crate::app::grant_desk::{GrantDesk, oauth_source};
use crate::app::harden::hide_memory;
use crate::app::settings::Settings;
use crate::oauth::redeem::RedeemError;
use crate::oauth::requester::TokenRequester;
use crate::telemetry::audit_event::Event;

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
        Some(client.call_within(PATIENCE, Method::POST, &target).await)
    })?;
    let (status, body) = match answer {
        Some(Ok(answer)) => answer,
        // One that broke off may have redeemed the refresh token: a second one would end the login.
        Some(Err(error)) if !error.is_nobody() => {
            return Err(StartError::Temporary {
                what: error.to_string(),
                help: "`tollgate creds list` tells what came of it".to_owned(),
            });
        }
        _ => return here(context, &settings, name),
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

/// Without a running proxy: under the store's lock, so that one that starts meanwhile waits.
fn here(context: &Context, settings: &Settings, name: &str) -> Result<Exit, StartError> {
    let sources = context.sources(settings)?;
    // Tokens will be in its memory.
    hide_memory();
    let bundle = settings.bundle()?;
    let oauth = oauth_source(&bundle, name)?;
    block_on(async {
        let desk = GrantDesk::open(name, oauth, settings, &sources).await?;
        let probed = desk.store().probe().await;
        probed.map_err(|error| StartError::setting(error, ""))?;
        let record = match desk.refresh().await {
            Ok(record) => record,
            Err(error) => {
                let help = match error {
                    RedeemError::NoLogin | RedeemError::NeedsLogin(_) => {
                        format!("tollgate creds login {name}")
                    }
                    _ => String::new(),
                };
                return Ok(context.printer.problem(&error.to_string(), &help, Exit::No));
            }
        };
        let stored = Event::LoginStored {
            credential: name.to_owned(),
            by: "refresh",
            who: myself(),
        };
        recorded(context, settings, stored);
        let ends = record.ends_here(desk.asking().learned_offset());
        let ends = ends.and_then(|at| Timestamp::try_from(at).ok());
        tell(
            context,
            &json!({
                "name": name,
                "generation": record.generation,
                "expiresAt": ends.map(|at| format!("{at:.0}")),
            }),
        );
        Ok(Exit::Ok)
    })?
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
