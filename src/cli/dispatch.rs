//! Owns the way from a parsed command line to an exit code.

use super::args::{Cli, Command};
use super::context::Context;
use super::output::Exit;
use super::{
    audit, budget, ca, check, creds, denied, env, generate, launch, probe, serve, spend, tap, why,
};
use crate::telemetry::init::{Loudness, install};

/// Runs the command.
pub fn dispatch(cli: Cli) -> Exit {
    let Cli { global, command } = cli;
    let loudness = match (global.quiet, global.verbose, &command) {
        (true, ..) => Loudness::Quiet,
        (_, true, _) => Loudness::Verbose,
        // The child owns the terminal: only what went wrong is said.
        (_, _, Command::Serve) => Loudness::Normal,
        // Other commands say what they have to say themselves.
        _ => Loudness::Quiet,
    };
    install(loudness);
    let context = Context::new(global);
    let result = match command {
        Command::Serve => serve::serve(&context),
        Command::Run(args) => launch::launch(&context, args),
        Command::Check(args) => check::check(&context, &args),
        Command::Why(args) => why::why(&context, &args),
        Command::Env(args) => env::env(&context, &args),
        Command::Ca(command) => ca::ca(&context, &command),
        Command::Creds(command) => creds::creds(&context, &command),
        Command::Spend(args) => spend::spend(&context, &args),
        Command::Budget(command) => budget::budget(&context, &command),
        Command::Tap(args) => tap::tap(&context, &args),
        Command::Denied(args) => denied::denied(&context, &args),
        Command::Audit(command) => audit::audit(&context, &command),
        Command::WaitReady(args) => probe::wait_ready(&context, &args),
        Command::Healthcheck(args) => probe::healthcheck(&context, &args),
        Command::Gen(command) => generate::generate(&context, &command),
    };
    match result {
        Ok(exit) => exit,
        Err(error) => context.printer.fail(&error),
    }
}
