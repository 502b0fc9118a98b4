//! Owns `tollgate env`: the variables that point an agent at the proxy and hold its placeholders.

use std::net::{Ipv4Addr, SocketAddr};

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::args::{EnvArgs, EnvFor};
use super::context::{Context, block_on};
use super::output::Exit;
use crate::admin::client::AdminClient;
use crate::app::authority::trust_dir;
use crate::app::error::StartError;
use crate::app::identity::{AgentView, agent_view};
use crate::app::settings::Settings;
use crate::config::agent_env::{AgentEnvironment, EnvFormat, ProxyAddress, ProxyLogin};
use crate::types::agent::Agent;
use crate::types::host::{Authority, Host};

/// Prints the variables.
pub fn env(context: &Context, args: &EnvArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    let AgentView {
        agent,
        token,
        placeholders,
        ..
    } = block_on(agent_view(&settings, &sources, args.agent.as_deref()))??;
    let running = block_on(running(context, &settings, &agent))?;
    let configured = settings.root.spec.listen.as_ref().map(|l| l.value);
    let address = args
        .address
        .or(running.as_ref().map(|r| r.listen))
        .or(configured);
    let mut address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8888)));
    let placeholders = running.map_or(placeholders, |r| r.placeholders);
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let trust = args
        .trust_dir
        .clone()
        .unwrap_or_else(|| trust_dir(&settings));
    // An agent works in other directories than the proxy.
    let trust = std::path::absolute(&trust).unwrap_or(trust);
    let proxy = ProxyAddress {
        address: Authority::new(Host::Ip(address.ip()), address.port()),
        login: token.map(|token| ProxyLogin {
            user: agent.to_string(),
            token,
        }),
        ca: trust.join("ca.crt"),
        bundle: trust.join("bundle.crt"),
        java_trust_store: None,
    };
    let format = match args.format {
        EnvFor::Sh => EnvFormat::Sh,
        EnvFor::Dotenv => EnvFormat::Dotenv,
        EnvFor::K8s => EnvFormat::K8s,
        EnvFor::Dockerfile => EnvFormat::Dockerfile,
    };
    context
        .printer
        .out(&AgentEnvironment::new(&proxy, &placeholders).render(format));
    Ok(Exit::Ok)
}

/// What a running proxy says: its real port, and which credentials it can inject.
#[derive(serde::Deserialize)]
struct Running {
    listen: SocketAddr,
    placeholders: Vec<(Vec<String>, String)>,
}

/// Asks the proxy of this configuration; without one the documents say what there is to say.
async fn running(context: &Context, settings: &Settings, agent: &Agent) -> Option<Running> {
    let token = Some(context.admin_token(settings).await.ok()?);
    let client = AdminClient {
        address: context.admin_address(Some(settings)),
        token,
    };
    let name = utf8_percent_encode(agent.name(), NON_ALPHANUMERIC);
    let (status, body) = client
        .call(Method::GET, &format!("/v1/environment?agent={name}"))
        .await
        .ok()?;
    status
        .is_success()
        .then(|| serde_json::from_slice(&body).ok())
        .flatten()
}
