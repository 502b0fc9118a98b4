//! Owns `tollgate creds`: how credentials are doing. Asks the running proxy, or opens them itself.

use super::args::{CredsCommand, Format};
use super::context::{Context, block_on};
use super::output::{Exit, table};
use crate::admin::client::AdminClient;
use crate::app::credentials::{Credentials, Ownership};
use crate::app::error::StartError;
use crate::app::settings::Settings;
use crate::credential::open::Patience;

/// Runs one of the subcommands.
pub fn creds(context: &Context, command: &CredsCommand) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    let statuses = block_on(async {
        match running(context, &settings).await {
            Some(statuses) => Ok(statuses),
            None => {
                let bundle = settings.bundle()?;
                let ownership = Ownership::Seen(settings.grants.clone());
                let open = Credentials::new(sources, ownership)
                    .open(&bundle, Patience::Answer)
                    .await;
                let statuses: Vec<_> = open
                    .held
                    .values()
                    .map(|h| serde_json::to_value(h.status()).unwrap_or_default())
                    .collect();
                Ok::<_, StartError>(statuses)
            }
        }
    })??;
    match command {
        CredsCommand::List => {
            list(context, &statuses);
            Ok(Exit::Ok)
        }
        CredsCommand::Check { names } => check(context, &statuses, names),
    }
}

async fn running(context: &Context, settings: &Settings) -> Option<Vec<serde_json::Value>> {
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
    let answer: serde_json::Value = serde_json::from_slice(&body).ok()?;
    answer["credentials"].as_array().cloned()
}

fn field(status: &serde_json::Value, name: &str) -> String {
    match &status[name] {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(context: &Context, statuses: &[serde_json::Value]) {
    if context.printer.format == Format::Json {
        return context.printer.json(&statuses);
    }
    let row = |s: &serde_json::Value| {
        ["name", "state", "source", "expiresAt", "since", "lastError"]
            .map(|f| field(s, f))
            .to_vec()
    };
    let rows: Vec<Vec<String>> = statuses.iter().map(row).collect();
    context.printer.out(&table(
        &["NAME", "STATE", "SOURCE", "EXPIRES", "SINCE", "LAST ERROR"],
        &rows,
    ));
}

fn check(
    context: &Context,
    statuses: &[serde_json::Value],
    names: &[String],
) -> Result<Exit, StartError> {
    for name in names {
        if !statuses.iter().any(|s| s["name"] == name.as_str()) {
            let known: Vec<String> = statuses.iter().map(|s| field(s, "name")).collect();
            return Err(StartError::setting(
                format!("there is no credential `{name}`"),
                format!("the credentials are: {}", known.join(", ")),
            ));
        }
    }
    let chosen: Vec<_> = statuses
        .iter()
        .filter(|s| names.is_empty() || names.iter().any(|n| s["name"] == n.as_str()))
        .cloned()
        .collect();
    let mut exit = Exit::Ok;
    for status in &chosen {
        let ok = status["state"] == "ok";
        let tolerated = status["optional"] == true && names.is_empty();
        if !ok && !tolerated {
            exit = Exit::No;
        }
    }
    list(context, &chosen);
    Ok(exit)
}
