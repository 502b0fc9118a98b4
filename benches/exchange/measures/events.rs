//! A thousand streams of events at once: how late each event is, and whether one is missing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;

use crate::client::{Connection, each};
use crate::fixture::{Bench, HOST};
use crate::origin::now;
use crate::report::{Report, percentile};
use crate::subject::Subject;

const STREAMS: usize = 1000;
const EVENTS: usize = 16;
const INTERVAL_MS: usize = 250;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let shape = Shape {
        streams: bench.scaled(STREAMS),
        events: EVENTS,
        interval_ms: INTERVAL_MS,
        ramp: 0,
    };
    for (subject, process) in bench.quiet() {
        let before = process.map(|process| process.cpu());
        let Came { delays, events } = streams(bench, subject, HOST, shape);
        report.add("events.p50", subject.column, percentile(&delays, 0.5));
        report.add("events.p99", subject.column, percentile(&delays, 0.99));
        let lost = shape.count() - events;
        report.add("events.lost", subject.column, lost as f64);
        if let (Some(process), Some(before)) = (process, before) {
            let cpu = (process.cpu() - before) * 1000.0 / shape.count() as f64;
            report.add("events.cpu", subject.column, cpu);
        }
    }
}

/// How many streams there are at once, and what comes on each.
#[derive(Clone, Copy)]
pub struct Shape {
    pub streams: usize,
    pub events: usize,
    pub interval_ms: usize,
    /// Of each stream, so many events come while others still connect, and say nothing of the steady state.
    pub ramp: usize,
}

/// What came of the streams.
#[derive(Default)]
pub struct Came {
    /// The delay of each event after the ramp, in microseconds.
    pub delays: Vec<f64>,
    /// All events.
    pub events: usize,
}

impl Shape {
    /// All events.
    pub fn count(&self) -> usize {
        self.streams * self.events
    }
}

/// Opens the connections, then all streams within the time between two events of one.
pub fn streams(bench: &Bench, subject: &Subject, host: &'static str, shape: Shape) -> Came {
    let Shape {
        streams,
        events,
        interval_ms,
        ramp,
    } = shape;
    let came = Arc::new(Mutex::new(Came::default()));
    let open = Arc::new(tokio::sync::Mutex::new(Vec::with_capacity(streams)));
    bench.runtime.block_on(each(streams, 8, |_| {
        let (subject, open) = (subject.clone(), open.clone());
        async move {
            let connection = Connection::open(&subject, host).await;
            open.lock().await.push(connection);
        }
    }));
    let connections = std::mem::take(&mut *open.blocking_lock());
    bench.runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (index, mut connection) in connections.into_iter().enumerate() {
            let came = came.clone();
            // Models do not speak in unison.
            let phase = Duration::from_millis((interval_ms * index / streams) as u64);
            tasks.spawn(async move {
                tokio::time::sleep(phase).await;
                let path = format!("/v1/events/{events}/{interval_ms}");
                let answer = connection.send(Method::GET, &path, Empty::new()).await;
                let own = listen(answer.into_body(), events).await;
                let mut came = came.lock().unwrap();
                came.events += own.len();
                came.delays.extend(own.iter().skip(ramp));
            });
        }
        tasks.join_all().await;
    });
    std::mem::take(&mut *came.lock().unwrap())
}

/// The delay of each event in microseconds.
async fn listen(mut body: Incoming, events: usize) -> Vec<f64> {
    let mut delays = Vec::with_capacity(events);
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.unwrap().into_data() else {
            continue;
        };
        let now = now();
        text.push_str(std::str::from_utf8(&data).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let sent: u64 = event.split("data: ").nth(1).unwrap().parse().unwrap();
            delays.push(now.saturating_sub(sent) as f64);
            text = rest.to_owned();
        }
    }
    delays
}
