//! Owns `tollgate audit`: the log's records printed, and the chain checked. Both read files; no proxy need
//! run, and they may be copies on another machine.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::{AuditCommand, AuditListArgs, AuditVerifyArgs, Format};
use super::context::Context;
use super::output::Exit;
use crate::admin::amend_request::printable;
use crate::app::audit::audit_path;
use crate::app::error::StartError;
use crate::telemetry::audit_key::Verifier;
use crate::telemetry::audit_line::Hash;
use crate::telemetry::audit_read::read;
use crate::telemetry::audit_verify::{Expected, Verified, verify};

/// Runs one of the subcommands.
pub fn audit(context: &Context, command: &AuditCommand) -> Result<Exit, StartError> {
    match command {
        AuditCommand::List(args) => list(context, args),
        AuditCommand::Verify(args) => check(context, args),
    }
}

fn file(context: &Context, named: Option<&Path>) -> Result<PathBuf, StartError> {
    if let Some(named) = named {
        return Ok(named.to_path_buf());
    }
    audit_path(&context.settings()?).ok_or_else(|| {
        StartError::setting(
            "this configuration keeps no audit log",
            "`audit.enabled: false` stands in it; name a file to read another log",
        )
    })
}

fn list(context: &Context, args: &AuditListArgs) -> Result<Exit, StartError> {
    let path = file(context, args.file.as_deref())?;
    let json = args.json || context.printer.format == Format::Json;
    let mut gone = Ok(());
    let done = read(&path, args.since.map(|since| since.0), |line, record| {
        let is = |name: &str, wanted: &Option<String>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| record[name] == wanted)
        };
        if gone.is_ok() && is("agent", &args.agent) && is("event", &args.event) {
            gone = match json {
                true => context.printer.line(line),
                false => context.printer.line(&row(&record)),
            };
        }
    });
    done.map_err(|error| {
        StartError::setting(
            format!("{} cannot be read: {error}", path.display()),
            "run this as the user who runs the proxy",
        )
    })?;
    Ok(Exit::Ok)
}

/// Members that have a place of their own in a row, or none.
const PLACED: &[&str] = &[
    "seq",
    "time",
    "event",
    "prev",
    "hash",
    "agent",
    "method",
    "scheme",
    "authority",
    "target",
    "id",
    "peer",
    "ingress",
    "signature",
];

/// `812  2026-11-21T22:10:00.123Z  refused  scan  GET pypi.org:443/simple/x  reason=host_not_allowed`.
fn row(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    let mut words = vec![
        record["seq"].to_string(),
        text("time").to_owned(),
        text("event").to_owned(),
    ];
    let asked = [
        text("agent"),
        text("method"),
        &format!("{}{}", text("authority"), text("target")),
    ];
    words.extend(
        asked
            .into_iter()
            .filter(|word| !word.is_empty())
            .map(printable),
    );
    for (name, value) in record.as_object().into_iter().flatten() {
        if PLACED.contains(&name.as_str()) {
            continue;
        }
        let value = match (name.as_str(), value) {
            ("credentials", Value::Array(used)) => used
                .iter()
                .map(|one| {
                    format!(
                        "{} v{}",
                        one["name"].as_str().unwrap_or_default(),
                        one["version"]
                    )
                })
                .collect::<Vec<_>>()
                .join(","),
            (_, Value::String(text)) => text.clone(),
            (_, value) => value.to_string(),
        };
        words.push(format!("{name}={}", printable(&value)));
    }
    words.join("  ")
}

fn check(context: &Context, args: &AuditVerifyArgs) -> Result<Exit, StartError> {
    let path = file(context, args.file.as_deref())?;
    let mut expected = Expected::default();
    for key in &args.key {
        let verifier = std::fs::read(key)
            .map_err(|error| error.to_string())
            .and_then(|pem| Verifier::parse(&pem).map_err(|error| error.to_string()));
        let verifier = verifier.map_err(|error| {
            StartError::setting(
                format!("{}: {error}", key.display()),
                "`openssl pkey -in audit.key -pubout` prints the public key",
            )
        })?;
        expected.keys.push(verifier);
    }
    if let Some(head) = &args.expect_head {
        let Some(hash) = Hash::parse(&head.to_ascii_lowercase()) else {
            let what = format!("`{head}` is no record's hash");
            let help = "write all of its 64 hexadecimal digits";
            return Ok(context.printer.problem(&what, help, Exit::Usage));
        };
        expected.head = Some(hash);
    }
    match verify(&path, &expected) {
        Ok(verified) => {
            told(context, &verified, &expected);
            Ok(Exit::Ok)
        }
        Err(finding) => Ok(context.printer.problem(
            &finding.to_string(),
            "the log is not as it was written; compare it with a copy, and keep it as it is",
            Exit::No,
        )),
    }
}

fn told(context: &Context, verified: &Verified, expected: &Expected) {
    let head = verified
        .tip
        .map_or_else(String::new, |tip| tip.hash.to_string());
    if context.printer.format == Format::Json {
        return context.printer.json(&serde_json::json!({
            "records": verified.records,
            "seq": verified.tip.map(|tip| tip.seq),
            "head": head,
            "lastTime": verified.last_time,
            "signedHeads": verified.heads,
            "unsigned": (!expected.keys.is_empty()).then_some(verified.unsigned),
            "notes": verified.notes,
        }));
    }
    let mut text = format!(
        "verified {} records, head {head}",
        thousands(verified.records)
    );
    text.push_str(&format!("\n  last record  {}", verified.last_time));
    if !expected.keys.is_empty() {
        text.push_str(&format!(
            "\n  signed heads {}; {} records after the last one",
            verified.heads, verified.unsigned
        ));
    }
    for note in &verified.notes {
        text.push_str(&format!("\n  note         {}", printable(note)));
    }
    if expected.keys.is_empty() && expected.head.is_none() {
        text.push_str(
            "\n  not checked  whether records were cut off at the end, or all of it written anew: that takes --key or --expect-head",
        );
    }
    context.printer.out(&text);
}

/// `18 204`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_groups_of_three() {
        for (number, told) in [
            (0, "0"),
            (999, "999"),
            (18204, "18 204"),
            (1_000_000, "1 000 000"),
        ] {
            assert_eq!(thousands(number), told);
        }
    }
}
