//! Owns everything that is printed, and the exit codes. A reader that goes away is not an error.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::args::{Color, Format, Global};
use crate::app::error::StartError;
use crate::config::render::{Coloring, render};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// The answer is no.
    No,
    /// The command line is wrong in a way that its grammar does not know.
    Usage,
    /// Try again later (`EX_TEMPFAIL`).
    Temporary,
    /// The configuration is wrong (`EX_CONFIG`).
    Config,
    /// A child's own code, or one of the shell's: 125 not started, 126 not executable, 127 not found, 128+n signal.
    Child(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Temporary => 75,
            Exit::Config => 78,
            Exit::Child(code) => code,
        })
    }
}

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// The format asked for.
    pub format: Format,
    coloring: Coloring,
    quiet: bool,
}

impl Printer {
    /// As the global flags say.
    pub fn new(global: &Global) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let set =
                    |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0");
                !set("NO_COLOR") && (set("CLICOLOR_FORCE") || io::stderr().is_terminal())
            }
        };
        let coloring = if color {
            Coloring::Colored
        } else {
            Coloring::Plain
        };
        Self {
            format: global.output,
            coloring,
            quiet: global.quiet,
        }
    }

    /// Whether nothing but what is wrong is asked for.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints a result.
    pub fn out(&self, text: &str) {
        write(&mut io::stdout().lock(), text);
    }

    /// Prints one line of a result that goes on; an error once the reader has gone.
    pub fn line(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Prints a result as JSON.
    pub fn json(&self, value: &impl serde::Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.out(&text),
            Err(error) => self.note(&format!("error: {error}")),
        }
    }

    /// Says something beside the result.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            write(&mut io::stderr().lock(), text);
        }
    }

    /// Says what failed, where, why and how to mend it.
    pub fn fail(&self, error: &StartError) -> Exit {
        if self.format == Format::Json {
            let errors: Vec<_> = match error {
                StartError::Config(errors) => errors.iter().map(described).collect(),
                other => {
                    vec![serde_json::json!({ "message": other.to_string(), "help": help(other) })]
                }
            };
            write(
                &mut io::stderr().lock(),
                &serde_json::json!({ "errors": errors }).to_string(),
            );
        } else {
            let text = match error {
                StartError::Config(errors) => render(errors, self.coloring),
                other => match help(other) {
                    Some(help) => format!("error: {other}\n  help: {help}"),
                    None => format!("error: {other}"),
                },
            };
            write(&mut io::stderr().lock(), &text);
        }
        match error {
            StartError::Temporary { .. } => Exit::Temporary,
            _ => Exit::Config,
        }
    }

    /// Says what failed, in one sentence and one way out.
    pub fn problem(&self, what: &str, help: &str, exit: Exit) -> Exit {
        self.fail(&StartError::setting(what, help));
        exit
    }
}

fn described(error: &crate::config::error::ConfigError) -> serde_json::Value {
    let place = error.place.as_ref();
    serde_json::json!({
        "code": error.code,
        "message": error.message,
        "file": place.map(|p| &p.file.name),
        "line": place.map(|p| p.line),
        "column": place.map(|p| p.column),
        "label": error.label,
        "help": error.help,
    })
}

fn help(error: &StartError) -> Option<&str> {
    match error {
        StartError::Setting { help, .. } => help.as_deref().filter(|help| !help.is_empty()),
        StartError::Temporary { help, .. } => Some(help),
        StartError::Config(_) => None,
    }
}

/// `tollgate gen completions bash | head` closes the pipe early; that is the reader's choice.
fn write(out: &mut dyn Write, text: &str) {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(newline.as_bytes()))
        .and_then(|()| out.flush())
        .ok();
}

/// Columns, each as wide as its widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    let mut lines = vec![line(&head)];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}
