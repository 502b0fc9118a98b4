//! Owns `tollgate why`: the same walk as the proxy's own decision, with its reasons kept.

use std::sync::Arc;

use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::args::{Format, WhyArgs};
use super::context::{Context, block_on};
use super::output::Exit;
use crate::admin::client::AdminClient;
use crate::admin::question::Question;
use crate::app::authority::{open_configured_authority, signer};
use crate::app::error::StartError;
use crate::policy::compile::compile;
use crate::policy::explain::explain;
use crate::types::agent::Agent;

/// Explains one request. Exits with 1 when it would be refused.
pub fn why(context: &Context, args: &WhyArgs) -> Result<Exit, StartError> {
    match args.running {
        true => running(context, args),
        false => offline(context, args),
    }
}

fn offline(context: &Context, args: &WhyArgs) -> Result<Exit, StartError> {
    let settings = context.settings_with(&args.preset)?;
    let mut engine = compile(&settings.bundle()?)?;
    // Where there is none yet, the first start makes one that fits.
    if let Ok(authority) = open_configured_authority(&settings) {
        engine = engine.signed_by(signer(&Arc::new(authority)));
    }
    let identity = &settings.root.spec.identity;
    let own = identity
        .fixed
        .as_ref()
        .or_else(|| identity.agents.first().map(|a| &a.name));
    let name = args
        .agent
        .as_deref()
        .or(own.map(|n| n.value.as_str()))
        .unwrap_or(Agent::DEFAULT_NAME);
    let agent = Agent::parse(name)
        .map_err(|error| StartError::setting(error, "name an agent with --agent"))?;
    let question = Question::parse(&args.url, Some(&args.method)).map_err(|error| {
        StartError::setting(error, "write a URL such as https://api.github.com/user")
    })?;
    let intent = question.intent(&agent);
    let explanation = explain(&engine, &intent);
    match context.printer.format {
        Format::Json => context.printer.json(&explanation),
        _ => context.printer.out(&explanation.to_string()),
    }
    Ok(match engine.authorize(&intent) {
        Ok(_) => Exit::Ok,
        Err(_) => Exit::No,
    })
}

fn running(context: &Context, args: &WhyArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut target = format!(
        "/v1/why?url={}&method={}",
        encode(&args.url),
        encode(&args.method)
    );
    if let Some(agent) = &args.agent {
        target.push_str(&format!("&agent={}", encode(agent)));
    }
    let answer = block_on(async {
        let token = Some(context.admin_token(&settings).await?);
        let client = AdminClient {
            address: context.admin_address(Some(&settings)),
            token,
        };
        client
            .call(Method::GET, &target)
            .await
            .map_err(|error| StartError::Temporary {
                what: error.to_string(),
                help: "is `tollgate serve` running? without --running the files are asked"
                    .to_owned(),
            })
    })??;
    let (status, body) = answer;
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if status != StatusCode::OK {
        let message = answer["error"]["message"]
            .as_str()
            .unwrap_or("the running proxy refused to answer");
        return Err(StartError::setting(
            message,
            "check --admin and the admin token",
        ));
    }
    match context.printer.format {
        Format::Json => context.printer.json(&answer["explanation"]),
        _ => context
            .printer
            .out(answer["text"].as_str().unwrap_or_default()),
    }
    let denied = answer["text"]
        .as_str()
        .is_some_and(|text| text.starts_with("DENY"));
    Ok(if denied { Exit::No } else { Exit::Ok })
}
