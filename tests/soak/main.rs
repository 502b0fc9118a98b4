//! `make soak`: the real binary with everything switched on, mixed traffic, faults, reloads and rotations for
//! minutes on end. Exits with 0 only if nothing grew, nothing leaked, the books are right, and nothing failed
//! but what was made to fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::large_futures,
    dead_code,
    unused_imports,
    unused_macros,
    missing_docs,
    unreachable_pub
)]

mod acts;
mod chance;
mod crowd;
mod footprint;
mod verdict;
mod world;

#[path = "../it/support/mod.rs"]
#[macro_use]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use chance::Chance;
use crowd::Crowd;
use footprint::Footprint;
use verdict::Verdict;
use world::World;

/// Agents at a time.
const AGENTS: usize = 24;

fn main() -> ExitCode {
    let seconds = length();
    let seed = number("SOAK_SEED").unwrap_or_else(Chance::seed);
    println!("soak: {seconds} s with {AGENTS} agents; SOAK_SEED={seed} repeats the choices");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .unwrap();
    let verdict = runtime.block_on(soak(Duration::from_secs(seconds), seed));
    runtime.shutdown_background();
    verdict.print();
    match verdict.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// `SOAK_SECONDS`, or else `SOAK_MINUTES`, or else ten minutes.
fn length() -> u64 {
    let minutes = number("SOAK_MINUTES").unwrap_or(10);
    number("SOAK_SECONDS").unwrap_or(60 * minutes)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

/// Warms up for a fifth of the time, measures at rest, goes on, and measures at rest again.
async fn soak(length: Duration, seed: u64) -> Verdict {
    let mut world = World::begin().await;
    let mut chance = Chance::of(seed);
    let crowd = Crowd::gather(AGENTS, &mut chance, &world);
    world.disturb(&crowd, &mut chance, length / 5).await;
    crowd.rest().await;
    let warm = Footprint::at_rest(&world.proxy).await;
    println!("warm: {warm}");
    crowd.go_on();
    world.disturb(&crowd, &mut chance, length * 4 / 5).await;
    crowd.rest().await;
    let end = Footprint::at_rest(&world.proxy).await;
    println!("end:  {end}");
    Verdict::of(&mut world, crowd, (warm, end)).await
}
