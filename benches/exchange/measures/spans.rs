//! The same exchanges without spans, with a sampler that takes none, and with one that takes all: what writing
//! and sending them costs, and what reading an answer's usage for them does.

use http::Method;
use http_body_util::Full;
use tokio::task::JoinSet;

use super::budget::call;
use crate::client::{Connection, length};
use crate::fixture::{Bench, HOST};
use crate::model::Wanted;
use crate::report::Report;

const CONNECTIONS: usize = 16;
/// The ways take turns this often in a round.
const TURNS: usize = 4;
const EXCHANGES: usize = 8_000;
/// Calls that are answered by events take a third of a second each.
const STREAMS: usize = 256;
/// A host that speaks no model API.
const PLAIN_HOST: &str = "h0.bench.example";

/// What is asked.
#[derive(Clone, Copy)]
enum What {
    Small,
    Model(Wanted),
}

pub fn run(bench: &mut Bench, report: &mut Report) {
    bench.start_traced();
    let message = What::Model(Wanted::Message);
    let events = What::Model(Wanted::Events);
    for (what, host, count, row) in [
        (What::Small, PLAIN_HOST, EXCHANGES, "spans.small.cpu"),
        (message, HOST, EXCHANGES, "spans.model.cpu"),
        (events, HOST, STREAMS, "spans.events.cpu"),
    ] {
        let each = bench.scaled(count).div_ceil(CONNECTIONS);
        let ways = bench.by_spans();
        let mut used = [0.0; 3];
        bench.runtime.block_on(async {
            let mut open = Vec::new();
            for (subject, _) in ways {
                let mut connections = Vec::new();
                for _ in 0..CONNECTIONS {
                    connections.push(Connection::open(subject, host).await);
                }
                open.push(on(connections, what, each.min(20)).await);
            }
            for _ in 0..TURNS {
                for (way, open) in open.iter_mut().enumerate() {
                    let cpu = || ways[way].1.map_or(0.0, |process| process.cpu());
                    let before = cpu();
                    *open = on(std::mem::take(open), what, each).await;
                    // What waits is written within a second, and belongs to it.
                    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
                    used[way] += cpu() - before;
                }
            }
        });
        let exchanges = (TURNS * each * CONNECTIONS) as f64;
        for ((subject, _), used) in ways.iter().zip(used) {
            report.add(row, subject.column, used * 1000.0 / exchanges);
        }
    }
}

async fn on(open: Vec<Connection>, what: What, each: usize) -> Vec<Connection> {
    let tasks = open.into_iter().map(|mut connection| async move {
        for _ in 0..each {
            match what {
                What::Small => small(&mut connection).await,
                What::Model(wanted) => call(&mut connection, wanted).await,
            }
        }
        connection
    });
    tasks.collect::<JoinSet<_>>().join_all().await
}

async fn small(connection: &mut Connection) {
    let body = Full::new(bytes::Bytes::from_static(&[b'x'; 1024]));
    let answer = connection.send(Method::POST, "/v1/messages", body).await;
    length(answer.into_body()).await;
}
