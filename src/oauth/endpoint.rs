//! Owns the address of an OAuth endpoint: an absolute `https` URL, parsed once into the host that is
//! dialled and the target that is asked for.

use std::fmt;

use http::uri::PathAndQuery;

use crate::config::url::{UrlError, secure_url};
use crate::types::host::Authority;

/// Where an endpoint is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    authority: Authority,
    target: PathAndQuery,
}

const HTTPS: u16 = 443;

impl Endpoint {
    /// Parses an absolute `https` URL. A query is kept (RFC 6749, section 3.2).
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = secure_url(text)?;
        let target = match url.query {
            Some(query) => PathAndQuery::try_from(format!("{}?{query}", url.path)),
            None => PathAndQuery::try_from(url.path),
        };
        Ok(Self {
            authority: url.authority,
            target: target.map_err(|_| UrlError::Path)?,
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
        for written in [
            "",
            "/token",
            "auth.example.com/token",
            "http://auth.example.com/token",
            "https://",
            "https:///token",
            "https://user@auth.example.com/token",
            "https://auth.example.com/token#x",
            "https://auth.example.com/a b",
            "https://127.1/token",
            "https://auth.example.com:0/token",
        ] {
            assert!(Endpoint::parse(written).is_err(), "{written}");
        }
    }
}
