//! Owns `tollgate budget`: where limits stand, and what the running proxy is told to change about them.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::args::{AmendArgs, BudgetCommand, Format, RaiseArgs, ResetArgs};
use super::budget_table;
use super::context::{Context, block_on};
use super::operator::{Heard, ask, myself, tell};
use super::output::Exit;
use crate::admin::amend_request::AmendRequest;
use crate::admin::budgets::BudgetState;
use crate::app::error::StartError;
use crate::app::settings::Settings;

/// Runs one of the subcommands.
pub fn budget(context: &Context, command: &BudgetCommand) -> Result<Exit, StartError> {
    match command {
        BudgetCommand::Show { name } => show(context, name.as_deref()),
        BudgetCommand::Raise(args) => raise(context, args),
        BudgetCommand::Reset(args) => reset(context, args),
    }
}

#[derive(Deserialize)]
struct Budgets {
    budgets: Vec<BudgetState>,
}

fn show(context: &Context, name: Option<&str>) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let heard = block_on(ask::<Budgets>(context, &settings, &target(name)))??;
    let states = match heard.needs_proxy()? {
        Ok(answer) => answer.budgets,
        Err(why) => return Ok(context.printer.problem(&why, "", Exit::No)),
    };
    match context.printer.format {
        Format::Json => context.printer.json(&states),
        Format::Short => context.printer.out(&budget_table::short(&states)),
        Format::Table => context.printer.out(&budget_table::table(&states)),
    }
    Ok(Exit::Ok)
}

/// The same below another table, if there is something to show.
pub(super) fn standing_below(context: &Context, settings: &Settings) {
    let heard = block_on(ask::<Budgets>(context, settings, &target(None)));
    if let Ok(Ok(Heard::Done(Budgets { budgets }))) = heard
        && !budgets.is_empty()
    {
        context
            .printer
            .out(&format!("\n{}", budget_table::table(&budgets)));
    }
}

fn target(name: Option<&str>) -> String {
    match name {
        Some(name) => format!(
            "/v1/budgets?name={}",
            utf8_percent_encode(name, NON_ALPHANUMERIC)
        ),
        None => "/v1/budgets".to_owned(),
    }
}

fn raise(context: &Context, args: &RaiseArgs) -> Result<Exit, StartError> {
    let request = AmendRequest {
        by: Some(args.by.to_string()),
        until: args.until.map(|until| until.to_string()),
        ..request(&args.what)
    };
    change(context, &args.name, "raise", &request, budget_table::raised)
}

fn reset(context: &Context, args: &ResetArgs) -> Result<Exit, StartError> {
    let request = request(&args.what);
    change(
        context,
        &args.name,
        "reset",
        &request,
        budget_table::was_reset,
    )
}

fn request(what: &AmendArgs) -> AmendRequest {
    AmendRequest {
        scope: what.scope.clone(),
        agent: what.agent.clone(),
        window: what.window.clone(),
        reason: what.reason.clone(),
        who: myself(),
        ..AmendRequest::default()
    }
}

fn change(
    context: &Context,
    name: &str,
    verb: &str,
    request: &AmendRequest,
    told: impl Fn(&Value) -> String,
) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let target = format!("/v1/budgets/{name}/{verb}");
    let heard = block_on(tell::<Value>(context, &settings, &target, request))??;
    match heard.needs_proxy()? {
        Ok(answer) if context.printer.format == Format::Json => context.printer.json(&answer),
        Ok(answer) => context.printer.out(&told(&answer)),
        Err(why) => return Ok(context.printer.problem(&why, "", Exit::No)),
    }
    Ok(Exit::Ok)
}
