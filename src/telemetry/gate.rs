//! Owns the last gate before a sink: whatever made a text, known secrets do not pass it, in no form.
//! What goes through here is redacted by type already; this is for the mistake nobody has found.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing_subscriber::fmt::MakeWriter;

/// Whether a known secret stands in a text, in any form that it could be written in.
pub type SecretSearch = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What guards the process's own log. There is one log in a process, as there is one standard error.
static LOG: OnceLock<SecretSearch> = OnceLock::new();
static WITHHELD: AtomicU64 = AtomicU64::new(0);

/// From now on no line of the process's own log holds what `search` finds.
pub fn guard_log(search: SecretSearch) {
    // A second process within this one, as tests have, keeps the first.
    LOG.set(search).ok();
}

/// Lines of the process's own log that were withheld.
pub fn withheld() -> u64 {
    WITHHELD.load(Ordering::Relaxed)
}

/// Standard error, line by line through the gate.
#[derive(Clone, Copy, Debug)]
pub enum GuardedStderr {
    /// Lines are for people.
    Plain,
    /// Lines are JSON objects.
    Json,
}

impl MakeWriter<'_> for GuardedStderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for GuardedStderr {
    /// One event is written at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = match LOG.get() {
            Some(search) if search(line) => {
                WITHHELD.fetch_add(1, Ordering::Relaxed);
                self.notice()
            }
            _ => line,
        };
        io::stderr().write_all(shown)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl GuardedStderr {
    /// What stands there instead.
    fn notice(self) -> &'static [u8] {
        match self {
            Self::Plain => b"a line was withheld: a secret stood in it\n",
            Self::Json => {
                b"{\"level\":\"ERROR\",\"message\":\"a line was withheld: a secret stood in it\"}\n"
            }
        }
    }
}
