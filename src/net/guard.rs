//! Owns the address guard: which addresses a name may lead to. It is asked about the address that is
//! dialled, not about one that was looked up earlier.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Why an address is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// 169.254.0.0/16, fe80::/10, and with them the clouds' metadata services.
    LinkLocal,
    /// RFC 1918, RFC 6598 (carrier NAT) and fc00::/7.
    Private,
    /// Unspecified, broadcast, multicast, documentation, benchmarking, reserved.
    Special,
    /// One of the proxy's own listeners.
    OwnListener,
}

impl Guarded {
    /// What kind of address it is, for messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local or metadata address",
            Self::Private => "a private address",
            Self::Special => "a special-purpose address",
            Self::OwnListener => "the proxy's own listener",
        }
    }
}

/// The proxy's own sockets, and the ranges that are refused unless a rule lists them.
#[derive(Debug, Clone, Default)]
pub struct AddressGuard {
    own: Vec<SocketAddr>,
}

impl AddressGuard {
    /// Guards these listeners whatever a rule says.
    pub fn new(own: Vec<SocketAddr>) -> Self {
        Self { own }
    }

    /// Whether `address` may be dialled by a rule that lists `allowed`.
    pub fn check(&self, address: SocketAddr, allowed: &[IpNet]) -> Result<(), Guarded> {
        let ip = embedded(address.ip());
        if self
            .own
            .iter()
            .any(|own| is_listener(own, ip, address.port()))
        {
            return Err(Guarded::OwnListener);
        }
        if allowed
            .iter()
            .any(|net| net.contains(&ip) || net.contains(&address.ip()))
        {
            return Ok(());
        }
        match classify(ip) {
            Some(guarded) => Err(guarded),
            None => Ok(()),
        }
    }
}

/// A wildcard listener is reached through every local address; the port alone must then decide.
fn is_listener(own: &SocketAddr, ip: IpAddr, port: u16) -> bool {
    own.port() == port
        && (own.ip() == ip
            || ip.is_loopback()
            || ip.is_unspecified()
            || own.ip().is_unspecified() && is_local(ip))
}

/// Whether `ip` belongs to this machine: only then can a socket be bound to it.
fn is_local(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// The IPv4 address that an IPv6 one stands for: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380).
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let v4 = |high: u16, low: u16| {
        IpAddr::V4(Ipv4Addr::new(
            (high >> 8) as u8,
            high as u8,
            (low >> 8) as u8,
            low as u8,
        ))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, _, _, _, _, high, low] => v4(!high, !low),
        _ => ip,
    }
}

fn classify(ip: IpAddr) -> Option<Guarded> {
    match ip {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// IANA IPv4 special-purpose registry.
fn classify_v4(ip: Ipv4Addr) -> Option<Guarded> {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => Some(Guarded::Loopback),
        (169, 254, _) => Some(Guarded::LinkLocal),
        // Alibaba Cloud's metadata service stands within carrier NAT space.
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Some(Guarded::Private),
        (0, ..)
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113)
        | (224.., ..) => Some(Guarded::Special),
        _ => None,
    }
}

/// IANA IPv6 special-purpose registry: only 2000::/3 is global unicast.
fn classify_v6(ip: Ipv6Addr) -> Option<Guarded> {
    let s = ip.segments();
    if ip.is_loopback() {
        return Some(Guarded::Loopback);
    }
    match s[0] {
        0xfe80..=0xfebf => Some(Guarded::LinkLocal),
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Some(Guarded::Private),
        0x2001 if s[1] == 0xdb8 || s[1] < 0x200 => Some(Guarded::Special),
        0x3fff if s[1] < 0x1000 => Some(Guarded::Special),
        0x2000..=0x3fff => None,
        _ => Some(Guarded::Special),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ip: &str, allowed: &[&str]) -> Result<(), Guarded> {
        let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
        AddressGuard::default().check(SocketAddr::new(ip.parse().unwrap(), 443), &allowed)
    }

    #[test]
    fn only_global_unicast_passes_unasked() {
        use Guarded::*;
        for (ip, expected) in [
            ("160.79.104.10", Ok(())),
            ("2607:6bc0::10", Ok(())),
            ("127.0.0.1", Err(Loopback)),
            ("127.8.8.8", Err(Loopback)),
            ("::1", Err(Loopback)),
            ("::ffff:127.0.0.1", Err(Loopback)),
            ("::127.0.0.1", Err(Loopback)),
            ("64:ff9b::7f00:1", Err(Loopback)),
            ("2002:7f00:1::", Err(Loopback)),
            ("2001:0:1:2:3:4:80ff:fffe", Err(Loopback)),
            ("169.254.169.254", Err(LinkLocal)),
            ("64:ff9b::a9fe:a9fe", Err(LinkLocal)),
            ("fe80::1", Err(LinkLocal)),
            ("10.0.0.1", Err(Private)),
            ("172.31.255.255", Err(Private)),
            ("192.168.1.1", Err(Private)),
            ("100.100.100.200", Err(Private)),
            ("fd00:ec2::254", Err(Private)),
            ("0.0.0.0", Err(Special)),
            ("224.0.0.1", Err(Special)),
            ("255.255.255.255", Err(Special)),
            ("198.18.0.1", Err(Special)),
            ("ff02::1", Err(Special)),
            ("::", Err(Special)),
            ("2001:db8::1", Err(Special)),
        ] {
            assert_eq!(check(ip, &[]), expected, "{ip}");
        }
    }

    #[test]
    fn a_rule_opens_exactly_the_range_it_lists() {
        assert_eq!(check("10.1.2.3", &["10.1.0.0/16"]), Ok(()));
        assert_eq!(check("10.2.2.3", &["10.1.0.0/16"]), Err(Guarded::Private));
        assert_eq!(check("::ffff:10.1.2.3", &["10.1.0.0/16"]), Ok(()));
    }

    #[test]
    fn no_rule_opens_the_proxy_itself() {
        let guard = AddressGuard::new(vec![
            "127.0.0.1:8888".parse().unwrap(),
            "0.0.0.0:9090".parse().unwrap(),
        ]);
        let all = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        for own in [
            "127.0.0.1:8888",
            "127.0.0.1:9090",
            "[::1]:9090",
            "[::ffff:127.0.0.1]:8888",
            "0.0.0.0:8888",
        ] {
            assert_eq!(
                guard.check(own.parse().unwrap(), &all),
                Err(Guarded::OwnListener),
                "{own}"
            );
        }
        assert_eq!(guard.check("127.0.0.1:8889".parse().unwrap(), &all), Ok(()));
    }
}
