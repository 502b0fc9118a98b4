//! The files that follow from the code are what the code would write now, and say nothing that it does not
//! tell: the reference, the dashboard, the rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tollgate::telemetry::access_log::Record;
use tollgate::telemetry::family::Family;
use tollgate::telemetry::vocabulary::{Kind, Row};
use tollgate::telemetry::{alerts, dashboard, dashboard_panels, families, reference};

use super::support::scene::{HOST, Scene};

const FOLDER: &str = "deploy/observability";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a file with what it should be; `TOLLGATE_UPDATE=1` writes it anew.
#[track_caller]
fn up_to_date(file: &Path, expected: &str) {
    if std::env::var_os("TOLLGATE_UPDATE").is_some() {
        std::fs::write(file, expected).unwrap();
        return;
    }
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        text == expected,
        "{} is not what the code says: run it once with TOLLGATE_UPDATE=1",
        file.display()
    );
}

fn printed(what: &str) -> String {
    let ran = Command::new(super::support::proxy::TOLLGATE)
        .args(["gen", what])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn the_dashboard_is_up_to_date() {
    let file = root().join(FOLDER).join("grafana-dashboard.json");
    up_to_date(&file, &printed("dashboards"));
}

#[test]
fn the_rules_are_up_to_date() {
    let file = root().join(FOLDER).join("prometheus-rules.yaml");
    up_to_date(&file, &printed("alerts"));
}

#[test]
fn the_reference_is_up_to_date() {
    let file = root().join(FOLDER).join("README.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("<!-- telemetry:").unwrap();
    let (marker, rest) = rest.split_once('\n').unwrap();
    let (_, after) = rest.split_once("<!-- end of telemetry -->").unwrap();
    let page = printed("docs");
    let expected =
        format!("{before}<!-- telemetry:{marker}\n\n{page}\n<!-- end of telemetry -->{after}");
    up_to_date(&file, &expected);
}

/// Every metric is on the page with all its labels, every field of the log with its meaning.
#[test]
fn the_reference_has_everything_that_is_told() {
    let page = reference::page();
    let row = |name: &str| {
        let start = format!("| `{name}` |");
        let row = page.lines().find(|line| line.starts_with(&start));
        row.unwrap_or_else(|| panic!("{name} has no row"))
    };
    for family in families::ALL {
        let row = row(family.name());
        for label in family.labels {
            assert!(row.contains(&format!("`{label}`")), "{row}");
        }
        assert!(row.contains(family.item.kind.as_str()), "{row}");
    }
    for name in reference::metric_names() {
        row(name);
    }
    for field in Row::of_fields::<Record>() {
        assert!(field.help.len() > 5, "{} has no meaning", field.name);
        assert!(row(&field.name).contains(field.kind.as_str()));
    }
}

/// Names and types as Prometheus's conventions want them
/// (<https://prometheus.io/docs/practices/naming/>); `promtool check metrics` looks at the rest.
#[test]
fn names_of_metrics_say_what_they_are() {
    let mut names = BTreeSet::new();
    for family in families::ALL {
        let (name, item) = (family.name(), family.item);
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("tollgate_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            item.kind == Kind::Counter,
            "{name}"
        );
        assert_eq!(
            name.ends_with("_seconds"),
            item.unit == "s",
            "{name} in {}",
            item.unit
        );
        assert_eq!(name.contains("_bytes"), item.unit == "By", "{name}");
        assert_eq!(name.contains("_ratio"), item.unit == "1", "{name}");
        assert!(!item.help.is_empty() && !item.help.ends_with('.'), "{name}");
        let bounds = family.bounds;
        assert_eq!(bounds.is_empty(), item.kind != Kind::Histogram, "{name}");
        assert!(bounds.is_sorted(), "{name}");
    }
}

/// What a record looks like as JSON is what the page says of it.
#[tokio::test]
async fn fields_of_the_log_are_written_as_the_reference_says() {
    let scene = Scene::new().await;
    scene.still_serves().await;
    let denied = scene.ask(HOST, "GET /x HTTP/1.1\r\nHost: other.example.com\r\n\r\n");
    denied.await;
    let fields = Row::of_fields::<Record>();
    for record in scene.proxy.access_log(2).await {
        for (name, value) in record.as_object().unwrap() {
            let field = fields.iter().find(|field| field.name == *name);
            let field = field.unwrap_or_else(|| panic!("{name} has no row: {record}"));
            let written = match value {
                Value::String(_) => Kind::Text,
                Value::Bool(_) => Kind::Boolean,
                Value::Array(items) if items.iter().all(Value::is_u64) => Kind::Integers,
                Value::Array(_) => Kind::Texts,
                Value::Number(number) if number.is_u64() => Kind::Integer,
                Value::Number(_) => Kind::Number,
                _ => Kind::Object,
            };
            let fits =
                written == field.kind || (written, field.kind) == (Kind::Integer, Kind::Number);
            assert!(fits, "{name} is {value}, and {:?} on the page", field.kind);
        }
    }
}

// --- what dashboard and rules are made of

/// Every expression, by where it stands.
fn expressions() -> Vec<(String, &'static str)> {
    let recorded = alerts::RECORDINGS
        .iter()
        .map(|r| (r.name.to_owned(), r.expr));
    let alerting = alerts::ALERTS.iter().map(|a| (a.name.to_owned(), a.expr));
    let shown = dashboard::queries().map(|(panel, expr)| (panel.to_owned(), expr));
    recorded.chain(alerting).chain(shown).collect()
}

/// The metric behind a series: histograms have three, recorded series those of their expression.
fn families_of(series: &str) -> Vec<Family> {
    if let Some(recording) = alerts::RECORDINGS.iter().find(|r| r.name == series) {
        let series = series_in(recording.expr);
        return series.iter().flat_map(|s| families_of(&s.name)).collect();
    }
    let found = families::ALL.iter().find(|family| {
        let parts = ["_bucket", "_count", "_sum"];
        let is_part = |part: &str| series.strip_suffix(part) == Some(family.name());
        match family.item.kind {
            Kind::Histogram => parts.iter().any(|part| is_part(part)),
            _ => family.name() == series,
        }
    });
    found.into_iter().copied().collect()
}

/// A selector: a name, and the labels that stand in its braces.
#[derive(Debug)]
struct Selector {
    name: String,
    labels: Vec<String>,
}

/// Every series that an expression names.
fn series_in(expr: &str) -> Vec<Selector> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(start) = rest.find(is_name) {
        let word = &rest[start..];
        let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        rest = after;
        let is_series = name.contains("tollgate_") || name.starts_with("process_") || name == "up";
        if !is_series {
            continue;
        }
        let mut labels = Vec::new();
        if let Some(braces) = after.strip_prefix('{') {
            let (inside, behind) = braces.split_once('}').unwrap();
            labels = inside
                .split("\",")
                .map(|matcher| {
                    let end = matcher.find(['=', '!']).unwrap();
                    matcher[..end].trim().to_owned()
                })
                .collect();
            rest = behind;
        }
        found.push(Selector {
            name: name.to_owned(),
            labels,
        });
    }
    found
}

/// The labels that `by (…)` and `on (…)` name.
fn grouped(expr: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for word in ["by (", "on ("] {
        for part in expr.split(word).skip(1) {
            let (inside, _) = part.split_once(')').unwrap();
            labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
        }
    }
    labels
}

/// Labels that Prometheus adds, and that of buckets.
const ADDED: [&str; 3] = ["job", "instance", "le"];

#[test]
fn every_expression_names_metrics_and_labels_that_there_are() {
    let mut used = BTreeSet::new();
    for (place, expr) in expressions() {
        let series = series_in(expr);
        assert!(!series.is_empty(), "{place} names no series: {expr}");
        let mut labels: BTreeSet<&str> = ADDED.into();
        for selector in &series {
            let foreign =
                selector.name == "up" || families::PROCESS.iter().any(|p| p.name == selector.name);
            let families = families_of(&selector.name);
            assert!(
                foreign || !families.is_empty(),
                "{place}: there is no {}",
                selector.name
            );
            used.extend(families.iter().map(Family::name));
            let own = || {
                families
                    .iter()
                    .flat_map(|family| family.labels.iter().copied())
            };
            for label in &selector.labels {
                let known = ADDED.contains(&label.as_str()) || own().any(|own| own == label);
                assert!(known, "{place}: {} has no {label}", selector.name);
            }
            labels.extend(own());
        }
        for label in grouped(expr) {
            assert!(
                labels.contains(label.as_str()),
                "{place}: by {label}: {expr}"
            );
        }
    }
    // What nobody looks at need not be counted; these are for whoever looks for a fault.
    let unused: Vec<&str> = families::ALL
        .iter()
        .map(Family::name)
        .filter(|name| !used.contains(name))
        .collect();
    assert_eq!(
        unused,
        [
            "tollgate_limits_reached_total",
            "tollgate_tunnels_total",
            "tollgate_injections_total",
            "tollgate_token_calls_total",
            "tollgate_credential_ok",
            "tollgate_credential_expiry_timestamp_seconds",
            "tollgate_credential_last_refresh_timestamp_seconds",
            "tollgate_budget_alerts_total",
            "tollgate_budget_underreserved_total",
            "tollgate_policy_reloads_total",
            "tollgate_policy_last_reload_success_timestamp_seconds",
            "tollgate_protection",
            "tollgate_audit_records_total",
            "tollgate_audit_seq",
            "tollgate_spans_sent_total",
        ]
    );
}

/// A query as Prometheus gets it: Grafana has put in what was chosen.
pub fn as_asked(expr: &str) -> String {
    let chosen = [
        ("$__rate_interval", "5m"),
        ("$__range", "1h"),
        ("$job", ".*"),
        ("$agent", ".*"),
        ("$host", ".*"),
    ];
    let asked = chosen
        .iter()
        .fold(expr.to_owned(), |text, (variable, value)| {
            text.replace(variable, value)
        });
    assert!(!asked.contains('$'), "{asked}");
    asked
}

#[test]
fn every_query_of_the_dashboard_is_promql() {
    let promtool = client!("promtool");
    let dir = tempfile::tempdir().unwrap();
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, (_, expr)) in dashboard::queries().enumerate() {
        let expr = json!(as_asked(expr));
        writeln!(rules, "  - {{record: panel:{number}, expr: {expr}}}").unwrap();
    }
    let file = dir.path().join("rules.yaml");
    std::fs::write(&file, rules).unwrap();
    let ran = Command::new(promtool)
        .args(["check", "rules"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn the_dashboard_has_the_form_that_grafana_reads() {
    let whole = dashboard::json();
    let panels = whole["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(
            at("x") + at("w") <= u64::from(dashboard_panels::COLUMNS),
            "{panel}"
        );
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
    for row in dashboard_panels::ROWS {
        for panel in row.panels {
            assert!(!panel.about.is_empty(), "{}", panel.title);
            for query in panel.queries {
                legend_fits(panel.title, query);
            }
        }
    }
}

/// A legend shows labels that the query leaves.
#[track_caller]
fn legend_fits(panel: &str, query: &dashboard_panels::Query) {
    let left = grouped(query.expr);
    for part in query.legend.split("{{").skip(1) {
        let (label, _) = part.split_once("}}").unwrap();
        assert!(
            left.contains(label),
            "{panel}: {label} is not left by {}",
            query.expr
        );
    }
}

/// Grafana itself is in no package registry that is at hand; its types are.
#[test]
fn the_dashboard_is_what_grafanas_own_types_say() {
    let tsc = client!("tsc");
    let node = super::support::clients::home().join("node");
    let whole = dashboard::json();
    let mut code = std::fs::read_to_string(root().join("tests/clients/dashboard.mts")).unwrap();
    writeln!(code, "export const whole: Written<Dashboard> = {whole};").unwrap();
    let panels = whole["panels"].as_array().unwrap();
    for (number, panel) in panels.iter().filter(|p| p["type"] != "row").enumerate() {
        let kind = &panel["type"];
        writeln!(code, "export const panel{number}: Drawn<{kind}> = {panel};").unwrap();
        if let Some(custom) = panel["fieldConfig"]["defaults"].get("custom") {
            writeln!(code, "export const lines{number}: Lines = {custom};").unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(node.join("node_modules"), dir.path().join("node_modules")).unwrap();
    std::fs::write(dir.path().join("dashboard.mts"), code).unwrap();
    let ran = Command::new(tsc)
        .args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--preserveSymlinks",
        ])
        .args([
            "--module",
            "esnext",
            "--moduleResolution",
            "bundler",
            "--target",
            "es2022",
        ])
        .arg("dashboard.mts")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stdout)
    );
}
