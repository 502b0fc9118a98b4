//! Owns how the parts become a process: everything is opened, bound and checked before it serves.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::audit::{Inventory, Replaces, audit_path, ca_event, open_audit, recall, start_event};
use super::authority::{CaChoice, Made, covers, open_authority, signer};
use super::books::{LedgerKeeper, open_books};
use super::credentials::{Credentials, Held, Ownership};
use super::error::StartError;
use super::grants::GrantContext;
use super::identity::{default_name, fetch, open_identity, placeholder_key};
use super::outbound::{dialer, origin_trust};
use super::reload::{Reloader, documents};
use super::settings::Settings;
use super::state::StateDir;
use super::traces::{Surroundings, open_traces};
use crate::admin::api::{Admin, Order};
use crate::config::root::AccessLogSpec;
use crate::credential::open::{Patience, SourceContext};
use crate::inject::disguise::Disguises;
use crate::inject::set::Injectors;
use crate::listen::doors::Doors;
use crate::net::places::{Bodies, Places};
use crate::net::room::Rooms;
use crate::net::socket;
use crate::policy::compile::compile;
use crate::proxy::account::Ledgers;
use crate::proxy::exchange::Exchange;
use crate::proxy::scrubbing::Scrubbers;
use crate::proxy::snapshot::{Snapshot, SnapshotStore};
use crate::proxy::spending::Spending;
use crate::proxy::upstream::Upstream;
use crate::rt::drain::Drain;
use crate::rt::file::cure_of;
use crate::rt::ready::Warnings;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::gate::{SecretSearch, guard_log};
use crate::telemetry::metrics::{Metrics, Protected};
use crate::telemetry::sinks::Sinks;
use crate::tls::leaf::LeafStore;
use crate::tls::trust::TrustFiles;
use crate::types::secret::Secret;

/// A process that is ready to serve.
pub struct Tollgate {
    /// The agents' doors.
    pub doors: Arc<Doors>,
    /// What the admin port answers with.
    pub admin: Arc<Admin>,
    /// Bound, not yet accepting.
    pub listener: TcpListener,
    /// Bound, not yet accepting.
    pub admin_listener: TcpListener,
    /// Re-reads documents.
    pub reloader: Reloader,
    /// Orders from the admin port and signals.
    pub orders: mpsc::Receiver<Order>,
    /// Where agents find what to trust.
    pub trust: TrustFiles,
    /// Open connections.
    pub drain: Drain,
    /// Renewals of grants that are under way.
    pub renewals: TaskTracker,
    /// The books, to be closed at the end.
    pub books: Arc<LedgerKeeper>,
}

/// Opens and binds everything that `settings` name.
pub async fn compose(
    settings: Settings,
    context: SourceContext,
    ca: CaChoice,
) -> Result<Tollgate, StartError> {
    compose_with(settings, context, ca, TaskTracker::new()).await
}

