//! Owns `tollgate tap`: exchanges as they happen, one line each.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::args::{Format, TapArgs};
use super::context::{Context, block_on};
use super::operator::watch;
use super::output::Exit;
use crate::admin::amend_request::printable;
use crate::app::error::StartError;

/// Prints what happens until the proxy ends, or the reader goes.
pub fn tap(context: &Context, args: &TapArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let json = args.json || context.printer.format == Format::Json;
    let target = target(args);
    block_on(async {
        let mut lines = match watch(context, &settings, &target).await?.needs_proxy()? {
            Ok(lines) => lines,
            Err(why) => return Ok(context.printer.problem(&why, "", Exit::No)),
        };
        while let Some(line) = lines.next().await {
            let Ok(record) = serde_json::from_slice::<Value>(&line) else {
                continue;
            };
            if record["watching"] == true {
                continue;
            }
            let text = match json {
                true => String::from_utf8_lossy(&line).into_owned(),
                false => told(&record, &TimeZone::system()),
            };
            if context.printer.line(&text).is_err() {
                return Ok(Exit::Ok);
            }
        }
        context.printer.note("the proxy has ended");
        Ok(Exit::Ok)
    })?
}

/// The path and query that asks for it.
fn target(args: &TapArgs) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut wishes = Vec::new();
    if let Some(agent) = &args.agent {
        wishes.push(format!("agent={}", encode(agent)));
    }
    if let Some(host) = &args.host {
        wishes.push(format!("host={}", encode(host)));
    }
    if args.denied {
        wishes.push("denied=true".to_owned());
    }
    match wishes.is_empty() {
        true => "/v1/tap".to_owned(),
        false => format!("/v1/tap?{}", wishes.join("&")),
    }
}

/// `10:02:11 + POST api.anthropic.com/v1/messages 200 1.9s 12.1k→0.8k tok $0.048 scan`; what was refused
/// has `-` and its reason. Times are those of this machine's zone.
pub fn told(record: &Value, zone: &TimeZone) -> String {
    if let Some(missed) = record["missed"].as_u64() {
        return format!("... {missed} more, which this terminal was too slow for");
    }
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    let refused = text("decision") == "deny";
    let mut words = vec![
        clock(text("time"), zone),
        if refused { "-" } else { "+" }.to_owned(),
        match text("kind") {
            "request" => text("method").to_owned(),
            // A connection that got no further, or whose bytes pass unread.
            _ => "CONNECT".to_owned(),
        },
        place(record),
    ];
    if let Some(status) = record["status"].as_u64() {
        words.push(status.to_string());
    }
    words.push(duration(record["duration_ms"].as_f64().unwrap_or_default()));
    if let (Some(input), Some(output)) = (
        record["input_tokens"].as_u64(),
        record["output_tokens"].as_u64(),
    ) {
        words.push(format!("{}→{} tok", short(input), short(output)));
    }
    if let Some(cost) = record["cost_usd"].as_str() {
        words.push(money(cost));
    }
    words.push(text("agent").to_owned());
    let rule = match text("rule") {
        "" => String::new(),
        rule => format!(" ({rule})"),
    };
    match text("decision") {
        "deny" => words.push(format!("{}{rule}", text("reason"))),
        "report" => words.push(format!("would be refused: {}{rule}", text("reason"))),
        _ => words.push(text("end").to_owned()),
    }
    words.retain(|word| !word.is_empty());
    printable(&words.join(" "))
}

/// Host and path; the port where it is not the scheme's own.
fn place(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    let usual = match text("scheme") {
        "http" => ":80",
        _ => ":443",
    };
    let authority = text("authority");
    let host = match text("kind") {
        "request" => authority.strip_suffix(usual).unwrap_or(authority),
        _ => authority,
    };
    format!("{host}{}", text("target"))
}

fn clock(time: &str, zone: &TimeZone) -> String {
    let Ok(time) = time.parse::<Timestamp>() else {
        return time.to_owned();
    };
    let time: Zoned = time.to_zoned(zone.clone());
    time.strftime("%H:%M:%S").to_string()
}

/// `4ms`, `1.9s`, `12m04s`.
fn duration(millis: f64) -> String {
    let seconds = millis / 1e3;
    if seconds < 1.0 {
        format!("{millis:.0}ms")
    } else if seconds < 60.0 {
        format!("{seconds:.1}s")
    } else {
        let whole = seconds as u64;
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}

/// `800`, `12.1k`, `1.2M`.
fn short(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

/// `$0.048`, `$1.37`: as exact as a person reads.
fn money(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(dollars) if dollars >= 1.0 || dollars == 0.0 => format!("${dollars:.2}"),
        Ok(dollars) if dollars >= 0.001 => format!("${dollars:.3}"),
        Ok(dollars) => format!("${dollars:.6}"),
        Err(_) => format!("${text}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exchange_is_told_in_one_line() {
        let allowed = json!({
            "time": "2026-11-21T10:02:11.123Z", "kind": "request", "method": "POST", "scheme": "https",
            "authority": "api.anthropic.com:443", "target": "/v1/messages", "decision": "allow",
            "status": 200, "duration_ms": 1912.3, "input_tokens": 12_100, "output_tokens": 812,
            "cost_usd": "0.0481", "agent": "scan",
        });
        assert_eq!(
            told(&allowed, &TimeZone::UTC),
            "10:02:11 + POST api.anthropic.com/v1/messages 200 1.9s 12.1k→812 tok $0.048 scan"
        );
        let denied = json!({
            "time": "2026-11-21T10:02:12Z", "kind": "connect", "scheme": "https",
            "authority": "pypi.org:443", "decision": "deny", "status": 403, "duration_ms": 0.4,
            "agent": "scan", "reason": "host_not_allowed", "rule": "scan.yaml:14",
        });
        assert_eq!(
            told(&denied, &TimeZone::UTC),
            "10:02:12 - CONNECT pypi.org:443 403 0ms scan host_not_allowed (scan.yaml:14)"
        );
        let missed = told(&json!({ "missed": 12 }), &TimeZone::UTC);
        assert_eq!(missed, "... 12 more, which this terminal was too slow for");
    }

    #[test]
    fn what_moves_a_cursor_is_not_printed() {
        let record = json!({ "kind": "request", "method": "GET", "authority": "a\u{1b}[2J:443", "decision": "allow" });
        assert!(!told(&record, &TimeZone::UTC).contains('\u{1b}'));
    }
}
