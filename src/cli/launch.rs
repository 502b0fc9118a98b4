//! Owns `tollgate run -- CMD`: a proxy for one program, gone when the program is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::args::RunArgs;
use super::context::Context;
use super::output::Exit;
use crate::app::authority::CaChoice;
use crate::app::compose::Tollgate;
use crate::app::error::StartError;
use crate::app::harden::hide_memory;
use crate::app::run::{Signals, run_until, start};
use crate::app::settings::Settings;
use crate::app::{sealed, state};
use crate::config::agent_env::{AgentEnvironment, EnvFormat, ProxyAddress};
use crate::config::bundle::Bundle;
use crate::config::located::Located;
use crate::config::root::{AccessLogSpec, ExecutionSpec};
use crate::config::source::SourceSpec;
use crate::config::units::Span;
use crate::credential::open::SourceContext;
use crate::inject::set::Named;
use crate::telemetry::sinks::Sinks;
use crate::types::agent::Agent;
use crate::types::host::{Authority, Host};

/// As `env`, `timeout` and `docker run` have it.
const NOT_STARTED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// As a shell says of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// What is still open when the program has ended belongs to nobody.
const GRACE: Duration = Duration::from_secs(1);

/// Runs the program and exits as it does; 78 for documents that cannot be used, 125 if the proxy
/// cannot start for another reason.
pub fn launch(context: &Context, args: RunArgs) -> Result<Exit, StartError> {
    let mut settings = settings(context, &args)?;
    // What is read from here on may tell executions apart.
    settings.root.spec.identity.execution =
        Some(Located::unwritten(ExecutionSpec::Made(execution()?)));
    let sources = context.sources(&settings)?;
    hide_memory();
    let scratch = match Scratch::new() {
        Ok(scratch) => scratch,
        Err(error) => return Ok(not_started(context, &error)),
    };
    run(context, args, settings, sources, &scratch)
}

fn not_started(context: &Context, error: &StartError) -> Exit {
    context.printer.fail(error);
    Exit::Child(NOT_STARTED)
}

fn run(
    context: &Context,
    args: RunArgs,
    mut settings: Settings,
    sources: SourceContext,
    scratch: &Scratch,
) -> Result<Exit, StartError> {
    let spec = &mut settings.root.spec;
    let loopback = "127.0.0.1:0"
        .parse()
        .map_err(|error| StartError::setting(format!("{error}"), ""))?;
    spec.listen = Some(Located::unwritten(loopback));
    spec.admin.listen = Some(Located::unwritten(loopback));
    spec.state_dir = Some(scratch.0.join("state"));
    spec.identity.agents.clear();
    spec.identity.fixed = Some(Located::unwritten(args.agent.clone()));
    spec.access_log = args
        .access_log
        .clone()
        .map_or(AccessLogSpec::Off, AccessLogSpec::File);
    // What it would be kept in is gone at the end.
    if spec.audit.file.is_none() {
        spec.audit.enabled = Some(false);
    }
    spec.shutdown.grace = Some(Span(GRACE));
    // Books in which nothing outlives the run are its own: several may run side by side.
    let is_own = settings.root.spec.ledger.file.is_none() && only_executions(&settings.bundle()?);
    if is_own {
        settings.ledger = scratch.0.join("ledger.db");
    }
    let removed = removed_variables(&settings)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(|error| StartError::setting(format!("no event loop: {error}"), ""))?;
    runtime.block_on(async {
        let ca = CaChoice::Ephemeral(scratch.0.join("trust"));
        let mut signals = Signals::heeded().map_err(|error| deaf(&error))?;
        let tollgate = match start(settings, sources, ca, &mut signals).await {
            Ok(Some(tollgate)) => tollgate,
            Ok(None) => return Ok(Exit::Child(INTERRUPTED)),
            Err(StartError::Config(errors)) => return Err(StartError::Config(errors)),
            Err(error) => return Ok(not_started(context, &error)),
        };
        required(&tollgate)?;
        let environment = environment(&tollgate, &args.agent)?;
        if args.print_env {
            context.printer.out(&environment.render(EnvFormat::Sh));
            return Ok(Exit::Ok);
        }
        let variables = child_variables(&tollgate, environment, &removed);
        announce(context, &tollgate);
        supervise(context, tollgate, &args.command, variables).await
    })
}

/// Whether there are budgets, and every limit of theirs is for one execution.
fn only_executions(bundle: &Bundle) -> bool {
    let limits = bundle.budgets.iter().flat_map(|budget| &budget.spec.limits);
    let mut windows = limits.map(|limit| limit.window.as_ref());
    !bundle.budgets.is_empty()
        && windows.all(|window| window.is_some_and(|window| window.value.is_execution()))
}

