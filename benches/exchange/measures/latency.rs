//! One message at a time on one connection: what a proxy adds to each.

use std::time::Instant;

use crate::client::Connection;
use crate::fixture::{Bench, HOST};
use crate::report::{Column, Report, percentile};

const BLOCKS: usize = 12;
const BLOCK: usize = 300;

/// The ways take turns in short blocks, so that what else the machine does falls on all of them.
pub fn run(bench: &mut Bench, report: &mut Report) {
    // One thread: a message that changes threads would measure the scheduler.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let subjects = bench.quiet().map(|(subject, _)| subject);
    let mut times: [Vec<f64>; 3] = Default::default();
    runtime.block_on(async {
        let mut connections = Vec::new();
        for subject in subjects {
            connections.push(Connection::open(subject, HOST).await);
        }
        for block in 0..=bench.scaled(BLOCKS) {
            for (connection, times) in connections.iter_mut().zip(&mut times) {
                for _ in 0..BLOCK {
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
    for (name, added, share) in [
        ("latency.p50", "added.p50", 0.5),
        ("latency.p99", "added.p99", 0.99),
    ] {
        let [direct, nginx, tollgate] = times.each_ref().map(|times| percentile(times, share));
        report.add(name, Column::Direct, direct);
        report.add(name, Column::Nginx, nginx);
        report.add(name, Column::Tollgate, tollgate);
        report.add(added, Column::Nginx, nginx - direct);
        report.add(added, Column::Tollgate, tollgate - direct);
    }
}
