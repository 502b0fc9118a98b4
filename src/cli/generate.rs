//! Owns `tollgate gen`: files that follow from the program itself.

use clap::CommandFactory;

use super::args::{Cli, GenCommand};
use super::context::Context;
use super::output::Exit;
use crate::app::error::StartError;
use crate::config::presets;
use crate::config::schema::json_schema;
use crate::telemetry::{alerts, dashboard, reference};

/// Prints one of them.
pub fn generate(context: &Context, command: &GenCommand) -> Result<Exit, StartError> {
    let text = match command {
        GenCommand::Completions { shell } => {
            // Written to memory first: the generator panics on a closed pipe.
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "tollgate", &mut text);
            String::from_utf8_lossy(&text).into_owned()
        }
        GenCommand::Man => manual().map_err(|error| StartError::setting(error, ""))?,
        GenCommand::Schema => {
            context.printer.json(&json_schema());
            return Ok(Exit::Ok);
        }
        GenCommand::Dashboards => {
            context.printer.json(&dashboard::json());
            return Ok(Exit::Ok);
        }
        GenCommand::Alerts => alerts::yaml().trim_end().to_owned(),
        GenCommand::Docs => reference::page().trim().to_owned(),
        GenCommand::Presets { name: None } => presets::names().join("\n"),
        GenCommand::Presets { name: Some(name) } => match presets::source(name) {
            Some(source) => source.to_owned(),
            None => {
                return Err(StartError::setting(
                    format!("there is no preset `{name}`"),
                    format!("the presets are: {}", presets::names().join(", ")),
                ));
            }
        },
    };
    context.printer.out(&text);
    Ok(Exit::Ok)
}

/// One page for the program and one section for each command.
fn manual() -> std::io::Result<String> {
    let mut text = Vec::new();
    let command = Cli::command();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for sub in command.get_subcommands() {
        clap_mangen::Man::new(sub.clone().bin_name(format!("tollgate {}", sub.get_name())))
            .render(&mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
