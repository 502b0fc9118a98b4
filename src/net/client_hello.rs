//! Owns the reading of a TLS ClientHello that is passed on unread otherwise: which server it names,
//! and whether it hides one (RFC 8446, section 4.1.2; RFC 6066, section 3; RFC 9849).

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Peeked {
    /// More bytes are needed.
    Incomplete,
    /// Not a TLS handshake, or one that breaks its own grammar.
    NotTls,
    /// A whole ClientHello.
    Hello(ClientHello),
}

/// The parts of a ClientHello that decide whether a tunnel may carry it.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, as sent.
    pub server_name: Option<String>,
    /// Whether an `encrypted_client_hello` extension is there. GREASE looks the same by design.
    pub encrypted: bool,
}

/// Longest ClientHello that is waited for. Post-quantum key shares need about 2 KiB.
pub const LONGEST: usize = 64 * 1024;

/// The fatal alert `unrecognized_name` as a record of its own (RFC 8446, sections 5.1 and 6.2).
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Reads a ClientHello, however it is cut into records.
pub fn peek(bytes: &[u8]) -> Peeked {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let Some((&kind, _)) = rest.split_first() else {
            return Peeked::Incomplete;
        };
        if kind != HANDSHAKE_RECORD || rest.get(1).is_some_and(|&major| major != 3) {
            return Peeked::NotTls;
        }
        if rest.len() < 5 {
            return Peeked::Incomplete;
        }
        let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        if length == 0 || length > (1 << 14) + 256 {
            return Peeked::NotTls;
        }
        let body = &rest[5..];
        message.extend_from_slice(&body[..length.min(body.len())]);
        if let Some(&kind) = message.first()
            && kind != CLIENT_HELLO
        {
            return Peeked::NotTls;
        }
        if message.len() >= 4 {
            let wanted =
                4 + usize::from_be_bytes([0, 0, 0, 0, 0, message[1], message[2], message[3]]);
            if wanted > LONGEST {
                return Peeked::NotTls;
            }
            if message.len() >= wanted {
                return match parse(&message[4..wanted]) {
                    Some(hello) => Peeked::Hello(hello),
                    None => Peeked::NotTls,
                };
            }
        }
        if body.len() <= length {
            return Peeked::Incomplete;
        }
        rest = &body[length..];
    }
}

fn parse(hello: &[u8]) -> Option<ClientHello> {
    let mut hello = Reader(hello);
    hello.take(2 + 32)?; // legacy_version, random
    hello.vec8()?; // legacy_session_id
    hello.vec16()?; // cipher_suites
    hello.vec8()?; // legacy_compression_methods
    let mut found = ClientHello {
        server_name: None,
        encrypted: false,
    };
    if hello.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Reader(hello.vec16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vec16()?;
        match kind {
            SERVER_NAME if found.server_name.is_some() => return None,
            SERVER_NAME => found.server_name = Some(server_name(body)?),
            ENCRYPTED_CLIENT_HELLO => found.encrypted = true,
            _ => {}
        }
    }
    Some(found)
}

/// Exactly one `host_name` entry: two would let two readers disagree.
fn server_name(body: &[u8]) -> Option<String> {
    let mut body = Reader(body);
    let mut list = Reader(body.vec16()?);
    let kind = list.take(1)?;
    let name = list.vec16()?;
    if kind != [0] || !list.0.is_empty() || !body.0.is_empty() || !name.is_ascii() {
        return None;
    }
    String::from_utf8(name.to_vec()).ok()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }
    fn vec8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        self.take(length)
    }
    fn vec16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_real_hello_names_its_server() {
        let expected = ClientHello {
            server_name: Some("api.example.com".into()),
            encrypted: false,
        };
        assert_eq!(peek(&hello("api.example.com")), Peeked::Hello(expected));
    }

    #[test]
    fn a_hello_to_an_address_names_none() {
        let Peeked::Hello(found) = peek(&hello("127.0.0.1")) else {
            panic!()
        };
        assert_eq!(found.server_name, None);
    }

    #[test]
    fn plain_text_is_not_tls() {
        assert_eq!(peek(b"GET / HTTP/1.1\r\n\r\n"), Peeked::NotTls);
        assert_eq!(peek(b"\x16\x04\x01\x00\x05"), Peeked::NotTls);
        assert_eq!(peek(b""), Peeked::Incomplete);
    }

    #[test]
    fn a_hello_cut_into_records_reads_the_same() {
        let whole = hello("api.example.com");
        let message = &whole[5..];
        let mut records = Vec::new();
        for part in message.chunks(50) {
            records.extend_from_slice(&[22, 3, 1, 0, part.len() as u8]);
            records.extend_from_slice(part);
        }
        assert_eq!(peek(&records), peek(&whole));
    }

    proptest! {
        #[test]
        fn every_prefix_is_incomplete_and_nothing_panics(cut in 0usize..200) {
            let whole = hello("api.example.com");
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(peek(&whole[..cut]), Peeked::Incomplete);
        }

        #[test]
        fn damaged_hellos_never_panic(at in 0usize..400, byte: u8) {
            let mut bytes = hello("api.example.com");
            let at = at % bytes.len();
            bytes[at] = byte;
            peek(&bytes);
        }
    }
}
