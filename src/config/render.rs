//! Owns how errors look on a terminal: what, where, why, and the edit that mends it.

use std::fmt::Write;

use super::error::{ConfigError, Place};

/// Whether a text may hold the escape sequences of a terminal (ECMA-48, SGR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coloring {
    /// It goes to a file, a pipe, or a terminal that asked for none (`NO_COLOR`).
    Plain,
    /// It goes to a terminal.
    Colored,
}

/// All errors, one block each. Without color the text says the same.
pub fn render(errors: &[ConfigError], coloring: Coloring) -> String {
    let paint = Paint { coloring };
    let blocks: Vec<String> = errors.iter().map(|error| block(error, paint)).collect();
    blocks.join("\n")
}

#[derive(Clone, Copy)]
struct Paint {
    coloring: Coloring,
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
        match self.coloring {
            Coloring::Colored => format!("\x1b[{code}m{text}\x1b[0m"),
            Coloring::Plain => text.to_owned(),
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
    let window = Window::around(place);
    let before = (place.line as usize).saturating_sub(2);
    let shown = place.file.text.lines().zip(1u32..).skip(before);
    let mut any = false;
    for (text, number) in shown.take_while(|(_, number)| *number <= place.line) {
        if number < place.line && text.trim().is_empty() {
            continue;
        }
        any = true;
        let gutter = paint.dim(&format!(" {number:>width$} │ "));
        line(out, &format!("{gutter}{}", harmless(&window.cut(text))));
    }
    if any {
        let gutter = paint.dim(&format!("{indent}· "));
        for text in caret(&window, place, label, paint) {
            line(out, &format!("{gutter}{text}"));
        }
    }
    line(out, &paint.dim(&format!("{indent}╰────")));
}

/// The columns that are shown of long lines.
struct Window {
    start: usize,
}

impl Window {
    const WIDTH: usize = 120;
    const LEAD: usize = 40;

    fn around(place: &Place) -> Self {
        let end = place.column.saturating_add(place.length) as usize;
        let start = match end <= Self::WIDTH {
            true => 0,
            false => (place.column as usize).saturating_sub(Self::LEAD),
        };
        Self { start }
    }

    fn cut(&self, text: &str) -> String {
        let mut cut: Vec<char> = text.chars().skip(self.start).collect();
        if cut.len() > Self::WIDTH {
            cut.truncate(Self::WIDTH);
            cut.extend(['…']);
        }
        if let (1.., Some(first)) = (self.start, cut.first_mut()) {
            *first = '…';
        }
        cut.into_iter().collect()
    }
}

fn caret(window: &Window, place: &Place, label: Option<&str>, paint: Paint) -> Vec<String> {
    let skip = (place.column as usize).saturating_sub(1 + window.start);
    let skip = " ".repeat(skip);
    let length = (place.length as usize).clamp(1, Window::WIDTH - Window::LEAD);
    let Some(label) = label else {
        return vec![format!("{skip}{}", paint.red(&"─".repeat(length)))];
    };
    let middle = length / 2;
    let bar = format!("{}┬{}", "─".repeat(middle), "─".repeat(length - middle - 1));
    let stem = format!("{}╰── {}", " ".repeat(middle), harmless(label));
    vec![
        format!("{skip}{}", paint.red(&bar)),
        format!("{skip}{}", paint.red(&stem)),
    ]
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
            render(&[error(text)], Coloring::Plain),
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
        assert!(!render(&[error(text)], Coloring::Plain).contains(['\x1b', '\x07']));
        assert!(
            render(&[error(text)], Coloring::Colored)
                .starts_with("\x1b[1;31merror[TG0203]\x1b[0m: ")
        );
    }

    #[test]
    fn of_a_long_line_the_part_around_the_caret_is_shown() {
        let mut error = error(&format!(
            "a\nb\n{}metods{}\n",
            "x".repeat(500),
            "y".repeat(500)
        ));
        if let Some(place) = &mut error.place {
            place.column = 501;
        }
        let text = render(&[error], Coloring::Plain);
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        assert!(lines.iter().all(|line| line.len() < 140), "{text}");
        let column = lines[4].iter().position(|c| *c == '─').unwrap();
        let marked: String = lines[3][column..column + 6].iter().collect();
        assert_eq!(marked, "metods");
    }

    #[test]
    fn an_error_without_a_place_is_still_whole() {
        let error = ConfigError::new("TG0101", "no such file").help("write another");
        assert_eq!(
            render(&[error], Coloring::Plain),
            "error[TG0101]: no such file\n  help: write another\n"
        );
    }
}
