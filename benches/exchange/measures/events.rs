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

const STREAMS: usize = 1000;
const EVENTS: usize = 16;
const INTERVAL_MS: usize = 250;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let streams = bench.scaled(STREAMS);
    for (subject, process) in bench.quiet() {
        let delays = Arc::new(Mutex::new(Vec::with_capacity(streams * EVENTS)));
        // Opening them is another measure's matter.
        let open = Arc::new(tokio::sync::Mutex::new(Vec::with_capacity(streams)));
        bench.runtime.block_on(each(streams, 8, |_| {
            let (subject, open) = (subject.clone(), open.clone());
            async move {
                let connection = Connection::open(&subject, HOST).await;
                open.lock().await.push(connection);
            }
        }));
        let before = process.map(|process| process.cpu());
        let connections = std::mem::take(&mut *open.blocking_lock());
        bench.runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (index, mut connection) in connections.into_iter().enumerate() {
                let delays = delays.clone();
                // Models do not speak in unison.
                let phase = Duration::from_millis((INTERVAL_MS * index / streams) as u64);
                tasks.spawn(async move {
                    tokio::time::sleep(phase).await;
                    let path = format!("/v1/events/{EVENTS}/{INTERVAL_MS}");
                    let answer = connection.send(Method::GET, &path, Empty::new()).await;
                    let own = listen(answer.into_body()).await;
                    delays.lock().unwrap().extend(own);
                });
            }
            tasks.join_all().await;
        });
        let delays = delays.lock().unwrap();
        report.add("events.p50", subject.column, percentile(&delays, 0.5));
        report.add("events.p99", subject.column, percentile(&delays, 0.99));
        report.add(
            "events.lost",
            subject.column,
            (streams * EVENTS - delays.len()) as f64,
        );
        if let (Some(process), Some(before)) = (process, before) {
            let cpu = (process.cpu() - before) * 1000.0 / (streams * EVENTS) as f64;
            report.add("events.cpu", subject.column, cpu);
        }
    }
}

/// The delay of each event in microseconds.
async fn listen(mut body: Incoming) -> Vec<f64> {
    let mut delays = Vec::with_capacity(EVENTS);
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
