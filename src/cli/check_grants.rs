//! Owns what `tollgate check` says of grants: whether their store could keep them, whether it will keep
//! them for long, and whether there is a login.

use std::time::SystemTime;

use jiff::Timestamp;

use super::finding::{Finding, State, finding};
use super::moment::relative;
use crate::app::error::StartError;
use crate::app::grant_desk::GrantDesk;
use crate::app::settings::Settings;
use crate::config::bundle::Bundle;
use crate::config::source::SourceSpec;
use crate::credential::open::SourceContext;
use crate::oauth::record::GrantRecord;

const PART: &str = "credentials";

/// What is wrong with each grant, or that nothing is.
pub(super) async fn check_grants(
    bundle: &Bundle,
    settings: &Settings,
    sources: &SourceContext,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for credential in &bundle.credentials {
        let source = credential.spec.source.as_ref().map(|source| &source.value);
        let Some(SourceSpec::Oauth(oauth)) = source else {
            continue;
        };
        let name = &credential.name;
        let bad = match credential.spec.optional {
            true => State::Warning,
            false => State::Failed,
        };
        match GrantDesk::open(name, oauth, settings, sources).await {
            Ok(desk) => check_grant(name, &desk, bad, &mut findings).await,
            Err(StartError::Setting { what, help }) => {
                findings.push(finding(PART, bad, format!("{name}: {what}"), help));
            }
            Err(error) => findings.push(finding(PART, bad, format!("{name}: {error}"), None)),
        }
    }
    findings
}

async fn check_grant(name: &str, desk: &GrantDesk, bad: State, findings: &mut Vec<Finding>) {
    let mut say = |state, message: String, help: Option<String>| {
        findings.push(finding(PART, state, format!("{name}: {message}"), help));
    };
    if !desk.has_logins() {
        return match desk.try_out().await {
            Ok(_) => say(State::Ok, "gets a token when it asks".to_owned(), None),
            Err(error) => say(bad, error.to_string(), None),
        };
    }
    // Found now rather than when the first rotated token has to be kept.
    if let Err(error) = desk.store().probe().await {
        let help = "renewing would lose the login; the proxy does not start with such a store unless the credential is optional";
        return say(bad, error.to_string(), Some(help.to_owned()));
    }
    if let Some(warning) = desk.store().durability_warning() {
        say(State::Warning, warning, None);
    }
    match desk.record().await {
        Ok(record) => match standing(&record) {
            Ok(told) => say(State::Ok, told, None),
            Err(why) => {
                let help = format!(
                    "tollgate creds login {name}, or tollgate creds import FILE --as {name}"
                );
                say(bad, why, Some(help));
            }
        },
        Err(error) => say(bad, error.to_string(), None),
    }
}

/// How a grant stands, or why only a login helps.
fn standing(record: &GrantRecord) -> Result<String, String> {
    if let Some(needs_login) = &record.needs_login {
        return Err(format!("needs login: {}", needs_login.why));
    }
    let Some(tokens) = &record.tokens else {
        return Err("there is no login yet".to_owned());
    };
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let ends = tokens
        .expires_at
        .and_then(|at| Timestamp::try_from(at).ok());
    Ok(match ends {
        _ if tokens.refresh.is_none() && ends.is_some_and(|at| at <= now) => {
            return Err("its token has expired and came without a refresh token".to_owned());
        }
        Some(at) if at > now => format!(
            "holds a login; its access token expires {}",
            relative(at, now)
        ),
        Some(_) => "holds a login; its access token is renewed at the start".to_owned(),
        None => "holds a login".to_owned(),
    })
}
