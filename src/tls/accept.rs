//! Owns how TLS is spoken with agents: versions, protocols and resumption, the same for every intercepted host.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::upstream::provider;

/// What all server configurations of a process share.
pub(super) struct AcceptSettings {
    provider: Arc<CryptoProvider>,
    /// Stateless (RFC 5077), so a re-minted or evicted leaf costs no client its session. A ticket
    /// is bound to its server name by rustls and resumes no other host.
    ticketer: Arc<dyn ProducesTickets>,
}

impl AcceptSettings {
    /// Settings with fresh ticket keys.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            provider: provider(),
            ticketer: Ticketer::new()?,
        })
    }

    /// How a host is served: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
    pub(super) fn server_config(&self, leaf: CertifiedKey) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(leaf)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = self.ticketer.clone();
        // The default reserves memory for 256 sessions in every host's configuration.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}
