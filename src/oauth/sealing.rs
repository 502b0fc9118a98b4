//! Owns encryption at rest: what is kept can be read only with the key file it was sealed with.
//!
//! A sealed file is `MAGIC`, a version, the key's id, a nonce, and what AES-256-GCM makes of the record;
//! everything before the nonce is authenticated too. Key and id are derived from the key file by
//! HKDF-SHA256 without salt: what is in the file is random already (RFC 5869, section 3.1).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::rt::file;

const MAGIC: &[u8] = b"tollgate.dev/sealed-grant\n";
const VERSION: u8 = 1;
const ID_LEN: usize = 8;
const HEADER_LEN: usize = MAGIC.len() + 1 + ID_LEN;
const KEY_LEN: usize = 32;
/// Far above any key.
const KEY_FILE_LIMIT: u64 = 64 << 10;
/// 32 random octets never have so few different ones; zeros and a repeated word do.
const LEAST_DIFFERENT: usize = 8;

/// Why a key file cannot be used. Holds no part of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("the key file {} cannot be read: {source}", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the key file {} is readable by others (mode {mode:04o}): chmod 600 {}, or for a mounted Secret \
         set defaultMode to 0400",
        path.display(), path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is too short or visibly not random.
    #[error(
        "the key file {} holds no 32 random bytes: make one with `openssl rand -hex 32 >{}`",
        path.display(), path.display()
    )]
    Weak {
        /// The key file.
        path: PathBuf,
    },
    /// The cryptographic library failed.
    #[error("no key can be derived from the key file {}", path.display())]
    Derivation {
        /// The key file.
        path: PathBuf,
    },
}

/// Why sealed bytes were not opened. Holds no part of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A newer Tollgate sealed them.
    #[error("a newer Tollgate sealed it (version {0}; this one knows {VERSION})")]
    Newer(u8),
    /// They were sealed with another key.
    #[error(
        "it was sealed with another key (its key's id is {theirs}, that of the key file is {ours})"
    )]
    OtherKey {
        /// The id of the key that is needed.
        theirs: KeyId,
        /// The id of the key that is there.
        ours: KeyId,
    },
    /// The key is right, the bytes are not what was sealed.
    #[error("it is damaged: it was sealed with this key, and changed or cut off since")]
    Damaged,
}

/// Tells keys apart without telling anything else about them: derived beside the key, not cut from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; ID_LEN]);

/// What seals and opens. The library clears the key from memory when it is dropped.
pub struct SealingKey {
    key: RandomizedNonceKey,
    id: KeyId,
}

impl SealingKey {
    /// Reads a key file: 32 bytes or more as they are, or 64 hexadecimal digits or more. White space
    /// around a text does not count.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let read = file::read(path, KEY_FILE_LIMIT);
        let contents = read.map_err(|source| KeyFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        if contents.is_exposed() {
            return Err(KeyFileError::Exposed {
                path: path.to_owned(),
                mode: contents.mode(),
            });
        }
        let material = material(&contents.bytes).ok_or_else(|| KeyFileError::Weak {
            path: path.to_owned(),
        })?;
        Self::derive(&material).map_err(|Unspecified| KeyFileError::Derivation {
            path: path.to_owned(),
        })
    }

    fn derive(material: &[u8]) -> Result<Self, Unspecified> {
        let prk = Salt::new(HKDF_SHA256, &[]).extract(material);
        let mut key = Zeroizing::new([0; KEY_LEN]);
        prk.expand(&[MAGIC, b"key"], Length(KEY_LEN))?
            .fill(&mut *key)?;
        let mut id = [0; ID_LEN];
        prk.expand(&[MAGIC, b"id"], Length(ID_LEN))?.fill(&mut id)?;
        Ok(Self {
            key: RandomizedNonceKey::new(&AES_256_GCM, &*key)?,
            id: KeyId(id),
        })
    }

    /// Encrypts `plain`. A random nonce is safe for 2^32 writes with one key (NIST SP 800-38D,
    /// section 8.3): one each second for 136 years.
    pub fn seal(&self, plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let header = [MAGIC, &[VERSION], &self.id.0].concat();
        let mut text = Zeroizing::new(plain.to_vec());
        let aad = Aad::from(&header);
        let (nonce, tag) = self.key.seal_in_place_separate_tag(aad, &mut text)?;
        let sealed = [&header, nonce.as_ref().as_slice(), &text, tag.as_ref()].concat();
        Ok(Zeroizing::new(sealed))
    }

