//! Owns the certificate authority agents trust: made, kept on disk, loaded, and the only thing that signs.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;

use super::error::CaError;
use super::key::CaKey;
use super::names::{NameLimits, constraints_for};
use super::pem;
use crate::rt::file;
use crate::rt::lock::Lock;
use crate::types::host::{Host, HostPattern};
use crate::types::secret::Secret;

/// How long an authority lives that is kept on disk: ten years.
pub const PERSISTENT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long an authority lives that dies with its process anyway: seven days.
pub const EPHEMERAL_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Validity begins this much before now, for agents whose clocks are behind.
pub(super) const BACK_DATE: Duration = Duration::from_secs(3600);
/// ub-common-name, RFC 5280, appendix A.1.
const COMMON_NAME_LIMIT: usize = 64;
const CERTIFICATE_MODE: u32 = 0o644;

/// Which names a new authority may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraints {
    /// These, and names below them. A stolen key is worth nothing elsewhere.
    Names(Vec<HostPattern>),
    /// Any name.
    Off,
}

/// A certificate authority with its private key. It has no `Debug`, and the key leaves it only
/// through [`CertificateAuthority::export_key`].
pub struct CertificateAuthority {
    issuer: Issuer<'static, CaKey>,
    /// The certificate that signs, then those that vouch for it, as given.
    chain: Vec<CertificateDer<'static>>,
    certificate_pem: String,
    /// The constraints of every certificate of the chain; all must permit.
    limits: Vec<NameLimits>,
    description: CaDescription,
    not_after: SystemTime,
}

/// What may be told about an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaDescription {
    /// Its common name.
    pub common_name: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
    /// The names and addresses it may sign, with everything below the names; `None`: any.
    pub permitted: Option<Vec<String>>,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// Where it is kept; `None`: in memory only.
    pub certificate_file: Option<PathBuf>,
}

/// Where an authority's two halves stand, for error texts and the description.
#[derive(Clone, Copy)]
struct Kept<'a> {
    certificate: &'a Path,
    key: &'a Path,
}

impl CertificateAuthority {
    /// Makes a new one in memory: ECDSA P-256, self-signed, and able to sign leaves only.
    pub fn generate(
        constraints: &Constraints,
        common_name: &str,
        lifetime: Duration,
    ) -> Result<Self, CaError> {
        let key = CaKey::generate()?;
        let certificate = self_sign(&key, constraints, common_name, lifetime)?;
        Self::assemble(vec![certificate], key, None)
    }

    /// Loads one from its two files. The certificate's file may go on with the certificates that
    /// vouch for it, if it is an intermediate one.
    pub fn load(certificate_pem_file: &Path, key_file: &Path) -> Result<Self, CaError> {
        let kept = Kept {
            certificate: certificate_pem_file,
            key: key_file,
        };
        let chain = read_certificates(certificate_pem_file)?;
        Self::assemble(chain, CaKey::read(key_file)?, Some(kept))
    }

    /// Loads one, or makes and keeps one if there is none; says whether it was made.
    ///
    /// Processes that start together agree on one. The key is on disk before its certificate, so a
    /// crash in between leaves a key that no one trusts yet; it is then given its certificate.
    pub fn load_or_create(
        certificate: &Path,
        key: &Path,
        constraints: &Constraints,
        common_name: &str,
        lifetime: Duration,
    ) -> Result<(Self, bool), CaError> {
        for path in [certificate, key] {
            let directory = file::parent(path);
            file::make_private_dir(directory).map_err(CaError::io("create", directory))?;
        }
        let directory = file::parent(key);
        let _lock = Lock::directory(directory).map_err(CaError::io("lock", directory))?;
        match (exists(certificate)?, exists(key)?) {
            (true, true) => return Ok((Self::load(certificate, key)?, false)),
            (true, false) => {
                return Err(CaError::MissingKey {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                });
            }
            (false, true) => {}
            (false, false) => CaKey::generate()?.write(key)?,
        }
        let der = self_sign(&CaKey::read(key)?, constraints, common_name, lifetime)?;
        file::replace(
            certificate,
            pem::certificate(&der).as_bytes(),
            CERTIFICATE_MODE,
        )
        .map_err(CaError::io("write", certificate))?;
        Ok((Self::load(certificate, key)?, true))
    }

    /// The certificate, and those that vouch for it, as PEM: what agents trust. Never the key, even
    /// if the file it came from held one.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Whether clients would believe a leaf for this host, by the constraints in the certificate itself.
    pub fn may_sign(&self, host: &Host) -> bool {
        self.limits.iter().all(|limits| limits.permit(host))
    }

    /// Whether clients would believe a leaf for every host of the pattern.
    pub fn covers(&self, pattern: &HostPattern) -> bool {
        self.limits.iter().all(|limits| limits.cover(pattern))
    }

    /// What may be told about it.
    pub fn describe(&self) -> &CaDescription {
        &self.description
    }

    /// When it expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The private key as PEM. For the command line alone, when it was asked for in so many words.
    pub fn export_key(&self) -> Secret {
        self.issuer.key().to_pem()
    }

    /// Signs whatever is asked. [`CertificateAuthority::may_sign`] is for the caller to ask first.
    pub(super) fn sign(
        &self,
        leaf: &CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        Ok(leaf.signed_by(public_key, &self.issuer)?.into())
    }

