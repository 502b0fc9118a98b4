//! Owns `tollgate check`: what a start would find wrong, found without starting. Ports are not tried: a running
//! proxy has them.

use super::args::CheckArgs;
use super::check_budgets::check_budgets;
use super::check_files::check_files;
use super::check_grants::check_grants;
use super::context::{Context, block_on};
use super::finding::{Finding, State, finding, print};
use super::operator::ask;
use super::output::Exit;
use crate::app::authority::open_configured_authority;
use crate::app::books::read_books;
use crate::app::credentials::{Credentials, Ownership};
use crate::app::error::StartError;
use crate::app::grant_desk::logins;
use crate::app::harden::{USER, harden};
use crate::app::settings::Settings;
use crate::app::traces::destination;
use crate::config::hardening::HardeningMode;
use crate::credential::held::HeldCredential;
use crate::credential::open::Patience;
use crate::policy::compile::compile;
use crate::policy::engine::Engine;
use crate::rt::protection::{Force, Protection};

/// Reports; exits with 1 if anything failed, 78 if the documents are wrong.
///
/// Everything is looked at as a start would: with what that gives up given up.
pub fn check(context: &Context, args: &CheckArgs) -> Result<Exit, StartError> {
    let mut settings = context.settings()?;
    let sources = context.sources(&settings)?;
    let bundle = settings.bundle()?;
    if args.running {
        let running = running(context, &settings)?;
        print(&context.printer, &running);
        return Ok(outcome(&running));
    }
    settings.given_up = harden(&settings, &bundle);
    let engine = compile(&bundle)?;
    let books = read_books(&settings, &bundle)?;
    let mut findings = vec![finding(
        "policy",
        State::Ok,
        format!(
            "{} documents, {} hosts, {} intercepted",
            bundle.len(),
            engine.host_count(),
            engine.intercepted_hosts().len()
        ),
        None,
    )];
    findings.extend(check_budgets(&settings, &books));
    let limits = settings.limits();
    let message = format!(
        "{} connections, {} of one agent; at most {} MiB of memory",
        limits.connections.total,
        limits.connections.per_agent,
        limits.memory() >> 20
    );
    findings.push(finding("limits", State::Ok, message, None));
    findings.push(authority(&settings, &engine)?);
    let spans = block_on(destination(&settings, &sources))?;
    findings.extend(traces(spans)?);
    let (held, rest) = block_on(async {
        let ownership = Ownership::Seen(settings.grants.clone());
        let credentials = Credentials::new(sources.clone(), ownership);
        let open = credentials.open(&bundle, Patience::Answer).await;
        let grants = check_grants(&bundle, &settings, &sources).await;
        let files = check_files(&settings, &sources, &books.budgets).await;
        (open.held, (grants, files))
    })?;
    let (grants, files) = rest;
    findings.extend(files);
    let is_grant = |name: &str| logins(&bundle).any(|(login, _)| login == name);
    for credential in held.values().filter(|held| !is_grant(held.name())) {
        findings.push(plain(credential));
    }
    findings.extend(grants);
    findings.extend(hardening(&settings, &settings.given_up.protections));
    print(&context.printer, &findings);
    Ok(outcome(&findings))
}

fn outcome(findings: &[Finding]) -> Exit {
    let failed = findings
        .iter()
        .any(|finding| finding.state == State::Failed);
    if failed { Exit::No } else { Exit::Ok }
}

/// What is in force in the running proxy.
fn running(context: &Context, settings: &Settings) -> Result<Vec<Finding>, StartError> {
    let answer = block_on(ask::<Hardening>(context, settings, "/v1/hardening"))??;
    match answer.needs_proxy()? {
        Ok(answer) => Ok(hardening(settings, &answer.protections)),
        Err(why) => Err(StartError::setting(why, "")),
    }
}

/// The admin port's answer.
#[derive(serde::Deserialize)]
struct Hardening {
    protections: Vec<Protection>,
}

/// A line for each protection.
fn hardening(settings: &Settings, protections: &[Protection]) -> Vec<Finding> {
    let spec = &settings.root.spec.hardening;
    let line = |protection: &Protection| {
        let state = match (protection.force, spec.mode) {
            (Force::Full | Force::Part, _) => State::Ok,
            (Force::Missing, HardeningMode::Require) if protection.name != USER => State::Failed,
            (Force::Missing | Force::Off, _) => State::Warning,
        };
        let message = format!("{}: {}", protection.name, protection.detail);
        finding("hardening", state, message, None)
    };
    protections.iter().map(line).collect()
}

/// Where spans go; nothing is said where none are made.
fn traces(spans: Result<Option<String>, StartError>) -> Result<Option<Finding>, StartError> {
    match spans {
        Ok(None) => Ok(None),
        Ok(Some(collector)) => {
            let message = format!("a span of every exchange goes to {collector}");
            Ok(Some(finding("traces", State::Ok, message, None)))
        }
        Err(StartError::Setting { what, help }) => {
            Ok(Some(finding("traces", State::Failed, what, help)))
        }
        Err(error) => Err(error),
    }
}

/// A credential whose secret is fetched as it is.
fn plain(credential: &HeldCredential) -> Finding {
    let name = credential.name();
    let (state, message, help) = match credential.current() {
        Ok(_) => (State::Ok, "can be used".to_owned(), None),
        Err(error) if credential.is_ready() => {
            let help = "optional; using its placeholder is refused".to_owned();
            (State::Warning, error.reason, Some(help))
        }
        Err(error) => (State::Failed, error.reason, None),
    };
    finding("credentials", state, format!("{name}: {message}"), help)
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
