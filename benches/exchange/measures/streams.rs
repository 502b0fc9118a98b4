//! Nearly ten thousand streams of events at once, from an origin without a proxy, through one that has no secret to
//! look for, and through one that searches every event: how late each event is, and whether one is missing.

use super::events::{Came, Shape, streams};
use crate::fixture::{Bench, HOST, PASSED_HOST};
use crate::origin::SECRET;
use crate::report::{Column, Report, percentile};
use crate::subject::Subject;

/// Two descriptors each, of the twenty thousand that a process may have where this was first run.
const STREAMS: usize = 9_900;
const EVENTS: usize = 8;
/// Nearly ten thousand handshakes with the origin take both cores for several seconds.
const RAMP: usize = 4;
/// Origin, proxy and clients have two cores between them: five thousand events a second.
const INTERVAL_MS: usize = 2_000;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let shape = Shape {
        streams: bench.scaled(STREAMS),
        events: EVENTS,
        interval_ms: INTERVAL_MS,
        ramp: RAMP,
    };
    for (column, host) in [
        (Column::Direct, HOST),
        (Column::Passed, PASSED_HOST),
        (Column::Tollgate, HOST),
    ] {
        // A fresh one each time: the connections to the origin that the one before keeps are descriptors, too.
        let tollgate = (column != Column::Direct).then(|| bench.fresh_tollgate());
        let subject = tollgate.as_ref().map_or(&bench.direct, |t| &t.subject);
        let subject = match column {
            Column::Passed => Subject {
                key: SECRET,
                ..subject.clone()
            },
            _ => subject.clone(),
        };
        let cpu = || tollgate.as_ref().map_or(0.0, |t| t.process.cpu());
        let before = cpu();
        let Came { delays, events } = streams(bench, &subject, host, shape);
        report.add("streams.p50", column, percentile(&delays, 0.5));
        report.add("streams.p99", column, percentile(&delays, 0.99));
        let lost = shape.count() - events;
        report.add("streams.lost", column, lost as f64);
        if column != Column::Direct {
            let used = (cpu() - before) * 1000.0 / shape.count() as f64;
            report.add("streams.cpu", column, used);
        }
    }
}
