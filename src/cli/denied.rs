//! Owns `tollgate denied`: what was refused of late, grouped, each group with the edit that would allow it.
//! The running proxy is asked; if none runs, the audit log and the documents are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::args::{DeniedArgs, Format};
use super::context::{Context, block_on};
use super::moment::relative;
use super::operator::{Heard, ask, watch};
use super::output::Exit;
use super::tap::told;
use crate::admin::amend_request::printable;
use crate::admin::denials::{DenialGroup, groups};
use crate::app::audit::{audit_path, recall};
use crate::app::authority::{open_configured_authority, signer};
use crate::app::error::StartError;
use crate::app::settings::Settings;
use crate::policy::compile::compile;
use crate::telemetry::denials::Denials;

#[derive(Deserialize)]
struct Answer {
    denials: Vec<DenialGroup>,
}

/// Prints the groups, and goes on with new ones where that is asked.
pub fn denied(context: &Context, args: &DeniedArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let shape = match args.json || context.printer.format == Format::Json {
        true => Shape::Json,
        false => Shape::Text,
    };
    block_on(async {
        let heard = ask::<Answer>(context, &settings, &target(args)).await?;
        let found = match heard {
            Heard::Done(answer) => answer.denials,
            Heard::Refused(why) => return Ok(context.printer.problem(&why, "", Exit::No)),
            Heard::Nobody(what) if args.follow => {
                return Err(StartError::Temporary {
                    what,
                    help: "--follow needs a running proxy".to_owned(),
                });
            }
            Heard::Nobody(_) => offline(args, &settings)?,
        };
        if args.follow {
            return follow(context, args, &settings, found, shape).await;
        }
        match shape {
            Shape::Json => context.printer.json(&found),
            Shape::Text if found.is_empty() => {
                let since = Timestamp::now() - args.since;
                let ago = relative(since, Timestamp::now());
                context
                    .printer
                    .out(&format!("nothing was refused since {ago}"));
            }
            Shape::Text => {
                let now = Timestamp::now();
                let blocks: Vec<String> = found.iter().map(|group| block(group, now)).collect();
                context.printer.out(&blocks.join("\n\n"));
            }
        }
        Ok(Exit::Ok)
    })?
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    Text,
}

fn target(args: &DeniedArgs) -> String {
    let mut target = format!("/v1/denials?since={}s", args.since.as_secs());
    if let Some(agent) = &args.agent {
        let agent = utf8_percent_encode(agent, NON_ALPHANUMERIC);
        target.push_str(&format!("&agent={agent}"));
    }
    target
}

/// What the audit log tells, with what the documents say as they stand now.
fn offline(args: &DeniedArgs, settings: &Settings) -> Result<Vec<DenialGroup>, StartError> {
    let mut engine = compile(&settings.bundle()?)?;
    if let Ok(authority) = open_configured_authority(settings) {
        engine = engine.signed_by(signer(&Arc::new(authority)));
    }
    let denials = Denials::default();
    if let Some(path) = audit_path(settings) {
        recall(&path, &denials, Timestamp::now());
    }
    let since = Timestamp::now() - args.since;
    let mut found = groups(&denials, since, &engine);
    found.retain(|group| {
        args.agent
            .as_ref()
            .is_none_or(|agent| group.agent == *agent)
    });
    Ok(found)
}

/// What there is, then each refusal as it happens; a group that is new with its edit.
async fn follow(
    context: &Context,
    args: &DeniedArgs,
    settings: &Settings,
    found: Vec<DenialGroup>,
    shape: Shape,
) -> Result<Exit, StartError> {
    let print = |group: &DenialGroup| match shape {
        Shape::Json => context
            .printer
            .line(&serde_json::to_string(group).unwrap_or_default()),
        Shape::Text => context
            .printer
            .line(&format!("{}\n", block(group, Timestamp::now()))),
    };
    let wish = match &args.agent {
        Some(agent) => format!("&agent={}", utf8_percent_encode(agent, NON_ALPHANUMERIC)),
        None => String::new(),
    };
    let watched = watch(context, settings, &format!("/v1/tap?denied=true{wish}")).await?;
    let mut lines = match watched.needs_proxy()? {
        Ok(lines) => lines,
        Err(why) => return Ok(context.printer.problem(&why, "", Exit::No)),
    };
    let mut known = BTreeSet::new();
    for group in &found {
        known.insert(key(group));
        if print(group).is_err() {
            return Ok(Exit::Ok);
        }
    }
    while let Some(line) = lines.next().await {
        let Ok(record) = serde_json::from_slice::<Value>(&line) else {
            continue;
        };
        if record["watching"] == true {
            continue;
        }
        if shape == Shape::Text
            && context
                .printer
                .line(&told(&record, &TimeZone::system()))
                .is_err()
        {
            return Ok(Exit::Ok);
        }
        let text = |name: &str| record[name].as_str().map(ToOwned::to_owned);
        let own = (text("agent"), text("authority"), text("reason"));
        if known.contains(&own) {
            continue;
        }
        if let Heard::Done(answer) = ask::<Answer>(context, settings, &target(args)).await? {
            let new = answer
                .denials
                .iter()
                .filter(|group| !known.contains(&key(group)));
            for group in new {
                if print(group).is_err() {
                    return Ok(Exit::Ok);
                }
            }
            known.extend(answer.denials.iter().map(key));
        }
        known.insert(own);
    }
    context.printer.note("the proxy has ended");
    Ok(Exit::Ok)
}

type Key = (Option<String>, Option<String>, Option<String>);

fn key(group: &DenialGroup) -> Key {
    let agent = Some(group.agent.clone()).filter(|agent| !agent.is_empty());
    (agent, group.authority.clone(), Some(group.reason.clone()))
}

/// ```text
/// 7× pypi.org:443  scan  host_not_allowed  last 3m ago, first 2h ago
///     GET /simple/x
///   nearest: scan.yaml:14
///   add this document, or its rule below `egress:` of a policy of yours
///     apiVersion: ...
/// ```
fn block(group: &DenialGroup, now: Timestamp) -> String {
    let ago = |at: &str| {
        at.parse::<Timestamp>()
            .map_or_else(|_| at.to_owned(), |at| relative(at, now))
    };
    let authority = group
        .authority
        .as_deref()
        .unwrap_or("several hosts, or none");
    let mut text = format!(
        "{}× {authority}  {}  {}  last {}, first {}",
        group.count,
        match group.agent.as_str() {
            "" => "unknown agent",
            agent => agent,
        },
        group.reason,
        ago(&group.last),
        ago(&group.first),
    );
    if group.passed {
        text.push_str("  (it passed: the mode is report)");
    }
    for asked in &group.examples {
        text.push_str(&format!("\n    {} {}", asked.method, asked.path));
    }
    if let Some(rule) = &group.rule {
        text.push_str(&format!("\n  nearest: {rule}"));
    }
    if group.allowed_now {
        text.push_str("\n  the policy in force allows it now");
    }
    if let Some(advice) = &group.advice {
        text.push_str(&format!("\n  {advice}"));
    }
    let mut text: String = text.lines().map(printable).collect::<Vec<_>>().join("\n");
    if let Some(edit) = &group.edit {
        text.push_str(&format!("\n  {}", edit.what));
        for line in edit.yaml.lines() {
            text.push_str(&format!("\n    {line}"));
        }
    }
    text
}
