//! Owns the certificates shown to agents: one per host, minted once, short-lived, in a bounded cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use quick_cache::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use serde::Serialize;
use zeroize::Zeroizing;

use super::accept::AcceptSettings;
use super::authority::{BACK_DATE, CertificateAuthority, random_serial};
use super::error::CaError;
use crate::types::host::Host;

/// From `notBefore` to `notAfter`.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// A leaf with less life than this is replaced, so that no client meets one that expires under it.
const RENEW_BEFORE: Duration = Duration::from_secs(3600);

/// Mints and remembers the certificates shown to agents.
pub struct LeafStore {
    authority: Arc<CertificateAuthority>,
    accept: AcceptSettings,
    /// One key pair for all leaves of a process: making one costs more than signing a leaf.
    key: Arc<dyn SigningKey>,
    public_key: SubjectPublicKeyInfo,
    leaves: Cache<Host, Leaf>,
    minted: AtomicU64,
    hits: AtomicU64,
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    renew_at: SystemTime,
}

/// How the store has been used since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeafStats {
    /// Leaves signed.
    pub minted: u64,
    /// Leaves found ready.
    pub hits: u64,
}

impl LeafStore {
    /// A store that keeps at most `capacity` leaves.
    pub fn new(ca: Arc<CertificateAuthority>, capacity: usize) -> Result<Self, CaError> {
        let pair = Zeroizing::new(KeyPair::generate()?);
        let private = PrivateKeyDer::Pkcs8(pair.serialized_der().into());
        Ok(Self {
            authority: ca,
            accept: AcceptSettings::new()?,
            key: any_ecdsa_type(&private)?,
            public_key: SubjectPublicKeyInfo::from_der(&pair.subject_public_key_info())?,
            leaves: Cache::new(capacity),
            minted: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        })
    }

    /// How to serve `host`. Callers that ask for the same host at once share one minting.
    pub async fn server_config(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        self.server_config_at(host, SystemTime::now()).await
    }

    /// How the store has been used.
    pub fn stats(&self) -> LeafStats {
        LeafStats {
            minted: self.minted.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
        }
    }

    async fn server_config_at(
        &self,
        host: &Host,
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let mut fresh = false;
        // Looked at under the cache's lock: of several callers that find a stale leaf one removes
        // it, and none removes the leaf that replaced it.
        self.leaves.remove_if(host, |leaf| leaf.renew_at <= now);
        let leaf = self.leaves.get_or_insert_async(host, async {
            fresh = true;
            self.mint(host, now)
        });
        let config = leaf.await?.config;
        if !fresh {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(config)
    }

    fn mint(&self, host: &Host, now: SystemTime) -> Result<Leaf, CaError> {
        let about = self.authority.describe();
        if !self.authority.may_sign(host) {
            return Err(CaError::OutsideConstraints {
                common_name: about.common_name.clone(),
                host: host.clone(),
            });
        }
        if self.authority.not_after() <= now {
            return Err(CaError::Expired {
                common_name: about.common_name.clone(),
                not_after: about.not_after.clone(),
            });
        }
        let not_before = now - BACK_DATE;
        let not_after = not_before + VALIDITY;
        let leaf = sign_leaf(
            &self.authority,
            &self.public_key,
            host,
            (not_before, not_after),
        )?;
        let chain = std::iter::once(leaf)
            .chain(self.authority.presented())
            .collect();
        let config = self
            .accept
            .server_config(CertifiedKey::new(chain, self.key.clone()))?;
        self.minted.fetch_add(1, Ordering::Relaxed);
        Ok(Leaf {
            config: Arc::new(config),
            renew_at: not_after - RENEW_BEFORE,
        })
    }
}

/// Signs a leaf for exactly `host`, whether or not the authority's constraints permit it.
pub(super) fn sign_leaf(
    authority: &CertificateAuthority,
    public_key: &impl PublicKeyData,
    host: &Host,
    (not_before, not_after): (SystemTime, SystemTime),
) -> Result<CertificateDer<'static>, CaError> {
    let name = match host {
        Host::Name(name) => SanType::DnsName(name.as_ref().try_into()?),
        Host::Ip(ip) => SanType::IpAddress(*ip),
    };
    let mut params = CertificateParams::default();
    // No subject: the name stands in the SAN alone (RFC 6125, section 6.4.4), which has no limit of
    // 64 characters and cannot disagree with itself.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![name];
    params.serial_number = Some(random_serial()?);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Python 3.13 refuses a leaf without it.
    params.use_authority_key_identifier_extension = true;
    authority.sign(&params, public_key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{CertificateError, ClientConfig, HandshakeKind, RootCertStore};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::authority::{Constraints, EPHEMERAL_LIFETIME};
    use super::super::upstream::provider;
    use super::*;
    use crate::types::host::HostPattern;

    fn authority(hosts: &[&str]) -> Arc<CertificateAuthority> {
        let patterns = hosts.iter().map(|text| HostPattern::parse(text).unwrap());
        let constraints = match hosts {
            [] => Constraints::Off,
            _ => Constraints::Names(patterns.collect()),
        };
        Arc::new(CertificateAuthority::generate(&constraints, "Test", EPHEMERAL_LIFETIME).unwrap())
    }

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    fn roots(authority: &CertificateAuthority) -> RootCertStore {
        use rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        let pem = authority.certificate_pem().as_bytes();
        roots
            .add(CertificateDer::from_pem_slice(pem).unwrap())
            .unwrap();
        roots
    }

    fn verify(
        authority: &CertificateAuthority,
        leaf: &CertificateDer<'_>,
        host: &Host,
    ) -> Result<(), rustls::Error> {
        let roots = Arc::new(roots(authority));
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .unwrap();
        let text = host.to_string();
        let name = ServerName::try_from(text.trim_matches(['[', ']'])).unwrap();
        verifier
            .verify_server_cert(leaf, &[], &name, &[], UnixTime::now())
            .map(|_| ())
    }

    /// Signs past `may_sign`, as someone with a stolen key would.
    fn forge(authority: &CertificateAuthority, host: &Host) -> CertificateDer<'static> {
        let now = SystemTime::now();
        let key = KeyPair::generate().unwrap();
        sign_leaf(authority, &key, host, (now - BACK_DATE, now + VALIDITY)).unwrap()
    }

