//! Owns the keys that sign the audit log's heads and check them: Ed25519 (RFC 8032), as PEM files that
//! `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::audit_event::Head;
use super::audit_line::{Hash, Link, Tip};
use crate::types::secret::Secret;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No private key.
    #[error("this is no Ed25519 private key in PEM (PKCS#8)")]
    Private,
    /// No public key.
    #[error("this is no Ed25519 public key in PEM")]
    Public,
}

/// What signs.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// From a PEM file's text.
    pub fn parse(pem: &Secret) -> Result<Self, KeyError> {
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(pem.expose()).map_err(|_| KeyError::Private)?;
        // OpenSSL leaves the public half out (RFC 8410, section 7).
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
        pair.map(Self).map_err(|_| KeyError::Private)
    }

    /// Signs the chain up to here.
    pub fn head(&self, tip: Tip) -> Head {
        Head {
            key: fingerprint(self.0.public_key().as_ref()),
            signature: STANDARD.encode(self.0.sign(&message(tip))),
        }
    }
}

/// What checks.
pub struct Verifier {
    key: Vec<u8>,
    /// As heads name it.
    pub fingerprint: String,
}

/// What stands before the 32 octets of an Ed25519 key (RFC 8410, section 4).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl Verifier {
    /// From a PEM file's text.
    pub fn parse(pem: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::Public)?;
        let key = info.strip_prefix(&SPKI).ok_or(KeyError::Public)?;
        if key.len() != 32 {
            return Err(KeyError::Public);
        }
        Ok(Self {
            fingerprint: fingerprint(key),
            key: key.to_vec(),
        })
    }

    /// Whether a head is signed by this key.
    pub fn signed(&self, head: &Link) -> bool {
        let signature = head.signature.as_deref().unwrap_or_default();
        let Ok(signature) = STANDARD.decode(signature) else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        key.verify(&message(head.before()), &signature).is_ok()
    }
}

/// What is signed: the number and hash of the last record before the head.
fn message(tip: Tip) -> Vec<u8> {
    format!("tollgate audit head\n{}\n{}\n", tip.seq, tip.hash).into_bytes()
}

fn fingerprint(key: &[u8]) -> String {
    Hash::of(key).to_string()[..16].to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Made with `openssl genpkey -algorithm ed25519`; RFC 8410, section 10.3 has its like.
    pub(in super::super) const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
    /// Its public half, from the same section.
    pub(in super::super) const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

    #[test]
    fn a_head_is_checked_with_the_public_half() {
        let signer = Signer::parse(&Secret::from(PRIVATE.to_owned())).unwrap();
        let verifier = Verifier::parse(PUBLIC.as_bytes()).unwrap();
        let tip = Tip {
            seq: 7,
            hash: Hash::of(b"seven"),
        };
        let head = signer.head(tip);
        assert_eq!(head.key, verifier.fingerprint);
        let mut text = Vec::new();
        let mut end = tip;
        let event = super::super::audit_event::Event::Head(head);
        super::super::audit_line::seal(&mut text, &mut end, std::time::UNIX_EPOCH, &event).unwrap();
        let link = Link::read(text.trim_ascii_end()).unwrap();
        assert!(verifier.signed(&link));
        let mut elsewhere = link.clone();
        elsewhere.seq = 9;
        assert!(!verifier.signed(&elsewhere));
        let mut unsigned = link;
        unsigned.signature = None;
        assert!(!verifier.signed(&unsigned));
    }

    #[test]
    fn other_texts_are_no_keys() {
        assert!(Signer::parse(&Secret::from(PUBLIC.to_owned())).is_err());
        assert!(Verifier::parse(PRIVATE.as_bytes()).is_err());
        assert!(Verifier::parse(b"").is_err());
    }
}
