//! The same calls of a model without a budget and with budgets far from exhausted: what reading them,
//! reserving and settling costs, and whether the number of agents and budgets matters.

use std::time::Instant;

use http::Method;
use http_body_util::Full;
use tokio::task::JoinSet;

use crate::client::{Connection, length};
use crate::fixture::{Bench, HOST, Measured};
use crate::model::Wanted;
use crate::report::{Report, percentile};
use crate::subject::Subject;
use crate::tollgate::{CALLERS, caller};

const CONNECTIONS: usize = CALLERS;
/// The ways take turns this often in a round.
const TURNS: usize = 4;
const MESSAGES: usize = 6_400;
const STREAMS: usize = 64;
const LATENCIES: usize = 300;

pub fn run(bench: &mut Bench, report: &mut Report) {
    bench.start_budgeted(report);
    let ways = bench.by_budgets();
    for (wanted, count, row) in [
        (Wanted::Message, MESSAGES, "budget.message.cpu"),
        (Wanted::Events, STREAMS, "budget.events.cpu"),
    ] {
        let each = bench.scaled(count).div_ceil(CONNECTIONS);
        let mut used = [0.0; 3];
        bench.runtime.block_on(async {
            let mut open = Vec::new();
            for (subject, _) in ways {
                open.push(calls_on(connections(subject).await, wanted, 1).await);
            }
            for _ in 0..TURNS {
                for (way, open) in open.iter_mut().enumerate() {
                    let cpu = || ways[way].1.map_or(0.0, |process| process.cpu());
                    let before = cpu();
                    *open = calls_on(std::mem::take(open), wanted, each).await;
                    used[way] += cpu() - before;
                }
            }
        });
        let calls = (TURNS * each * CONNECTIONS) as f64;
        for ((subject, _), used) in ways.iter().zip(used) {
            report.add(row, subject.column, used * 1000.0 / calls);
        }
    }
    latency(&ways, report);
}

/// One call at a time on one connection.
fn latency(ways: &[Measured<'_>; 3], report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut times: [Vec<f64>; 3] = Default::default();
    runtime.block_on(async {
        let mut open = Vec::new();
        for (subject, _) in ways {
            let mut connection = Connection::open(&subject.agent(caller(0)), HOST).await;
            call(&mut connection, Wanted::Message).await;
            open.push(connection);
        }
        for _ in 0..TURNS {
            for (connection, times) in open.iter_mut().zip(&mut times) {
                for _ in 0..LATENCIES {
                    let begun = Instant::now();
                    call(connection, Wanted::Message).await;
                    times.push(begun.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
    });
    for ((subject, _), times) in ways.iter().zip(&times) {
        report.add("budget.p50", subject.column, percentile(times, 0.5));
        report.add("budget.p99", subject.column, percentile(times, 0.99));
    }
}

/// Each of another agent.
async fn connections(subject: &Subject) -> Vec<Connection> {
    let mut open = Vec::new();
    for index in 0..CONNECTIONS {
        open.push(Connection::open(&subject.agent(caller(index)), HOST).await);
    }
    open
}

async fn calls_on(open: Vec<Connection>, wanted: Wanted, each: usize) -> Vec<Connection> {
    let tasks = open.into_iter().map(|mut connection| async move {
        for _ in 0..each {
            call(&mut connection, wanted).await;
        }
        connection
    });
    tasks.collect::<JoinSet<_>>().join_all().await
}

/// Calls a model and reads its whole answer.
pub async fn call(connection: &mut Connection, wanted: Wanted) {
    let body = Full::new(wanted.call());
    let answer = connection.send(Method::POST, "/v1/messages", body).await;
    assert_eq!(length(answer.into_body()).await, wanted.answer_length());
}
