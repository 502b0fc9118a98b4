//! Owns ClientHellos written by hand: those that no TLS library sends.

/// The smallest ClientHello, with these extensions (RFC 8446, section 4.1.2).
fn hello(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0); // no session
    body.extend([0, 2, 0x13, 0x01, 1, 0]); // one suite, no compression
    body.extend(long(extensions));
    let mut message = vec![1, 0];
    message.extend(long(&body));
    let mut record = vec![22, 3, 1];
    record.extend(long(&message));
    record
}

/// A vector with a length of two bytes.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length, bytes].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    server_names(&[name])
}

/// One extension with a list of names (RFC 6066, section 3).
fn server_names(names: &[&str]) -> Vec<u8> {
    let entry = |name: &&str| [&[0][..], &long(name.as_bytes())].concat();
    let entries: Vec<u8> = names.iter().flat_map(entry).collect();
    [&[0, 0][..], &long(&long(&entries))].concat()
}

/// One that names this server.
pub fn naming(name: &str) -> Vec<u8> {
    hello(&server_name(name))
}

/// One that names none.
pub fn nameless() -> Vec<u8> {
    hello(&[])
}

/// One with an encrypted hello inside (RFC 9849).
pub fn encrypted(outer_name: &str) -> Vec<u8> {
    let inner = [&[0xfe, 0x0d][..], &long(&[0; 64])].concat();
    hello(&[server_name(outer_name), inner].concat())
}

/// One that names two servers in one list.
pub fn naming_both(first: &str, second: &str) -> Vec<u8> {
    hello(&server_names(&[first, second]))
}

/// One that announces more than anybody sends.
pub fn endless() -> Vec<u8> {
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    record
}

/// One that names two servers.
pub fn naming_two(first: &str, second: &str) -> Vec<u8> {
    hello(&[server_name(first), server_name(second)].concat())
}
