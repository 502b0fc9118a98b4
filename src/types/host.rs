//! Owns names on the network: a host is parsed once into the form that is checked *and* sent.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// A normalized DNS name (lower case, A-labels, no trailing dot) or an IP address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A fully qualified or single-label DNS name.
    Name(Arc<str>),
    /// An IP literal in its one canonical spelling.
    Ip(IpAddr),
}

/// Why a text is not a host. The offending text is never echoed: an agent wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing to parse.
    #[error("the host is empty")]
    Empty,
    /// NUL, white space, `@`, `%`, `/` and the like.
    #[error("the host has a character that no host name has")]
    Character,
    /// `127.1`, `0x7f000001`, `2130706433`, `0177.0.0.1`: spellings that resolvers read as addresses.
    #[error("the host is an IP address in an ambiguous spelling; write it in dotted decimal")]
    AmbiguousAddress,
    /// `[fe80::1%eth0]`.
    #[error("the host is an IPv6 address with a zone")]
    Zone,
    /// A bracketed text that is no IPv6 address.
    #[error("the host is not a valid IPv6 literal")]
    Ipv6,
    /// A label is empty, longer than 63 octets, or begins or ends with a hyphen; or the name exceeds 253.
    #[error("the host is not a valid DNS name")]
    Label,
    /// IDNA processing (UTS 46) failed.
    #[error("the host is not a valid internationalized name")]
    Idna,
    /// The port is missing, zero, not a number or above 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl Host {
    /// Parses a host as it stands in a URL, a `Host` field or a CONNECT target, without port.
    ///
    /// IPv6 literals are accepted with and without brackets. Everything that a resolver might read
    /// differently than we do is refused: userinfo, zones, octal, hex and short IPv4 forms
    /// (WHATWG URL, "ends in a number" checker), NUL and white space.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::Ipv6)?;
            return parse_v6(inner);
        }
        if text.contains(':') {
            return parse_v6(text);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| HostError::Idna)?
        };
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if let Ok(v4) = name.parse::<Ipv4Addr>() {
            // A trailing dot after an address is a spelling of its own.
            return match ascii.ends_with('.') {
                true => Err(HostError::AmbiguousAddress),
                false => Ok(Self::Ip(v4.into())),
            };
        }
        check_name(name)?;
        Ok(Self::Name(name.into()))
    }

    /// The DNS name, if this is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// Whether strangers can own this name: it ends in a suffix of the public list (publicsuffix.org).
    /// Addresses, `localhost` and a cluster's names do not.
    pub fn is_public_name(&self) -> bool {
        self.name()
            .and_then(|name| psl::suffix(name.as_bytes()))
            .is_some_and(|suffix| suffix.is_known())
    }

    /// The address, if this is a literal.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Ip(ip) => Some(*ip),
        }
    }
}

fn parse_v6(text: &str) -> Result<Host, HostError> {
    if text.contains('%') {
        return Err(HostError::Zone);
    }
    let v6: Ipv6Addr = text.parse().map_err(|_| HostError::Ipv6)?;
    // An IPv4-mapped literal is the IPv4 address in disguise: one canonical form for both.
    Ok(Host::Ip(match v6.to_ipv4_mapped() {
        Some(v4) => v4.into(),
        None => v6.into(),
    }))
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name
        .bytes()
        .any(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')))
    {
        return Err(HostError::Character);
    }
    if name.len() > 253 {
        return Err(HostError::Label);
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return Err(HostError::Label);
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    match numeric {
        true => Err(HostError::AmbiguousAddress),
        false => Ok(()),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(v4)) => v4.fmt(f),
            Self::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({self})")
    }
}

impl FromStr for Host {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

/// A host and a port: where a connection goes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, 1 to 65535.
    pub port: u16,
}

impl Authority {
    /// Joins a host and a port.
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// Parses `host`, `host:port` or `[v6]:port`; `default_port` fills a missing port.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, HostError> {
        let (host, port) = split_port(text);
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => default_port.ok_or(HostError::Port)?,
        };
        Ok(Self::new(Host::parse(host)?, port))
    }
}

/// Splits a trailing `:port`; a bare IPv6 address has none.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(end) = text.rfind(']') {
        return match text[end + 1..].strip_prefix(':') {
            Some(port) => (&text[..=end], Some(port)),
            None => (text, None),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

fn parse_port(digits: &str) -> Result<u16, HostError> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port > 0 => Ok(port),
        _ => Err(HostError::Port),
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({self})")
    }
}

/// What an allowlist names: one host, or every name below a suffix (`*.github.com`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this host.
    Exact(Host),
    /// One or more labels below this name, never the name itself.
    Below(Arc<str>),
}

