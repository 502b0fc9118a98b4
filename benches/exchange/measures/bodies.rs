//! Long bodies, one at a time: how fast they pass, and what a gigabyte costs.

use std::time::Instant;

use http::Method;
use http_body_util::Empty;

use crate::client::{Connection, length};
use crate::fixture::{Bench, HOST, Measured};
use crate::origin::Filler;
use crate::report::Report;

const BYTES: u64 = 256 << 20;

#[derive(Clone, Copy)]
pub enum Direction {
    Upload,
    Download,
}

pub fn run(bench: &mut Bench, report: &mut Report) {
    for (direction, rate_row, cpu_row) in [
        (Direction::Upload, "upload.rate", "upload.cpu"),
        (Direction::Download, "download.rate", "download.cpu"),
    ] {
        for (subject, process) in bench.quiet() {
            let (cpu, rate) = pass(bench, (subject, process), direction, BYTES);
            report.add(rate_row, subject.column, rate);
            if process.is_some() {
                report.add(cpu_row, subject.column, cpu);
            }
        }
    }
}

/// Processor seconds per gigabyte, and megabytes a second, of so many bytes.
pub fn pass(
    bench: &Bench,
    (subject, process): Measured<'_>,
    direction: Direction,
    bytes: u64,
) -> (f64, f64) {
    let cpu = || process.map_or(0.0, |process| process.cpu());
    let (used, took) = bench.runtime.block_on(async {
        let mut connection = Connection::open(subject, HOST).await;
        let (before, begun) = (cpu(), Instant::now());
        transfer(&mut connection, direction, bytes).await;
        (cpu() - before, begun.elapsed().as_secs_f64())
    });
    (used * 1e9 / bytes as f64, bytes as f64 / 1e6 / took)
}

async fn transfer(connection: &mut Connection, direction: Direction, bytes: u64) {
    match direction {
        Direction::Upload => {
            let answer = connection
                .send(Method::POST, "/v1/upload", Filler::new(bytes))
                .await;
            let digits = bytes.to_string().len() as u64;
            assert_eq!(length(answer.into_body()).await, digits);
        }
        Direction::Download => {
            let path = format!("/v1/download/{bytes}");
            let answer = connection.send(Method::GET, &path, Empty::new()).await;
            assert_eq!(length(answer.into_body()).await, bytes);
        }
    }
}
