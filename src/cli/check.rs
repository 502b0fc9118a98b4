//! Owns `tollgate check`: everything that a start would find wrong, found without starting.

use std::fmt::Write as _;

use super::args::Format;
use super::context::{Context, block_on};
use super::output::Exit;
use crate::app::authority::open_configured_authority;
use crate::app::credentials::{Credentials, Ownership};
use crate::app::error::StartError;
use crate::app::settings::Settings;
use crate::credential::open::Patience;
use crate::policy::compile::compile;
use crate::policy::engine::Engine;

/// One line of the report.
#[derive(serde::Serialize)]
struct Finding {
    part: &'static str,
    state: State,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
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

/// Reports; exits with 1 if anything failed, 78 if the documents are wrong.
pub fn check(context: &Context) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    let bundle = settings.bundle()?;
    let engine = compile(&bundle)?;
    let mut findings = vec![finding(
        "policy",
        State::Ok,
        format!(
            "{} documents, {} hosts, {} intercepted",
            bundle.policies.len() + bundle.credentials.len(),
            engine.host_count(),
            engine.intercepted_hosts().len()
        ),
        None,
    )];
    findings.push(authority(&settings, &engine)?);
    let ownership = Ownership::Seen(settings.grants.clone());
    let credentials = Credentials::new(sources, ownership);
    let open = block_on(credentials.open(&bundle, Patience::Answer))?;
    for credential in open.held.values() {
        findings.push(match credential.current() {
            Ok(_) => finding(
                "credentials",
                State::Ok,
                format!("{}: can be used", credential.name()),
                None,
            ),
            Err(error) if credential.is_ready() => finding(
                "credentials",
                State::Warning,
                format!("{}: {}", credential.name(), error.reason),
                Some("optional; using its placeholder is refused".to_owned()),
            ),
            Err(error) => finding(
                "credentials",
                State::Failed,
                format!("{}: {}", credential.name(), error.reason),
                None,
            ),
        });
    }
    let failed = findings.iter().filter(|f| f.state == State::Failed).count();
    print(context, &findings, failed);
    Ok(if failed == 0 { Exit::Ok } else { Exit::No })
}

fn authority(settings: &Settings, engine: &Engine) -> Result<Finding, StartError> {
    if settings.root.spec.ca.ephemeral_dir.is_some() {
        let message = "made at each start, its key kept in memory".to_owned();
        return Ok(finding("ca", State::Ok, message, None));
    }
    Ok(match open_configured_authority(settings) {
        Ok(authority) => {
            let outside: Vec<String> = engine
                .intercepted_hosts()
                .iter()
                .filter(|p| !authority.covers(p))
                .map(ToString::to_string)
                .collect();
            match outside.is_empty() {
                true => finding(
                    "ca",
                    State::Ok,
                    format!(
                        "may sign every intercepted host, until {}",
                        authority.describe().not_after
                    ),
                    None,
                ),
                false => finding(
                    "ca",
                    State::Failed,
                    format!("may not sign {}", outside.join(", ")),
                    Some("tollgate ca init --force, then give agents the new bundle".to_owned()),
                ),
            }
        }
        Err(StartError::Setting { what, help }) => finding("ca", State::Warning, what, help),
        Err(error) => return Err(error),
    })
}

fn finding(part: &'static str, state: State, message: String, help: Option<String>) -> Finding {
    Finding {
        part,
        state,
        message,
        help,
    }
}

fn print(context: &Context, findings: &[Finding], failed: usize) {
    let warnings = findings
        .iter()
        .filter(|f| f.state == State::Warning)
        .count();
    let plural = if warnings == 1 { "" } else { "s" };
    let summary = format!(
        "{failed} failed, {warnings} warning{plural}, {} ok",
        findings.len() - failed - warnings
    );
    match context.printer.format {
        Format::Json => context.printer.json(&findings),
        Format::Short => context.printer.out(&summary),
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
            context.printer.out(&text);
        }
    }
}