/// A name that no other run has.
fn execution() -> Result<String, StartError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StartError::setting("the system gives no random numbers", ""))?;
    let number = u64::from_be_bytes(bytes);
    Ok(format!("run-{number:016x}"))
}

fn settings(context: &Context, args: &RunArgs) -> Result<Settings, StartError> {
    let named = context.global.config.is_some();
    if !named && args.preset.is_empty() && args.policy.is_empty() && Settings::find().is_none() {
        return Err(StartError::setting(
            "nothing says where the program may go",
            "name presets (`--preset claude-code,github`), a policy (`--policy FILE`) or a configuration (`--config FILE`); `tollgate gen presets` lists the presets",
        ));
    }
    let mut settings = match (named, args.policy.is_empty()) {
        (false, false) => {
            let mut settings = Settings::unwritten();
            settings.presets = args
                .preset
                .iter()
                .cloned()
                .map(Located::unwritten)
                .collect();
            settings
        }
        _ => context.settings_with(&args.preset)?,
    };
    settings.documents.extend(args.policy.iter().cloned());
    Ok(settings)
}

/// A credential that is needed and missing would fail the program's first request instead.
fn required(tollgate: &Tollgate) -> Result<(), StartError> {
    let missing: Vec<String> = tollgate
        .admin
        .blocked()
        .into_iter()
        .map(|(part, why)| format!("{part}: {why}"))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(StartError::setting(
            missing.join("; "),
            "mend it, or mark the credential `optional: true`",
        )),
    }
}

fn environment(tollgate: &Tollgate, agent: &str) -> Result<AgentEnvironment, StartError> {
    let agent = Agent::parse(agent)
        .map_err(|error| StartError::setting(error, "choose another --agent"))?;
    let address = tollgate
        .listener
        .local_addr()
        .map_err(|error| StartError::setting(format!("the proxy has no address: {error}"), ""))?;
    let proxy = ProxyAddress {
        address: Authority::new(Host::Ip(address.ip()), address.port()),
        login: None,
        ca: tollgate.trust.ca.clone(),
        bundle: tollgate.trust.bundle.clone(),
        java_trust_store: None,
    };
    let snapshot = tollgate.admin.snapshots.load_full();
    Ok(AgentEnvironment::new(
        &proxy,
        &snapshot.injectors.placeholder_env(&agent, Named::Usable),
    ))
}

/// Variables that lead to a secret: sources by name, and what their placeholders replace.
fn removed_variables(settings: &Settings) -> Result<Vec<String>, StartError> {
    let bundle = settings.bundle()?;
    let mut names: Vec<String> = sealed::names(&settings.root.spec, &bundle)
        .into_iter()
        .collect();
    for credential in &bundle.credentials {
        names.extend(
            credential
                .spec
                .placeholder
                .iter()
                .flat_map(|p| p.env.iter().cloned()),
        );
        let sources = credential.spec.source.iter();
        for source in sources.flat_map(|source| source.value.with_nested()) {
            if let SourceSpec::Exec { env, .. } = source {
                names.extend(env.keys().cloned());
            }
        }
    }
    names.push(sealed::handover_variable().to_owned());
    Ok(names)
}

/// The parent's environment without anything that holds a secret, under whatever name it stands.
fn child_variables(
    tollgate: &Tollgate,
    environment: AgentEnvironment,
    removed: &[String],
) -> BTreeMap<OsString, OsString> {
    let secrets: Vec<_> = (tollgate.admin.credentials)()
        .iter()
        .filter_map(|c| c.current().ok())
        .collect();
    let holds = |value: &OsString| sealed::holds_one(value, secrets.iter().map(AsRef::as_ref));
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, value)| !removed.iter().any(|r| name == r.as_str()) && !holds(value))
        .collect();
    variables.extend(
        environment
            .variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    variables
}

fn announce(context: &Context, tollgate: &Tollgate) {
    let snapshot = tollgate.admin.snapshots.load_full();
    let usable = (tollgate.admin.credentials)()
        .iter()
        .filter(|c| c.current().is_ok())
        .count();
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    context.printer.note(&format!(
        "tollgate: {} allowed, {} held back · the CA may sign only intercepted hosts and ends with this run",
        counted(snapshot.policy.host_count(), "host"),
        counted(usable, "credential"),
    ));
}

