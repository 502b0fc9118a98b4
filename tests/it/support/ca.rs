//! Owns a certificate authority that lives as long as one test.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

const YEARS: Duration = Duration::days(3650);

/// A certificate and its key.
pub type Leaf = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl TestCa {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "Origins of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_until(names, OffsetDateTime::now_utc() + Duration::days(1))
    }

    pub fn leaf_until(&self, names: &[&str], end: OffsetDateTime) -> Leaf {
        self.leaf_between(names, end - Duration::days(2), end)
    }

    /// For proxies that are told of other years.
    pub fn lasting_leaf(&self, names: &[&str]) -> Leaf {
        let start = OffsetDateTime::now_utc() - YEARS;
        self.leaf_between(names, start, start + 2 * YEARS)
    }

    fn leaf_between(&self, names: &[&str], start: OffsetDateTime, end: OffsetDateTime) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "origin");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Python 3.13 refuses a leaf without it.
        params.use_authority_key_identifier_extension = true;
        params.not_before = start;
        params.not_after = end;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            certificate.der().clone(),
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
    }
}

fn validity(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - YEARS;
    params.not_after = now + YEARS;
}
