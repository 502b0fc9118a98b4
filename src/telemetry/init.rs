//! Owns how the process's own log is written: to standard error, readable or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much the process says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// Errors only.
    Quiet,
    /// Warnings and what operators want to know.
    Normal,
    /// Everything that helps to find a fault.
    Verbose,
}

/// Installs the process's log. `TOLLGATE_LOG` or `RUST_LOG` win over `loudness`.
///
/// Libraries below are kept at `warn` whatever these say: at `trace` the HTTP library prints headers.
pub fn install(loudness: Loudness) {
    let ours = match loudness {
        Loudness::Quiet => "error,tollgate=error",
        Loudness::Normal => "warn,tollgate=info",
        Loudness::Verbose => "warn,tollgate=debug",
    };
    let filter = EnvFilter::try_from_env("TOLLGATE_LOG").unwrap_or_else(|_| EnvFilter::new(ours));
    // A filter of its own: a directive such as `h2::codec=trace` is more specific than one on `h2`.
    let capped = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("tollgate", LevelFilter::TRACE)
        // Whoever asked it says what failed, once, and without what was read.
        .with_target("kube_client", LevelFilter::OFF);
    let registry = tracing_subscriber::registry().with(filter).with(capped);
    let installed = match std::io::stderr().is_terminal() {
        true => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_target(false),
            )
            .try_init(),
        false => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    // A second call, as tests make, keeps the first subscriber.
    installed.ok();
}
