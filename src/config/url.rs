//! Owns the URLs of documents that tokens are sent to: `https` only, a host with nothing before it, and
//! nothing behind the path that a server would never see.

use crate::types::host::Authority;

/// A URL that may be asked for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUrl<'a> {
    /// Host and port; 443 when none is written.
    pub authority: Authority,
    /// The path as written; `/` when there is none.
    pub path: &'a str,
    /// The query without `?`, if there is one.
    pub query: Option<&'a str>,
}

/// Why a URL is none of these, as the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("is no https URL")]
    Scheme,
    /// `user:password@`.
    #[error("holds a user name or a password")]
    UserInfo,
    /// What stands behind `#` never leaves a client (RFC 6749, section 3.2).
    #[error("has a fragment (`#`)")]
    Fragment,
    /// The host or the port is none.
    #[error("is no URL: {0}")]
    Host(crate::types::host::HostError),
    /// A character that no path or query has.
    #[error("is no URL: a path has a blank or another character that must be percent-encoded")]
    Path,
}

/// Reads an absolute `https` URL.
pub fn secure_url(url: &str) -> Result<EndpointUrl<'_>, UrlError> {
    let scheme = url.get(..8).unwrap_or("");
    if !scheme.eq_ignore_ascii_case("https://") {
        return Err(UrlError::Scheme);
    }
    let rest = &url[8..];
    if rest.contains('#') {
        return Err(UrlError::Fragment);
    }
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let authority = Authority::parse(authority, Some(443)).map_err(UrlError::Host)?;
    // Every other character must be encoded (RFC 3986, section 3.3).
    if !target
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
    {
        return Err(UrlError::Path);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    Ok(EndpointUrl {
        authority,
        path,
        query,
    })
}

impl EndpointUrl<'_> {
    /// Whether it stands for one thing to ask for, as a rule names it.
    pub fn names_one_path(&self) -> bool {
        self.path != "/" && self.query.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_without_secrets_are_asked_for_tokens() {
        for (url, said) in [
            ("http://a.com/t", "no https"),
            ("a.com/t", "no https"),
            ("https://", "no URL"),
            ("https://user:pw@a.com/t", "a user name"),
            ("https://a.com/t#x", "fragment"),
            ("https://a.com:0/t", "port"),
            ("https://0x7f.1/t", "no URL"),
            ("https://a.com/a b", "percent-encoded"),
        ] {
            let error = secure_url(url).unwrap_err().to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
        let url = secure_url("HTTPS://Auth.Example.com/oauth/token?v=2").unwrap();
        assert_eq!(url.authority.to_string(), "auth.example.com:443");
        assert_eq!((url.path, url.query), ("/oauth/token", Some("v=2")));
        assert!(!url.names_one_path());
        let bare = secure_url("https://[::1]:8443").unwrap();
        assert_eq!((bare.path, bare.authority.port), ("/", 8443));
        assert!(
            secure_url("https://a.com/oauth/token")
                .unwrap()
                .names_one_path()
        );
    }
}
