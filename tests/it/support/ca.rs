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
        Self::named("Origins of a test")
    }

    pub fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = of_authority(name);
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
        self.leaf_with(names, |_| {})
    }

    /// For proxies that are told of other years.
    pub fn lasting_leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, validity)
    }

    /// A leaf that is good for a day, but for what `spoil` does to it.
    pub fn leaf_with(&self, names: &[&str], spoil: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = of_server(names);
        spoil(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), private(&key))
    }

    /// A leaf that vouches for itself.
    pub fn self_signed(names: &[&str]) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate = of_server(names).self_signed(&key).unwrap();
        (certificate.der().clone(), private(&key))
    }

    /// One below this, and its certificate; `spoil` makes it another than it should be.
    pub fn below(
        &self,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> (Self, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = of_authority("Below the origins of a test");
        spoil(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let below = Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        };
        (below, certificate.der().clone())
    }

    /// Its key, for programs that sign what this library will not.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

fn of_authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params);
    params
}

fn of_server(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "origin");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Python 3.13 refuses a leaf without it.
    params.use_authority_key_identifier_extension = true;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(1);
    params
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn validity(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - YEARS;
    params.not_after = now + YEARS;
}
