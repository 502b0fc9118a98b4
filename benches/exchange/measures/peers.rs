//! Other proxies that intercept and swap the same header, and nginx, in turns with tollgate: what a
//! request, a connection, a gigabyte and waiting cost each of them. Each round is of fresh processes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{bodies, handshake, idle, latency, small};
use crate::fixture::{Bench, HOST, Measured};
use crate::process::Process;
use crate::report::{Column, Report, percentile};
use crate::subject::Subject;

const IDLE: usize = 1000;
const REQUESTS: usize = 16_000;
const CONNECTIONS: usize = 800;
const BYTES: u64 = 256 << 20;
const BLOCKS: usize = 6;
const BLOCK: usize = 300;

/// A proxy under measure.
struct Way<'p> {
    subject: &'p Subject,
    process: &'p Process,
    /// So many times fewer requests are a measure of it.
    slower: usize,
    /// What it may fail without an end to everything.
    peer: Option<&'p str>,
}

impl Way<'_> {
    fn measured(&self) -> Measured<'_> {
        (self.subject, Some(self.process))
    }
}

/// One measure of one proxy: figures by row.
type Taken = fn(&Bench, &Way<'_>) -> Vec<(&'static str, f64)>;

/// First what only a fresh process can show.
const TAKEN: &[(&str, Taken)] = &[
    ("idle connections", idle_memory),
    ("small messages", small_messages),
    ("new connections", new_connections),
    ("a long body", download),
];

pub fn run(bench: &mut Bench, report: &mut Report) {
    let (tollgate, nginx) = (bench.fresh_tollgate(), bench.fresh_nginx());
    let peers = bench.fresh_peers(report);
    let own = |subject, process| Way {
        subject,
        process,
        slower: 1,
        peer: None,
    };
    let mut ways = vec![own(&tollgate.subject, &tollgate.process)];
    ways.extend(peers.iter().map(|peer| Way {
        subject: &peer.subject,
        process: &peer.process,
        slower: peer.slower,
        peer: Some(&peer.title),
    }));
    ways.push(own(&nginx.quiet, &nginx.process));
    for (name, taken) in TAKEN {
        ways.retain(|way| take(bench, report, way, name, *taken));
    }
    latencies(bench, report, &ways);
}

/// Whether it went well. A peer that fails is left out from there on.
fn take(bench: &Bench, report: &mut Report, way: &Way<'_>, name: &str, taken: Taken) -> bool {
    let figures = match (
        catch_unwind(AssertUnwindSafe(|| taken(bench, way))),
        way.peer,
    ) {
        (Ok(figures), _) => figures,
        (Err(panic), None) => resume_unwind(panic),
        (Err(_), Some(peer)) => {
            report.note(format!("{peer} is left out: it failed at {name}"));
            return false;
        }
    };
    for (row, figure) in figures {
        report.add(row, way.subject.column, figure);
    }
    true
}

fn idle_memory(bench: &Bench, way: &Way<'_>) -> Vec<(&'static str, f64)> {
    // Fewer would be lost in what the process has at hand.
    let count = IDLE / way.slower.min(5);
    let each = idle::kibibytes(bench, way.subject, way.process, count);
    vec![("peers.idle", each)]
}

fn small_messages(bench: &Bench, way: &Way<'_>) -> Vec<(&'static str, f64)> {
    let count = bench.scaled(REQUESTS) / way.slower;
    let (cpu, rate) = small::messages(bench, way.measured(), HOST, count);
    vec![("peers.small.cpu", cpu), ("peers.small.rate", rate)]
}

fn new_connections(bench: &Bench, way: &Way<'_>) -> Vec<(&'static str, f64)> {
    let count = bench.scaled(CONNECTIONS) / way.slower.min(8);
    let (cpu, rate) = handshake::connections(bench, way.measured(), count);
    vec![("peers.handshake.cpu", cpu), ("peers.handshake.rate", rate)]
}

fn download(bench: &Bench, way: &Way<'_>) -> Vec<(&'static str, f64)> {
    let bytes = BYTES / way.slower.min(4) as u64;
    let way = way.measured();
    let (cpu, rate) = bodies::pass(bench, way, bodies::Direction::Download, bytes);
    vec![("peers.download.cpu", cpu), ("peers.download.rate", rate)]
}

fn latencies(bench: &Bench, report: &mut Report, ways: &[Way<'_>]) {
    let mut lengths = vec![(&bench.direct, BLOCK)];
    lengths.extend(ways.iter().map(|way| (way.subject, BLOCK / way.slower)));
    let times = latency::in_turns(&lengths, bench.scaled(BLOCKS));
    let [p50, p99] = [0.5, 0.99].map(|share| {
        let percentiles = times.iter().map(|times| percentile(times, share));
        percentiles.collect::<Vec<f64>>()
    });
    for (index, (subject, _)) in lengths.iter().enumerate() {
        if subject.column == Column::Direct {
            continue;
        }
        report.add("peers.p50", subject.column, p50[index]);
        report.add("peers.p99", subject.column, p99[index]);
        report.add("peers.added", subject.column, p50[index] - p50[0]);
    }
}
