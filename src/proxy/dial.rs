//! Owns the way to an origin: resolve an allowed name, check the address, connect to that address,
//! verify the certificate for that name.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::resolve::{ResolveError, Resolver};
use crate::net::socket;
use crate::policy::decision::DialProfile;
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
        /// What TLS said; nothing that the origin wrote.
        cause: String,
        /// The same in one word.
        word: &'static str,
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
            Self::Connect { .. } | Self::ConnectTimeout { .. } => "connect",
            Self::Tls { .. } | Self::TlsTimeout { .. } | Self::Settings { .. } => "tls",
        }
    }

    /// Why a handshake failed, in one word, if that is what failed.
    pub fn handshake(&self) -> Option<&'static str> {
        match self {
            Self::Tls { word, .. } => Some(word),
            Self::TlsTimeout { .. } => Some("timeout"),
            Self::Settings { .. } => Some("settings"),
            Self::Resolve(_) | Self::Connect { .. } | Self::ConnectTimeout { .. } => None,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Resolve(ResolveError::Guarded { .. }) => StatusCode::FORBIDDEN,
            Self::ConnectTimeout { .. } | Self::TlsTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
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
            Self::ConnectTimeout { .. } => "connection_timeout",
            Self::Tls { .. } => "tls_certificate_error",
            Self::TlsTimeout { .. } | Self::Settings { .. } => "tls_protocol_error",
        }
    }

    pub(super) fn is_temporary(&self) -> bool {
        !matches!(
            self,
            Self::Resolve(ResolveError::Guarded { .. }) | Self::Tls { .. } | Self::Settings { .. }
        )
    }

    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Resolve(ResolveError::Guarded { .. }) => {
                "Retrying will not help. If the address is meant, the operator lists its range in the rule's allowAddresses."
                    .to_owned()
            }
            Self::Tls { .. } => {
                "Retrying will not help. If the origin has a private authority, the operator names it in the rule's upstream.caFile."
                    .to_owned()
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
        let addresses = self
            .resolver
            .resolve(authority, &profile.allow_addresses)
            .await?;
        let limit = profile.timeouts.connect;
        match timeout(limit, first(&addresses, limit)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(DialError::Connect {
                authority: authority.clone(),
                cause: error.kind(),
            }),
            Err(_) => Err(DialError::ConnectTimeout {
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
        let failed = |cause: String, word: &'static str| DialError::Tls {
            authority: authority.clone(),
            cause,
            word,
        };
        let name = server_name(&authority.host).map_err(|cause| failed(cause, "server_name"))?;
        let limit = profile.timeouts.tls;
        match timeout(limit, TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let word = word_of(&error);
                // The names in a certificate are the origin's text, and this goes to the agent.
                let cause = match word {
                    "other_name" => "its certificate is for other names".to_owned(),
                    _ => error.to_string(),
                };
                Err(failed(cause, word))
            }
            Err(_) => Err(DialError::TlsTimeout {
                authority: authority.clone(),
                limit,
            }),
        }
    }
}

/// What a failed handshake comes down to, as a label.
fn word_of(error: &io::Error) -> &'static str {
    let said = error.get_ref().and_then(|said| said.downcast_ref());
    match said {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "other_name"
            }
            CertificateError::UnknownIssuer => "unknown_issuer",
            CertificateError::Revoked => "revoked",
            _ => "bad_certificate",
        },
        Some(rustls::Error::AlertReceived(_)) => "alert",
        Some(_) => "protocol",
        None => "broken_off",
    }
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
