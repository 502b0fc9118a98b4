//! Owns where a machine keeps the certificates it trusts, whatever the environment says.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

/// Bundles, most specific first; the first that exists is read. The list is that of `openssl-probe`
/// and of Go's `crypto/x509/root_linux.go`.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
    "/opt/etc/ssl/certs/ca-certificates.crt",
    "/usr/local/etc/ssl/cert.pem",
];

/// Directories of single certificates, for a machine without a bundle.
const DIRECTORIES: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The certificates a machine trusts.
#[derive(Clone, Debug, Default)]
pub struct SystemRoots {
    certificates: Vec<CertificateDer<'static>>,
    source: Option<PathBuf>,
}

impl SystemRoots {
    /// Reads the machine's trust store; empty if it has none.
    ///
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` are not looked at, although `rustls-native-certs` would:
    /// they are what agents are told to set, and a proxy that inherited them would take its own
    /// certificates for those of origins.
    pub fn load() -> Self {
        let files = BUNDLES.iter().map(|path| (Some(Path::new(*path)), None));
        let dirs = DIRECTORIES
            .iter()
            .map(|path| (None, Some(Path::new(*path))));
        for (file, dir) in files.chain(dirs) {
            let Some(path) = file.or(dir).filter(|path| path.exists()) else {
                continue;
            };
            // Single unreadable entries are common (dangling links) and not fatal.
            let certificates = rustls_native_certs::load_certs_from_paths(file, dir).certs;
            if !certificates.is_empty() {
                return Self {
                    certificates,
                    source: Some(path.to_owned()),
                };
            }
        }
        Self::default()
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Where they were found.
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::authority::{CertificateAuthority, Constraints, EPHEMERAL_LIFETIME};
    use super::super::pem;
    use super::*;

    const CHILD: &str = "TOLLGATE_TEST_AGENT_CA";

    /// Runs itself once more in an environment as agents have it: a test cannot change its own.
    #[test]
    fn the_environment_has_no_say() {
        if let Ok(agents) = std::env::var(CHILD) {
            let found = SystemRoots::load();
            let found = found.certificates().iter();
            assert!(
                found
                    .map(|der| pem::certificate(der))
                    .all(|pem| pem != agents)
            );
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let ours = CertificateAuthority::generate(&Constraints::Off, "X", EPHEMERAL_LIFETIME);
        let ours = ours.ok().unwrap().certificate_pem().to_owned();
        let bundle = dir.path().join("bundle.crt");
        std::fs::write(&bundle, &ours).unwrap();
        // The trap is set: the library itself would take our certificate.
        let trapped = rustls_native_certs::load_certs_from_paths(Some(&bundle), None).certs;
        assert_eq!(pem::certificate(&trapped[0]), ours);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::roots::tests::the_environment_has_no_say"])
            .env("SSL_CERT_FILE", &bundle)
            .env("SSL_CERT_DIR", dir.path())
            .env(CHILD, ours)
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
    }
}
