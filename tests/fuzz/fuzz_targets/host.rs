//! `Host`, CONNECT targets and absolute-form authorities: one canonical form, which is what is compared, looked
//! up and dialled.
#![no_main]

use std::net::Ipv4Addr;

use http::Uri;
use libfuzzer_sys::fuzz_target;
use tollgate::types::host::{Authority, Host, HostPattern};

fn plain(name: &str) {
    assert!(name.len() <= 253 && !name.ends_with('.'), "{name:?}");
    for label in name.split('.') {
        assert!((1..=63).contains(&label.len()), "{name:?}");
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        assert!(label.bytes().all(fits), "{name:?}");
    }
    // What inet_aton(3) reads as an address must not pass as a name.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(!hex && !last.bytes().all(|b| b.is_ascii_digit()), "{name:?}");
    assert!(name.parse::<Ipv4Addr>().is_err());
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (text, pattern) = text.split_once('\n').unwrap_or((text, "*.example.com"));
    let Ok(authority) = Authority::parse(text, Some(443)) else {
        return;
    };
    let written = authority.to_string();
    assert_eq!(Authority::parse(&written, None).as_ref(), Ok(&authority), "{text:?}");
    if let Host::Name(name) = &authority.host {
        plain(name);
    }
    // The URI that is sent has the same authority as the one that was checked.
    let uri: Uri = format!("https://{written}/").parse().unwrap();
    let sent = uri.authority().unwrap();
    assert_eq!(Host::parse(sent.host()).as_ref(), Ok(&authority.host));
    assert_eq!(sent.port_u16(), Some(authority.port));
    let Ok(pattern) = HostPattern::parse(pattern) else {
        return;
    };
    if pattern.matches(&authority.host) {
        match (&pattern, &authority.host) {
            (HostPattern::Exact(exact), host) => assert_eq!(exact, host),
            (HostPattern::Below(below), Host::Name(name)) => {
                assert!(name.ends_with(&format!(".{below}")), "{name} below {below}");
            }
            (HostPattern::Below(_), Host::Ip(ip)) => panic!("{ip} below a name"),
        }
    }
});
