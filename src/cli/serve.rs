//! Owns `tollgate serve`.

use std::time::Instant;

use sd_notify::NotifyState;

use super::context::Context;
use super::output::Exit;
use crate::app::authority::CaChoice;
use crate::app::borders::make_own_directories;
use crate::app::error::StartError;
use crate::app::harden::{harden, required, tell};
use crate::app::run::{Signals, run, start};
use crate::net::descriptors;

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
    runtime.block_on(async {
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
        let address = |listener: &tokio::net::TcpListener| {
            listener
                .local_addr()
                .map_or_else(|e| e.to_string(), |a| a.to_string())
        };
        tell(&tollgate.admin.protections);
        let snapshot = tollgate.admin.snapshots.load_full();
        let protections = tollgate.admin.protections.iter();
        let protections: Vec<String> = protections
            .map(|p| format!("{}={}", p.name, p.word))
            .collect();
        let blocked = tollgate.admin.blocked();
        let state = match blocked.is_empty() {
            true => "ready in".to_owned(),
            false => {
                let why: Vec<String> = blocked
                    .iter()
                    .map(|(part, why)| format!("{part}: {why}"))
                    .collect();
                format!("NOT ready ({}) after", why.join("; "))
            }
        };
        context.printer.note(&format!(
            "tollgate {} {state} {} ms: listen={} admin={} hosts={} credentials={} {}",
            env!("CARGO_PKG_VERSION"),
            begun.elapsed().as_millis(),
            address(&tollgate.listener),
            address(&tollgate.admin_listener),
            snapshot.policy.host_count(),
            (tollgate.admin.credentials)().len(),
            protections.join(" "),
        ));
        drop(snapshot);
        // Whoever started it may wait for this (`Type=notify` of systemd); it is nobody's fault if nobody does.
        sd_notify::notify(&[NotifyState::Ready]).ok();
        Box::pin(run(tollgate, signals))
            .await
            .map_err(|error| StartError::setting(format!("serving failed: {error}"), ""))?;
        Ok(Exit::Ok)
    })
}

/// As many as there are cores to use, cgroup quota included; a sidecar rarely has more than two.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}
