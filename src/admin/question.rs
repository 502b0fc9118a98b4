//! Owns a request that is only asked about: what `why` is given, as an intent.

use http::{Method, Uri};

use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, RequestLine, Scheme};

/// A request that is only asked about.
pub struct Question {
    method: Method,
    scheme: Scheme,
    authority: Authority,
    path: String,
}

impl Question {
    /// Parses a URL (`https` when it has no scheme) and a method (`GET` when absent).
    pub fn parse(url: &str, method: Option<&str>) -> Result<Self, String> {
        let wrong = |what: &dyn std::fmt::Display| {
            format!("`{url}` is not a URL that can be asked about: {what}")
        };
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("https://{url}")
        };
        let uri: Uri = full.parse().map_err(|error| wrong(&error))?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(wrong(&"only http and https are carried")),
        };
        let authority = uri.authority().map_or("", |a| a.as_str());
        Ok(Self {
            method: method
                .unwrap_or("GET")
                .to_ascii_uppercase()
                .parse()
                .map_err(|_| "the method is not one".to_owned())?,
            scheme,
            authority: Authority::parse(authority, Some(scheme.default_port()))
                .map_err(|error| wrong(&error))?,
            path: uri.path().to_owned(),
        })
    }

    /// The same as an intent of `agent`.
    pub fn intent<'a>(&'a self, agent: &'a Agent) -> EgressIntent<'a> {
        EgressIntent {
            agent,
            authority: &self.authority,
            scheme: self.scheme,
            request: Some(RequestLine {
                method: &self.method,
                path: &self.path,
            }),
        }
    }
}
