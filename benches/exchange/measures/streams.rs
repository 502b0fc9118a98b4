//! Ten thousand streams of events at once, from an origin without a proxy, through one that has no secret to
//! look for, and through one that searches every event: how late each event is, and whether one is missing.

use super::events::{Shape, streams};
use crate::fixture::{Bench, HTTP2_HOST, PASSED_HOST};
use crate::origin::SECRET;
use crate::report::{Column, Report, percentile};
use crate::subject::Subject;

/// As many connections as agents; the origin takes them on a hundred of HTTP/2, or one proxy would need more
/// descriptors than most machines give a process.
const STREAMS: usize = 10_000;
const EVENTS: usize = 6;
/// Origin, proxy and clients have two cores between them: five thousand events a second.
const INTERVAL_MS: usize = 2_000;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let shape = Shape {
        streams: bench.scaled(STREAMS),
        events: EVENTS,
        interval_ms: INTERVAL_MS,
    };
    let passed = Subject {
        key: SECRET,
        ..bench.tollgate.subject.clone()
    };
    let ways = [
        (Column::Direct, &bench.direct, HTTP2_HOST),
        (Column::Passed, &passed, PASSED_HOST),
        (Column::Tollgate, &bench.tollgate.subject, HTTP2_HOST),
    ];
    for (column, subject, host) in ways {
        let cpu = || match column {
            Column::Direct => 0.0,
            _ => bench.tollgate.process.cpu(),
        };
        let before = cpu();
        let delays = streams(bench, subject, host, shape);
        report.add("streams.p50", column, percentile(&delays, 0.5));
        report.add("streams.p99", column, percentile(&delays, 0.99));
        let lost = shape.count() - delays.len();
        report.add("streams.lost", column, lost as f64);
        if column != Column::Direct {
            let used = (cpu() - before) * 1000.0 / shape.count() as f64;
            report.add("streams.cpu", column, used);
        }
    }
}