    #[test]
    fn clients_and_our_own_check_agree_on_what_the_constraints_permit() {
        let hosts = [
            "api.anthropic.com",
            "eu.api.anthropic.com",
            "github.com",
            "api.github.com",
            "evilgithub.com",
            "com",
            "invalid.com",
            "10.0.0.1",
            "10.0.0.2",
            "[fd00::1]",
        ];
        for constraints in [
            &["api.anthropic.com", "*.github.com"][..],
            &["10.0.0.1"],
            &["github.com", "[fd00::1]"],
            &[],
        ] {
            let authority = authority(constraints);
            for host in hosts.map(host) {
                let verified = verify(&authority, &forge(&authority, &host), &host);
                let permitted = authority.may_sign(&host);
                assert_eq!(
                    verified.is_ok(),
                    permitted,
                    "{constraints:?} {host} {verified:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_host_outside_the_constraints_gets_no_leaf() {
        let store = LeafStore::new(authority(&["api.anthropic.com"]), 8).unwrap();
        let refused = store.server_config(&host("evil.com")).await.unwrap_err();
        assert!(
            matches!(refused, CaError::OutsideConstraints { .. }),
            "{refused}"
        );
        assert_eq!(store.stats().minted, 0);
    }

    #[test]
    fn a_leaf_says_what_strict_clients_ask_for() {
        let authority = authority(&["api.anthropic.com"]);
        let der = forge(&authority, &host("api.anthropic.com"));
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let purpose = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(purpose.server_auth && !purpose.client_auth && !purpose.any);
        assert!(!leaf.is_ca());
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(
            san.critical,
            "RFC 5280, section 4.2.1.6: the subject is empty"
        );
        assert_eq!(san.value.general_names.len(), 1);
        let oid = x509_parser::oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER;
        assert!(leaf.get_extension_unique(&oid).unwrap().is_some());
    }

    #[test]
    fn no_two_leaves_share_a_serial_number() {
        let authority = authority(&[]);
        let serials: HashSet<_> = (0..50)
            .map(|_| {
                let der = forge(&authority, &host("a.com"));
                let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
                assert_eq!(leaf.raw_serial().len(), 16);
                leaf.raw_serial().to_vec()
            })
            .collect();
        assert_eq!(serials.len(), 50);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_hundred_callers_at_once_share_one_minting() {
        let store = Arc::new(LeafStore::new(authority(&[]), 8).unwrap());
        let start = Arc::new(tokio::sync::Barrier::new(100));
        let callers = (0..100).map(|_| {
            let (store, start) = (store.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                store.server_config(&host("a.com")).await.unwrap()
            })
        });
        let mut configs = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            configs.push(caller.await.unwrap());
        }
        assert!(
            configs
                .iter()
                .all(|config| Arc::ptr_eq(config, &configs[0]))
        );
        assert_eq!(
            store.stats(),
            LeafStats {
                minted: 1,
                hits: 99
            }
        );
    }

    #[tokio::test]
    async fn the_cache_never_outgrows_its_capacity() {
        let store = LeafStore::new(authority(&[]), 16).unwrap();
        for n in 0..200 {
            store
                .server_config(&host(&format!("h{n}.com")))
                .await
                .unwrap();
        }
        assert!(
            (1..=16).contains(&store.leaves.len()),
            "{}",
            store.leaves.len()
        );
        assert_eq!(store.stats().minted, 200);
    }

    #[tokio::test]
    async fn a_leaf_is_replaced_in_its_last_hour_and_not_before() {
        let store = LeafStore::new(authority(&[]), 8).unwrap();
        let (host, now) = (host("a.com"), SystemTime::now());
        let hours = |n: u64| now + Duration::from_secs(n * 3600);
        let first = store.server_config_at(&host, now).await.unwrap();
        let kept = store
            .server_config_at(&host, hours(22) - Duration::from_secs(1))
            .await;
        assert!(Arc::ptr_eq(&first, &kept.unwrap()));
        let next = store.server_config_at(&host, hours(22)).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &next));
        assert_eq!(store.stats(), LeafStats { minted: 2, hits: 1 });
    }

