//! Measures the ledger: reserve and settle of one call under an ordinary load, as many as it can take,
//! and the same in memory alone.
//!
//! `cargo bench --bench ledger [-- SECONDS [DIRECTORY]]`. The file lies in the directory, so that it can be
//! put on the disk in question; without one, where temporary files lie.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark that fails should stop"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tollgate::budget::book::Book;
use tollgate::budget::ledger::{Ask, Ending, HoldId, Ledger, Patience, Settlement};
use tollgate::budget::limit::{
    Enforcement, GroupBy, Labels, Limit, Period, Selector, Unit, WindowKind,
};
use tollgate::budget::sqlite::SqliteLedger;
use tollgate::types::agent::Agent;
use tollgate::types::charge::{Charge, Need};
use tollgate::types::money::NanoUsd;
use tollgate::types::usage::{TokenClass, Usage};

const CLIENTS: u64 = 64;

/// Calls in a second, of all clients together.
const LOAD: u64 = 300;

/// What one call reserves, and what it costs.
const RESERVED: u64 = 80_000_000;
const COST: u64 = 40_000_000;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"));
    let seconds = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    let parent = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir_in(parent).unwrap();
    let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).unwrap();
    let pause = Some(Duration::from_secs(CLIENTS) / u32::try_from(LOAD).unwrap());
    // The first call of each agent waits for the disk to vouch for its limits.
    runtime.block_on(load(&ledger, Duration::from_secs(1), pause, "w"));
    let mut ordinary = runtime.block_on(load(&ledger, seconds, pause, "o"));
    report(
        &format!("{LOAD} calls/s, {CLIENTS} clients"),
        &mut ordinary,
        seconds,
    );
    let mut busy = runtime.block_on(load(&ledger, seconds, None, "b"));
    report(
        &format!("as many as it takes, {CLIENTS} clients"),
        &mut busy,
        seconds,
    );
    runtime.block_on(ledger.close()).unwrap();
    let mut memory = in_memory();
    report("in memory, one thread", &mut memory, Duration::ZERO);
    let ratio = at(&ordinary, 50).as_secs_f64() / at(&memory, 50).as_secs_f64();
    println!("the median on disk is {ratio:.0} times that in memory");
}

/// Clients that make calls one after the other, with a pause after each or without.
async fn load(
    ledger: &Arc<SqliteLedger>,
    seconds: Duration,
    pause: Option<Duration>,
    run: &'static str,
) -> Vec<Duration> {
    let limits = limits();
    let end = Instant::now() + seconds;
    let clients = (0..CLIENTS).map(|client| {
        let (ledger, limits) = (ledger.clone(), limits.clone());
        tokio::spawn(async move {
            let mut taken = Vec::new();
            if let Some(pause) = pause {
                tokio::time::sleep(pause * u32::try_from(client).unwrap() / 64).await;
            }
            let mut number = 0;
            while Instant::now() < end {
                number += 1;
                let (ask, settlement) = call(client, format!("{run}-{client}-{number}"), &limits);
                let began = Instant::now();
                ledger.reserve(ask).await.unwrap();
                ledger.settle(settlement).await.unwrap();
                taken.push(began.elapsed());
                if let Some(pause) = pause {
                    tokio::time::sleep_until((began + pause).into()).await;
                }
            }
            taken
        })
    });
    let clients = futures_util::future::join_all(clients).await;
    clients.into_iter().flat_map(Result::unwrap).collect()
}

fn in_memory() -> Vec<Duration> {
    let limits = limits();
    let mut book = Book::default();
    let mut taken = Vec::new();
    for number in 0..100_000 {
        let (ask, settlement) = call(number % CLIENTS, format!("m-{number}"), &limits);
        let began = Instant::now();
        for (limit, scope) in book.unknown(&ask.labels, &ask.limits) {
            book.adopt(&limit, &scope, &[], ask.at);
        }
        let places = book.places(&ask.labels, &ask.limits, ask.at);
        book.check(&ask.need, &places).unwrap();
        book.admit(&ask, ask.at, &places);
        book.settle(&settlement).unwrap();
        taken.push(began.elapsed());
        book.changes = Default::default();
        book.freed.clear();
    }
    taken
}

/// A day for each agent, a rolling hour for each, and a month for all together.
fn limits() -> Vec<Arc<Limit>> {
    let limit = |id: &str, window, group_by: &[GroupBy]| {
        Arc::new(Limit {
            budget: id.into(),
            id: id.into(),
            selector: Selector::default(),
            unit: Unit::Usd,
            max: 100_000 * NanoUsd::DOLLAR,
            window,
            group_by: group_by.into(),
            enforcement: Enforcement::Hard,
            carry_debt: false,
            alerts: Box::new([50, 80, 95, 100]),
            queue: Duration::from_secs(20),
            waiters: 64,
            exhausted_status: None,
        })
    };
    vec![
        limit(
            "day",
            WindowKind::Calendar(Period::Day, TimeZone::UTC),
            &[GroupBy::Agent],
        ),
        limit(
            "hour",
            WindowKind::Rolling(Duration::from_secs(3600)),
            &[GroupBy::Agent],
        ),
        limit(
            "month",
            WindowKind::Calendar(Period::Month, TimeZone::UTC),
            &[],
        ),
    ]
}

fn call(client: u64, request: String, limits: &[Arc<Limit>]) -> (Ask, Settlement) {
    let id = HoldId {
        request: request.into(),
        attempt: 1,
    };
    let ask = Ask {
        id: id.clone(),
        at: Timestamp::now(),
        labels: Labels {
            agent: Agent::parse(&format!("team/agent-{client}")).unwrap(),
            execution: None,
            host: "api.anthropic.com".into(),
            model: "claude-sonnet".into(),
        },
        limits: limits.to_vec(),
        need: Need {
            cost: NanoUsd(RESERVED),
            input: 20_000,
            output: 4096,
        },
        patience: Patience::Queue,
        unwritten: NanoUsd(0),
    };
    let mut usage = Usage::default();
    usage[TokenClass::Input] = 19_000;
    usage[TokenClass::Output] = 800;
    let charge = Charge {
        model: "claude-sonnet".into(),
        usage,
        fees: Vec::new(),
        cost: NanoUsd(COST),
    };
    let settlement = Settlement {
        id,
        charges: vec![charge],
        estimated: false,
        ending: Ending::Complete,
        prices: [7; 32],
        credential: Some("anthropic".into()),
    };
    (ask, settlement)
}

fn report(name: &str, taken: &mut [Duration], seconds: Duration) {
    taken.sort_unstable();
    let micros = |percent| at(taken, percent).as_micros();
    let (median, most) = (micros(50), micros(99));
    let rate = taken.len() as f64 / seconds.as_secs_f64();
    match seconds.is_zero() {
        true => println!("{name}: p50 {median} us, p99 {most} us"),
        false => println!("{name}: p50 {median} us, p99 {most} us, {rate:.0} calls/s"),
    }
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
