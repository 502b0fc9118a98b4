//! Owns how a grant is opened: its settings, its store, the way to its endpoint, and its owner.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::secret_store::{host_name, open_secret};
use super::token_transport::HttpsTransport;
use crate::config::policy::UpstreamSpec;
use crate::config::source::{OAuthSpec, StoreSpec};
use crate::credential::held::{HeldCredential, Need};
use crate::credential::open::{Patience, SourceContext, open_document};
use crate::credential::source::{Fetched, SourceError};
use crate::oauth::asking::Asking;
use crate::oauth::grant::Grant;
use crate::oauth::grant_secrets::GrantSecrets;
use crate::oauth::holding::{hold_out, renewing};
use crate::oauth::manager::own;
use crate::oauth::owner::{GrantOwner, GrantParts};
use crate::oauth::record::GrantRecord;
use crate::oauth::seed::Seed;
use crate::oauth::settings::{GrantSettings, OAuthSettings};
use crate::oauth::store::{StoreError, TokenStore};
use crate::oauth::store_file::FileStore;
use crate::oauth::store_memory::MemoryStore;
use crate::oauth::transport::TokenTransport;
use crate::policy::decision::DialProfile;
use crate::proxy::dial::Dialer;
use crate::telemetry::audit::AuditLog;
use crate::telemetry::audit_event::Event;
use crate::telemetry::metrics::Metrics;
use crate::tls::upstream::OriginTrust;
use crate::types::secret::Secret;

/// What owning grants takes of the process.
pub struct GrantContext {
    /// The way out.
    pub dialer: Dialer,
    /// Whose certificates are believed.
    pub trust: OriginTrust,
    /// Where grants are kept that name no store.
    pub directory: PathBuf,
    /// Renewals that are under way.
    pub tasks: TaskTracker,
    /// Where they are counted.
    pub metrics: Option<Metrics>,
    /// Where they are recorded.
    pub audit: AuditLog,
}

/// A grant that is owned here.
#[derive(Debug, Clone)]
pub struct OwnedGrant {
    /// Whoever renews it.
    pub owner: GrantOwner,
    /// How it is asked for.
    pub asking: Arc<Asking>,
    /// The way to its endpoint.
    pub transport: Arc<dyn TokenTransport>,
    /// Where it is kept.
    pub store: Arc<dyn TokenStore>,
    /// Held while a login of an agent is taken over, across reloads of the documents.
    pub capture: Arc<Mutex<()>>,
}

/// What became of a grant that was to be owned.
pub enum GrantState {
    /// It is none, or its settings are of no use; the credential's status says so.
    None,
    /// It is owned here.
    Owned(OwnedGrant),
    /// Its store could never keep it.
    Unfit(StoreError),
}

/// Starts to own a grant. What is wrong with it is part of the credential's status.
pub async fn open_grant(
    name: &str,
    spec: &OAuthSpec,
    need: Need,
    patience: Patience,
    sources: &SourceContext,
    context: &GrantContext,
) -> (Arc<HeldCredential>, GrantState) {
    let unusable = |why: String| {
        let held = HeldCredential::new(name, "oauth".to_owned(), need);
        held.report(Err(SourceError::Broken(why)));
        (held, GrantState::None)
    };
    let settings = match OAuthSettings::resolve(spec) {
        Ok(settings) => settings,
        Err(error) => return unusable(format!("{error}; {}", error.help)),
    };
    let store = match open_store(name, &settings, &context.directory).await {
        Ok(store) => store,
        Err(error) => return (unusable(error.to_string()).0, GrantState::Unfit(error)),
    };
    let held = HeldCredential::new(name, format!("oauth:{}", store.place()), need);
    if let Err(error) = store.probe().await {
        tracing::error!(credential = name, %error, "the token store cannot be used");
        held.report(Err(SourceError::Broken(error.to_string())));
        match error {
            StoreError::ReadOnly(_) | StoreError::Full(_) | StoreError::Unreadable(_) => {
                return (held, GrantState::Unfit(error));
            }
            // It may come back: the owner looks at it again and again.
            _ => {}
        }
    }
    if let Some(warning) = store.durability_warning() {
        tracing::warn!(credential = name, "{warning}");
    }
    let seed = match &settings.seed {
        None => None,
        Some(source) => {
            let what = format!("{name}: seed");
            let seed =
                open_document(&what, source, Need::Required, Patience::Answer, sources).await;
            Some(Seed(seed))
        }
    };
    let (refresh_before, replay_limit) = (settings.refresh_before, settings.replay_limit);
    let (asking, transport) =
        open_asking(name, settings, sources, &context.dialer, &context.trust).await;
    let parts = GrantParts {
        store: store.clone(),
        requester: asking.clone(),
        seed,
        refresh_before,
        replay_limit,
        tasks: context.tasks.clone(),
        me: this_process().into(),
        count: counter(name, context),
    };
    let (owner, first) = own(parts, &held);
    // An owner that ended without a word has been dropped; there is nothing to wait for.
    match patience {
        Patience::Answer => drop(first.await),
        Patience::UpTo(limit) => drop(tokio::time::timeout(limit, first).await),
    }
    let owned = OwnedGrant {
        owner,
        asking,
        transport,
        store,
        capture: Arc::default(),
    };
    (held, GrantState::Owned(owned))
}

