//! Owns the reference page of what Tollgate tells: every metric, log field, span attribute and audit
//! field, from the tables and types that the code itself is made of.

use std::fmt::Write as _;

use super::access_log::Record;
use super::audit_event;
use super::families;
use super::family::Family;
use super::lanes::{MOST_AGENTS, MOST_HOSTS};
use super::semconv;
use super::vocabulary::{Item, Row};

/// The page, in Markdown.
pub fn page() -> String {
    let mut text = String::new();
    metrics(&mut text);
    for section in sections() {
        section.write(&mut text);
    }
    text
}

/// Names of all metrics, those of the process included.
pub fn metric_names() -> Vec<&'static str> {
    let own = families::ALL.iter().map(Family::name);
    own.chain(families::PROCESS.iter().map(|item| item.name))
        .collect()
}

/// A table of the page.
struct Section {
    title: &'static str,
    about: &'static str,
    rows: Vec<Row>,
}

/// Every table besides the metrics. What writes something of its own adds itself here.
fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Access log",
            about: "One JSON object a line, one line for each exchange or tunnel. Fields without a value are left out. Paths and queries are \
                redacted, and no field holds a header, a body, a prompt or an answer.",
            rows: Row::of_fields::<Record>(),
        },
        Section {
            title: "Spans",
            about: "One client span for each exchange or tunnel, over OTLP (http/protobuf). An attribute without a value is left out. URLs are \
                    redacted as in the access log; no attribute holds the value of a header, a body, a prompt or an answer.",
            rows: rows_of(semconv::ATTRIBUTES),
        },
        Section {
            title: "Resource of spans",
            about: "What all spans of a process are said to come from. `OTEL_RESOURCE_ATTRIBUTES` and `telemetry.otlp.resource` add others.",
            rows: rows_of(semconv::RESOURCE_ATTRIBUTES),
        },
        Section {
            title: "Audit log",
            about: "One JSON object a line, in `stateDir/audit/audit.jsonl`: a chain that `tollgate audit verify` checks. Every record has the first \
                    five fields; which others it has depends on its event.",
            rows: rows_of(audit_event::FIELDS),
        },
        Section {
            title: "Audit events",
            about: "The words of a record's `event`.",
            rows: rows_of(audit_event::EVENTS),
        },
    ]
}

fn rows_of(items: &[Item]) -> Vec<Row> {
    items.iter().map(Row::from).collect()
}

impl Section {
    fn write(&self, text: &mut String) {
        heading(text, self.title, self.about);
        let named = self.rows.iter().any(|row| !row.source.is_empty());
        line(
            text,
            &match named {
                true => vec!["name", "type", "unit", "named by", "meaning"],
                false => vec!["name", "type", "unit", "meaning"],
            },
        );
        rule(text, if named { 5 } else { 4 });
        for row in &self.rows {
            let name = format!("`{}`", row.name);
            let mut cells = vec![&*name, row.kind.as_str(), &*row.unit];
            if named {
                cells.push(match row.source.is_empty() {
                    true => "Tollgate",
                    false => &*row.source,
                });
            }
            cells.push(&*row.help);
            line(text, &cells);
        }
    }
}

fn metrics(text: &mut String) {
    let about = format!(
        "`GET /metrics` of the admin port. Label sets are bounded: credentials, budgets and hosts are those that documents name (a host \
         under a wildcard is counted as the wildcard), models those of the price table, and the first {MOST_AGENTS} agents and \
         {MOST_HOSTS} hosts have labels of their own. Everything else is `other`; requests of nobody known have an empty `agent`. Counters \
         begin at 0 when the process starts and go on over reloads; gauges of credentials and budgets are those of the documents in force."
    );
    heading(text, "Metrics", &about);
    line(text, &["name", "type", "labels", "unit", "meaning"]);
    rule(text, 5);
    for family in families::ALL {
        metric(text, &family.item, family.labels);
    }
    for item in families::PROCESS {
        metric(text, item, &[]);
    }
}

fn metric(text: &mut String, item: &Item, labels: &[&str]) {
    let name = format!("`{}`", item.name);
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    let cells = [
        &*name,
        item.kind.as_str(),
        &labels.join(", "),
        item.unit,
        item.help,
    ];
    line(text, &cells);
}

fn heading(text: &mut String, title: &str, about: &str) {
    // Writing to a string does not fail.
    write!(text, "\n## {title}\n\n{about}\n\n").ok();
}

fn rule(text: &mut String, columns: usize) {
    line(text, &vec!["---"; columns]);
}

fn line(text: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(text, "| {} |", cells.join(" | ")).ok();
}
