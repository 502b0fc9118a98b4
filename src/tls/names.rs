//! Owns which names an authority may sign: written into a new certificate, and read back from any (RFC 5280, section 4.2.1.10).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::types::host::{Host, HostPattern};

/// Permitted where no DNS name is: an absent list would permit every name, and no host has this one (RFC 6761, section 6.4).
const NOWHERE: &str = "invalid";

/// The constraints that permit the patterns and as little else as X.509 can say.
///
/// A dNSName constraint covers the name itself and everything below it, so an exact name lets its
/// subdomains in too, and `*.x` becomes `x`.
pub(super) fn constraints_for(patterns: &[HostPattern]) -> NameConstraints {
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    for pattern in patterns {
        match pattern {
            HostPattern::Exact(Host::Name(name)) | HostPattern::Below(name) => {
                names.push(name.as_ref());
            }
            HostPattern::Exact(Host::Ip(ip)) => addresses.push(*ip),
        }
    }
    let mut permitted = without_covered(names);
    if permitted.is_empty() {
        permitted.push(NOWHERE);
    }
    addresses.sort_unstable();
    addresses.dedup();
    let everything = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let excluded = match addresses.is_empty() {
        true => everything.as_slice(),
        false => &[],
    };
    NameConstraints {
        permitted_subtrees: permitted
            .into_iter()
            .map(|name| GeneralSubtree::DnsName(name.to_owned()))
            .chain(addresses.iter().map(|ip| subnet(*ip, host_bits(*ip))))
            .collect(),
        excluded_subtrees: excluded.iter().map(|ip| subnet(*ip, 0)).collect(),
    }
}

/// The names without those that another one of them covers, in order.
fn without_covered(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable_by_key(|name| (name.len(), *name));
    let mut kept: Vec<&str> = Vec::new();
    for name in names {
        if !kept.iter().any(|base| is_within(name, base)) {
            kept.push(name);
        }
    }
    kept.sort_unstable();
    kept
}

fn host_bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn subnet(ip: IpAddr, prefix: u8) -> GeneralSubtree {
    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, prefix))
}

/// What one certificate's name constraints say about hosts. Other name forms do not touch TLS servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameLimits {
    permitted: Subtrees,
    excluded: Subtrees,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Subtrees {
    /// Lower case. Empty covers all names; a leading dot excludes the name itself.
    names: Vec<String>,
    networks: Vec<IpNet>,
}

/// The certificate's name constraints cannot be understood, so nothing may rely on them.
#[derive(Debug)]
pub(super) struct UnreadableConstraints;

impl NameLimits {
    /// Reads them from a certificate; one without constraints permits every host.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, UnreadableConstraints> {
        let constraints = certificate
            .name_constraints()
            .map_err(|_| UnreadableConstraints)?;
        let Some(constraints) = constraints else {
            return Ok(Self::default());
        };
        let read = |subtrees: &Option<Vec<_>>| Subtrees::read(subtrees.iter().flatten());
        Ok(Self {
            permitted: read(&constraints.value.permitted_subtrees)?,
            excluded: read(&constraints.value.excluded_subtrees)?,
        })
    }

    /// Whether a leaf for this host would be believed.
    pub(super) fn permit(&self, host: &Host) -> bool {
        let (permitted, excluded) = (&self.permitted, &self.excluded);
        match host {
            Host::Name(name) => {
                let within = |names: &[String]| names.iter().any(|base| is_within(name, base));
                (permitted.names.is_empty() || within(&permitted.names)) && !within(&excluded.names)
            }
            Host::Ip(ip) => {
                let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(ip));
                (permitted.networks.is_empty() || within(&permitted.networks))
                    && !within(&excluded.networks)
            }
        }
    }

    /// Whether a leaf for every host of the pattern would be believed.
    pub(super) fn cover(&self, pattern: &HostPattern) -> bool {
        let suffix = match pattern {
            HostPattern::Exact(host) => return self.permit(host),
            HostPattern::Below(suffix) => suffix.as_ref(),
        };
        let covers = |base: &String| match base.strip_prefix('.') {
            Some(above) => is_within(suffix, above),
            None => is_within(suffix, base),
        };
        let touches = |base: &String| {
            let base = base.strip_prefix('.').unwrap_or(base);
            is_within(suffix, base) || is_within(base, suffix)
        };
        let permitted = &self.permitted.names;
        (permitted.is_empty() || permitted.iter().any(covers))
            && !self.excluded.names.iter().any(touches)
    }

    /// The permitted names and networks for a person to read; `None` when every host is permitted.
    pub(super) fn permitted(&self) -> Option<Vec<String>> {
        let Subtrees { names, networks } = &self.permitted;
        if names.is_empty() && networks.is_empty() {
            return None;
        }
        let names = names.iter().filter(|name| *name != NOWHERE).cloned();
        let networks = networks.iter().map(|net| match net.prefix_len() {
            full if full == net.max_prefix_len() => net.addr().to_string(),
            _ => net.to_string(),
        });
        Some(names.chain(networks).collect())
    }
}

