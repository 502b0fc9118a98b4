//! Owns what agents are given to trust: our certificate alone, and together with everybody's.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};

use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::pem;
use super::roots::SystemRoots;
use crate::rt::file;

/// Agents run as other users and read these.
const READABLE: u32 = 0o644;

/// The files written for agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustFiles {
    /// Our certificate alone, for `NODE_EXTRA_CA_CERTS` and the like that add to a trust store.
    pub ca: PathBuf,
    /// Ours and the public ones, for `SSL_CERT_FILE` and the like that replace it.
    pub bundle: PathBuf,
}

/// Our certificate and those the machine trusts, as PEM; Mozilla's where the machine trusts none.
pub fn bundle_pem(ca_pem: &str, system: SystemRoots) -> String {
    let public = match system.certificates() {
        [] => TLS_SERVER_ROOT_CERTS,
        certificates => certificates,
    };
    // A set: the same certificate twice makes some loaders (Java's) fail.
    let public: BTreeSet<String> = public.iter().map(|der| pem::certificate(der)).collect();
    let mut bundle = ca_pem.trim_end().to_owned();
    bundle.push('\n');
    bundle.extend(
        public
            .into_iter()
            .filter(|one| !ca_pem.contains(one.trim_end())),
    );
    bundle
}

/// Writes `ca.crt` and `bundle.crt` for everyone to read, each replaced whole.
pub fn write_trust(dir: &Path, ca_pem: &str, bundle: &str) -> io::Result<TrustFiles> {
    DirBuilder::new().recursive(true).create(dir)?;
    let files = TrustFiles {
        ca: dir.join("ca.crt"),
        bundle: dir.join("bundle.crt"),
    };
    file::replace(&files.ca, ca_pem.as_bytes(), READABLE)?;
    file::replace(&files.bundle, bundle.as_bytes(), READABLE)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::RootCertStore;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
        let parsed = CertificateDer::pem_slice_iter(pem.as_bytes());
        parsed.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_machine_without_roots_gets_mozillas_and_ours_first() {
        let ours = pem::certificate(b"ours");
        let all = certificates(&bundle_pem(ours.trim_end(), SystemRoots::default()));
        assert_eq!(all[0].as_ref(), b"ours");
        assert_eq!(all.len(), 1 + TLS_SERVER_ROOT_CERTS.len());
        let (added, ignored) = RootCertStore::empty().add_parsable_certificates(all);
        assert_eq!((added, ignored), (TLS_SERVER_ROOT_CERTS.len(), 1));
    }

    #[test]
    fn a_certificate_that_the_machine_trusts_already_is_not_repeated() {
        let ours = pem::certificate(&TLS_SERVER_ROOT_CERTS[3]);
        let all = certificates(&bundle_pem(&ours, SystemRoots::default()));
        assert_eq!(all.len(), TLS_SERVER_ROOT_CERTS.len());
    }

    #[test]
    fn trust_files_are_readable_by_other_users() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_trust(&dir.path().join("new/trust"), "one\n", "two\n").unwrap();
        for (path, text) in [(&files.ca, "one\n"), (&files.bundle, "two\n")] {
            assert_eq!(std::fs::read_to_string(path).unwrap(), text);
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
    }
}