/// The same for a caller who may give up in the middle: what is in `renewals` then must still be waited for.
pub async fn compose_with(
    settings: Settings,
    context: SourceContext,
    ca: CaChoice,
    renewals: TaskTracker,
) -> Result<Tollgate, StartError> {
    let spec = &settings.root.spec;
    let limits = settings.limits();
    let seen = documents(&settings).fingerprint().await;
    let bundle = settings.bundle()?;
    let policy = compile(&bundle)?;
    let state = StateDir::locate(spec.state_dir.as_deref());

    let (authority, trust, made) = open_authority(&settings, &policy, ca)?;
    covers(&authority, &policy)?;
    let authority = Arc::new(authority);
    let policy = policy.signed_by(signer(&authority));
    let leaves = Arc::new(
        LeafStore::new(authority.clone(), limits.leaves.cached)
            .map_err(|e| StartError::setting(&e, e.help().unwrap_or_default()))?
            .limited(limits.leaves),
    );

    let identifier = Arc::new(open_identity(&settings, &context).await?);
    let key = placeholder_key(&settings, &context).await?;
    let listener = bind(settings.listen()).await?;
    let admin_listener = bind(settings.admin_listen()).await?;
    let own = [&listener, &admin_listener]
        .into_iter()
        .filter_map(|l| l.local_addr().ok())
        .collect();
    let dialer = dialer(&settings, own)?;
    let trust_in_origins = origin_trust(&settings)?;

    let begun = jiff::Timestamp::now();
    let start = start_event(&bundle, &policy, &authority);
    let audit = open_audit(&settings, &context, start).await?;
    if made == Made::Now {
        audit.note(ca_event(&authority, Replaces::None));
    }

    let metrics = Metrics::new()
        .map_err(|error| StartError::setting(error, "this is a fault of the program; report it"))?;
    for protection in &settings.given_up.protections {
        let state = match protection.holds() {
            true => Protected::Yes,
            false => Protected::No,
        };
        metrics.protected(&protection.name, state);
    }
    let ownership = Ownership::Owned(GrantContext {
        dialer: dialer.clone(),
        trust: trust_in_origins.clone(),
        directory: settings.grants.clone(),
        tasks: renewals.clone(),
        metrics: Some(metrics.clone()),
        audit: audit.clone(),
    });
    let credentials = Arc::new(Credentials::new(context.clone(), ownership));
    let open = credentials.open(&bundle, Patience::Answer).await;
    open.fit()?;
    let injectors = Injectors::compile(&bundle, &open.held, key.clone())?;
    credentials.keep(&bundle, &open);
    report(&open.held);

    let spending = Arc::new(Spending::new(metrics.clone(), audit.clone()));
    let keeper = Arc::new(LedgerKeeper::default());
    let books = open_books(&settings, &bundle, &spending, &keeper).await?;
    let snapshots = Arc::new(SnapshotStore::new(Snapshot {
        policy,
        injectors,
        endpoints: open.endpoints(),
        budgets: books.budgets,
        prices: books.prices,
        version: 1,
        counted_since: 1,
    }));
    let token = match &spec.admin.token {
        Some(source) => fetch("admin-token", source, &context).await?,
        None => state.secret("admin.token")?,
    };
    let search = search(&snapshots, &token);
    guard_log(search.clone());
    let surroundings = Surroundings {
        context: context.clone(),
        trust: trust_in_origins.clone(),
        search,
        metrics: metrics.sinks().clone(),
    };
    let traces = open_traces(&settings, surroundings).await?;
    let sinks = Sinks::new(open_log(&settings)?, audit, traces);
    if let Some(path) = audit_path(&settings) {
        let denials = sinks.denials.clone();
        // Nobody waits for it: what comes from now on is noted as it happens.
        tokio::task::spawn_blocking(move || recall(&path, &denials, begun));
    }
    let ledgers = Arc::new(Ledgers::new(sinks, metrics));
    let drain = Drain::default();
    let rooms = Rooms::new(&limits.bodies, &limits.answers);
    let bodies = Bodies {
        room: rooms.read.clone(),
        per_agent: limits.bodies.read_per_agent,
    };
    let exchange = Arc::new(Exchange {
        snapshots: snapshots.clone(),
        upstream: Upstream::new(
            dialer,
            trust_in_origins,
            ledgers.metrics().clone(),
            limits.origins,
        ),
        ledgers: ledgers.clone(),
        drain: drain.clone(),
        limits,
        rooms,
        scrubbers: Scrubbers::default(),
        spending: spending.clone(),
    });

    let (orders, received) = mpsc::channel(8);
    let warnings = Warnings::default();
    let (listed, owning) = (credentials.clone(), credentials.clone());
    let kept = keeper.clone();
    let agents = identifier.agents();
    let default_agent = agents.first().cloned();
    let admin = Arc::new(Admin {
        token,
        snapshots: snapshots.clone(),
        credentials: Box::new(move || listed.all()),
        owners: Box::new(move |name| owning.grant(name).map(|grant| grant.owner)),
        books: Box::new(move || kept.get().cloned()),
        ledgers: ledgers.clone(),
        leaves: leaves.clone(),
        authority: authority.clone(),
        warnings: warnings.clone(),
        drain: drain.clone(),
        orders,
        listen: listener
            .local_addr()
            .map_err(|error| StartError::setting(error, ""))?,
        trust: trust.clone(),
        protections: settings.given_up.protections.clone(),
        agents,
        default_agent: match default_agent {
            Some(agent) => agent,
            None => default_name()?,
        },
    });
    let reloader = Reloader {
        inventory: Inventory::of(&bundle),
        settings,
        credentials,
        snapshots,
        key,
        authority,
        warnings,
        ledgers,
        spending,
        keeper: keeper.clone(),
        seen,
    };
    let doors = Arc::new(Doors {
        exchange,
        leaves,
        places: Places::new(limits.connections, limits.streams, bodies),
        identifier,
    });
    Ok(Tollgate {
        doors,
        admin,
        listener,
        admin_listener,
        reloader,
        orders: received,
        trust,
        drain,
        renewals,
        books: keeper,
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    socket::bind(address)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => StartError::Temporary {
                what: error.to_string(),
                help: format!(
                    "`ss -ltnp 'sport = :{}'` shows who has it; spec.listen and spec.admin.listen choose other ports",
                    address.port()
                ),
            },
            _ => StartError::setting(error, "change spec.listen or spec.admin.listen"),
        })
}

/// Finds what no sink may show: the credentials of the view in force, and the operators' token.
fn search(snapshots: &Arc<SnapshotStore>, token: &Secret) -> SecretSearch {
    let snapshots = snapshots.clone();
    let own = Disguises::of(std::iter::once(Arc::new(Secret::new(
        token.expose().to_vec(),
    ))));
    Arc::new(move |text| snapshots.load().injectors.holds_secret(text) || own.stand_in(text))
}

fn open_log(settings: &Settings) -> Result<AccessLog, StartError> {
    match &settings.root.spec.access_log {
        AccessLogSpec::Off => Ok(AccessLog::off()),
        AccessLogSpec::Stdout => AccessLog::stdout(),
        AccessLogSpec::File(path) => AccessLog::file(path),
    }
    .map_err(|error| {
        StartError::of(
            cure_of(&error),
            error,
            "set accessLog to `stdout` or to a file this user can write",
        )
    })
}

/// Says at once which credentials are missing, rather than at their first use.
fn report(held: &Held) {
    for credential in held.values() {
        if let Err(error) = credential.current() {
            match credential.is_ready() {
                true => {
                    tracing::debug!(credential = credential.name(), reason = %error.reason, "optional credential is not there")
                }
                false => {
                    tracing::error!(credential = credential.name(), reason = %error.reason, "credential cannot be used")
                }
            }
        }
    }
}