/// Why a text is not a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// The part that should be a host is none.
    #[error("{0}")]
    Host(#[from] HostError),
    /// `*`, `a*.example.com`, `*.*.example.com`.
    #[error("a wildcard is written `*.example.com`: one star, in front of a whole name")]
    Wildcard,
    /// `*.com`, `*.co.uk`, `*.github.io`: anyone can own a name there (publicsuffix.org).
    #[error(
        "`*.{0}` covers names that strangers can register; write a wildcard below a registrable domain"
    )]
    PublicSuffix(String),
    /// A URL where a host belongs.
    #[error("write the host alone, without scheme, port or path")]
    Url,
}

impl HostPattern {
    /// Parses `api.example.com`, `*.example.com` or an IP literal.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        if text.contains('/') || text.contains("://") {
            return Err(HostPatternError::Url);
        }
        let Some(below) = text.strip_prefix("*.") else {
            return match text.contains('*') {
                true => Err(HostPatternError::Wildcard),
                false => Ok(Self::Exact(Host::parse(text)?)),
            };
        };
        if below.contains('*') {
            return Err(HostPatternError::Wildcard);
        }
        match Host::parse(below)? {
            Host::Ip(_) => Err(HostPatternError::Wildcard),
            Host::Name(name) if psl::domain_str(&name).is_none() => {
                Err(HostPatternError::PublicSuffix(name.to_string()))
            }
            Host::Name(name) => Ok(Self::Below(name)),
        }
    }

    /// Whether `host` is named by this pattern.
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(exact), host) => exact == host,
            (Self::Below(suffix), Host::Name(name)) => name
                .strip_suffix(suffix.as_ref())
                .is_some_and(|head| head.len() > 1 && head.ends_with('.')),
            (Self::Below(_), Host::Ip(_)) => false,
        }
    }

    /// Whether every host that `narrow` names is named by this pattern.
    pub fn contains(&self, narrow: &Self) -> bool {
        match (self, narrow) {
            (wide, Self::Exact(host)) => wide.matches(host),
            (Self::Below(wide), Self::Below(narrow)) => narrow
                .strip_suffix(wide.as_ref())
                .is_some_and(|head| head.is_empty() || head.ends_with('.')),
            (Self::Exact(_), Self::Below(_)) => false,
        }
    }

    /// How narrow the pattern is: an exact host above every wildcard, more labels above fewer.
    pub fn specificity(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Below(suffix) => suffix.split('.').count(),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_canonical_form() {
        for (written, canonical) in [
            ("API.Anthropic.COM", "api.anthropic.com"),
            ("api.anthropic.com.", "api.anthropic.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("1.2.3.4", "1.2.3.4"),
            ("[::1]", "[::1]"),
            ("::1", "[::1]"),
            ("[::ffff:10.0.0.1]", "10.0.0.1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(Host::parse(written).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn spellings_that_resolvers_read_differently_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "127.1",
            "0x7f000001",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "1.2.3.4.",
            "1.2.3.4.5",
            "256.1.1.1",
            "[fe80::1%eth0]",
            "[::1",
            "user@host",
            "evil\0.allowed",
            "a b",
            "a\tb",
            "a%2eb",
            "-a.com",
            "a-.com",
            "a/b",
            "*.a.com",
            "host\r\nx",
            "１２７.0.0.1.5",
        ] {
            assert!(Host::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn public_names_are_those_that_strangers_can_own() {
        let public = |name: &str| Host::parse(name).unwrap().is_public_name();
        assert!(public("evil.com") && public("a.co.uk") && public("x.github.io"));
        assert!(
            !public("localhost") && !public("tollgate.svc.cluster.local") && !public("10.0.0.1")
        );
    }

    #[test]
    fn authorities_want_a_plain_port() {
        let parse = |text| Authority::parse(text, Some(443)).map(|a| a.to_string());
        assert_eq!(parse("a.com").unwrap(), "a.com:443");
        assert_eq!(parse("a.com:8443").unwrap(), "a.com:8443");
        assert_eq!(parse("[::1]:80").unwrap(), "[::1]:80");
        for bad in [
            "a.com:",
            "a.com:0",
            "a.com:65536",
            "a.com:+80",
            "a.com:8 0",
            "[::1]x:80",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(Authority::parse("a.com", None).is_err());
    }

    #[test]
    fn wildcards_cover_names_below_and_never_the_name_itself() {
        let pattern = HostPattern::parse("*.github.com").unwrap();
        let matches = |name: &str| pattern.matches(&Host::parse(name).unwrap());
        assert!(matches("api.github.com") && matches("a.b.github.com"));
        assert!(
            !matches("github.com") && !matches("evilgithub.com") && !matches("github.com.evil.io")
        );
    }

    #[test]
    fn wildcards_over_public_suffixes_are_refused() {
        for bad in [
            "*",
            "*.com",
            "*.co.uk",
            "*.github.io",
            "a*.com",
            "*.*.com",
            "https://a.com",
            "a.com/x",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
