//! How many instructions an exchange takes in the real process, counted by valgrind: figures that hardly
//! depend on the machine's mood, and show a regression of a few per cent. The kernel's are not among them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::client::Connection;
use crate::fixture::{Bench, HOST};
use crate::model::Wanted;
use crate::report::{Column, Report};
use crate::subject::Subject;
use crate::tollgate::{Budgets, Log, Setup, Spans};

use super::budget::call;

const WARM_UP: usize = 30;
const EXCHANGES: usize = 300;
const STREAMS: usize = 10;

/// What is asked.
#[derive(Clone, Copy)]
enum What {
    Small,
    Model(Wanted),
}

pub fn run(bench: &mut Bench, report: &mut Report) {
    let collector = bench.collector();
    let everything = Setup {
        log: Log::File,
        budgets: Budgets::Few,
        spans: Spans::All(collector),
    };
    let ways = [
        (Column::Tollgate, Setup::default().told_apart()),
        (
            Column::Spans,
            Setup {
                spans: Spans::All(collector),
                ..Setup::default().told_apart()
            },
        ),
        (Column::Budgets, Setup::default().with(Budgets::Few)),
        (Column::Everything, everything),
    ];
    for (column, setup) in ways {
        let (tollgate, dir) = bench.counted(setup);
        let subject = tollgate.subject.agent(0);
        let pid = tollgate.process.id();
        control(pid, &["-i", "on"]);
        for (what, count, row) in [
            (What::Small, EXCHANGES, "instructions.small"),
            (
                What::Model(Wanted::Message),
                EXCHANGES,
                "instructions.message",
            ),
            (What::Model(Wanted::Events), STREAMS, "instructions.events"),
        ] {
            if matches!(what, What::Small) && setup.budgets == Budgets::Few {
                continue; // A budget cannot count what calls no model.
            }
            let connection = bench.runtime.block_on(warm(&subject, what));
            control(pid, &["-z"]);
            bench.runtime.block_on(asked(connection, what, count));
            // What is written behind an exchange belongs to it.
            std::thread::sleep(Duration::from_millis(1500));
            control(pid, &["-d"]);
            report.add(row, column, dumped(&dir) / count as f64);
        }
    }
}

async fn warm(subject: &Subject, what: What) -> Connection {
    let connection = Connection::open(subject, HOST).await;
    let count = match what {
        What::Model(Wanted::Events) => 2,
        _ => WARM_UP,
    };
    asked(connection, what, count).await
}

async fn asked(mut connection: Connection, what: What, count: usize) -> Connection {
    for _ in 0..count {
        match what {
            What::Small => connection.small().await,
            What::Model(wanted) => call(&mut connection, wanted).await,
        }
    }
    connection
}

fn control(pid: u32, args: &[&str]) {
    let mut command = Command::new("callgrind_control");
    let output = command.args(args).arg(pid.to_string()).output();
    let output = output.expect("callgrind_control, of the package valgrind");
    assert!(output.status.success(), "{output:?}");
}

/// The instructions of the dump that was written last.
fn dumped(dir: &Path) -> f64 {
    let files = std::fs::read_dir(dir).unwrap();
    // `counts.1`, `counts.2`, and so on; `counts` itself is written at the end.
    let numbered = files.filter_map(|file| {
        let path = file.unwrap().path();
        let number: u32 = path.extension()?.to_str()?.parse().ok()?;
        Some((number, path))
    });
    let (_, last) = numbered.max().expect("a dump");
    let text = std::fs::read_to_string(last).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    total.expect("a sum").trim().parse().unwrap()
}
