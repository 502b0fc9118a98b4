//! Owns how errors look on a terminal: what, where, why, and the edit that mends it.

use std::fmt::Write;

use super::error::{ConfigError, Place};

/// All errors, one block each. Without color the text says the same.
pub fn render(errors: &[ConfigError], color: bool) -> String {
    let paint = Paint { color };
    let blocks: Vec<String> = errors.iter().map(|error| block(error, paint)).collect();
    blocks.join("\n")
}

#[derive(Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }
    fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }
    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
    fn with(self, code: &str, text: &str) -> String {
        match self.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

fn block(error: &ConfigError, paint: Paint) -> String {
    let head = paint.red(&format!("error[{}]", error.code));
    let mut out = format!("{head}: {}\n", harmless(&error.message));
    if let Some(place) = &error.place {
        frame(&mut out, place, error.label.as_deref(), paint);
    } else if let Some(label) = &error.label {
        line(&mut out, &format!("  {}", harmless(label)));
    }
    if let Some(help) = &error.help {
        let word = paint.cyan("help");
        line(&mut out, &format!("  {word}: {}", harmless(help)));
    }
    out
}

/// The line of the place and the one before it, with the caret and its label below.
fn frame(out: &mut String, place: &Place, label: Option<&str>, paint: Paint) {
    let width = place.line.to_string().len();
    let indent = " ".repeat(width + 2);
    let name = harmless(&place.file.name);
    let head = format!("{indent}╭─[{name}:{}:{}]", place.line, place.column);
    line(out, &paint.dim(&head));
    let before = (place.line as usize).saturating_sub(2);
    let shown = place.file.text.lines().zip(1u32..).skip(before);
    let mut any = false;
    for (text, number) in shown.take_while(|(_, number)| *number <= place.line) {
        if number < place.line && text.trim().is_empty() {
            continue;
        }
        any = true;
        let gutter = paint.dim(&format!(" {number:>width$} │ "));
        line(out, &format!("{gutter}{}", harmless(text)));
    }
    if any {
        underline(out, place, label, &format!("{indent}· "), paint);
    }
    line(out, &paint.dim(&format!("{indent}╰────")));
}

fn underline(out: &mut String, place: &Place, label: Option<&str>, gutter: &str, paint: Paint) {
    let gutter = paint.dim(gutter);
    let skip = " ".repeat(place.column.saturating_sub(1) as usize);
    let length = place.length.max(1) as usize;
    let middle = length / 2;
    let Some(label) = label else {
        line(
            out,
            &format!("{gutter}{skip}{}", paint.red(&"─".repeat(length))),
        );
        return;
    };
    let bar = format!("{}┬{}", "─".repeat(middle), "─".repeat(length - middle - 1));
    line(out, &format!("{gutter}{skip}{}", paint.red(&bar)));
    let stem = format!("{}╰── {}", " ".repeat(middle), harmless(label));
    line(out, &format!("{gutter}{skip}{}", paint.red(&stem)));
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    writeln!(out, "{}", text.trim_end()).unwrap_or_default();
}

/// A file's text must not steer the terminal: every control character becomes one blank.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::error::SourceFile;
    use super::*;

    fn error(text: &str) -> ConfigError {
        let file = Arc::new(SourceFile {
            name: "tollgate.yaml".into(),
            text: text.into(),
        });
        ConfigError::new("TG0203", "unknown key `metods` in a rule")
            .at(Place {
                file,
                line: 3,
                column: 5,
                length: 6,
            })
            .label("did you mean `methods`?")
            .help("keys here are hosts, methods")
    }

    #[test]
    fn an_error_shows_the_place_the_guess_and_the_help() {
        let text = "egress:\n  - hosts: [a]\n    metods: [POST]\n";
        assert_eq!(
            render(&[error(text)], false),
            "\
error[TG0203]: unknown key `metods` in a rule
   ╭─[tollgate.yaml:3:5]
 2 │   - hosts: [a]
 3 │     metods: [POST]
   ·     ───┬──
   ·        ╰── did you mean `methods`?
   ╰────
  help: keys here are hosts, methods
"
        );
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        let text = "a\n\x1b[2J\n\tx\x07y\n";
        assert!(!render(&[error(text)], false).contains(['\x1b', '\x07']));
        assert!(render(&[error(text)], true).starts_with("\x1b[1;31merror[TG0203]\x1b[0m: "));
    }

    #[test]
    fn an_error_without_a_place_is_still_whole() {
        let error = ConfigError::new("TG0101", "no such file").help("write another");
        assert_eq!(
            render(&[error], false),
            "error[TG0101]: no such file\n  help: write another\n"
        );
    }
}
