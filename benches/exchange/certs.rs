//! Owns the certificates of one run: an authority, and one leaf for every name the origin has.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Where they were written.
pub struct Certificates {
    pub authority: PathBuf,
    pub leaf: PathBuf,
    pub key: PathBuf,
}

/// Makes them: P-256, as most origins have.
pub fn write(dir: &Path, names: &[&str]) -> Certificates {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    // OpenSSL takes a leaf with its issuer's name for self-signed.
    params
        .distinguished_name
        .push(DnType::CommonName, "Origins of a benchmark");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);

    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(&key, &issuer).unwrap();

    let put = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    Certificates {
        authority: put("origin-ca.crt", authority.pem()),
        leaf: put("origin.crt", leaf.pem()),
        key: put("origin.key", key.serialize_pem()),
    }
}
