//! Long bodies, one at a time: how fast they pass, and what a gigabyte costs.

use std::time::Instant;

use http::Method;
use http_body_util::Empty;

use crate::client::{Connection, length};
use crate::fixture::{Bench, HOST};
use crate::origin::Filler;
use crate::report::Report;

const BYTES: u64 = 256 << 20;

#[derive(Clone, Copy)]
enum Direction {
    Upload,
    Download,
}

pub fn run(bench: &mut Bench, report: &mut Report) {
    for (direction, rate_row, cpu_row) in [
        (Direction::Upload, "upload.rate", "upload.cpu"),
        (Direction::Download, "download.rate", "download.cpu"),
    ] {
        for (subject, process) in bench.quiet() {
            let cpu = || process.map_or(0.0, |process| process.cpu());
            let (used, took) = bench.runtime.block_on(async {
                let mut connection = Connection::open(subject, HOST).await;
                let (before, begun) = (cpu(), Instant::now());
                transfer(&mut connection, direction).await;
                (cpu() - before, begun.elapsed().as_secs_f64())
            });
            report.add(rate_row, subject.column, BYTES as f64 / 1e6 / took);
            if process.is_some() {
                report.add(cpu_row, subject.column, used * 1e9 / BYTES as f64);
            }
        }
    }
}

async fn transfer(connection: &mut Connection, direction: Direction) {
    match direction {
        Direction::Upload => {
            let answer = connection
                .send(Method::POST, "/v1/upload", Filler::new(BYTES))
                .await;
            let digits = BYTES.to_string().len() as u64;
            assert_eq!(length(answer.into_body()).await, digits);
        }
        Direction::Download => {
            let path = format!("/v1/download/{BYTES}");
            let answer = connection.send(Method::GET, &path, Empty::new()).await;
            assert_eq!(length(answer.into_body()).await, BYTES);
        }
    }
}
