//! Owns the tally of checks, and how a demo looks on a terminal.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::needles::Needle;
use super::recorded::sha256;

/// What came out as it must, and what did not.
#[derive(Default)]
pub struct Checks {
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    /// Counts one; an empty sentence is only counted, and said when it is not so.
    pub fn that(&mut self, what: &str, holds: bool) {
        match (holds, what) {
            (true, "") => {}
            (true, what) => println!("  {} {what}", paint("ok", "32")),
            (false, what) => println!("  {} {what}", paint("FAILED", "1;31")),
        }
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(what.to_owned());
        }
    }

    /// Counts one for each place, in which no secret may stand, and says how many do.
    pub fn are_free_of(&mut self, secrets: &[Needle], places: &[(String, String)]) {
        for (place, text) in places {
            let hits = search(text, secrets);
            println!("  {hits} hits in {place} ({} bytes)", text.len());
            self.that("", hits == 0 && !text.is_empty());
        }
    }

    pub fn finish(self) -> ExitCode {
        println!(
            "\n{} checks passed, {} failed",
            self.passed,
            self.failed.len()
        );
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// How many of the secrets stand in a text, as they are or in base64, hexadecimal and the like.
pub fn search(text: &str, secrets: &[Needle]) -> usize {
    let found = secrets.iter().filter(|s| s.find(text.as_bytes()).is_some());
    found.count()
}

/// Enough of a hash to compare, nothing to log in with.
pub fn fingerprint(secret: &str) -> String {
    let hash = sha256(secret.as_bytes());
    hash.iter().take(6).map(|b| format!("{b:02x}")).collect()
}

pub fn title(text: &str) {
    println!("\n{}", paint(text, "1"));
}

fn paint(text: &str, style: &str) -> String {
    let plain = !std::io::stdout().is_terminal()
        || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if plain {
        text.to_owned()
    } else {
        format!("\x1b[{style}m{text}\x1b[0m")
    }
}
