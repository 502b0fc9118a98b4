//! A new connection for every message: CONNECT and a full TLS handshake, or for nginx the handshake.

use std::time::Instant;

use crate::client::{Connection, each};
use crate::fixture::{Bench, HOST, Measured};
use crate::report::Report;

const CONNECTIONS: usize = 1500;
const AT_ONCE: usize = 4;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let count = bench.scaled(CONNECTIONS);
    for (subject, process) in bench.quiet() {
        let (cpu, rate) = connections(bench, (subject, process), count);
        report.add("handshake.rate", subject.column, rate);
        if process.is_some() {
            report.add("handshake.cpu", subject.column, cpu);
        }
    }
}

/// Processor seconds per thousand connections, and connections a second, of `count`.
pub fn connections(bench: &Bench, (subject, process): Measured<'_>, count: usize) -> (f64, f64) {
    let cpu = || process.map_or(0.0, |process| process.cpu());
    let (before, begun) = (cpu(), Instant::now());
    bench.runtime.block_on(each(count, AT_ONCE, |_| {
        let subject = subject.clone();
        async move { Connection::open(&subject, HOST).await.small().await }
    }));
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    ((cpu() - before) * 1000.0 / count as f64, rate)
}
