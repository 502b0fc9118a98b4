//! Parses the command line, runs the command, exits.

use std::process::ExitCode;

use clap::Parser;
use tollgate::cli::args::Cli;
use tollgate::cli::dispatch::dispatch;

/// Smaller and faster than the system's under many small buffers, and the same under musl.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dispatch(Cli::parse()).into()
}
