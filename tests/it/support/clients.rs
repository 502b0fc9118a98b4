//! Owns where the real clients are, and says so when one is missing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The path of a client, or a visible skip: prints it, notes it, and returns from the test.
macro_rules! client {
    ($name:expr) => {
        match $crate::support::clients::find($name) {
            Some(path) => path,
            None => return,
        }
    };
}

/// Looks in `.clients/`, then on PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let missing = fs::read_to_string(home().join("missing")).unwrap_or_default();
    let reason = missing
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let found = reason.is_none().then(|| locate(name)).flatten();
    if found.is_none() {
        skip(name, reason.unwrap_or("not installed; run tests/setup.sh"));
    }
    found
}

fn locate(name: &str) -> Option<PathBuf> {
    let own = match name.split_once('-') {
        Some(("python", _)) => home().join("py/bin/python"),
        _ if name == "python" => home().join("py/bin/python"),
        _ if name == "node-sdks" => {
            return home()
                .join("node/node_modules/@anthropic-ai/sdk")
                .is_dir()
                .then(|| on_path("node"))
                .flatten();
        }
        _ if matches!(name, "promtool" | "prometheus") => {
            home().join("prometheus/usr/bin").join(name)
        }
        _ => home().join("node/node_modules/.bin").join(name),
    };
    if own.exists() {
        Some(own)
    } else {
        on_path(name)
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// `.clients/` of the repository.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".clients")
}

/// A script of `tests/clients/`.
pub fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
        .display()
        .to_string()
}

/// Says that a test, or a part of it, cannot run here. `make test` counts it.
pub fn skip(name: &str, reason: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("SKIP {name}: {reason} ({test})");
    eprintln!("{line}");
    let file = std::env::var_os("TOLLGATE_TEST_SKIPS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/skips.txt"),
        PathBuf::from,
    );
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Held while a heavy agent runs: one at a time, across test processes too.
pub struct Heavy {
    _lock: fs::File,
}

pub async fn heavy() -> Heavy {
    one_at_a_time("heavy.lock").await
}

/// The same for whatever else goes by a name of its own.
pub async fn one_at_a_time(lock: &str) -> Heavy {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(lock);
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    loop {
        match file.try_lock() {
            Ok(()) => return Heavy { _lock: file },
            Err(fs::TryLockError::WouldBlock) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(fs::TryLockError::Error(e)) => panic!("{lock}: {e}"),
        }
    }
}
