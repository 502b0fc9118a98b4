//! Owns what is being asked, in the same words whichever door it came through.

use http::Method;

use super::agent::Agent;
use super::host::Authority;

/// The door a request came through (RFC 9112, section 3.2, request-target forms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// `CONNECT host:port`, then TLS.
    Connect,
    /// `GET http://host/path`: what `HTTP_PROXY` clients send.
    AbsoluteForm,
    /// `GET /route/path` to the proxy itself: what base-URL clients send.
    BaseUrl,
    /// Bytes on the agents' port that never became a request.
    Unread,
}

impl Ingress {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::AbsoluteForm => "absolute-form",
            Self::BaseUrl => "base-url",
            Self::Unread => "unread",
        }
    }
}

/// Whether the way to the origin is verified TLS or cleartext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Cleartext: no credential ever goes out on it.
    Http,
    /// TLS with the origin's certificate verified.
    Https,
}

impl Scheme {
    /// The URL scheme.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port a URL of this scheme means when it names none (RFC 9110, section 4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Who asks for what: the only input of the policy decision.
#[derive(Clone, Copy, Debug)]
pub struct EgressIntent<'a> {
    /// Who is calling.
    pub agent: &'a Agent,
    /// Where to.
    pub authority: &'a Authority,
    /// Cleartext or TLS towards the origin.
    pub scheme: Scheme,
    /// The request, or `None` when only the connection is asked for (CONNECT).
    pub request: Option<RequestLine<'a>>,
}

/// The part of a request that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as sent, without query, byte for byte.
    pub path: &'a str,
}
