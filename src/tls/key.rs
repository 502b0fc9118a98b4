//! Owns the authority's signing key: used by its owner alone, gone from memory when dropped.

use std::path::Path;

use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::error::CaError;
use super::pem;
use crate::rt::file;
use crate::types::secret::Secret;

const MODE: u32 = 0o600;

/// The signing key. rcgen's own type leaves its PKCS#8 copy in freed memory.
pub(super) struct CaKey(Zeroizing<KeyPair>);

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for CaKey {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(msg)
    }
}

impl CaKey {
    /// A fresh ECDSA P-256 key.
    pub(super) fn generate() -> Result<Self, CaError> {
        Ok(Self(Zeroizing::new(KeyPair::generate()?)))
    }

    /// Reads a PEM file, which nobody but its owner may be able to read.
    pub(super) fn read(path: &Path) -> Result<Self, CaError> {
        let contents = file::read(path, pem::FILE_LIMIT).map_err(CaError::io("read", path))?;
        if contents.is_exposed() {
            return Err(CaError::KeyReadable {
                path: path.to_owned(),
                mode: contents.mode(),
            });
        }
        let unusable = || CaError::Key {
            path: path.to_owned(),
        };
        let der = PrivateKeyDer::from_pem_slice(&contents.bytes).map_err(|_| unusable())?;
        let der = Zeroizing::new(der);
        let pair = KeyPair::try_from(&*der).map_err(|_| unusable())?;
        Ok(Self(Zeroizing::new(pair)))
    }

    /// Writes a PEM file for its owner alone.
    pub(super) fn write(&self, path: &Path) -> Result<(), CaError> {
        file::replace(path, self.to_pem().expose(), MODE).map_err(CaError::io("write", path))
    }

    /// The key as PKCS#8 PEM.
    pub(super) fn to_pem(&self) -> Secret {
        Secret::from(pem::encode("PRIVATE KEY", self.0.serialized_der()))
    }
}
