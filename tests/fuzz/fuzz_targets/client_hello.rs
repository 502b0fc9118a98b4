//! The ClientHello that a tunnel passes on unread: more octets never change what was said, records may be cut
//! anywhere, and a server that takes it sees the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;
use tollgate::net::client_hello::{Peeked, peek};

/// The name that a real TLS server reads, if it takes the hello.
fn taken(bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return None;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Some(hello.server_name().map(str::to_owned));
            }
            Ok(None) => {}
            Err(_) => return None,
        }
    }
    None
}

/// The same handshake message in records of `width` octets.
fn recut(bytes: &[u8], width: usize) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 5 {
        let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        message.extend_from_slice(rest.get(5..5 + length)?);
        rest = &rest[5 + length..];
    }
    let mut cut = Vec::new();
    for piece in message.chunks(width) {
        let length = u16::try_from(piece.len()).ok()?;
        cut.extend([22, 3, 1]);
        cut.extend(length.to_be_bytes());
        cut.extend(piece);
    }
    rest.is_empty().then_some(cut)
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else {
        return;
    };
    let whole = peek(bytes);
    let at = usize::from(cut) * bytes.len() / 255;
    let before = peek(&bytes[..at]);
    if before != Peeked::Incomplete {
        assert_eq!(before, whole, "after {at} octets it was decided otherwise");
    }
    let Peeked::Hello(hello) = &whole else {
        return;
    };
    if let Some(recut) = recut(bytes, usize::from(cut) + 1) {
        assert_eq!(peek(&recut), whole, "in records of {}", usize::from(cut) + 1);
    }
    // rustls answers with no name where a name is none (an address, an underscore): then no name was checked
    // but the one we read.
    if let Some(Some(name)) = taken(bytes) {
        let ours = hello.server_name.as_deref().unwrap_or_default();
        assert_eq!(ours.to_ascii_lowercase(), name.to_ascii_lowercase());
    }
});
