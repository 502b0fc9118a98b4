//! Owns `tollgate creds placeholder`: what an agent holds instead of a credential, alone or as the file
//! that its client reads.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::args::{PlaceholderArgs, PlaceholderFormat};
use super::context::{Context, block_on};
use super::output::Exit;
use crate::app::error::StartError;
use crate::app::identity::agent_view;
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
    let profile = Map::<String, Value>::new();
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
