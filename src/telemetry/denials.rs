//! Owns what was refused of late, grouped by agent, host and reason: counts, times and a few examples, in
//! bounded memory. The audit log has each refusal by itself; this is what an operator looks at first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;

use super::access_log::{Record, Verdict};
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::Scheme;

/// Refusals of one agent, for one host and one reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DenialKey {
    /// Who asked; empty where that is not known.
    pub agent: String,
    /// Host and port; nothing where none was named, or where they are too many to be kept apart.
    pub authority: Option<Authority>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Why: a stable word.
    pub reason: String,
}

/// A method and a path that were refused; the path is redacted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Example {
    /// The method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
}

/// What is known of one group.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Which.
    pub key: DenialKey,
    /// How often, in the time asked about.
    pub count: u64,
    /// When first, in the time asked about; to five minutes.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// What was asked; at most [`EXAMPLES`]. Empty where it got no further than CONNECT.
    pub examples: BTreeSet<Example>,
    /// The rule that refused, or the one nearest to allowing, as `file:line`.
    pub rule: Option<String>,
    /// The budget that refused.
    pub budget: Option<String>,
    /// Whether it passed, since the mode is `report`.
    pub passed: bool,
}

/// Examples of one group.
pub const EXAMPLES: usize = 8;
/// Groups of one agent; more hosts than that are counted together.
const GROUPS_OF_AGENT: usize = 128;
/// Groups of all agents; the one that was quiet for longest goes.
const GROUPS: usize = 2048;
/// How exactly counts know their time, in seconds.
const STRETCH: i64 = 300;
/// Stretches that are kept of a group: a week.
const STRETCHES: usize = 7 * 24 * 12;

/// The groups. Cloning is shallow.
#[derive(Clone, Default)]
pub struct Denials(Arc<Mutex<HashMap<DenialKey, Group>>>);

#[derive(Debug, Default)]
struct Group {
    /// Counts by the stretch of time they fall into.
    counts: BTreeMap<i64, u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    examples: BTreeSet<Example>,
    rule: Option<String>,
    budget: Option<String>,
    passed: bool,
}

/// One refusal.
struct Seen {
    key: DenialKey,
    at: Timestamp,
    example: Option<Example>,
    rule: Option<String>,
    budget: Option<String>,
    passed: bool,
}

impl Denials {
    /// Takes a refusal in.
    pub fn note(&self, record: &Record) {
        if record.decision == Verdict::Allow {
            return;
        }
        let Ok(at) = Timestamp::try_from(record.time) else {
            return;
        };
        let target = record.target.as_ref().map(ToString::to_string);
        self.add(Seen {
            key: DenialKey {
                agent: record
                    .agent
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
                authority: record.authority.clone(),
                scheme: record.scheme,
                reason: record.reason.unwrap_or_default().to_owned(),
            },
            at,
            example: example(
                record.method.as_ref().map(http::Method::as_str),
                target.as_deref(),
            ),
            rule: record.rule.as_ref().map(ToString::to_string),
            budget: record.budget.as_deref().map(ToOwned::to_owned),
            passed: record.decision == Verdict::Report,
        });
    }

    /// Takes a refusal in that the audit log tells of. Other records are passed over.
    pub fn note_audited(&self, record: &Value) {
        let event = record["event"].as_str().unwrap_or_default();
        if !matches!(event, "refused" | "canary" | "would_refuse") {
            return;
        }
        let text = |name: &str| record[name].as_str();
        let Some(at) = text("time").and_then(|time| time.parse().ok()) else {
            return;
        };
        let scheme = match text("scheme") {
            Some("http") => Scheme::Http,
            _ => Scheme::Https,
        };
        self.add(Seen {
            key: DenialKey {
                agent: text("agent").unwrap_or_default().to_owned(),
                authority: text("authority").and_then(|a| Authority::parse(a, None).ok()),
                scheme: scheme.as_str(),
                reason: text("reason").unwrap_or_default().to_owned(),
            },
            at,
            example: example(text("method"), text("target")),
            rule: text("rule").map(ToOwned::to_owned),
            budget: text("budget").map(ToOwned::to_owned),
            passed: event == "would_refuse",
        });
    }

