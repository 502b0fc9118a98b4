//! Owns `tollgate env`: the variables that point an agent at the proxy and hold its placeholders.

use std::net::{Ipv4Addr, SocketAddr};

use super::args::{EnvArgs, EnvFor};
use super::context::{Context, block_on};
use super::output::Exit;
use crate::app::authority::trust_dir;
use crate::app::identity::{AgentView, agent_view};
use crate::app::error::StartError;
use crate::config::agent_env::{AgentEnvironment, EnvFormat, ProxyAddress, ProxyLogin};
use crate::types::host::{Authority, Host};

/// Prints the variables.
pub fn env(context: &Context, args: &EnvArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    let AgentView { agent, token, placeholders } =
        block_on(agent_view(&settings, &sources, args.agent.as_deref()))??;
    let address = args.address.or(settings.root.spec.listen.as_ref().map(|l| l.value));
    let mut address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8888)));
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let trust = args.trust_dir.clone().unwrap_or_else(|| trust_dir(&settings));
    // An agent works in other directories than the proxy.
    let trust = std::path::absolute(&trust).unwrap_or(trust);
    let proxy = ProxyAddress {
        address: Authority::new(Host::Ip(address.ip()), address.port()),
        login: token.map(|token| ProxyLogin { user: agent.to_string(), token }),
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
    context.printer.out(&AgentEnvironment::new(&proxy, &placeholders).render(format));
    Ok(Exit::Ok)
}
