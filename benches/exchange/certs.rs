//! Owns the certificates of one run: an authority and one leaf for every name the origin has, and the
//! authorities of proxies that do not make their own.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// Where they were written.
pub struct Certificates {
    pub authority: PathBuf,
    pub leaf: PathBuf,
    pub key: PathBuf,
}

/// Makes them: P-256, as most origins have.
pub fn write(dir: &Path, names: &[&str]) -> Certificates {
    let (authority, issuer) = root("Origins of a benchmark");

    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(&key, &issuer).unwrap();

    Certificates {
        authority: put(dir, "origin-ca.crt", authority.pem()),
        leaf: put(dir, "origin.crt", leaf.pem()),
        key: put(dir, "origin.key", key.serialize_pem()),
    }
}

/// An authority for a proxy to sign with.
pub struct Authority {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Makes one and writes it below `dir`.
pub fn authority(dir: &Path, file: &str, name: &str) -> Authority {
    let (certificate, issuer) = root(name);
    Authority {
        certificate: put(dir, &format!("{file}.crt"), certificate.pem()),
        key: put(dir, &format!("{file}.key"), issuer.key().serialize_pem()),
    }
}

/// With a name, since OpenSSL takes a leaf with its issuer's name for self-signed.
fn root(name: &str) -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).unwrap();
    (certificate, Issuer::new(params, key))
}

fn put(dir: &Path, name: &str, text: String) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
