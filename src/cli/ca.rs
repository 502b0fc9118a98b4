//! Owns `tollgate ca`: make, show and hand out the certificate authority.

use super::args::{CaCommand, Format};
use super::context::Context;
use super::operator::recorded;
use super::output::Exit;
use crate::app::audit::{Replaces, ca_event};
use crate::app::authority::{authority_files, open_configured_authority, replace_authority};
use crate::app::error::StartError;
use crate::tls::authority::CertificateAuthority;
use crate::tls::roots::SystemRoots;
use crate::tls::trust::bundle_pem;

/// Runs one of the subcommands.
pub fn ca(context: &Context, command: &CaCommand) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    match command {
        CaCommand::Init { force } => {
            let (certificate, _) = authority_files(&settings);
            if certificate.exists() && !force {
                return Ok(context.printer.problem(
                    &format!("there is an authority already at {}", certificate.display()),
                    "`tollgate ca show` describes it; --force replaces it, and agents need the new bundle then",
                    Exit::No,
                ));
            }
            let replaces = match certificate.exists() {
                true => Replaces::Another,
                false => Replaces::None,
            };
            let authority = replace_authority(&settings)?;
            recorded(context, &settings, ca_event(&authority, replaces));
            context
                .printer
                .note(&format!("made {}", certificate.display()));
            show(context, &authority);
        }
        CaCommand::Show => show(context, &open_configured_authority(&settings)?),
        CaCommand::Bundle => {
            let authority = open_configured_authority(&settings)?;
            context.printer.out(&bundle_pem(
                authority.certificate_pem(),
                SystemRoots::load(),
            ));
        }
        CaCommand::Export { with_private_key } => {
            let authority = open_configured_authority(&settings)?;
            context.printer.out(authority.certificate_pem());
            if *with_private_key {
                context.printer.note("this key can impersonate every name the authority may sign; keep it as you keep passwords");
                context
                    .printer
                    .out(&String::from_utf8_lossy(authority.export_key().expose()));
            }
        }
    }
    Ok(Exit::Ok)
}

fn show(context: &Context, authority: &CertificateAuthority) {
    let description = authority.describe();
    if context.printer.format == Format::Json {
        return context.printer.json(description);
    }
    let names = match &description.permitted {
        None => "any name".to_owned(),
        Some(names) => format!("only {}, and names below", names.join(", ")),
    };
    context.printer.out(&format!(
        "CA \"{}\" may sign {names}\n  valid    {} to {}\n  sha256   {}",
        description.common_name, description.not_before, description.not_after, description.sha256,
    ));
}
