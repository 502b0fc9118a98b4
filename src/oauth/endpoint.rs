//! Owns the address of an OAuth endpoint: an absolute `https` URL, parsed once into the host that is
//! dialled and the target that is asked for.

use std::fmt;

use http::Uri;
use http::uri::PathAndQuery;

use crate::types::host::{Authority, HostError};

/// Where an endpoint is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    authority: Authority,
    target: PathAndQuery,
}

/// Why a text is not the address of an endpoint. It may come from an agent and is not echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointUrlError {
    /// A relative reference, or nothing that a URL can be.
    #[error("it is not an absolute URL")]
    NotAbsolute,
    /// Tokens travel in verified TLS only (RFC 6749, section 3.2).
    #[error("it does not begin with https://")]
    NotHttps,
    /// `https://user@host/`.
    #[error("it holds a user name")]
    Userinfo,
    /// RFC 6749, section 3.2: an endpoint URI has no fragment.
    #[error("it has a fragment")]
    Fragment,
    /// The host or the port is none.
    #[error("{0}")]
    Host(#[from] HostError),
}

const HTTPS: u16 = 443;

impl Endpoint {
    /// Parses an absolute `https` URL. A query is kept (RFC 6749, section 3.2).
    pub fn parse(text: &str) -> Result<Self, EndpointUrlError> {
        // `Uri` would drop it silently.
        if text.contains('#') {
            return Err(EndpointUrlError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointUrlError::NotAbsolute)?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(EndpointUrlError::NotAbsolute);
        };
        if scheme != http::uri::Scheme::HTTPS {
            return Err(EndpointUrlError::NotHttps);
        }
        if authority.as_str().contains('@') {
            return Err(EndpointUrlError::Userinfo);
        }
        Ok(Self {
            authority: Authority::parse(authority.as_str(), Some(HTTPS))?,
            target: parts
                .path_and_query
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        })
    }

    /// Where to connect, and which name the certificate must have.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The authority as `Host` wants it: without the port that `https` has anyway (RFC 9110, section 7.2).
    pub fn host_field(&self) -> String {
        match self.authority.port {
            HTTPS => self.authority.host.to_string(),
            _ => self.authority.to_string(),
        }
    }

    /// The request-target in origin-form (RFC 9112, section 3.2.1).
    pub fn target(&self) -> &PathAndQuery {
        &self.target
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.host_field(), self.target)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_spelling() {
        for (written, read) in [
            (
                "https://Auth.Example.com/token",
                "https://auth.example.com/token",
            ),
            (
                "https://auth.example.com:443/token",
                "https://auth.example.com/token",
            ),
            (
                "https://auth.example.com:8443",
                "https://auth.example.com:8443/",
            ),
            ("https://[::1]:8443/t?p=1", "https://[::1]:8443/t?p=1"),
            ("https://10.0.0.1/token", "https://10.0.0.1/token"),
        ] {
            assert_eq!(Endpoint::parse(written).unwrap().to_string(), read);
        }
    }

    #[test]
    fn what_is_no_address_for_tokens_is_refused() {
        use EndpointUrlError as E;
        for (written, error) in [
            ("", E::NotAbsolute),
            ("/token", E::NotAbsolute),
            ("auth.example.com", E::NotAbsolute),
            ("auth.example.com/token", E::NotAbsolute),
            ("https://", E::NotAbsolute),
            ("https://a b/token", E::NotAbsolute),
            ("http://auth.example.com/token", E::NotHttps),
            ("ftp://auth.example.com/token", E::NotHttps),
            ("https://user@auth.example.com/token", E::Userinfo),
            ("https://user:pass@auth.example.com/token", E::Userinfo),
            ("https://auth.example.com/token#x", E::Fragment),
            ("https://127.1/token", E::Host(HostError::AmbiguousAddress)),
            ("https://-a.example.com/token", E::Host(HostError::Label)),
            ("https://auth.example.com:0/token", E::Host(HostError::Port)),
        ] {
            assert_eq!(Endpoint::parse(written), Err(error), "{written}");
        }
    }
}
