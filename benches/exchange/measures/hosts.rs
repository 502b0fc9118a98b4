//! A thousand hosts nobody has asked for: what the first connection and the first request cost over
//! the second.

use std::time::Instant;

use crate::client::{Connection, each, secure};
use crate::fixture::{Bench, LOCAL_HOSTS};
use crate::process::Process;
use crate::report::{Column, Report};
use crate::subject::Subject;
use crate::tollgate::Tollgate;

const AT_ONCE: usize = 4;

pub fn run(bench: &mut Bench, report: &mut Report) {
    let Tollgate { process, subject } = bench.fresh_tollgate();
    let hosts = bench.scaled(LOCAL_HOSTS).min(LOCAL_HOSTS);
    let mut compare = |step: Step, cpu_row, wall_row| {
        let first = visit(bench, &process, &subject, hosts, step);
        let second = visit(bench, &process, &subject, hosts, step);
        report.add(cpu_row, Column::Tollgate, first.cpu - second.cpu);
        report.add(wall_row, Column::Tollgate, first.wall - second.wall);
    };
    compare(Step::Tls, "hosts.leaf.cpu", "hosts.leaf.wall");
    compare(Step::Request, "hosts.first.cpu", "hosts.first.wall");
}

#[derive(Clone, Copy)]
enum Step {
    /// CONNECT and TLS: a leaf has to be minted.
    Tls,
    /// A request as well: the origin has to be reached.
    Request,
}

/// Milliseconds per host.
struct Cost {
    cpu: f64,
    wall: f64,
}

fn visit(bench: &Bench, process: &Process, subject: &Subject, hosts: usize, step: Step) -> Cost {
    let (before, begun) = (process.cpu(), Instant::now());
    bench.runtime.block_on(each(hosts, AT_ONCE, |index| {
        let subject = subject.clone();
        async move {
            let host = format!("h{index}.bench.example");
            match step {
                Step::Tls => drop(secure(&subject, &host).await),
                Step::Request => Connection::open(&subject, &host).await.small().await,
            }
        }
    }));
    let per_host = |seconds: f64| seconds * 1000.0 / hosts as f64;
    Cost {
        cpu: per_host(process.cpu() - before),
        wall: per_host(begun.elapsed().as_secs_f64()),
    }
}