impl Subtrees {
    fn read<'a>(
        subtrees: impl Iterator<Item = &'a x509_parser::extensions::GeneralSubtree<'a>>,
    ) -> Result<Self, UnreadableConstraints> {
        let mut read = Self::default();
        for subtree in subtrees {
            match &subtree.base {
                GeneralName::DNSName(name) => read.names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(octets) => read.networks.push(network(octets)?),
                GeneralName::Invalid(..) => return Err(UnreadableConstraints),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// An address and a mask, one after the other.
fn network(octets: &[u8]) -> Result<IpNet, UnreadableConstraints> {
    let (address, mask): (IpAddr, IpAddr) = match octets.len() {
        8 => {
            let (address, mask) = octets.split_at(4);
            (v4(address)?.into(), v4(mask)?.into())
        }
        32 => {
            let (address, mask) = octets.split_at(16);
            (v6(address)?.into(), v6(mask)?.into())
        }
        _ => return Err(UnreadableConstraints),
    };
    IpNet::with_netmask(address, mask).map_err(|_| UnreadableConstraints)
}

fn v4(octets: &[u8]) -> Result<Ipv4Addr, UnreadableConstraints> {
    <[u8; 4]>::try_from(octets)
        .map(Ipv4Addr::from)
        .map_err(|_| UnreadableConstraints)
}

fn v6(octets: &[u8]) -> Result<Ipv6Addr, UnreadableConstraints> {
    <[u8; 16]>::try_from(octets)
        .map(Ipv6Addr::from)
        .map_err(|_| UnreadableConstraints)
}

/// Whether a dNSName constraint `base` covers `name`.
fn is_within(name: &str, base: &str) -> bool {
    if base.is_empty() || name == base {
        return true;
    }
    name.strip_suffix(base)
        .is_some_and(|head| !head.is_empty() && (base.starts_with('.') || head.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<HostPattern> {
        texts
            .iter()
            .map(|text| HostPattern::parse(text).unwrap())
            .collect()
    }

    fn limits(permitted: &[&str], excluded: &[&str]) -> NameLimits {
        let subtrees = |texts: &[&str]| {
            let (networks, names): (Vec<&str>, _) =
                texts.iter().partition(|text| text.contains('/'));
            Subtrees {
                names: names.into_iter().map(str::to_owned).collect(),
                networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            }
        };
        NameLimits {
            permitted: subtrees(permitted),
            excluded: subtrees(excluded),
        }
    }

    #[test]
    fn a_new_authority_is_given_the_fewest_names_that_cover_the_policy() {
        let made = constraints_for(&patterns(&[
            "*.github.com",
            "api.github.com",
            "api.anthropic.com",
            "api.anthropic.com",
            "notgithub.com",
        ]));
        let names = ["api.anthropic.com", "github.com", "notgithub.com"];
        assert_eq!(
            made.permitted_subtrees,
            names.map(|name| GeneralSubtree::DnsName(name.to_owned()))
        );
        assert_eq!(
            made.excluded_subtrees.len(),
            2,
            "all addresses, both families"
        );
    }

    #[test]
    fn a_policy_without_names_does_not_permit_every_name() {
        for texts in [&[][..], &["10.0.0.1"]] {
            let made = constraints_for(&patterns(texts));
            let dns = GeneralSubtree::DnsName("invalid".to_owned());
            assert!(made.permitted_subtrees.contains(&dns));
        }
    }

    #[test]
    fn named_addresses_replace_the_exclusion_of_all() {
        let made = constraints_for(&patterns(&["10.0.0.1", "[fd00::1]"]));
        assert!(made.excluded_subtrees.is_empty());
        assert_eq!(made.permitted_subtrees.len(), 3);
    }

    #[test]
    fn hosts_are_permitted_as_clients_read_the_constraints() {
        for (permitted, excluded, host, expected) in [
            (&[][..], &[][..], "a.com", true),
            (&[], &[], "10.0.0.1", true),
            (&["a.com"], &[], "a.com", true),
            (&["a.com"], &[], "x.a.com", true),
            (&["a.com"], &[], "xa.com", false),
            (&["a.com"], &[], "com", false),
            (&["a.com"], &[], "10.0.0.1", true),
            (&[".a.com"], &[], "a.com", false),
            (&[".a.com"], &[], "x.a.com", true),
            (&[], &["a.com"], "x.a.com", false),
            (&[], &[""], "b.com", false),
            (&["a.com"], &["x.a.com"], "x.a.com", false),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &[], "[fd00::1]", false),
            (&["a.com"], &["0.0.0.0/0", "::/0"], "10.0.0.1", false),
            (&["a.com"], &["0.0.0.0/0", "::/0"], "[fd00::1]", false),
        ] {
            let host = Host::parse(host).unwrap();
            let limits = limits(permitted, excluded);
            assert_eq!(limits.permit(&host), expected, "{limits:?} {host}");
        }
    }

    #[test]
    fn a_wildcard_is_covered_only_with_all_names_below_it() {
        for (permitted, excluded, expected) in [
            (&[][..], &[][..], true),
            (&["github.com"], &[], true),
            (&[".github.com"], &[], true),
            (&["api.github.com"], &[], false),
            (&["com"], &[], true),
            (&["github.com"], &["api.github.com"], false),
            (&["github.com"], &["com"], false),
            (&["github.com"], &["gitlab.com"], true),
        ] {
            let limits = limits(permitted, excluded);
            let pattern = HostPattern::parse("*.github.com").unwrap();
            assert_eq!(limits.cover(&pattern), expected, "{limits:?}");
        }
    }

    #[test]
    fn masks_with_holes_are_not_understood() {
        assert!(network(&[10, 0, 0, 0, 255, 0, 255, 0]).is_err());
        assert!(network(&[10, 0, 0, 0, 255]).is_err());
        assert_eq!(
            network(&[10, 0, 0, 0, 255, 0, 0, 0]).unwrap().to_string(),
            "10.0.0.0/8"
        );
    }
}
