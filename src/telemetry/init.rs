//! Owns how the process's own log is written: to standard error, readable or as JSON, and what a panic says.

use std::io::{IsTerminal, Write as _};
use std::panic::{self, Location};

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::gate::GuardedStderr;

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

/// Installs the process's log. `TOLLGATE_LOG` wins over `loudness`.
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
    quiet_panics();
    let registry = tracing_subscriber::registry().with(filter).with(capped);
    let installed = match std::io::stderr().is_terminal() {
        true => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(GuardedStderr::Plain)
                    .with_target(false),
            )
            .try_init(),
        false => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(GuardedStderr::Json),
            )
            .try_init(),
    };
    // A second call, as tests make, keeps the first subscriber.
    installed.ok();
}

/// A panic says where, never what: its message may quote what was being worked on, and no backtrace is
/// needed to find the line.
fn quiet_panics() {
    panic::set_hook(Box::new(|panicked| {
        let thread = std::thread::current();
        let line = panic_line(panicked.location(), thread.name());
        // The log's own writer may be what panicked.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }));
}

fn panic_line(at: Option<&Location<'_>>, thread: Option<&str>) -> String {
    let thread = thread.unwrap_or("unnamed");
    let at = at.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!(
        "{{\"level\":\"ERROR\",\"message\":\"a fault of the program; please report where\",\"at\":\"{at}\",\"thread\":\"{thread}\"}}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const ROLE: &str = "TOLLGATE_TEST_PANIC";
    const PAYLOAD: &str = "sk-ant-api03-what-was-worked-on";

    /// Does nothing unless it is started by the test below.
    #[test]
    fn panics_in_a_process_of_its_own() {
        if std::env::var_os(ROLE).is_none() {
            return;
        }
        install(Loudness::Verbose);
        let text = std::env::var(ROLE).unwrap();
        std::thread::spawn(move || panic!("{text}"))
            .join()
            .unwrap_err();
    }

    #[test]
    fn a_panic_says_where_and_nothing_else() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "telemetry::init::tests::panics_in_a_process_of_its_own",
            "--nocapture",
        ]);
        let output = child
            .env(ROLE, PAYLOAD)
            .env("RUST_BACKTRACE", "full")
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{said}");
        assert!(said.contains("src/telemetry/init.rs:"), "{said}");
        assert!(
            !said.contains(PAYLOAD) && !said.contains("backtrace"),
            "{said}"
        );
    }
}
