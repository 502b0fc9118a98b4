//! Owns how the process's own log is written: to standard error, readable or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
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
/// Libraries below are kept at `warn`: at `trace` the HTTP library prints headers.
pub fn install(loudness: Loudness) {
    let ours = match loudness {
        Loudness::Quiet => "error,tollgate=error",
        Loudness::Normal => "warn,tollgate=info",
        Loudness::Verbose => "warn,tollgate=debug",
    };
    let filter = EnvFilter::try_from_env("TOLLGATE_LOG").unwrap_or_else(|_| EnvFilter::new(ours));
    let capped = [
        "hyper",
        "hyper_util",
        "h2",
        "rustls",
        "tokio_rustls",
        "hickory_resolver",
        "hickory_net",
    ]
    .into_iter()
    .filter_map(|name| format!("{name}=warn").parse().ok())
    .fold(filter, EnvFilter::add_directive);
    let registry = tracing_subscriber::registry().with(capped);
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
