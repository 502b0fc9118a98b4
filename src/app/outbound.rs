//! Owns the way out of the process: how names become addresses, which addresses may be dialled, and
//! whose certificates are believed.

use std::net::SocketAddr;
use std::sync::Arc;

use super::error::StartError;
use super::settings::Settings;
use crate::net::guard::AddressGuard;
use crate::net::resolve::{FixedAnswers, Resolver};
use crate::proxy::dial::Dialer;
use crate::tls::upstream::OriginTrust;
use crate::types::host::{Authority, Host};

/// RFC 1035, section 4.2.
const DNS_PORT: u16 = 53;

/// Dials as the settings say. `own` are this process's ports, which nobody reaches through it.
pub fn dialer(settings: &Settings, own: Vec<SocketAddr>) -> Result<Dialer, StartError> {
    let (fixed, guard) = (fixed_answers(settings)?, AddressGuard::new(own));
    let (servers, limits) = (name_servers(settings), settings.limits().dns);
    let resolver = match servers.is_empty() {
        true => Resolver::new(fixed, guard, limits),
        false => Resolver::asking(&servers, fixed, guard, limits),
    };
    let resolver = resolver.map_err(|error| {
        StartError::setting(
            format!("DNS cannot be set up: {error}"),
            "check spec.upstream.dns.servers, or /etc/resolv.conf where none are named",
        )
    })?;
    Ok(Dialer::new(Arc::new(resolver)))
}

/// Whose certificates are believed.
pub fn origin_trust(settings: &Settings) -> Result<OriginTrust, StartError> {
    OriginTrust::load(&settings.root.spec.upstream.roots)
        .map_err(|e| StartError::setting(&e, e.help().unwrap_or_default()))
}

fn name_servers(settings: &Settings) -> Vec<SocketAddr> {
    let servers = settings.root.spec.upstream.dns.servers.iter();
    servers
        .map(|server| SocketAddr::new(server.ip, server.port.unwrap_or(DNS_PORT)))
        .collect()
}

fn fixed_answers(settings: &Settings) -> Result<FixedAnswers, StartError> {
    let mut answers = FixedAnswers::new();
    for (name, targets) in &settings.root.spec.upstream.resolve {
        let wrong = |error| {
            StartError::setting(
                format!("spec.upstream.resolve: `{name}`: {error}"),
                "write a host (`api.example.com`) or a host with its port (`api.example.com:443`)",
            )
        };
        let key = match Host::parse(name) {
            Ok(host) => (host, None),
            Err(_) => {
                let authority = Authority::parse(name, None).map_err(wrong)?;
                (authority.host, Some(authority.port))
            }
        };
        answers.insert(key, targets.iter().map(|t| (t.ip, t.port)).collect());
    }
    Ok(answers)
}
