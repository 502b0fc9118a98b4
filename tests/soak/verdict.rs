//! Owns what is asked of a run at its end, and how the answers are told.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::crowd::Crowd;
use super::footprint::Footprint;
use super::support::books::Books;
use super::support::provider::prices::cost;
use super::support::provider::truth::Used;
use super::world::{FAULTY, World};

/// An allocator keeps pages that were needed once, SQLite its page cache (2 MiB), leaves and records of
/// refusals up to their bounds: of what each request left behind, a few hundred bytes would be more than this.
const RESIDENT_KIB: usize = 12 * 1024;
/// Files that are being read just then: documents, metrics.
const FILES: usize = 4;
/// A blocking thread that has not ended yet.
const THREADS: usize = 2;

/// Reasons and endings of exchanges that agents asked for.
const ASKED_FOR: &[&str] = &[
    "agent_left",
    "ambiguous_request",
    "broken",
    "budget_exhausted",
    "canary",
    "denied_by_rule",
    "handshake_failed",
    "host_not_allowed",
    "not_tls",
    "port_not_allowed",
    "request_body",
];
/// Those of origins that were made to fail, and of no other.
const MADE_TO_FAIL: &[&str] = &[
    "origin_broke_off",
    "origin_error",
    "origin_silent",
    "response_timeout",
];

/// Answers, each with how it came about.
pub struct Verdict {
    lines: Vec<(bool, String)>,
    table: String,
}

impl Verdict {
    pub async fn of(world: &mut World, crowd: Crowd, (warm, end): (Footprint, Footprint)) -> Self {
        let tally = crowd.end().await;
        let mut verdict = Self {
            lines: Vec::new(),
            table: tally.table(),
        };
        verdict.of_footprints(warm, end);
        let what = format!("nothing failed but what was made to: {}", tally.summary());
        let whys = tally.unexpected.iter().map(|why| format!("\n      {why}"));
        verdict.add(tally.failures == 0, what + &whys.collect::<String>());
        verdict.of_books(world).await;
        verdict.of_metrics(world).await;
        world.stage.forget();
        let astray = world.stage.astray.load(Ordering::SeqCst);
        verdict.add(
            astray == 0,
            format!("{astray} requests reached an origin with a wrong credential"),
        );
        let spans = world.stage.collector.taken().len();
        verdict.add(spans > 0, format!("{spans} spans came"));
        let output = world.proxy.output();
        let panics = output.matches("panicked").count();
        verdict.add(panics == 0, format!("{panics} panics"));
        verdict.add(world.proxy.runs(), "it runs to the end".to_owned());
        world.proxy.terminate().await;
        world.proxy.ended().await;
        verdict.of_files(world);
        let verified = world.proxy.cli(&["audit", "verify"]).await;
        verdict.add(
            verified.code == Some(0),
            format!("the audit log verifies: {}", verified.stdout.trim()),
        );
        verdict
    }

    fn add(&mut self, holds: bool, what: String) {
        self.lines.push((holds, what));
    }

    fn of_footprints(&mut self, warm: Footprint, end: Footprint) {
        self.add(
            end.resident_kib <= warm.resident_kib + RESIDENT_KIB,
            format!(
                "resident memory: {} KiB warm, {} KiB at the end (at most {RESIDENT_KIB} more)",
                warm.resident_kib, end.resident_kib
            ),
        );
        let own = |footprint: Footprint| footprint.files.saturating_sub(footprint.kept);
        self.add(
            own(end) <= own(warm) + FILES,
            format!(
                "open files but kept connections: {} warm, {} at the end",
                own(warm),
                own(end)
            ),
        );
        self.add(
            end.threads <= warm.threads + THREADS,
            format!("threads: {} warm, {} at the end", warm.threads, end.threads),
        );
        self.add(
            end.agents + end.in_flight == 0,
            format!(
                "at rest: {} connections of agents, {} exchanges",
                end.agents, end.in_flight
            ),
        );
    }

