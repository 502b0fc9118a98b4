//! A thousand connections that have been used once and wait: what each keeps in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::client::{Connection, each};
use crate::fixture::{Bench, HOST};
use crate::process::Process;
use crate::report::Report;
use crate::subject::Subject;

const CONNECTIONS: usize = 1000;
const AT_ONCE: usize = 8;

/// In fresh processes: one that has been busy has room left that hides the growth.
pub fn run(bench: &mut Bench, report: &mut Report) {
    let (nginx, tollgate) = (bench.fresh_nginx(), bench.fresh_tollgate());
    for (subject, process) in [
        (&nginx.quiet, &nginx.process),
        (&tollgate.subject, &tollgate.process),
    ] {
        let each = kibibytes(bench, subject, process, CONNECTIONS);
        report.add("idle", subject.column, each);
    }
}

/// What a fresh process has more with each of `count` connections.
pub fn kibibytes(bench: &Bench, subject: &Subject, process: &Process, count: usize) -> f64 {
    let warm = open(bench, subject, 50);
    drop(warm);
    settle();
    let before = memory(process);
    let idle = open(bench, subject, count);
    settle();
    let each = (memory(process) - before) / count as f64;
    drop(idle);
    each
}

fn memory(process: &Process) -> f64 {
    process.memory("VmRSS")
}

fn open(bench: &Bench, subject: &Subject, count: usize) -> Vec<Connection> {
    let open = Arc::new(Mutex::new(Vec::with_capacity(count)));
    bench.runtime.block_on(each(count, AT_ONCE, |_| {
        let (subject, open) = (subject.clone(), open.clone());
        async move {
            let mut connection = Connection::open(&subject, HOST).await;
            connection.small().await;
            open.lock().await.push(connection);
        }
    }));
    std::mem::take(&mut *open.blocking_lock())
}

/// Closed connections are noticed, and answers are written. The clients' own tasks go on meanwhile.
fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}
