//! Owns `tollgate spend`: asked of the running proxy, or read off the ledger's file if none runs.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::args::{Format, GroupedBy, SpendArgs};
use super::context::{Context, block_on};
use super::operator::{Heard, ask};
use super::output::Exit;
use super::{budget, spend_table};
use crate::admin::moment::Edge;
use crate::admin::spend_report::{SpendReport, word};
use crate::app::error::StartError;
use crate::app::settings::Settings;
use crate::budget::sqlite_report::{By, Question};

/// Prints what was spent.
pub fn spend(context: &Context, args: &SpendArgs) -> Result<Exit, StartError> {
    let printer = &context.printer;
    if let (Some(from), Some(until)) = (args.from, args.until)
        && from.start() >= until.end()
    {
        let what = format!("--from {from} is not before --until {until}");
        return Ok(printer.problem(&what, "a day for --until counts whole", Exit::Usage));
    }
    if args.csv && printer.format != Format::Table {
        let what = "--csv and --output are two forms";
        return Ok(printer.problem(what, "leave one of them out", Exit::Usage));
    }
    let settings = context.settings()?;
    let report = match running(context, &settings, args)? {
        Heard::Done(report) => report,
        Heard::Refused(why) => return Ok(printer.problem(&why, "", Exit::No)),
        Heard::Nobody(_) => from_file(context, &settings, args)?,
    };
    if args.csv {
        let text = spend_table::csv(&report);
        printer.out(&text.map_err(|error| StartError::setting(error, ""))?);
        return Ok(Exit::Ok);
    }
    if let Some(agent) = args.agent.as_deref().filter(|_| report.rows.is_empty()) {
        printer.note(&format!("no call of an agent `{agent}` is on record there"));
    }
    match printer.format {
        Format::Json => printer.json(&report),
        Format::Short => printer.out(&spend_table::short(&report)),
        Format::Table => {
            printer.out(&spend_table::table(&report));
            if is_plain(args) {
                budget::standing_below(context, &settings);
            }
        }
    }
    Ok(Exit::Ok)
}

fn running(
    context: &Context,
    settings: &Settings,
    args: &SpendArgs,
) -> Result<Heard<SpendReport>, StartError> {
    let mut target = format!("/v1/spend?by={}", word(by(args.by)));
    let given = [
        ("from", args.from.map(|edge| edge.to_string())),
        ("until", args.until.map(|edge| edge.to_string())),
        ("agent", args.agent.clone()),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
            target.push_str(&format!("&{name}={value}"));
        }
    }
    block_on(ask(context, settings, &target))?
}

/// Beside whoever may write it meanwhile. Where nobody does, the tables learn first what the last process left in
/// its journal; nothing else of it is changed.
fn from_file(
    context: &Context,
    settings: &Settings,
    args: &SpendArgs,
) -> Result<SpendReport, StartError> {
    let path = &settings.ledger;
    let question = Question {
        by: by(args.by),
        from: args.from.map(Edge::start),
        until: args.until.map(Edge::end),
        agent: args.agent.as_deref().map(Into::into),
    };
    let report = SpendReport::read(path, &question).map_err(|error| StartError::Temporary {
        what: error.to_string(),
        help: "a proxy with an EgressBudget makes it; ledger.file or stateDir says where it is"
            .to_owned(),
    })?;
    let note = format!(
        "no proxy answers at {}: read from {}",
        context.admin_address(Some(settings)),
        path.display()
    );
    context.printer.note(&note);
    Ok(report)
}

fn by(by: GroupedBy) -> By {
    match by {
        GroupedBy::Agent => By::Agent,
        GroupedBy::Model => By::Model,
        GroupedBy::Credential => By::Credential,
        GroupedBy::Day => By::Day,
    }
}

/// Nothing in particular was asked: a person wants to see how things stand.
fn is_plain(args: &SpendArgs) -> bool {
    args.by == GroupedBy::Agent
        && args.from.is_none()
        && args.until.is_none()
        && args.agent.is_none()
}
