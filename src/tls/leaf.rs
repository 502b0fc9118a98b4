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
use super::mint_limit::MintLimit;
use crate::types::agent::Agent;
use crate::types::host::Host;
use crate::types::limits::LeafLimits;

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
    limit: Option<MintLimit>,
    minted: AtomicU64,
    hits: AtomicU64,
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    not_before: SystemTime,
    renew_at: SystemTime,
}

impl Leaf {
    /// A clock that was set back makes a leaf one of the future, which agents refuse.
    fn is_fresh(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.renew_at
    }
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
            limit: None,
            minted: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        })
    }

    /// The same store, which makes no more for agents than this.
    #[must_use]
    pub fn limited(self, limits: LeafLimits) -> Self {
        Self {
            limit: Some(MintLimit::new(limits)),
            ..self
        }
    }

    /// How to serve `host`, whoever asks. Callers that ask for the same host at once share one minting.
    pub async fn server_config(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        self.server_config_at(host, SystemTime::now(), || Ok(()))
            .await
    }

    /// The same for `agent`, within its limits.
    pub async fn server_config_for(
        &self,
        agent: &Agent,
        host: &Host,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let may_mint = || {
            self.limit
                .as_ref()
                .map_or(Ok(()), |limit| limit.take(agent))
        };
        self.server_config_at(host, SystemTime::now(), may_mint)
            .await
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
        may_mint: impl FnOnce() -> Result<(), CaError>,
    ) -> Result<Arc<ServerConfig>, CaError> {
        if let Some(leaf) = self.leaves.get(host) {
            if leaf.is_fresh(now) {
                return Ok(self.hit(leaf));
            }
            // Looked at again under the cache's lock: of several callers that find a stale leaf one
            // removes it, and none removes the leaf that replaced it.
            self.leaves.remove_if(host, |leaf| !leaf.is_fresh(now));
        }
        let mut minted = false;
        let leaf = self.leaves.get_or_insert_async(host, async {
            may_mint()?;
            minted = true;
            self.mint(host, now)
        });
        let leaf = leaf.await?;
        match minted {
            true => Ok(leaf.config),
            false => Ok(self.hit(leaf)),
        }
    }

    fn hit(&self, leaf: Leaf) -> Arc<ServerConfig> {
        self.hits.fetch_add(1, Ordering::Relaxed);
        leaf.config
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
            not_before,
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
#[path = "leaf_tests.rs"]
mod tests;
