//! Owns how the credentials' states are printed: a table for people, the states themselves for programs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::args::Format;
use super::moment::relative;
use super::output::{Exit, Printer, table};
use crate::app::error::StartError;

/// Prints the states as they are.
pub fn list(printer: &Printer, statuses: &[Value]) {
    match printer.format {
        Format::Json => printer.json(&statuses),
        Format::Short => printer.out(&summary(statuses)),
        Format::Table => {
            let now = Timestamp::now();
            let rows: Vec<Vec<String>> = statuses.iter().map(|s| row(s, now)).collect();
            printer.out(&table(&HEADER, &rows));
        }
    }
}

/// Prints the named ones, or all. 1 if one of them cannot be relied on; optional ones count when named.
pub fn check(printer: &Printer, statuses: &[Value], names: &[String]) -> Result<Exit, StartError> {
    for name in names {
        named(statuses, name)?;
    }
    let chosen: Vec<Value> = statuses
        .iter()
        .filter(|s| names.is_empty() || names.iter().any(|n| s["name"] == n.as_str()))
        .cloned()
        .collect();
    let sound = |status: &Value| {
        let tolerated = status["optional"] == true && names.is_empty();
        tolerated || matches!(status["state"].as_str(), Some("ok" | "expiring"))
    };
    list(printer, &chosen);
    Ok(match chosen.iter().all(sound) {
        true => Exit::Ok,
        false => Exit::No,
    })
}

/// The state of the credential of this name.
pub fn named<'a>(statuses: &'a [Value], name: &str) -> Result<&'a Value, StartError> {
    let found = statuses.iter().find(|status| status["name"] == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = statuses.iter().filter_map(|s| s["name"].as_str()).collect();
        StartError::setting(
            format!("there is no credential `{name}`"),
            format!("the credentials are: {}", known.join(", ")),
        )
    })
}

const HEADER: [&str; 7] = [
    "NAME",
    "STATE",
    "EXPIRES",
    "LAST REFRESH",
    "LAST 401",
    "SOURCE",
    "LAST ERROR",
];

fn row(status: &Value, now: Timestamp) -> Vec<String> {
    let text = |field: &str| status[field].as_str().unwrap_or("-").to_owned();
    let moment = |field: &str, absent: &str| match status[field].as_str() {
        Some(at) => at
            .parse()
            .map_or_else(|_| at.to_owned(), |at: Timestamp| relative(at, now)),
        None => absent.to_owned(),
    };
    vec![
        text("name"),
        word(status).to_owned(),
        moment("expiresAt", "-"),
        moment("lastRenewal", "-"),
        moment("lastRejection", "never"),
        text("source"),
        text("lastError"),
    ]
}

/// The state in a person's words.
fn word(status: &Value) -> &str {
    match status["state"].as_str() {
        Some("failing") => "refresh failing",
        Some("needsLogin") => "needs login",
        Some(other) => other,
        None => "-",
    }
}

/// `2 ok, 1 needs login`.
fn summary(statuses: &[Value]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for status in statuses {
        *counts.entry(word(status)).or_default() += 1;
    }
    let ok = counts.remove("ok").unwrap_or_default();
    let rest = counts.iter().map(|(word, n)| format!(", {n} {word}"));
    format!("{ok} ok{}", rest.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_told_in_words_and_distances() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let status = json!({
            "name": "claude-login", "source": "oauth:claude-code", "optional": true, "state": "needsLogin",
            "since": "2026-11-21T11:00:00Z", "expiresAt": "2026-11-21T12:42:10Z",
            "lastError": "it needs a login", "lastRenewal": "2026-11-21T11:57:00Z", "lastRejection": null,
        });
        assert_eq!(
            row(&status, now),
            [
                "claude-login",
                "needs login",
                "in 42m",
                "3m ago",
                "never",
                "oauth:claude-code",
                "it needs a login"
            ]
        );
        let bare =
            json!({ "name": "key", "state": "failing", "lastRejection": "2026-11-21T11:59:00Z" });
        assert_eq!(
            row(&bare, now),
            ["key", "refresh failing", "-", "-", "1m ago", "-", "-"]
        );
        assert_eq!(
            summary(&[status, bare, json!({ "state": "ok" })]),
            "1 ok, 1 needs login, 1 refresh failing"
        );
    }
}
