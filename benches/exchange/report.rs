//! Owns the figures of a run: collected by row and column, printed as one table and then round by round.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::process::said;

/// Whose figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    Direct,
    Nginx,
    Tollgate,
    /// Tollgate with a few budgets.
    Budgets,
    /// Tollgate with very many.
    ManyBudgets,
    /// Tollgate with a span of every exchange.
    Spans,
    /// The same, with none: what only reading trace fields costs.
    Unsampled,
    /// Tollgate with budgets, spans and an access log.
    Everything,
    /// Tollgate where it has nothing to put in and to look for.
    Passed,
    /// Other proxies that intercept.
    Hudsucker,
    Squid,
    Mitmproxy,
}

/// Rows that are compared in the same way.
struct Table {
    columns: &'static [(&'static str, Column)],
    /// Names of ratios, and whose figure is divided by whose.
    ratios: &'static [(&'static str, Column, Column)],
    rows: &'static [Row],
}

const TABLES: &[Table] = &[
    Table {
        columns: &[
            ("direct", Column::Direct),
            ("nginx", Column::Nginx),
            ("tollgate", Column::Tollgate),
        ],
        ratios: &[("ratio", Column::Tollgate, Column::Nginx)],
        rows: ROWS,
    },
    Table {
        columns: &[
            ("none", Column::Tollgate),
            ("few", Column::Budgets),
            ("many", Column::ManyBudgets),
        ],
        ratios: &[
            ("few", Column::Budgets, Column::Tollgate),
            ("many", Column::ManyBudgets, Column::Budgets),
        ],
        rows: BUDGET_ROWS,
    },
    Table {
        columns: &[
            ("off", Column::Tollgate),
            ("none", Column::Unsampled),
            ("all", Column::Spans),
        ],
        ratios: &[
            ("none", Column::Unsampled, Column::Tollgate),
            ("all", Column::Spans, Column::Tollgate),
        ],
        rows: SPAN_ROWS,
    },
    Table {
        columns: &[
            ("plain", Column::Tollgate),
            ("spans", Column::Spans),
            ("budgets", Column::Budgets),
            ("all", Column::Everything),
        ],
        ratios: &[
            ("spans", Column::Spans, Column::Tollgate),
            ("budgets", Column::Budgets, Column::Tollgate),
            ("all", Column::Everything, Column::Tollgate),
        ],
        rows: INSTRUCTION_ROWS,
    },
    Table {
        columns: &[
            ("direct", Column::Direct),
            ("passed", Column::Passed),
            ("searched", Column::Tollgate),
        ],
        ratios: &[("ratio", Column::Tollgate, Column::Passed)],
        rows: STREAM_ROWS,
    },
    Table {
        columns: &[
            ("tollgate", Column::Tollgate),
            ("hudsucker", Column::Hudsucker),
            ("squid", Column::Squid),
            ("mitmproxy", Column::Mitmproxy),
            ("nginx", Column::Nginx),
        ],
        ratios: &[("/huds", Column::Tollgate, Column::Hudsucker)],
        rows: PEER_ROWS,
    },
];

struct Row {
    key: &'static str,
    title: &'static str,
    digits: usize,
    aim: &'static str,
}

const fn row(key: &'static str, title: &'static str, digits: usize, aim: &'static str) -> Row {
    Row {
        key,
        title,
        digits,
        aim,
    }
}

