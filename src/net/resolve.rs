//! Owns names to addresses: fixed ones first, DNS after, and the guard over both. It is only asked
//! about names that a rule allows.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use ipnet::IpNet;

use super::guard::{AddressGuard, Guarded};
use crate::types::host::{Authority, Host};

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// DNS failed or knows no address.
    #[error("DNS has no address for {host}: {cause}")]
    Dns {
        /// The name.
        host: Host,
        /// What the resolver said.
        cause: &'static str,
    },
    /// Every address is one that is not dialled.
    #[error("{host} leads to {}, which no rule allows", guarded.as_str())]
    Guarded {
        /// The name.
        host: Host,
        /// The address that was found.
        address: IpAddr,
        /// What kind it is.
        guarded: Guarded,
    },
}

/// Fixed answers by host, or by host and port.
pub type FixedAnswers = HashMap<(Host, Option<u16>), Vec<(IpAddr, Option<u16>)>>;

/// Turns allowed authorities into addresses that may be dialled.
pub struct Resolver {
    dns: TokioResolver,
    fixed: FixedAnswers,
    guard: AddressGuard,
}

impl Resolver {
    /// Reads the machine's resolver configuration; without one, only fixed answers resolve.
    pub fn new(fixed: FixedAnswers, guard: AddressGuard) -> io::Result<Self> {
        let builder = TokioResolver::builder_tokio()
            .unwrap_or_else(|_| with_config(ResolverConfig::default()));
        Self::build(builder, fixed, guard)
    }

    /// Asks these servers instead: by UDP, and by TCP where an answer was cut. Two are asked at a time,
    /// those first that have answered quickly.
    pub fn asking(
        servers: &[SocketAddr],
        fixed: FixedAnswers,
        guard: AddressGuard,
    ) -> io::Result<Self> {
        let servers = servers.iter().map(name_server).collect();
        let builder = with_config(ResolverConfig::from_name_servers(servers));
        Self::build(builder, fixed, guard)
    }

    fn build(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        fixed: FixedAnswers,
        guard: AddressGuard,
    ) -> io::Result<Self> {
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(3);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let dns = builder.build().map_err(io::Error::other)?;
        Ok(Self { dns, fixed, guard })
    }

    /// The addresses to dial for `authority`, in order, every one of them checked.
    pub async fn resolve(
        &self,
        authority: &Authority,
        allowed: &[IpNet],
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let Authority { host, port } = authority;
        if let Some(fixed) = self.fixed(authority) {
            return self.checked(host, fixed, &[], GuardScope::OwnListeners);
        }
        let found = match host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, *port)],
            Host::Name(name) => self.look_up(host, name, *port).await?,
        };
        self.checked(host, found, allowed, GuardScope::Everything)
    }

    fn fixed(&self, Authority { host, port }: &Authority) -> Option<Vec<SocketAddr>> {
        if self.fixed.is_empty() {
            return None;
        }
        let answers = self
            .fixed
            .get(&(host.clone(), Some(*port)))
            .or_else(|| self.fixed.get(&(host.clone(), None)))?;
        let address =
            |(ip, other): &(IpAddr, Option<u16>)| SocketAddr::new(*ip, other.unwrap_or(*port));
        Some(answers.iter().map(address).collect())
    }

    async fn look_up(
        &self,
        host: &Host,
        name: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        // A name with a dot is complete: search domains would send it, and whatever it says, elsewhere.
        let absolute = match name.contains('.') {
            true => format!("{name}."),
            false => name.to_owned(),
        };
        let answer = self
            .dns
            .lookup_ip(absolute.as_str())
            .await
            .map_err(|error| ResolveError::Dns {
                host: host.clone(),
                cause: why(&error),
            })?;
        Ok(answer.iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    fn checked(
        &self,
        host: &Host,
        found: Vec<SocketAddr>,
        allowed: &[IpNet],
        scope: GuardScope,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut refused = None;
        let mut passed = Vec::with_capacity(found.len());
        for address in found {
            match self.guard.check(address, allowed) {
                Err(Guarded::OwnListener) => refused = Some((address, Guarded::OwnListener)),
                Err(guarded) if scope == GuardScope::Everything => {
                    refused = Some((address, guarded))
                }
                _ => passed.push(address),
            }
        }
        match (passed.is_empty(), refused) {
            (false, _) => Ok(passed),
            (true, Some((address, guarded))) => Err(ResolveError::Guarded {
                host: host.clone(),
                address: address.ip(),
                guarded,
            }),
            (true, None) => Err(ResolveError::Dns {
                host: host.clone(),
                cause: "the answer is empty",
            }),
        }
    }
}

fn with_config(config: ResolverConfig) -> ResolverBuilder<TokioRuntimeProvider> {
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    // The operator named it: its "no" is an answer.
    NameServerConfig::new(server.ip(), true, connections)
}

fn why(error: &NetError) -> &'static str {
    match error {
        error if error.is_nx_domain() => "there is no such name",
        NetError::Dns(DnsError::NoRecordsFound(_)) => "the name has no address",
        NetError::Dns(_) => "the resolver failed",
        _ => "the resolver did not answer",
    }
}

/// What the guard looks at: addresses that an operator wrote down are his word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GuardScope {
    Everything,
    OwnListeners,
}
