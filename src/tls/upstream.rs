//! Owns how origins are verified. There is no way to turn verification off.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::error::TlsError;
use super::pem;
use super::roots::SystemRoots;
use crate::config::policy::UpstreamSpec;
use crate::config::root::RootsSpec;
use crate::rt::file::{self, Contents};

/// The cryptography of both sides: aws-lc-rs.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// Which HTTP versions an origin is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2, or HTTP/1.1 if the origin prefers it.
    H2AndHttp1,
    /// HTTP/1.1 only, as upgrades want it.
    Http1,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2AndHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
        }
    }
}

/// Whose word counts for who an origin is. Cloning is shallow.
#[derive(Clone)]
pub struct OriginTrust {
    roots: Arc<RootCertStore>,
}

impl OriginTrust {
    /// Reads the configured roots once. The environment has no say.
    pub fn load(roots: &RootsSpec) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        match roots {
            RootsSpec::Bundled => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            RootsSpec::System => {
                let system = SystemRoots::load();
                // Stores hold an odd certificate that webpki cannot read; the others count.
                store.add_parsable_certificates(system.certificates().iter().cloned());
                if store.is_empty() {
                    return Err(TlsError::NoSystemRoots);
                }
            }
            RootsSpec::File(path) => add_file(&mut store, path)?,
        }
        Ok(Self {
            roots: Arc::new(store),
        })
    }

    /// How to speak TLS 1.2 or 1.3 with the origins of a rule.
    ///
    /// Reads the rule's files anew. Sessions are remembered per configuration, so keep it as long as
    /// the rule stands, and share it only between exchanges that may share a connection.
    pub fn client_config(
        &self,
        upstream: &UpstreamSpec,
        alpn: Alpn,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let mut roots = self.roots.clone();
        if let Some(path) = &upstream.ca_file {
            add_file(Arc::make_mut(&mut roots), path)?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let certificate = upstream.client_certificate_file.as_deref();
        let key = upstream.client_key_file.as_deref();
        let mut config = match (certificate, key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => with_client_certificate(builder, certificate, key)?,
            (Some(given), None) => return Err(half(given, "clientKeyFile")),
            (None, Some(given)) => return Err(half(given, "clientCertificateFile")),
        };
        config.alpn_protocols = alpn.protocols();
        Ok(Arc::new(config))
    }
}

fn half(given: &Path, missing: &'static str) -> TlsError {
    TlsError::HalfClientCertificate {
        given: given.to_owned(),
        missing,
    }
}

fn with_client_certificate(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    certificate: &Path,
    key: &Path,
) -> Result<ClientConfig, TlsError> {
    let chain = read_certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(key)?.bytes).map_err(|_| TlsError::Key {
        path: key.to_owned(),
    })?;
    // rustls checks that the two belong together.
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::ClientCertificate {
            path: certificate.to_owned(),
            source,
        })
}

/// A file that someone named must be right as a whole.
fn add_file(store: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    for certificate in read_certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| certificates_error(path, error))?;
    }
    Ok(())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let contents = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&contents.bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| certificates_error(path, error))?;
    match certificates.is_empty() {
        true => Err(certificates_error(path, "there is none in it")),
        false => Ok(certificates),
    }
}

fn certificates_error(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Certificates {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn read(path: &Path) -> Result<Contents, TlsError> {
    file::read(path, pem::FILE_LIMIT).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};

    use super::super::authority::{CertificateAuthority, Constraints, EPHEMERAL_LIFETIME};
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn authority_pem() -> String {
        let made = CertificateAuthority::generate(&Constraints::Off, "Test", EPHEMERAL_LIFETIME);
        made.ok().unwrap().certificate_pem().to_owned()
    }

    fn load(spec: RootsSpec) -> OriginTrust {
        OriginTrust::load(&spec).map_err(|e| e.to_string()).unwrap()
    }

    #[test]
    fn roots_come_from_where_the_configuration_says() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "roots.pem", &authority_pem().repeat(2));
        assert!(load(RootsSpec::Bundled).roots.len() > 100);
        assert_eq!(load(RootsSpec::File(file)).roots.len(), 2);
    }

    #[test]
    fn a_roots_file_must_be_right_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let good = authority_pem();
        for bad in [
            "",
            "garbage",
            &good[..good.len() / 2],
            &format!("{good}{}", &good[..200]),
        ] {
            let path = write(dir.path(), "roots.pem", bad);
            let error = OriginTrust::load(&RootsSpec::File(path.clone()))
                .err()
                .unwrap();
            assert!(matches!(error, TlsError::Certificates { .. }), "{bad:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()));
        }
    }

    #[test]
    fn an_extra_authority_adds_to_the_roots_of_its_rule_alone() {
        let dir = tempfile::tempdir().unwrap();
        let trust = load(RootsSpec::Bundled);
        let before = trust.roots.len();
        let upstream = UpstreamSpec {
            ca_file: Some(write(dir.path(), "ca.pem", &authority_pem())),
            ..UpstreamSpec::default()
        };
        trust.client_config(&upstream, Alpn::H2AndHttp1).unwrap();
        assert_eq!(trust.roots.len(), before);
    }

    #[test]
    fn the_offered_protocols_follow_the_alpn() {
        let trust = load(RootsSpec::Bundled);
        for (alpn, offered) in [
            (Alpn::H2AndHttp1, &[b"h2".as_slice(), b"http/1.1"][..]),
            (Alpn::Http1, &[b"http/1.1"]),
        ] {
            let config = trust.client_config(&UpstreamSpec::default(), alpn).unwrap();
            assert_eq!(config.alpn_protocols, offered);
        }
    }

    #[test]
    fn a_client_certificate_needs_its_own_key() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let certificate = CertificateParams::default().self_signed(&own).unwrap();
        let certificate = write(dir.path(), "client.pem", &certificate.pem());
        let own = write(dir.path(), "own.pem", &own.serialize_pem());
        let other = write(dir.path(), "other.pem", &other.serialize_pem());
        let garbage = write(dir.path(), "garbage.pem", "garbage");
        let trust = load(RootsSpec::Bundled);
        let config = |certificate: Option<&PathBuf>, key: Option<&PathBuf>| {
            let upstream = UpstreamSpec {
                client_certificate_file: certificate.cloned(),
                client_key_file: key.cloned(),
                ca_file: None,
            };
            trust.client_config(&upstream, Alpn::Http1)
        };
        let certificate = Some(&certificate);
        assert!(
            config(certificate, Some(&own))
                .unwrap()
                .client_auth_cert_resolver
                .has_certs()
        );
        let refused = |key| config(certificate, key).unwrap_err();
        assert!(matches!(
            refused(Some(&other)),
            TlsError::ClientCertificate { .. }
        ));
        assert!(matches!(refused(Some(&garbage)), TlsError::Key { .. }));
        assert!(matches!(
            refused(None),
            TlsError::HalfClientCertificate { .. }
        ));
        assert!(matches!(
            config(None, Some(&own)).unwrap_err(),
            TlsError::HalfClientCertificate { .. }
        ));
    }
}