const ROWS: &[Row] = &[
    row(
        "small.cpu",
        "small POST, 16 kept connections: CPU s per 1,000",
        4,
        "ratio <= 1.2",
    ),
    row("small.rate", "  requests/s, all on the same cores", 0, ""),
    row(
        "small.log.cpu",
        "  with an access log: CPU s per 1,000",
        4,
        "ratio <= 1.2",
    ),
    row("small.log.rate", "  with an access log: requests/s", 0, ""),
    row(
        "small.http2.cpu",
        "  origin speaks HTTP/2 (nginx: 1.1): CPU s per 1,000",
        4,
        "",
    ),
    row(
        "handshake.cpu",
        "new connection per POST: CPU s per 1,000",
        3,
        "",
    ),
    row("handshake.rate", "  connections/s", 0, ""),
    row("latency.p50", "one connection: p50 us", 0, ""),
    row("latency.p99", "  p99 us", 0, ""),
    row("added.p50", "  added p50 us", 0, "< 60"),
    row("added.p99", "  added p99 us", 0, ""),
    row(
        "events.p50",
        "1,000 SSE streams: delay per event, p50 us",
        0,
        "",
    ),
    row("events.p99", "  p99 us", 0, ""),
    row("events.lost", "  events lost", 0, "0"),
    row("events.cpu", "  CPU s per 1,000 events", 4, ""),
    row("upload.rate", "upload 256 MiB: MB/s", 0, ""),
    row("upload.cpu", "  CPU s per GB", 2, ""),
    row("download.rate", "download 256 MiB: MB/s", 0, ""),
    row("download.cpu", "  CPU s per GB", 2, ""),
    row("idle", "idle connection: KiB each", 1, ""),
    row(
        "hosts.leaf.cpu",
        "first TLS to each of 1,000 hosts, over a second: CPU ms",
        3,
        "< 0.5",
    ),
    row("hosts.leaf.wall", "  wall ms", 3, ""),
    row(
        "hosts.first.cpu",
        "first request to each, over a second: CPU ms",
        3,
        "",
    ),
    row("hosts.first.wall", "  wall ms", 3, ""),
    row("start", "resident at start: MiB", 1, "<= 12"),
    row("peak", "resident at most: MiB", 1, ""),
];

/// Without a budget, with three for each of the 16 agents who call, and for each of 10,000 agents.
const BUDGET_ROWS: &[Row] = &[
    row(
        "budget.message.cpu",
        "budgets: JSON call of a model: CPU s per 1,000",
        4,
        "ratios <= 1.1",
    ),
    row(
        "budget.events.cpu",
        "  100 kB prompt, 300 SSE events: CPU s per 1,000",
        3,
        "ratios <= 1.1",
    ),
    row("budget.p50", "  one connection, JSON: p50 us", 0, ""),
    row("budget.p99", "  p99 us", 0, ""),
    row("budget.start", "  start until it listens: ms", 0, ""),
    row("budget.memory", "  resident then: MiB", 1, ""),
];

/// Without spans, with a sampler that takes none, and with one that takes all.
const SPAN_ROWS: &[Row] = &[
    row(
        "spans.small.cpu",
        "spans: small POST, 16 kept connections: CPU s per 1,000",
        4,
        "all <= 1.05",
    ),
    row(
        "spans.model.cpu",
        "  JSON call of a model, its usage read: CPU s per 1,000",
        4,
        "",
    ),
    row(
        "spans.events.cpu",
        "  100 kB prompt, 300 SSE events: CPU s per 1,000",
        4,
        "",
    ),
];

/// Without more, with spans, with budgets, and with budgets, spans and an access log.
const INSTRUCTION_ROWS: &[Row] = &[
    row(
        "instructions.small",
        "instructions of the process: small POST",
        0,
        "",
    ),
    row("instructions.message", "  JSON call of a model", 0, ""),
    row(
        "instructions.events",
        "  100 kB prompt, 300 SSE events",
        0,
        "",
    ),
];

/// Without a proxy, passed on by one, and searched for a secret.
const STREAM_ROWS: &[Row] = &[
    row(
        "streams.p50",
        "9,900 SSE streams: delay per event, p50 us",
        0,
        "",
    ),
    row("streams.p99", "  p99 us", 0, "2 ms over passed"),
    row("streams.lost", "  events lost", 0, "0"),
    row("streams.cpu", "  CPU s per 1,000 events", 4, ""),
];

/// Other proxies that swap the same header, and nginx; the ratio is tollgate's figure to hudsucker's.
const PEER_ROWS: &[Row] = &[
    row(
        "peers.small.cpu",
        "peers: small POST, 16 connections: CPU s per 1,000",
        4,
        "",
    ),
    row(
        "peers.small.rate",
        "  requests/s, all on the same cores",
        0,
        "",
    ),
    row(
        "peers.handshake.cpu",
        "  new connection per POST: CPU s per 1,000",
        3,
        "/huds <= 1",
    ),
    row("peers.handshake.rate", "  connections/s", 0, ""),
    row("peers.p50", "  one connection: p50 us", 0, ""),
    row("peers.p99", "  p99 us", 0, ""),
    row("peers.added", "  added p50 us", 0, ""),
    row("peers.download.rate", "  download 256 MiB: MB/s", 0, ""),
    row("peers.download.cpu", "  CPU s per GB", 2, "/huds <= 1"),
    row("peers.idle", "  idle connection: KiB each", 1, ""),
];

