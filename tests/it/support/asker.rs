//! Owns the program's own way to ask for tokens, set in front of a local provider.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tollgate::app::token_transport::HttpsTransport;
use tollgate::config::policy::UpstreamSpec;
use tollgate::config::root::RootsSpec;
use tollgate::credential::env::SealedEnv;
use tollgate::credential::open::SourceContext;
use tollgate::net::guard::AddressGuard;
use tollgate::net::resolve::{FixedAnswers, Resolver};
use tollgate::oauth::asking::Asking;
use tollgate::oauth::endpoint_error::EndpointError;
use tollgate::oauth::grant::Grant;
use tollgate::oauth::grant_secrets::GrantSecrets;
use tollgate::oauth::requester::TokenRequester as _;
use tollgate::oauth::settings::OAuthSettings;
use tollgate::oauth::token::TokenSet;
use tollgate::policy::decision::{DialProfile, Timeouts};
use tollgate::proxy::dial::Dialer;
use tollgate::tls::upstream::OriginTrust;
use tollgate::types::host::Host;
use tollgate::types::limits::DnsLimits;
use tollgate::types::secret::Secret;

use super::origin::Origin;
use super::token_server::server::TokenServer;

/// Longer than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Whoever asks, with the directory its authority's file is in.
pub struct Asker {
    pub asking: Asking,
    _dir: TempDir,
}

impl Asker {
    /// Asks `server` as `yaml` says; the variable SECRET holds `secret`.
    pub async fn of(server: &TokenServer, yaml: &str, secret: &str) -> Self {
        Self::at(&server.origin, yaml, secret, PATIENCE).await
    }

    pub async fn at(origin: &Origin, yaml: &str, secret: &str, limit: Duration) -> Self {
        Self::believing(&origin.ca_pem, origin, yaml, secret, limit).await
    }

    pub async fn believing(
        ca_pem: &str,
        origin: &Origin,
        yaml: &str,
        secret: &str,
        limit: Duration,
    ) -> Self {
        let spec = serde_saphyr::from_str(yaml).unwrap();
        let settings = OAuthSettings::resolve(&spec).unwrap();
        let variables = [("SECRET".to_owned(), Secret::from(secret.to_owned()))];
        let context = SourceContext {
            env: Arc::new(SealedEnv::new(variables.into())),
            ..SourceContext::default()
        };
        let secrets = GrantSecrets::open("acme", &settings, &context).await;
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, ca_pem).unwrap();
        let profile = DialProfile {
            upstream: UpstreamSpec {
                ca_file: Some(ca_file),
                ..UpstreamSpec::default()
            },
            timeouts: Timeouts::default(),
            ..DialProfile::default()
        };
        let trust = OriginTrust::load(&RootsSpec::Bundled).ok().unwrap();
        let transport = HttpsTransport::new(dialer(origin), trust, profile, limit);
        Self {
            asking: Asking::new(Grant::new(settings), secrets, Arc::new(transport)),
            _dir: dir,
        }
    }

    pub async fn refresh(&self, token: &str) -> Result<TokenSet, EndpointError> {
        let token = Secret::from(token.to_owned());
        self.asking.request(Some(&token)).await
    }
}

pub fn dialer(origin: &Origin) -> Dialer {
    let address = (origin.addr.ip(), Some(origin.addr.port()));
    let fixed: FixedAnswers = origin
        .names
        .iter()
        .map(|name| ((Host::parse(name).unwrap(), None), vec![address]))
        .collect();
    let resolver =
        Resolver::new(fixed, AddressGuard::new(Vec::new()), DnsLimits::default()).unwrap();
    Dialer::new(Arc::new(resolver))
}

pub const PLAIN: &str =
    "tokenEndpoint: https://token.example.com/oauth/token\nclientId: client-1\n";

pub fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap()
}
