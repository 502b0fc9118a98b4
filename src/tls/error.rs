//! Owns what can go wrong with certificates and keys: what, where, and the command that mends it.

use std::io;
use std::path::{Path, PathBuf};

use crate::types::host::Host;
use crate::types::reached::Reached;

/// Why a certificate authority cannot be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read`, `write`, `create`, `lock`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key's file is open to the group or to everyone.
    #[error("`{}` is readable by others (mode {mode:04o})", path.display())]
    KeyReadable {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no whole, well-formed certificate.
    #[error("`{}` holds no usable PEM certificate: {reason}", path.display())]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The file holds no whole, well-formed private key. The parser's words are withheld on purpose.
    #[error("`{}` holds no usable unencrypted PEM private key", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
    },
    /// The certificate may not sign others.
    #[error("the certificate in `{}` is not a certificate authority", path.display())]
    NotAuthority {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The certificate was made for another key.
    #[error("the key in `{}` does not belong to the certificate in `{}`", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A certificate that agents may trust is there, but its key is gone.
    #[error("`{}` is there, but its key `{}` is missing", certificate.display(), key.display())]
    MissingKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The authority's time is over.
    #[error("the certificate authority `{common_name}` expired at {not_after}")]
    Expired {
        /// Its common name.
        common_name: String,
        /// When it expired, RFC 3339.
        not_after: String,
    },
    /// The authority's own name constraints forbid the host.
    #[error("the certificate authority `{common_name}` may not sign for `{host}`")]
    OutsideConstraints {
        /// Its common name.
        common_name: String,
        /// The host asked for.
        host: Host,
    },
    /// Too many were asked for.
    #[error("{0}")]
    Limit(#[from] Reached),
    /// The certificate generator failed.
    #[error("cannot make a certificate: {0}")]
    Signing(#[from] rcgen::Error),
    /// The TLS library refused a key or setting.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl CaError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The command or edit that mends it, if one is known.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::KeyReadable { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Certificate { path, .. } => format!(
                "restore `{}` from a backup, or delete it and its key to have a new authority made",
                path.display()
            ),
            Self::Key { path } => format!(
                "restore `{}` from a backup; an encrypted key is decrypted with `openssl pkey -in KEY -out {}`",
                path.display(),
                path.display()
            ),
            Self::NotAuthority { .. } => {
                "give a certificate with `CA:TRUE` and key usage `keyCertSign`".to_owned()
            }
            Self::Mismatch { key, .. } => {
                format!(
                    "give the key the certificate was made with; compare `openssl pkey -pubout -in {}`",
                    key.display()
                )
            }
            Self::MissingKey { certificate, key } => format!(
                "restore `{}`, or delete `{}` to have a new authority made (agents must then trust the new one)",
                key.display(),
                certificate.display()
            ),
            Self::Expired { .. } => {
                "make a new one with `tollgate ca init --force`, and have agents trust it".to_owned()
            }
            Self::OutsideConstraints { .. } => {
                "the policy names hosts the authority was not made for: `tollgate ca init --force` makes one that fits"
                    .to_owned()
            }
            Self::Limit(reached) => reached.remedy(),
            Self::Io { .. } | Self::Signing(_) | Self::Tls(_) => return None,
        })
    }
}

/// Why origins cannot be verified as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else than whole, well-formed certificates.
    #[error("`{}` holds no usable PEM certificates: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A file holds no whole, well-formed private key.
    #[error("`{}` holds no usable unencrypted PEM private key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The machine has no trust store, or an empty one.
    #[error("no certificates were found in the machine's trust store")]
    NoSystemRoots,
    /// A client certificate without its key, or a key without its certificate.
    #[error("`{}` is given, but no `{missing}`", given.display())]
    HalfClientCertificate {
        /// The file that is given.
        given: PathBuf,
        /// The field that is not.
        missing: &'static str,
    },
    /// The client certificate and key are refused, most likely because they do not match.
    #[error("the client certificate `{}` cannot be used: {source}", path.display())]
    ClientCertificate {
        /// The certificate's file.
        path: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// The TLS library refused a setting.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl TlsError {
    /// The command or edit that mends it, if one is known.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NoSystemRoots => {
                "install the package `ca-certificates`, or write `upstream.roots: bundled`"
                    .to_owned()
            }
            Self::HalfClientCertificate { missing, .. } => {
                format!("write `{missing}` too, or remove both")
            }
            Self::ClientCertificate { .. } => {
                "give the key the certificate was made with".to_owned()
            }
            Self::Key { path } => format!(
                "an encrypted key is decrypted with `openssl pkey -in KEY -out {}`",
                path.display()
            ),
            Self::Read { .. } | Self::Certificates { .. } | Self::Tls(_) => return None,
        })
    }
}
