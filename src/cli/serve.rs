//! Owns `tollgate serve`.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::net::TcpListener;

use super::context::Context;
use super::output::Exit;
use crate::app::authority::CaChoice;
use crate::app::borders::make_own_directories;
use crate::app::compose::Tollgate;
use crate::app::error::StartError;
use crate::app::harden::{harden, required, tell};
use crate::app::run::{Signals, run, start};
use crate::net::descriptors;
use crate::rt::protection::Protection;

/// How long work that nobody asks for any more may take at the end.
const LEFT: Duration = Duration::from_millis(500);

/// Serves until a signal ends it.
pub fn serve(context: &Context) -> Result<Exit, StartError> {
    let begun = Instant::now();
    let mut settings = context.settings()?;
    let sources = context.sources(&settings)?;
    descriptors::raise();
    make_own_directories(&settings);
    // The threads of the runtime inherit what is given up here.
    settings.given_up = harden(&settings, &settings.bundle()?);
    required(&settings, &settings.given_up)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers())
        .build()
        .map_err(|error| StartError::setting(format!("no event loop: {error}"), ""))?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::heeded().map_err(|error| {
            StartError::setting(format!("signals cannot be heard: {error}"), "")
        })?;
        let started = start(settings, sources, CaChoice::Configured, &mut signals);
        let Some(tollgate) = started.await? else {
            context
                .printer
                .note("tollgate was ended before it was ready");
            return Ok(Exit::Ok);
        };
        tell(&tollgate.admin.protections);
        context.printer.note(&ready_line(&tollgate, begun));
        // Whoever started it may wait for this (`Type=notify` of systemd); it is nobody's fault if nobody does.
        sd_notify::notify(&[NotifyState::Ready]).ok();
        Box::pin(run(tollgate, signals))
            .await
            .map_err(|error| StartError::setting(format!("serving failed: {error}"), ""))?;
        Ok(Exit::Ok)
    });
    // A file system that hangs has what waits for it; nobody waits for that.
    runtime.shutdown_timeout(LEFT);
    outcome
}

/// `tollgate 0.1.0 ready in 41 ms: listen=127.0.0.1:8888 admin=… hosts=4 credentials=2 dumps=off …`.
fn ready_line(tollgate: &Tollgate, begun: Instant) -> String {
    let address = |listener: &TcpListener| {
        let address = listener.local_addr();
        address.map_or_else(|error| error.to_string(), |address| address.to_string())
    };
    let admin = &tollgate.admin;
    let words = |protection: &Protection| format!("{}={}", protection.name, protection.word);
    let protections: Vec<String> = admin.protections.iter().map(words).collect();
    let why = |(part, why): (&String, &String)| format!("{part}: {why}");
    let blocked: Vec<String> = admin.blocked().iter().map(why).collect();
    let state = match blocked.is_empty() {
        true => "ready in".to_owned(),
        false => format!("NOT ready ({}) after", blocked.join("; ")),
    };
    format!(
        "tollgate {} {state} {} ms: listen={} admin={} hosts={} credentials={} {}",
        env!("CARGO_PKG_VERSION"),
        begun.elapsed().as_millis(),
        address(&tollgate.listener),
        address(&tollgate.admin_listener),
        admin.snapshots.load().policy.host_count(),
        (admin.credentials)().len(),
        protections.join(" "),
    )
}

/// As many as there are cores to use, cgroup quota included; a sidecar rarely has more than two.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}
