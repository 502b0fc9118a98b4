//! Measures whole exchanges: the real `tollgate` binary against nginx, other proxies that intercept and a
//! direct connection, in one run, in turns, against one origin. `make bench` runs it and keeps what it prints.
//!
//! Nothing here passes or fails by a time. Every figure is the median of several rounds; a ratio is
//! the median of the rounds' own ratios, so that a machine that gets slower bends both sides alike.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark that fails should stop, and its output is for a terminal"
)]

mod certs;
mod client;
mod collector;
mod fixture;
mod hudsucker;
mod measures;
mod mitmproxy;
mod model;
mod nginx;
mod origin;
mod peer;
mod process;
mod report;
mod squid;
mod subject;
mod tollgate;

use std::time::{Duration, Instant};

use fixture::Bench;
use report::Report;

/// What one measure does in one round.
type Measure = fn(&mut Bench, &mut Report);

/// No round begins after this: on a slow machine a run has fewer.
const LONGEST: Duration = Duration::from_secs(720);

const MEASURES: &[(&str, Measure)] = &[
    ("small", measures::small::run),
    ("handshake", measures::handshake::run),
    ("latency", measures::latency::run),
    ("events", measures::events::run),
    ("streams", measures::streams::run),
    ("bodies", measures::bodies::run),
    ("idle", measures::idle::run),
    ("hosts", measures::hosts::run),
    ("budget", measures::budget::run),
    ("spans", measures::spans::run),
    ("peers", measures::peers::run),
];

/// Measures that are taken only when they are asked for.
const ASKED: &[(&str, Measure)] = &[("instructions", measures::instructions::run)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, certificate, key, rest @ ..] = args.as_slice()
        && role == "origin"
    {
        return origin::run(certificate, key, rest);
    }
    // `cargo test --benches` starts this without it.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let number = |name: &str, default: f64| {
        let prefix = format!("--{name}=");
        let given = args
            .iter()
            .find_map(|arg| arg.strip_prefix(&prefix)?.parse().ok());
        given.unwrap_or(default)
    };
    let rounds = number("rounds", 5.0) as usize;
    let scale = number("scale", 1.0);
    let chosen: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let is_chosen = |name: &str| chosen.iter().any(|c| *c == name);
    let all = MEASURES
        .iter()
        .filter(|(name, _)| chosen.is_empty() || is_chosen(name));
    let asked = ASKED.iter().filter(|(name, _)| is_chosen(name));
    let measures: Vec<_> = all.chain(asked).collect();

    let started = Instant::now();
    let mut bench = Bench::start(scale);
    let mut report = Report::new();
    bench.note_start(&mut report);
    let mut done = 0;
    while done < rounds && started.elapsed() < LONGEST {
        done += 1;
        for (name, measure) in &measures {
            let begun = Instant::now();
            measure(&mut bench, &mut report);
            eprintln!(
                "round {done}/{rounds}: {name} ({:.1} s)",
                begun.elapsed().as_secs_f64()
            );
        }
    }
    bench.note_peak(&mut report);
    report.print(done, started.elapsed());
}