    /// What the ledger has to the token is what was billed; what it had to guess is never less.
    async fn of_books(&mut self, world: &World) {
        let truth = &world.stage.provider.truth;
        truth.idle().await;
        let books = world
            .proxy
            .books_with("nothing under way", |books| books.reservations.is_empty())
            .await;
        let bills = truth.bills();
        let mut billed: BTreeMap<(Used, u64), i64> = BTreeMap::new();
        for used in bills.iter().flat_map(|bill| &bill.used) {
            let plain = Used {
                searches: 0,
                ..used.clone()
            };
            *billed.entry((plain, cost(used))).or_default() += 1;
        }
        let exact = books.exact();
        for row in &exact {
            *billed.entry((row.used(), row.cost())).or_default() -= 1;
        }
        let made_up = billed.values().filter(|left| **left < 0).count();
        self.add(
            made_up == 0,
            format!(
                "{} exact entries, {made_up} of which nobody billed",
                exact.len()
            ),
        );
        let (booked, total) = (books.total(), truth.total());
        let guessed = guesses(&books);
        self.add(
            booked >= total && booked <= total + guessed,
            format!(
                "books: {booked} nano-dollars booked, {total} billed in {} calls; {guessed} of it estimated, the bound for the difference",
                bills.len()
            ),
        );
    }

    async fn of_metrics(&mut self, world: &World) {
        let metric = async |series: &str| world.proxy.metric(series).await.unwrap_or_default();
        let good = metric("tollgate_policy_reloads_total{result=\"ok\"}").await;
        let bad = metric("tollgate_policy_reloads_total{result=\"error\"}").await;
        self.add(
            good > 0.0,
            format!(
                "{good} reloads and {bad} refused ones of {} asked for, {} rotations",
                world.reloads,
                world.rotations()
            ),
        );
        let underreserved = metric("tollgate_budget_underreserved_total").await;
        self.add(
            underreserved == 0.0,
            format!("{underreserved} calls were reserved too low"),
        );
    }

    /// No secret in anything that was written, and no reason or ending that nobody asked for.
    fn of_files(&mut self, world: &World) {
        let file = std::fs::File::open(world.proxy.file("access.log")).unwrap();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut endings: BTreeMap<String, usize> = BTreeMap::new();
        let (mut records, mut leaks, mut torn) = (0, 0, 0);
        let mut odd = Vec::new();
        for line in std::io::BufReader::new(file).lines() {
            let line = line.unwrap();
            records += 1;
            leaks += usize::from(line.contains("REAL"));
            let Ok(record) = serde_json::from_str::<Value>(&line) else {
                torn += 1;
                continue;
            };
            for (field, counts) in [("reason", &mut reasons), ("end", &mut endings)] {
                if let Some(word) = record[field].as_str() {
                    *counts.entry(word.to_owned()).or_default() += 1;
                    let authority = record["authority"].as_str().unwrap_or_default();
                    let host = authority.split(':').next().unwrap_or_default();
                    let may_fail = FAULTY.contains(&host) || host.starts_with("api.");
                    if !(ASKED_FOR.contains(&word) || may_fail && MADE_TO_FAIL.contains(&word)) {
                        odd.push(format!("\n      {line}"));
                    }
                }
            }
        }
        leaks += world.proxy.output().matches("REAL").count();
        let audit = std::fs::read_dir(world.proxy.file("state/audit"))
            .into_iter()
            .flatten();
        for file in audit.flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            leaks += text.matches("REAL").count();
        }
        for request in world.stage.collector.requests() {
            leaks += usize::from(request.body.windows(4).any(|four| four == b"REAL"));
        }
        self.add(
            leaks == 0,
            format!("{leaks} secrets in {records} access records, the audit log, spans and output"),
        );
        self.add(torn == 0, format!("{torn} torn lines in the access log"));
        let count = odd.len();
        odd.truncate(10);
        self.add(
            count == 0,
            format!(
                "{count} records of exchanges that failed and were not made to{}",
                odd.concat()
            ),
        );
        self.lines
            .push((true, format!("reasons in the log: {reasons:?}")));
        self.lines
            .push((true, format!("endings in the log: {endings:?}")));
    }

    pub fn failures(&self) -> usize {
        self.lines.iter().filter(|(holds, _)| !holds).count()
    }

    pub fn print(&self) {
        print!("{}", self.table);
        for (holds, what) in &self.lines {
            println!("{} {what}", if *holds { "ok  " } else { "FAIL" });
        }
        println!(
            "soak: {} of {} checks failed",
            self.failures(),
            self.lines.len()
        );
    }
}

/// Nano-dollars of entries that are estimates.
fn guesses(books: &Books) -> u64 {
    let rows = books.served().into_iter();
    rows.filter(|row| row.is_estimated())
        .map(|row| row.cost())
        .sum()
}
