//! Owns the way to an origin: resolve an allowed name, check the address, connect to that address,
//! verify the certificate for that name.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustix::io::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::resolve::{ResolveError, Resolver};
use crate::net::socket;
use crate::policy::decision::DialProfile;
use crate::tls::verdict::Verdict;
use crate::types::host::{Authority, Host};

/// Why an origin was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name leads nowhere, or to an address that is not dialled.
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    /// No address accepted a connection.
    #[error("no connection to {authority}: {cause}")]
    Connect {
        /// Where to.
        authority: Authority,
        /// What the last address said.
        cause: io::ErrorKind,
    },
    /// This process or machine may open no further sockets.
    #[error("no connection to {authority}: the proxy has too many open files")]
    Exhausted {
        /// Where to.
        authority: Authority,
    },
    /// No address answered in time.
    #[error("no connection to {authority} within {limit:?}")]
    ConnectTimeout {
        /// Where to.
        authority: Authority,
        /// The limit.
        limit: Duration,
    },
    /// The handshake failed; usually the certificate is not believed.
    #[error("TLS with {authority} failed: {cause}")]
    Tls {
        /// Where to.
        authority: Authority,
        /// Why; nothing that the origin wrote.
        cause: Verdict,
    },
    /// The handshake took too long.
    #[error("no TLS session with {authority} within {limit:?}")]
    TlsTimeout {
        /// Where to.
        authority: Authority,
        /// The limit.
        limit: Duration,
    },
    /// The rule's own TLS files are unusable.
    #[error("the rule's TLS settings for {authority} cannot be used: {cause}")]
    Settings {
        /// Where to.
        authority: Authority,
        /// What is wrong with them.
        cause: String,
    },
}

impl DialError {
    /// The stage that failed, as `x-tollgate-stage` names it.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Resolve(ResolveError::Dns { .. } | ResolveError::Full(_)) => "dns",
            Self::Resolve(ResolveError::Guarded { .. }) => "address_guard",
            Self::Connect { .. } | Self::Exhausted { .. } | Self::ConnectTimeout { .. } => {
                "connect"
            }
            Self::Tls { .. } | Self::TlsTimeout { .. } | Self::Settings { .. } => "tls",
        }
    }

    /// Why a handshake failed, in one word, if that is what failed.
    pub fn handshake(&self) -> Option<&'static str> {
        match self {
            Self::Tls { cause, .. } => Some(cause.word()),
            Self::TlsTimeout { .. } => Some("timeout"),
            Self::Settings { .. } => Some("settings"),
            Self::Resolve(_)
            | Self::Connect { .. }
            | Self::Exhausted { .. }
            | Self::ConnectTimeout { .. } => None,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Resolve(ResolveError::Guarded { .. }) => StatusCode::FORBIDDEN,
            Self::ConnectTimeout { .. } | Self::TlsTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Exhausted { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    pub(super) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Resolve(ResolveError::Dns { .. } | ResolveError::Full(_)) => "dns_error",
            Self::Resolve(ResolveError::Guarded { .. }) => "destination_ip_prohibited",
            Self::Connect {
                cause: io::ErrorKind::ConnectionRefused,
                ..
            } => "connection_refused",
            Self::Connect { .. } => "destination_ip_unroutable",
            Self::Exhausted { .. } => "connection_limit_reached",
            Self::ConnectTimeout { .. } => "connection_timeout",
            Self::Tls { cause, .. } => cause.proxy_status(),
            Self::TlsTimeout { .. } | Self::Settings { .. } => "tls_protocol_error",
        }
    }

    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Tls { cause, .. } => *cause == Verdict::BrokenOff,
            Self::Resolve(ResolveError::Guarded { .. }) | Self::Settings { .. } => false,
            _ => true,
        }
    }

    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Resolve(ResolveError::Guarded { .. }) => {
                "Retrying will not help. If the address is meant, the operator lists its range in the rule's allowAddresses."
                    .to_owned()
            }
            Self::Tls { cause, .. } if *cause != Verdict::BrokenOff => {
                format!("Retrying will not help. {}", cause.remedy())
            }
            Self::Exhausted { .. } => {
                "Try again in a moment; the operator may raise the limit of open files.".to_owned()
            }
            Self::Settings { .. } => "The operator must mend the rule's upstream files.".to_owned(),
            _ => "The origin is out of reach from the proxy; trying again later may help.".to_owned(),
        }
    }
}

/// Opens connections to origins.
#[derive(Clone)]
pub struct Dialer {
    resolver: Arc<Resolver>,
}

impl Dialer {
    /// Dials what `resolver` allows.
    pub fn new(resolver: Arc<Resolver>) -> Self {
        Self { resolver }
    }

    /// A TCP connection to one of the checked addresses.
    pub async fn tcp(
        &self,
        authority: &Authority,
        profile: &DialProfile,
    ) -> Result<TcpStream, DialError> {
        let limit = profile.timeouts.connect;
        // The resolver repeats a question, of several servers perhaps; all that is part of connecting.
        let addresses = timeout(
            limit,
            self.resolver.resolve(authority, &profile.allow_addresses),
        )
        .await
        .map_err(|_| ResolveError::Dns {
            host: authority.host.clone(),
            cause: "the resolver did not answer",
        })??;
        match timeout(limit, first(&addresses, limit)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if is_exhausted(&error) => Err(DialError::Exhausted {
                authority: authority.clone(),
            }),
            Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => Err(DialError::Connect {
                authority: authority.clone(),
                cause: error.kind(),
            }),
            // By the clock here, or the kernel's own.
            Ok(Err(_)) | Err(_) => Err(DialError::ConnectTimeout {
                authority: authority.clone(),
                limit,
            }),
        }
    }

    /// A TLS session whose certificate is verified for `authority`'s host.
    pub async fn tls(
        &self,
        authority: &Authority,
        profile: &DialProfile,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let stream = self.tcp(authority, profile).await?;
        let name = server_name(&authority.host).map_err(|cause| DialError::Settings {
            authority: authority.clone(),
            cause,
        })?;
        let limit = profile.timeouts.tls;
        match timeout(limit, TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(DialError::Tls {
                authority: authority.clone(),
                cause: Verdict::of(&error),
            }),
            Err(_) => Err(DialError::TlsTimeout {
                authority: authority.clone(),
                limit,
            }),
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host {
        Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|error| error.to_string())
        }
    }
}

/// Tries each address in turn; one that does not answer may not use up the time of the others.
async fn first(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let share = match addresses.len() {
        0 | 1 => limit,
        _ => Duration::from_secs(2).min(limit),
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (index, address) in addresses.iter().enumerate() {
        let patience = if index + 1 == addresses.len() {
            limit
        } else {
            share
        };
        match timeout(patience, socket::connect(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}
