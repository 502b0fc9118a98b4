//! Owns the text form of certificates and keys (RFC 7468), without stray copies of what it encodes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Far above any certificate bundle (Mozilla's is 220 KiB) and below any accident (`/dev/zero`).
pub(super) const FILE_LIMIT: u64 = 4 << 20;
/// 48 octets make the 64 columns that RFC 7468, section 2 asks for.
const OCTETS_PER_LINE: usize = 48;

/// A certificate as PEM.
pub(super) fn certificate(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

/// `der` as PEM. The text is allocated once at its final size, so that the caller who zeroizes it
/// leaves nothing of a key behind.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let lines = der.len().div_ceil(OCTETS_PER_LINE);
    let frame = 2 * (label.len() + "-----BEGIN -----\n".len());
    let mut text = String::with_capacity(frame + lines * 65);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(OCTETS_PER_LINE) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(der in prop::collection::vec(any::<u8>(), 1..400)) {
            let text = certificate(&der);
            let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            prop_assert_eq!(read.as_ref(), der.as_slice());
            prop_assert!(text.lines().all(|line| line.len() <= 64));
        }

        #[test]
        fn the_text_is_never_reallocated(length in 0usize..2000) {
            let text = encode("PRIVATE KEY", &vec![7; length]);
            let lines = length.div_ceil(OCTETS_PER_LINE);
            prop_assert_eq!(text.capacity(), 2 * ("PRIVATE KEY".len() + 17) + lines * 65);
        }
    }
}
