//! Small messages over kept connections: what a request costs once everything is open.

use std::time::Instant;

use tokio::task::JoinSet;

use crate::client::Connection;
use crate::fixture::{Bench, HOST, HTTP2_HOST, Measured};
use crate::report::{Column, Report};

const CONNECTIONS: usize = 16;
const REQUESTS: usize = 32_000;
const WARM_UP: usize = 20;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let count = bench.scaled(REQUESTS);
    let [direct, nginx, tollgate] = bench.quiet();
    let (_, rate) = messages(bench, direct, HOST, count);
    report.add("small.rate", Column::Direct, rate);
    let (nginx_cpu, rate) = messages(bench, nginx, HOST, count);
    report.add("small.cpu", Column::Nginx, nginx_cpu);
    report.add("small.rate", Column::Nginx, rate);
    let (cpu, rate) = messages(bench, tollgate, HOST, count);
    report.add("small.cpu", Column::Tollgate, cpu);
    report.add("small.rate", Column::Tollgate, rate);
    for subject in bench.logging() {
        let (cpu, rate) = messages(bench, subject, HOST, count);
        report.add("small.log.cpu", subject.0.column, cpu);
        report.add("small.log.rate", subject.0.column, rate);
    }
    let (cpu, _) = messages(bench, tollgate, HTTP2_HOST, count);
    report.add("small.http2.cpu", Column::Nginx, nginx_cpu);
    report.add("small.http2.cpu", Column::Tollgate, cpu);
}

/// Processor seconds per thousand messages, and messages a second, of `count`.
pub fn messages(
    bench: &Bench,
    (subject, process): Measured<'_>,
    host: &'static str,
    count: usize,
) -> (f64, f64) {
    let each = count.div_ceil(CONNECTIONS);
    let cpu = || process.map_or(0.0, |process| process.cpu());
    bench.runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(subject, host).await);
        }
        let connections = messages_on(connections, WARM_UP).await;
        let (cpu_before, begun) = (cpu(), Instant::now());
        let connections = messages_on(connections, each).await;
        let (took, used) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
        let requests = (each * connections.len()) as f64;
        (used * 1000.0 / requests, requests / took)
    })
}

async fn messages_on(connections: Vec<Connection>, each: usize) -> Vec<Connection> {
    let tasks = connections.into_iter().map(|mut connection| async move {
        for _ in 0..each {
            connection.small().await;
        }
        connection
    });
    tasks.collect::<JoinSet<_>>().join_all().await
}