    /// Decrypts what [`SealingKey::seal`] made.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (header, rest) = sealed
            .split_at_checked(HEADER_LEN)
            .ok_or(OpenError::Damaged)?;
        let version = header[MAGIC.len()];
        if version > VERSION {
            return Err(OpenError::Newer(version));
        }
        let theirs = &header[HEADER_LEN - ID_LEN..];
        if theirs != self.id.0 {
            return Err(OpenError::OtherKey {
                theirs: KeyId(theirs.try_into().map_err(|_| OpenError::Damaged)?),
                ours: self.id,
            });
        }
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::Damaged)?;
        let damaged = |Unspecified| OpenError::Damaged;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(damaged)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self.key.open_in_place(nonce, Aad::from(header), &mut text);
        let length = opened.map_err(damaged)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// Whether bytes are sealed, with whatever key. What is not is JSON and begins otherwise.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The random bytes of a key file; nothing if there are too few.
fn material(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let is_text = bytes
        .iter()
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    let bytes = if is_text { bytes.trim_ascii() } else { bytes };
    let material = match bytes.iter().all(u8::is_ascii_hexdigit) {
        true => decode_hex(bytes)?,
        false => Zeroizing::new(bytes.to_vec()),
    };
    let different = material.iter().collect::<BTreeSet<_>>().len();
    (material.len() >= KEY_LEN && different >= LEAST_DIFFERENT).then_some(material)
}

fn decode_hex(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    for [high, low] in pairs {
        bytes.push(u8::try_from(value(*high)? << 4 | value(*low)?).ok()?);
    }
    Some(bytes)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HEX: &[u8] = b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn key(first: u8) -> SealingKey {
        let material: Vec<u8> = (first..first + 32).collect();
        SealingKey::derive(&material).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_with_the_same_key_and_shows_nothing() {
        let plain = b"refresh-sentinel".repeat(100);
        let sealed = key(0).seal(&plain).unwrap();
        assert!(is_sealed(&sealed) && !is_sealed(&plain) && !is_sealed(b"{"));
        assert!(memchr::memmem::find(&sealed, b"sentinel").is_none());
        assert_eq!(*key(0).open(&sealed).unwrap(), plain);
        // A nonce used twice would give the key away.
        assert_ne!(*sealed, *key(0).seal(&plain).unwrap());
    }

    #[test]
    fn another_key_is_told_apart_from_damage_at_any_byte() {
        let sealed = key(0).seal(b"{}").unwrap();
        let expected = OpenError::OtherKey {
            theirs: key(0).id,
            ours: key(1).id,
        };
        assert_eq!(key(1).open(&sealed).unwrap_err(), expected);
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 0x40;
            let error = key(0).open(&changed).unwrap_err();
            match at.checked_sub(MAGIC.len()) {
                Some(0) => assert_eq!(error, OpenError::Newer(0x41)),
                Some(1..=ID_LEN) => assert!(matches!(error, OpenError::OtherKey { .. })),
                _ => assert_eq!(error, OpenError::Damaged, "byte {at}"),
            }
            assert_eq!(key(0).open(&sealed[..at]).unwrap_err(), OpenError::Damaged);
        }
    }

    #[test]
    fn a_key_file_is_hexadecimal_or_raw() {
        let raw: Vec<u8> = (0..32).collect();
        let spaced = [HEX, b"\n"].concat();
        let shouted = HEX.to_ascii_uppercase();
        for bytes in [&raw, HEX, &spaced, &shouted] {
            assert_eq!(*material(bytes).unwrap(), raw);
        }
        // A raw key may end in what would be white space of a text.
        let raw: Vec<u8> = (0..32).map(|n| 255 - n).chain([b'\n']).collect();
        assert_eq!(*material(&raw).unwrap(), raw);
        let base64 = b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(material(base64).unwrap().len(), base64.len());
        for weak in [
            &b""[..],
            &HEX[..62],
            &HEX[..63],
            b"secret",
            &[0; 32],
            &[b'0'; 64],
            &raw[..31],
        ] {
            assert!(material(weak).is_none(), "{weak:?}");
        }
    }

    #[test]
    fn a_key_file_that_others_may_read_or_that_is_not_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let error = SealingKey::load(&path).unwrap_err().to_string();
        assert!(error.contains("cannot be read: No such file"), "{error}");
        std::fs::write(&path, HEX).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o640);
        let error = SealingKey::load(&path).unwrap_err().to_string();
        let hint = format!("(mode 0640): chmod 600 {},", path.display());
        assert!(error.contains(&hint), "{error}");
        mode(0o400);
        assert_eq!(SealingKey::load(&path).unwrap().id, key(0).id);
        assert!(!format!("{:?}", key(0)).contains("0001"));
    }
}
