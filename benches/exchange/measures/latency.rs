//! One message at a time on one connection: what a proxy adds to each.

use std::time::Instant;

use crate::client::Connection;
use crate::fixture::{Bench, HOST};
use crate::report::{Column, Report, percentile};
use crate::subject::Subject;

const BLOCKS: usize = 12;
const BLOCK: usize = 300;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let ways = bench.quiet().map(|(subject, _)| (subject, BLOCK));
    let times = in_turns(&ways, bench.scaled(BLOCKS));
    for (name, added, share) in [
        ("latency.p50", "added.p50", 0.5),
        ("latency.p99", "added.p99", 0.99),
    ] {
        let [direct, nginx, tollgate] = [0, 1, 2].map(|way| percentile(&times[way], share));
        report.add(name, Column::Direct, direct);
        report.add(name, Column::Nginx, nginx);
        report.add(name, Column::Tollgate, tollgate);
        report.add(added, Column::Nginx, nginx - direct);
        report.add(added, Column::Tollgate, tollgate - direct);
    }
}

/// What each message takes on each way, in microseconds. The ways take turns in short blocks, of as many
/// messages as stand beside them, so that what else the machine does falls on all of them.
pub fn in_turns(ways: &[(&Subject, usize)], blocks: usize) -> Vec<Vec<f64>> {
    // One thread: a message that changes threads would measure the scheduler.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut times = vec![Vec::new(); ways.len()];
    runtime.block_on(async {
        let mut connections = Vec::new();
        for (subject, _) in ways {
            connections.push(Connection::open(subject, HOST).await);
        }
        for block in 0..=blocks {
            let open = connections.iter_mut().zip(ways).zip(&mut times);
            for ((connection, (_, messages)), times) in open {
                for _ in 0..*messages {
                    let begun = Instant::now();
                    connection.small().await;
                    // The first block warms up.
                    if block > 0 {
                        times.push(begun.elapsed().as_secs_f64() * 1e6);
                    }
                }
            }
        }
    });
    times
}