async fn supervise(
    context: &Context,
    tollgate: Tollgate,
    command: &[String],
    variables: BTreeMap<OsString, OsString>,
) -> Result<Exit, StartError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(StartError::setting(
            "there is no program to run",
            "tollgate run -- CMD ARGS",
        ));
    };
    // Before there is a program: a signal in between must find it or end nothing.
    let signals = signals().map_err(|error| deaf(&error))?;
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(variables)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let (code, help) = match error.kind() {
                ErrorKind::NotFound => (NOT_FOUND, "write its full path, or install it"),
                _ => (
                    NOT_EXECUTABLE,
                    "see `ls -l` of it, and of the interpreter on its first line",
                ),
            };
            let what = format!("`{program}` cannot be started: {error}");
            return Ok(context.printer.problem(&what, help, Exit::Child(code)));
        }
    };
    let (done, finished) = oneshot::channel::<()>();
    let (begun, sinks) = (Instant::now(), tollgate.admin.ledgers.sinks().clone());
    let serving = tokio::spawn(run_until(tollgate, async move {
        finished.await.ok();
    }));
    let status = wait(&mut child, signals).await;
    done.send(()).ok();
    serving.await.ok();
    if let Some(summary) = summary(&sinks, begun.elapsed()) {
        context.printer.note(&summary);
    }
    match status {
        Ok(status) => Ok(Exit::Child(code(status))),
        Err(error) => Err(StartError::setting(
            format!("waiting for the program failed: {error}"),
            "",
        )),
    }
}

/// `tollgate: 214 requests, 2 denied (pypi.org: host_not_allowed), $1.37, 12m04s`.
///
/// Nothing where the program made no request.
fn summary(sinks: &Sinks, took: Duration) -> Option<String> {
    const MOST: usize = 3;
    let sum = sinks.sum();
    let mut text = match sum.exchanges {
        0 => return None,
        1 => "tollgate: 1 request".to_owned(),
        requests => format!("tollgate: {requests} requests"),
    };
    if sum.denied > 0 {
        let groups = sinks.denials.since(jiff::Timestamp::UNIX_EPOCH);
        let denied = groups.iter().filter(|group| !group.passed);
        let words: Vec<String> = denied
            .clone()
            .take(MOST)
            .map(|group| match &group.key.authority {
                Some(authority) => format!("{}: {}", authority.host, group.key.reason),
                None => group.key.reason.clone(),
            })
            .collect();
        let more = match denied.count().saturating_sub(MOST) {
            0 => String::new(),
            more => format!(", {more} more"),
        };
        text.push_str(&format!(
            ", {} denied ({}{more})",
            sum.denied,
            words.join(", ")
        ));
    }
    if sum.cost.0 > 0 {
        let cents = sum.cost.0.div_ceil(10_000_000);
        text.push_str(&format!(", ${}.{:02}", cents / 100, cents % 100));
    }
    let seconds = took.as_secs();
    match seconds {
        0..60 => text.push_str(&format!(", {seconds}s")),
        _ => text.push_str(&format!(", {}m{:02}s", seconds / 60, seconds % 60)),
    }
    Some(text)
}

fn deaf(error: &std::io::Error) -> StartError {
    StartError::setting(format!("signals cannot be heard: {error}"), "")
}

/// Signals that the program is meant to have, as they come. On a terminal it gets SIGINT and SIGQUIT
/// from the keyboard by itself; a second one would mean something else to it.
fn signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let keyboard = std::io::stdin().is_terminal()
        || std::io::stdout().is_terminal()
        || std::io::stderr().is_terminal();
    let (sender, receiver) = mpsc::channel(8);
    for (kind, forward) in [
        (SignalKind::terminate(), Some(Signal::TERM)),
        (SignalKind::hangup(), Some(Signal::HUP)),
        (SignalKind::user_defined1(), Some(Signal::USR1)),
        (SignalKind::user_defined2(), Some(Signal::USR2)),
        (SignalKind::interrupt(), (!keyboard).then_some(Signal::INT)),
        (SignalKind::quit(), (!keyboard).then_some(Signal::QUIT)),
    ] {
        let mut heard = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while heard.recv().await.is_some() {
                if let Some(forward) = forward
                    && sender.send(forward).await.is_err()
                {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Passes signals on until the program ends.
async fn wait(
    child: &mut Child,
    mut signals: mpsc::Receiver<Signal>,
) -> std::io::Result<ExitStatus> {
    loop {
        let forward = tokio::select! {
            status = child.wait() => return status,
            Some(forward) = signals.recv() => forward,
        };
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended a moment ago; then the next turn returns its status.
            kill_process(pid, forward).ok();
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// A directory of this run's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, StartError> {
        let base = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|dir| dir.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let random = state::random_hex()?;
        let name = String::from_utf8_lossy(&random.expose()[..16]).into_owned();
        let path = base.join(format!("tollgate-{name}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                StartError::setting(
                    format!("no directory for this run at {}: {error}", path.display()),
                    "set XDG_RUNTIME_DIR or TMPDIR to a directory this user can write",
                )
            })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
