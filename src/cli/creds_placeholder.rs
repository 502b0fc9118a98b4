//! Owns `tollgate creds placeholder`: what an agent holds instead of a credential, alone or as the file
//! that its client reads.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::args::{PlaceholderArgs, PlaceholderFormat};
use super::context::{Context, block_on};
use super::output::Exit;
use crate::app::error::StartError;
use crate::app::grant_desk::{GrantDesk, oauth_source};
use crate::app::identity::agent_view;
use crate::app::settings::Settings;
use crate::credential::open::SourceContext;
use crate::oauth::phantom::{claude_credentials, codex_auth};

/// Prints it to standard output. Where it belongs is for the one who asks to say.
pub fn placeholder(context: &Context, args: &PlaceholderArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    let view = block_on(agent_view(&settings, &sources, args.agent.as_deref()))??;
    let Some(placeholder) = view.injectors.placeholder(&view.agent, &args.name) else {
        let bundle = settings.bundle()?;
        let known: Vec<&str> = bundle.credentials.iter().map(|c| &*c.name).collect();
        return Err(StartError::setting(
            format!("there is no credential `{}`", args.name),
            format!("the credentials are: {}", known.join(", ")),
        ));
    };
    let profile = match args.format {
        PlaceholderFormat::Text => Map::new(),
        _ => block_on(profile(&settings, &sources, &args.name))??,
    };
    match args.format {
        PlaceholderFormat::Text => context.printer.out(&placeholder),
        PlaceholderFormat::Claude => {
            context
                .printer
                .json(&claude_credentials(&placeholder, &profile));
        }
        PlaceholderFormat::Codex => {
            if !profile.contains_key("account_id") {
                context.printer.note(
                    "no login of a ChatGPT account is held: `tokens.account_id` is left out, and Codex needs it",
                );
            }
            let file = codex_auth(&placeholder, &profile, SystemTime::now());
            context.printer.json(&file);
        }
    }
    Ok(Exit::Ok)
}

/// What is known of whose login it is; nothing for a credential that is none, or before the login.
async fn profile(
    settings: &Settings,
    sources: &SourceContext,
    name: &str,
) -> Result<Map<String, Value>, StartError> {
    let bundle = settings.bundle()?;
    let Ok(oauth) = oauth_source(&bundle, name) else {
        return Ok(Map::new());
    };
    let desk = GrantDesk::open(name, oauth, settings, sources).await?;
    let record = desk.record().await;
    let record = record.map_err(|error| StartError::setting(error, ""))?;
    Ok(record
        .tokens
        .map(|tokens| tokens.profile)
        .unwrap_or_default())
}
