//! Owns `tollgate creds`: which subcommand does what, and who is asked: the running proxy, or the
//! credentials themselves.

use serde_json::Value;

use super::args::CredsCommand;
use super::context::{Context, block_on};
use super::output::Exit;
use super::{creds_import, creds_list, creds_login, creds_placeholder, creds_refresh};
use crate::admin::client::AdminClient;
use crate::app::credentials::{Credentials, Ownership};
use crate::app::error::StartError;
use crate::app::settings::Settings;
use crate::credential::open::Patience;

/// Runs one of the subcommands.
pub fn creds(context: &Context, command: &CredsCommand) -> Result<Exit, StartError> {
    match command {
        CredsCommand::List => {
            creds_list::list(&context.printer, &statuses(context)?);
            Ok(Exit::Ok)
        }
        CredsCommand::Check { names } => {
            creds_list::check(&context.printer, &statuses(context)?, names)
        }
        CredsCommand::Login(args) => creds_login::login(context, args),
        CredsCommand::Import(args) => creds_import::import(context, args),
        CredsCommand::Refresh { name } => creds_refresh::refresh(context, name),
        CredsCommand::Placeholder(args) => creds_placeholder::placeholder(context, args),
    }
}

/// How the credentials are: as the running proxy has them, or opened here to see.
fn statuses(context: &Context) -> Result<Vec<Value>, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    block_on(async {
        if let Some(statuses) = running(context, &settings).await {
            return Ok(statuses);
        }
        let bundle = settings.bundle()?;
        let ownership = Ownership::Seen(settings.grants.clone());
        let open = Credentials::new(sources, ownership)
            .open(&bundle, Patience::Answer)
            .await;
        Ok(open
            .held
            .values()
            .map(|h| serde_json::to_value(h.status()).unwrap_or_default())
            .collect())
    })?
}

async fn running(context: &Context, settings: &Settings) -> Option<Vec<Value>> {
    let token = Some(context.admin_token(settings).await.ok()?);
    let client = AdminClient {
        address: context.admin_address(Some(settings)),
        token,
    };
    let (status, body) = client
        .call(http::Method::GET, "/v1/credentials")
        .await
        .ok()?;
    if !status.is_success() {
        return None;
    }
    let answer: Value = serde_json::from_slice(&body).ok()?;
    answer["credentials"].as_array().cloned()
}