/// Who asks for the grant's tokens, and the way to its endpoint.
pub async fn open_asking(
    name: &str,
    settings: OAuthSettings,
    sources: &SourceContext,
    dialer: &Dialer,
    trust: &OriginTrust,
) -> (Arc<Asking>, Arc<dyn TokenTransport>) {
    let transport: Arc<dyn TokenTransport> = Arc::new(HttpsTransport::new(
        dialer.clone(),
        trust.clone(),
        profile(&settings),
        settings.timeout,
    ));
    let secrets = GrantSecrets::open(name, &settings, sources).await;
    let asking = Asking::new(Grant::new(settings), secrets, transport.clone());
    (Arc::new(asking), transport)
}

/// What the store says of a grant, without owning it.
pub async fn look_at_grant(
    name: &str,
    spec: &OAuthSpec,
    need: Need,
    directory: &Path,
) -> Arc<HeldCredential> {
    let found = async {
        let settings = OAuthSettings::resolve(spec)
            .map_err(|error| SourceError::Broken(format!("{error}; {}", error.help)))?;
        let broken = |error: StoreError| SourceError::Broken(error.to_string());
        let store = open_store(name, &settings, directory)
            .await
            .map_err(broken)?;
        let record = match settings.grant {
            GrantSettings::RefreshToken => store.read().await.map_err(broken)?,
            _ => {
                let why = "no proxy runs here; it asks for a token when it starts";
                return Err(SourceError::Missing(why.to_owned()));
            }
        };
        Ok::<_, SourceError>((store.place(), record.unwrap_or_default()))
    };
    let (place, record) = match found.await {
        Ok(found) => found,
        Err(error) => {
            let held = HeldCredential::new(name, "oauth".to_owned(), need);
            held.report(Err(error));
            return held;
        }
    };
    let held = HeldCredential::new(name, format!("oauth:{place}"), need);
    match expired(&record) {
        // Whoever owns it renews it: it is no worse than that.
        Some(expired) => held.report(Ok(expired)),
        None => hold_out(&held, &record, None),
    }
    held
}

/// The access token of a grant that can be renewed, if it has ended.
fn expired(record: &GrantRecord) -> Option<Fetched> {
    let tokens = record.tokens.as_ref()?;
    let renewable =
        tokens.refresh.is_some() && record.needs_login.is_none() && !record.is_doubtful();
    let ended = record.ends_here(None);
    let ended = ended.filter(|end| *end <= SystemTime::now())?;
    (renewable && !tokens.access.is_empty()).then(|| Fetched {
        secret: Secret::new(tokens.access.expose().to_vec()),
        expires_at: Some(ended),
        beside: renewing(tokens),
    })
}

/// The store that `settings` name, or a file of the credential's name in `directory`.
///
/// Errors: there is no cluster here, or it cannot be asked as who this process is.
pub async fn open_store(
    name: &str,
    settings: &OAuthSettings,
    directory: &Path,
) -> Result<Arc<dyn TokenStore>, StoreError> {
    let keeps = settings.grant == GrantSettings::RefreshToken;
    Ok(match &settings.store {
        None if keeps => Arc::new(FileStore::new(directory.join(format!("{name}.json")), None)),
        None | Some(StoreSpec::Memory {}) => Arc::new(MemoryStore::default()),
        Some(StoreSpec::File { path, key_file }) => {
            Arc::new(FileStore::new(path.clone(), key_file.clone()))
        }
        Some(StoreSpec::KubernetesSecret(secret)) => {
            Arc::new(open_secret(secret, settings.timeout).await?)
        }
    })
}

fn profile(settings: &OAuthSettings) -> DialProfile {
    DialProfile {
        allow_addresses: settings.allow_addresses.clone(),
        upstream: UpstreamSpec {
            ca_file: settings.ca_file.clone(),
            ..UpstreamSpec::default()
        },
        ..DialProfile::default()
    }
}

fn counter(name: &str, context: &GrantContext) -> Arc<dyn Fn(&'static str) + Send + Sync> {
    let name = name.to_owned();
    let (metrics, audit) = (context.metrics.clone(), context.audit.clone());
    Arc::new(move |result| {
        if let Some(metrics) = &metrics {
            metrics.credential_refresh(&name, result);
        }
        audit.note(Event::TokenRenewal {
            credential: name.clone(),
            result,
        });
    })
}

/// Host name and process id, and a number that tells two processes of one id apart.
pub(super) fn this_process() -> String {
    let host = host_name();
    let mut boot = [0; 4];
    // Only restarts with the same process id would be taken for one another.
    aws_lc_rs::rand::fill(&mut boot).ok();
    format!(
        "{host} {} {:08x}",
        std::process::id(),
        u32::from_be_bytes(boot)
    )
}
