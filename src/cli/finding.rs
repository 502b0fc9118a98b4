//! Owns one line of a report and how a report is printed.

use std::fmt::Write as _;

use super::args::Format;
use super::output::Printer;

/// One line of the report.
#[derive(serde::Serialize)]
pub(super) struct Finding {
    part: &'static str,
    pub(super) state: State,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Finding {
    /// The same, as serious as this.
    pub(super) fn of(self, state: State) -> Self {
        Self { state, ..self }
    }
}

/// What it says.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Warning,
    Failed,
}

impl State {
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "√",
            Self::Warning => "‼",
            Self::Failed => "×",
        }
    }
}

/// One line of it.
pub(super) fn finding(
    part: &'static str,
    state: State,
    message: String,
    help: Option<String>,
) -> Finding {
    Finding {
        part,
        state,
        message,
        help,
    }
}

/// Prints a report, its parts as headings; quietly, only what failed.
pub(super) fn print(printer: &Printer, findings: &[Finding]) {
    if !printer.is_quiet() {
        return print_all(printer, findings.iter().collect());
    }
    let failed: Vec<_> = findings
        .iter()
        .filter(|finding| finding.state == State::Failed)
        .collect();
    if !failed.is_empty() {
        print_all(printer, failed);
    }
}

fn print_all(printer: &Printer, findings: Vec<&Finding>) {
    let count = |state| findings.iter().filter(|f| f.state == state).count();
    let (failed, warnings) = (count(State::Failed), count(State::Warning));
    let plural = if warnings == 1 { "" } else { "s" };
    let summary = format!(
        "{failed} failed, {warnings} warning{plural}, {} ok",
        findings.len() - failed - warnings
    );
    match printer.format {
        Format::Json => printer.json(&findings),
        Format::Short => printer.out(&summary),
        Format::Table => {
            let mut text = String::new();
            let mut part = "";
            for finding in findings {
                if finding.part != part {
                    part = finding.part;
                    text.push_str(part);
                    text.push('\n');
                }
                // Writing to a String cannot fail.
                writeln!(text, "{} {}", finding.state.mark(), finding.message).ok();
                if let Some(help) = &finding.help {
                    writeln!(text, "    {help}").ok();
                }
            }
            text.push_str(&summary);
            printer.out(&text);
        }
    }
}
