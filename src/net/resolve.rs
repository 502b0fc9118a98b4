//! Owns names to addresses: fixed ones first, DNS after, and the guard over both. It is only asked
//! about names that a rule allows.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::guard::{AddressGuard, Guarded};
use crate::types::host::{Authority, Host};
use crate::types::limits::DnsLimits;
use crate::types::reached::{Limit, Reached};

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
    /// Too many names are being looked up.
    #[error("{0}")]
    Full(Reached),
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
    limits: DnsLimits,
    looking: Semaphore,
}

impl Resolver {
    /// Reads the machine's resolver configuration; without one, only fixed answers resolve.
    pub fn new(fixed: FixedAnswers, guard: AddressGuard, limits: DnsLimits) -> io::Result<Self> {
        let builder = TokioResolver::builder_tokio()
            .unwrap_or_else(|_| with_config(ResolverConfig::default()));
        Self::of(builder, fixed, guard, limits)
    }

    /// Asks these servers instead: by UDP, and by TCP where an answer was cut. Two are asked at a time,
    /// those first that have answered quickly.
    pub fn asking(
        servers: &[SocketAddr],
        fixed: FixedAnswers,
        guard: AddressGuard,
        limits: DnsLimits,
    ) -> io::Result<Self> {
        let servers = servers.iter().map(name_server).collect();
        let builder = with_config(ResolverConfig::from_name_servers(servers));
        Self::of(builder, fixed, guard, limits)
    }

    fn of(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        fixed: FixedAnswers,
        guard: AddressGuard,
        limits: DnsLimits,
    ) -> io::Result<Self> {
        let options = builder.options_mut();
        // Half of it for a try: a datagram that is lost is sent again within the time.
        options.timeout = limits.timeout / 2;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let dns = builder.build().map_err(io::Error::other)?;
        Ok(Self {
            dns,
            fixed,
            guard,
            limits,
            looking: Semaphore::new(limits.lookups),
        })
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
        let failed = |cause| ResolveError::Dns {
            host: host.clone(),
            cause,
        };
        // A lookup is repeated, and waits for its turn: all of it has the one time.
        let deadline = Instant::now() + self.limits.timeout;
        let Ok(Ok(_looking)) = timeout_at(deadline, self.looking.acquire()).await else {
            let full = Limit::Lookups.count(self.limits.lookups);
            return Err(ResolveError::Full(full));
        };
        let answer = timeout_at(deadline, self.dns.lookup_ip(absolute.as_str())).await;
        let answer = answer
            .map_err(|_| failed("the resolver did not answer"))?
            .map_err(|error| failed(why(&error)))?;
        // Whoever owns the name decides how many there are.
        let used = answer.iter().take(self.limits.answers);
        Ok(used.map(|ip| SocketAddr::new(ip, port)).collect())
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::rr::Name;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    /// Asks a name server of the test's own, over TCP.
    async fn asking(limits: DnsLimits) -> (Resolver, TcpListener) {
        asking_within(limits, Vec::new()).await
    }

    /// The same on a machine that searches names in these domains.
    async fn asking_within(limits: DnsLimits, search: Vec<Name>) -> (Resolver, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connection = ConnectionConfig::tcp();
        connection.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, search, vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let guard = AddressGuard::new(Vec::new());
        let resolver = Resolver::of(builder, FixedAnswers::new(), guard, limits).unwrap();
        (resolver, listener)
    }

    /// Answers each question for IPv4 with so many addresses, and every other with none (RFC 1035, section 4).
    async fn answer(mut stream: TcpStream, addresses: u16) -> io::Result<()> {
        loop {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap_or(0) + 5;
            let is_ipv4 = question[end - 4..end - 2] == [0, 1];
            let count = if is_ipv4 { addresses } else { 0 };
            let mut said = question[..2].to_vec();
            said.extend([0x81, 0x80, 0, 1]);
            said.extend(count.to_be_bytes());
            said.extend([0; 4]);
            said.extend(&question[12..end]);
            for number in 0..count {
                let [high, low] = number.to_be_bytes();
                said.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, high, low]);
            }
            stream.write_u16(u16::try_from(said.len()).unwrap()).await?;
            stream.write_all(&said).await?;
        }
    }

    fn authority(name: &str) -> Authority {
        Authority::parse(name, Some(443)).unwrap()
    }

    #[tokio::test]
    async fn of_thousands_of_addresses_the_first_few_are_used() {
        let limits = DnsLimits::default();
        let (resolver, listener) = asking(limits).await;
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, 3000));
            }
        });
        let anywhere = ["203.0.0.0/16".parse().unwrap()];
        let many = authority("many.example.org");
        let found = resolver.resolve(&many, &anywhere).await.unwrap();
        assert_eq!(found.len(), limits.answers);
        serving.abort();
    }

    /// Says of each name that there is none, and keeps it as it stands in the question.
    async fn deny(mut stream: TcpStream, asked: mpsc::UnboundedSender<String>) -> io::Result<()> {
        loop {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap_or(0);
            let labels = String::from_utf8_lossy(&question[12..end]);
            asked.send(labels.into_owned()).unwrap();
            let mut said = question[..2].to_vec();
            said.extend([0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]);
            said.extend(&question[12..end + 5]);
            stream.write_u16(u16::try_from(said.len()).unwrap()).await?;
            stream.write_all(&said).await?;
        }
    }

    #[tokio::test]
    async fn a_name_with_a_dot_is_searched_in_no_domain() {
        let elsewhere = Name::from_ascii("elsewhere.test.").unwrap();
        let (resolver, listener) = asking_within(DnsLimits::default(), vec![elsewhere]).await;
        let (tell, mut asked) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(deny(stream, tell.clone()));
            }
        });
        let none = resolver.resolve(&authority("none.example.org"), &[]).await;
        assert!(matches!(none, Err(ResolveError::Dns { .. })), "{none:?}");
        serving.abort();
        let mut count = 0;
        while let Ok(labels) = asked.try_recv() {
            assert_eq!(labels, "\u{4}none\u{7}example\u{3}org");
            count += 1;
        }
        assert!(count > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_ends_in_its_time_and_others_find_no_room_meanwhile() {
        let limits = DnsLimits {
            lookups: 1,
            timeout: Duration::from_millis(400),
            ..DnsLimits::default()
        };
        // It takes questions and never answers.
        let (resolver, _listener) = asking(limits).await;
        let started = Instant::now();
        let (one, two) = (authority("one.example.org"), authority("two.example.org"));
        let first = timeout(limits.timeout * 10, resolver.resolve(&one, &[])).await;
        let first = first.expect("the lookup does not end");
        assert!(matches!(first, Err(ResolveError::Dns { .. })), "{first:?}");
        // The library tries again within that, and would go on.
        assert!(started.elapsed() < limits.timeout * 5 / 4);
        // Two that begin together end together, and the second may still get the first one's place.
        let place = resolver.looking.acquire().await.unwrap();
        let second = resolver.resolve(&two, &[]).await;
        drop(place);
        let full = Limit::Lookups.count(1);
        assert!(
            matches!(second, Err(ResolveError::Full(reached)) if reached == full),
            "{second:?}"
        );
        assert!(started.elapsed() < limits.timeout * 10);
    }
}