/// Figures as they come.
pub struct Report {
    figures: BTreeMap<(&'static str, Column), Vec<f64>>,
    /// Once each.
    notes: Vec<String>,
    load: String,
}

impl Report {
    pub fn new() -> Self {
        Self {
            figures: BTreeMap::new(),
            notes: Vec::new(),
            load: load(),
        }
    }

    /// Adds one round's figure.
    pub fn add(&mut self, row: &'static str, column: Column, figure: f64) {
        let mut rows = TABLES.iter().flat_map(|table| table.rows);
        assert!(rows.any(|known| known.key == row), "no row {row}");
        self.figures.entry((row, column)).or_default().push(figure);
    }

    /// Adds a line to what is printed, unless it stands there.
    pub fn note(&mut self, line: String) {
        if !self.notes.contains(&line) {
            self.notes.push(line);
        }
    }

    /// Prints what the machine is, the tables, and what each round said.
    pub fn print(&self, rounds: usize, took: Duration) {
        println!(
            "tollgate {}, {}",
            env!("CARGO_PKG_VERSION"),
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC")
        );
        println!("{}", machine());
        println!(
            "load average {} at the start, {} at the end",
            self.load,
            load()
        );
        println!(
            "medians of {rounds} interleaved rounds, {} s in all; client, origin and proxy share the cores\n",
            took.as_secs()
        );
        for table in TABLES {
            self.print_table(table);
        }
        for note in &self.notes {
            println!("{note}");
        }
        println!("round by round:");
        for ((row, column), figures) in &self.figures {
            let figures: Vec<String> = figures
                .iter()
                .map(|figure| format!("{figure:.5}"))
                .collect();
            println!(
                "{row:<20} {column:<9} {}",
                figures.join(" "),
                column = format!("{column:?}")
            );
        }
    }

    /// The rows that have figures.
    fn print_table(&self, table: &Table) {
        let measured = |row: &&Row| self.of(row, Column::Tollgate).is_some();
        let mut rows = table.rows.iter().filter(measured).peekable();
        if rows.peek().is_none() {
            return;
        }
        let names = table.columns.iter().map(|(name, _)| *name);
        let ratios = table.ratios.iter().map(|(name, ..)| *name);
        let heads: String = names
            .map(|name| format!(" {name:>9} |"))
            .chain(ratios.map(|name| format!(" {name:>5} |")))
            .collect();
        let rule = |head: char| if head == '|' { '|' } else { '-' };
        println!("| {:<56} |{heads} {:<13} |", "measure", "aim");
        println!(
            "|{:-<58}|{}{:-<15}|",
            "",
            heads
                .chars()
                .map(rule)
                .collect::<String>()
                .replace("-|", ":|"),
            ""
        );
        for row in rows {
            let figures = table.columns.iter().map(|(_, column)| {
                self.of(row, *column)
                    .map_or(String::new(), |f| format!("{:.*}", row.digits, median(f)))
            });
            let ratios = table.ratios.iter().map(|(_, over, under)| {
                self.ratio(row, *over, *under)
                    .map_or(String::new(), |ratio| format!("{ratio:.2}"))
            });
            let cells: String = figures
                .map(|cell| format!(" {cell:>9} |"))
                .chain(ratios.map(|cell| format!(" {cell:>5} |")))
                .collect();
            println!("| {:<56} |{cells} {:<13} |", row.title, row.aim);
        }
        println!();
    }

    fn of(&self, row: &Row, column: Column) -> Option<&[f64]> {
        self.figures.get(&(row.key, column)).map(Vec::as_slice)
    }

    /// The median of the rounds' own ratios.
    fn ratio(&self, row: &Row, over: Column, under: Column) -> Option<f64> {
        let (over, under) = (self.of(row, over)?, self.of(row, under)?);
        let ratios: Vec<f64> = over.iter().zip(under).map(|(o, u)| o / u).collect();
        Some(median(&ratios)).filter(|ratio| ratio.is_finite())
    }
}

/// The middle one.
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 0.5)
}

/// The figure that a share of all figures does not exceed.
pub fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':'))
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    format!(
        "{} x {}, {}, Linux {}; {}; {}",
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        after(&read("/proc/cpuinfo"), "model name"),
        after(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
        said("nginx".as_ref(), "-v"),
        said("rustc".as_ref(), "--version"),
    )
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}