    /// What a server sends after its leaf: the signing certificate and up, without the self-signed
    /// root that clients have to have anyway (RFC 8446, section 4.4.2).
    pub(super) fn presented(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        let self_signed = |der: &CertificateDer<'_>| {
            x509_parser::parse_x509_certificate(der)
                .is_ok_and(|(_, c)| c.subject().as_raw() == c.issuer().as_raw())
        };
        self.chain
            .iter()
            .filter(move |der| !self_signed(der))
            .cloned()
    }

    /// Checks that the halves fit, however they came about, and puts them together.
    fn assemble(
        chain: Vec<CertificateDer<'static>>,
        key: CaKey,
        kept: Option<Kept<'_>>,
    ) -> Result<Self, CaError> {
        let place = kept.map_or(Path::new("memory"), |kept| kept.certificate);
        let unusable = |reason: String| CaError::Certificate {
            path: place.to_owned(),
            reason,
        };
        let mut limits = Vec::new();
        for der in &chain {
            let certificate = parse(der).map_err(unusable)?;
            if !is_authority(&certificate) {
                return Err(CaError::NotAuthority {
                    path: place.to_owned(),
                });
            }
            let read = NameLimits::of(&certificate)
                .map_err(|_| unusable("its name constraints are not understood".to_owned()))?;
            limits.push(read);
        }
        let der = chain
            .first()
            .ok_or_else(|| unusable("no certificate".to_owned()))?;
        let certificate = parse(der).map_err(unusable)?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(CaError::Mismatch {
                certificate: place.to_owned(),
                key: kept.map_or(place, |kept| kept.key).to_owned(),
            });
        }
        let description = CaDescription {
            common_name: common_name(&certificate),
            sha256: fingerprint(der),
            permitted: limits.iter().find_map(NameLimits::permitted),
            not_before: rfc3339(certificate.validity().not_before.timestamp()),
            not_after: rfc3339(certificate.validity().not_after.timestamp()),
            certificate_file: kept.map(|kept| kept.certificate.to_owned()),
        };
        let not_after = certificate.validity().not_after.timestamp();
        let not_after = SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(not_after).unwrap_or_default());
        if not_after <= SystemTime::now() {
            return Err(CaError::Expired {
                common_name: description.common_name,
                not_after: description.not_after,
            });
        }
        let authority = Self {
            issuer: Issuer::from_ca_cert_der(der, key)?,
            certificate_pem: chain.iter().map(|der| pem::certificate(der)).collect(),
            limits,
            description,
            not_after,
            chain: chain.clone(),
        };
        authority
            .check_issuer_name(&certificate)
            .map_err(unusable)?;
        Ok(authority)
    }

    /// rcgen rebuilds the issuer's name from its parts, and loses some: two attributes of one kind,
    /// several in one RDN. Chains are built by comparing the names' bytes, so a difference must be
    /// found now and not by every client.
    fn check_issuer_name(&self, certificate: &X509Certificate<'_>) -> Result<(), String> {
        let probe = CertificateParams::default();
        let key = CaKey::generate().map_err(|e| e.to_string())?;
        let probe = self.sign(&probe, &key).map_err(|e| e.to_string())?;
        match parse(&probe)?.issuer().as_raw() == certificate.subject().as_raw() {
            true => Ok(()),
            false => Err(
                "its subject cannot be reproduced; use one attribute of each kind (`/O=…/CN=…`)"
                    .to_owned(),
            ),
        }
    }
}

fn self_sign(
    key: &CaKey,
    constraints: &Constraints,
    common_name: &str,
    lifetime: Duration,
) -> Result<CertificateDer<'static>, CaError> {
    let now = SystemTime::now();
    let mut subject = DistinguishedName::new();
    let common_name: String = common_name.chars().take(COMMON_NAME_LIMIT).collect();
    subject.push(DnType::CommonName, common_name);
    // rcgen's defaults are traps: no key usages, validity 1975 to 4096, a serial number made of the key.
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.serial_number = Some(random_serial()?);
    params.not_before = (now - BACK_DATE).into();
    params.not_after = (now + lifetime).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = match constraints {
        Constraints::Names(patterns) => Some(constraints_for(patterns)),
        Constraints::Off => None,
    };
    Ok(params.self_signed(key)?.into())
}

/// 16 octets, positive and not zero (RFC 5280, section 4.1.2.2). Two certificates of one issuer
/// with one serial number are refused by NSS.
pub(super) fn random_serial() -> Result<SerialNumber, CaError> {
    let mut octets = vec![0; 16];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| rcgen::Error::RingUnspecified)?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(octets.into())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let contents = file::read(path, pem::FILE_LIMIT).map_err(CaError::io("read", path))?;
    let unusable = |reason: String| CaError::Certificate {
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(&contents.bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unusable(e.to_string()))?;
    match chain.is_empty() {
        true => Err(unusable("there is none in it".to_owned())),
        false => Ok(chain),
    }
}

fn exists(path: &Path) -> Result<bool, CaError> {
    path.try_exists().map_err(CaError::io("read", path))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("there are bytes after the certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// `CA:TRUE`, and `keyCertSign` if the usages are limited at all (RFC 5280, sections 4.2.1.3 and 4.2.1.9).
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let may_sign = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    certificate.is_ca() && may_sign
}

fn common_name(certificate: &X509Certificate<'_>) -> String {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    name.unwrap_or("(no common name)").to_owned()
}

fn fingerprint(der: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn rfc3339(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds)
        .map_or_else(|_| "never".to_owned(), |t| t.to_string())
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