    fn add(&self, seen: Seen) {
        let mut groups = self.groups();
        let mut key = seen.key;
        if !groups.contains_key(&key) {
            let own = groups.keys().filter(|other| other.agent == key.agent);
            if own.count() >= GROUPS_OF_AGENT {
                key.authority = None;
            }
            if groups.len() >= GROUPS
                && !groups.contains_key(&key)
                && let Some(oldest) = groups
                    .iter()
                    .min_by_key(|(_, group)| group.last)
                    .map(|(key, _)| key.clone())
            {
                groups.remove(&oldest);
            }
        }
        let together = key.authority.is_none();
        let group = groups.entry(key).or_default();
        let stretch = seen.at.as_second().div_euclid(STRETCH);
        *group.counts.entry(stretch).or_default() += 1;
        if group.counts.len() > STRETCHES {
            group.counts.pop_first();
        }
        group.first = Some(group.first.map_or(seen.at, |first| first.min(seen.at)));
        group.last = group.last.max(Some(seen.at));
        group.passed = seen.passed;
        if together {
            return;
        }
        group.rule = seen.rule;
        group.budget = seen.budget;
        if let Some(example) = seen.example
            && group.examples.len() < EXAMPLES
        {
            group.examples.insert(example);
        }
    }

    /// What was refused since then, most often first.
    pub fn since(&self, since: Timestamp) -> Vec<Denial> {
        let from = since.as_second().div_euclid(STRETCH);
        let groups = self.groups();
        let mut found: Vec<Denial> = groups
            .iter()
            .filter_map(|(key, group)| {
                let counts = group.counts.range(from..);
                let count = counts.clone().map(|(_, count)| count).sum();
                let (stretch, _) = counts.clone().next()?;
                let start = Timestamp::from_second(stretch * STRETCH).ok()?;
                Some(Denial {
                    key: key.clone(),
                    count,
                    first: group.first?.max(start),
                    last: group.last?,
                    examples: group.examples.clone(),
                    rule: group.rule.clone(),
                    budget: group.budget.clone(),
                    passed: group.passed,
                })
            })
            .collect();
        drop(groups);
        found.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        found
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, HashMap<DenialKey, Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Denial {
    /// Who asked, if that is known.
    pub fn agent(&self) -> Option<Agent> {
        Agent::parse(&self.key.agent).ok()
    }
}

/// CONNECT names no path.
fn example(method: Option<&str>, target: Option<&str>) -> Option<Example> {
    let target = target.filter(|target| target.starts_with('/'))?;
    let path = target.split('?').next().unwrap_or(target);
    Some(Example {
        method: method.filter(|method| *method != "CONNECT")?.to_owned(),
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::access_log::tests::record;
    use super::*;

    fn audited(agent: &str, host: &str, time: &str) -> Value {
        json!({
            "event": "refused", "time": time, "agent": agent, "authority": format!("{host}:443"),
            "scheme": "https", "reason": "host_not_allowed", "method": "GET", "target": "/x?y=[redacted]",
        })
    }

    #[test]
    fn refusals_are_counted_by_agent_host_and_reason_since_a_moment() {
        let denials = Denials::default();
        for time in [
            "2026-11-20T10:00:00Z",
            "2026-11-21T10:00:00Z",
            "2026-11-21T11:00:00Z",
        ] {
            denials.note_audited(&audited("scan", "a.com", time));
        }
        denials.note_audited(&audited("scan", "b.com", "2026-11-21T11:00:00Z"));
        denials
            .note_audited(&json!({ "event": "credential_used", "time": "2026-11-21T11:00:00Z" }));
        let count = |since: &str| {
            let found = denials.since(since.parse().unwrap());
            let told = found
                .iter()
                .map(|d| (d.key.authority.clone().unwrap().to_string(), d.count));
            told.collect::<Vec<_>>()
        };
        let named = |host: &str, count| (format!("{host}:443"), count);
        assert_eq!(
            count("2026-11-20T00:00:00Z"),
            [named("a.com", 3), named("b.com", 1)]
        );
        assert_eq!(
            count("2026-11-21T09:00:00Z"),
            [named("a.com", 2), named("b.com", 1)]
        );
        assert_eq!(count("2026-11-22T00:00:00Z"), []);
        let found = denials.since("2026-11-20T00:00:00Z".parse().unwrap());
        let example = found[0].examples.first().unwrap();
        assert_eq!(
            (example.method.as_str(), example.path.as_str()),
            ("GET", "/x")
        );
    }

    #[test]
    fn an_agent_that_asks_for_ever_more_hosts_takes_no_more_memory_and_hides_nobody() {
        let denials = Denials::default();
        denials.note(&record("quiet", 403));
        for number in 0..5000 {
            let host = format!("h{number}.example.com");
            denials.note_audited(&audited("loud", &host, "2026-11-21T11:00:00Z"));
        }
        let found = denials.since("2026-11-20T00:00:00Z".parse().unwrap());
        assert!(found.len() <= GROUPS_OF_AGENT + 2, "{}", found.len());
        assert_eq!(found.iter().map(|d| d.count).sum::<u64>(), 5001);
        assert!(found.iter().any(|d| d.key.agent == "quiet"));
        assert!(found.iter().any(|d| d.key.authority.is_none()));
    }
}
