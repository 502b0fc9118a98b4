//! Owns the tests of leaves: what clients believe, what is shared, what is renewed.

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
use crate::types::limits::Rate;
use crate::types::reached::Limit;

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
async fn one_agent_that_asks_for_endless_hosts_gets_no_more_leaves_and_others_do() {
    let rate = |count| Rate {
        count,
        period: Duration::from_secs(3600),
    };
    let limits = LeafLimits {
        cached: 100,
        mints: rate(5),
        mints_per_agent: rate(3),
    };
    let store = LeafStore::new(authority(&[]), 100).unwrap().limited(limits);
    let [a, b] = ["a", "b"].map(|name| Agent::parse(name).unwrap());
    let ask =
        async |agent: &Agent, name: &str| match store.server_config_for(agent, &host(name)).await {
            Ok(_) => None,
            Err(CaError::Limit(reached)) => Some(reached.limit),
            Err(error) => panic!("{error}"),
        };
    for name in ["1.com", "2.com", "3.com", "1.com"] {
        assert_eq!(ask(&a, name).await, None, "{name}");
    }
    assert_eq!(ask(&a, "4.com").await, Some(Limit::AgentMints));
    assert_eq!(ask(&a, "3.com").await, None, "what is there costs nothing");
    assert_eq!(ask(&b, "4.com").await, None);
    assert_eq!(ask(&b, "5.com").await, None);
    assert_eq!(ask(&b, "6.com").await, Some(Limit::Mints));
    assert_eq!(store.stats().minted, 5);
}

#[tokio::test]
async fn a_leaf_is_replaced_in_its_last_hour_and_not_before() {
    let store = LeafStore::new(authority(&[]), 8).unwrap();
    let (host, now) = (host("a.com"), SystemTime::now());
    let hours = |n: u64| now + Duration::from_secs(n * 3600);
    let first = store.server_config_at(&host, now, || Ok(())).await.unwrap();
    let kept = store
        .server_config_at(&host, hours(22) - Duration::from_secs(1), || Ok(()))
        .await;
    assert!(Arc::ptr_eq(&first, &kept.unwrap()));
    let next = store
        .server_config_at(&host, hours(22), || Ok(()))
        .await
        .unwrap();
    assert!(!Arc::ptr_eq(&first, &next));
    assert_eq!(store.stats(), LeafStats { minted: 2, hits: 1 });
}

#[tokio::test]
async fn an_expired_authority_signs_nothing() {
    let store = LeafStore::new(authority(&[]), 8).unwrap();
    let later = SystemTime::now() + EPHEMERAL_LIFETIME + Duration::from_secs(1);
    let refused = store
        .server_config_at(&host("a.com"), later, || Ok(()))
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