    #[tokio::test]
    async fn an_expired_authority_signs_nothing() {
        let store = LeafStore::new(authority(&[]), 8).unwrap();
        let later = SystemTime::now() + EPHEMERAL_LIFETIME + Duration::from_secs(1);
        let refused = store
            .server_config_at(&host("a.com"), later)
            .await
            .unwrap_err();
        assert!(matches!(refused, CaError::Expired { .. }), "{refused}");
    }

    /// One handshake over memory; what was negotiated, and whether the session was resumed.
    async fn handshake(
        store: &LeafStore,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> (Option<Vec<u8>>, HandshakeKind) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let config = store.server_config(&host(name)).await.unwrap();
        let (near, far) = tokio::io::duplex(16 << 10);
        let server = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(config).accept(far).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(client.clone());
        let mut stream = connector.connect(name, near).await.unwrap();
        // TLS 1.3 tickets arrive after the handshake, before this octet.
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        server.await.unwrap();
        let session = stream.get_ref().1;
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        (alpn, session.handshake_kind().unwrap())
    }

    #[tokio::test]
    async fn sessions_resume_in_both_versions_and_only_for_their_own_host() {
        for version in rustls::ALL_VERSIONS {
            let store = LeafStore::new(authority(&["a.com", "b.com"]), 8).unwrap();
            let mut client = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[*version])
                .unwrap()
                .with_root_certificates(roots(&store.authority))
                .with_no_client_auth();
            client.alpn_protocols = vec![b"h2".to_vec()];
            let client = Arc::new(client);
            let mut kinds = Vec::new();
            for name in ["a.com", "a.com", "b.com"] {
                let (alpn, kind) = handshake(&store, &client, name).await;
                assert_eq!(alpn.unwrap(), b"h2");
                kinds.push(kind);
            }
            let resumed = [
                HandshakeKind::Full,
                HandshakeKind::Resumed,
                HandshakeKind::Full,
            ];
            assert_eq!(kinds, resumed, "{version:?}");
        }
    }

    #[test]
    fn a_leaf_is_for_exactly_its_host() {
        let authority = authority(&[]);
        let leaf = forge(&authority, &host("a.com"));
        for other in ["x.a.com", "com", "b.com"] {
            let refused = verify(&authority, &leaf, &host(other)).unwrap_err();
            let rustls::Error::InvalidCertificate(reason) = refused else {
                panic!("{refused}");
            };
            assert!(matches!(
                reason,
                CertificateError::NotValidForNameContext { .. }
            ));
        }
    }
}
