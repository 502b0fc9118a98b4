//! Owns what the audit log tells: one kind of record for each event that matters to security. Like the
//! access log it can hold no secret: names, numbers and redacted views.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use serde::{Serialize, Serializer};

use super::access_log::{CanaryRecord, Record, UsedCredential};
use super::redact::SafeTarget;
use super::vocabulary::Item;
use crate::policy::decision::RuleRef;
use crate::types::agent::Agent;
use crate::types::host::Authority;

/// One event. Its word is the record's `event`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The process begins to serve.
    Start(Start),
    /// It ends in good order.
    Stop {
        /// Records lost since the start, because they could not be written in time.
        lost: u64,
    },
    /// An exchange was refused.
    Refused(Exchange),
    /// An exchange passed that `enforce` would refuse.
    WouldRefuse(Exchange),
    /// An exchange passed. Only with `exchanges: all`.
    Allowed(Exchange),
    /// A placeholder stood where it does not belong; the exchange was refused.
    Canary(Exchange),
    /// A credential goes out with a request.
    CredentialUsed(Exchange),
    /// An agent called a token endpoint itself.
    TokenCall(Exchange),
    /// An OAuth token was renewed, or not.
    TokenRenewal {
        /// The credential.
        credential: String,
        /// `ok`, `adopted`, `failed`, `needs_login`.
        result: &'static str,
    },
    /// A login was stored by a command.
    LoginStored {
        /// The credential.
        credential: String,
        /// `login`, `import`, `refresh`.
        by: &'static str,
        /// Whose command it was.
        who: String,
    },
    /// A budget has reached a threshold; 100 is its end.
    BudgetAlert {
        /// The budget.
        budget: String,
        /// The group of calls; empty where all are counted together.
        scope: String,
        /// In percent of the limit.
        percent: u8,
        /// What was spent, with its unit.
        spent: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// An operator gave a budget more room.
    BudgetRaised(BudgetChange),
    /// An operator let what was spent count no more.
    BudgetReset(BudgetChange),
    /// New documents are in force.
    PolicyReloaded {
        /// SHA-256 of the documents in force.
        policy: String,
        /// The same of those before them.
        before: String,
        /// What differs, in numbers.
        changes: Changes,
    },
    /// New documents were not taken; the old ones stay in force.
    PolicyRejected {
        /// SHA-256 of the documents in force.
        policy: String,
    },
    /// A certificate authority was made.
    CaMade {
        /// SHA-256 of its certificate.
        sha256: String,
        /// How many names it may sign; absent for any.
        #[serde(skip_serializing_if = "Option::is_none")]
        names: Option<usize>,
        /// Where it is kept: `file` or `memory`.
        kept: &'static str,
        /// Whether it takes the place of another one.
        replaces: bool,
    },
    /// Somebody used the admin port for what changes or shows more than numbers.
    Admin {
        /// The path's pattern: `/v1/reload`.
        path: String,
        /// The method.
        method: &'static str,
        /// The status that was answered.
        status: u16,
    },
    /// Records were lost before this one.
    Lost {
        /// How many.
        records: u64,
    },
    /// The first record of a further file.
    Rotated {
        /// The file before it; empty where nobody knows where it went.
        previous: String,
        /// `size`, `age`, or `moved` where somebody else took the file away.
        cause: &'static str,
    },
    /// The end of the file was no whole record: a crash in the middle of writing, or somebody's edit.
    Torn {
        /// How many octets there were after the last whole record.
        bytes: u64,
        /// The file they were put aside in.
        kept: String,
        /// SHA-256 of them.
        sha256: String,
    },
    /// Records that this process had written are not in the file any more.
    Cut {
        /// How many.
        records: u64,
        /// The hash of the last of them.
        head: String,
    },
    /// The chain so far, signed.
    Head(Head),
}

/// What a process begins with.
#[derive(Debug, Clone, Serialize)]
pub struct Start {
    /// Tollgate's version.
    pub version: &'static str,
    /// SHA-256 of the documents in force.
    pub policy: String,
    /// SHA-256 of the certificate authority's certificate.
    pub ca: String,
    /// How much they say.
    pub counts: Counts,
}

/// How much a set of documents says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Host patterns that rules name.
    pub hosts: usize,
    /// Credentials.
    pub credentials: usize,
    /// Budgets.
    pub budgets: usize,
}

/// One exchange, as far as it is known when its record is made.
#[derive(Debug, Clone, Serialize)]
pub struct Exchange {
    id: String,
    peer: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display")]
    agent: Option<Agent>,
    ingress: &'static str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display")]
    method: Option<Method>,
    scheme: &'static str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display")]
    authority: Option<Authority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<SafeTarget>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display")]
    rule: Option<RuleRef>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    credentials: Vec<UsedCredential>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    budget: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<CanaryRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_call: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl Exchange {
    /// What a record says of it.
    pub fn of(record: &Record, credentials: Vec<UsedCredential>) -> Self {
        let mut target = record.target.clone();
        if let Some(target) = &mut target {
            // It may wait for the disk, and the request's head should not.
            target.detach();
        }
        Self {
            id: record.id.clone(),
            peer: record.peer,
            agent: record.agent.clone(),
            ingress: record.ingress,
            method: record.method.clone(),
            scheme: record.scheme,
            authority: record.authority.clone(),
            target,
            reason: record.reason,
            rule: record.rule.clone(),
            credentials,
            budget: record.budget.clone(),
            canary: record.canary.clone(),
            token_call: record.token_call,
            status: record.status,
        }
    }
}

/// What an operator changed about a budget.
#[derive(Debug, Clone, Serialize)]
pub struct BudgetChange {
    /// The budget.
    pub budget: String,
    /// The group of calls, or `all`.
    pub scope: String,
    /// The window of the limit.
    pub window: String,
    /// Before: the limit of a raise, what was spent of a reset. With its unit.
    pub old: String,
    /// After.
    pub new: String,
    /// Until when a raise holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Who ordered it, as they named themselves.
    pub who: String,
    /// Why, in their words.
    pub why: String,
}

/// How two sets of documents differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Host patterns that rules name now and did not.
    pub hosts_added: usize,
    /// Host patterns that rules no longer name.
    pub hosts_removed: usize,
    /// Policies that are new, or written differently.
    pub policies_changed: usize,
    /// Policies that are gone.
    pub policies_removed: usize,
    /// Credentials that are new, or written differently.
    pub credentials_changed: usize,
    /// Credentials that are gone.
    pub credentials_removed: usize,
    /// Budgets that are new, or written differently.
    pub budgets_changed: usize,
    /// Budgets that are gone.
    pub budgets_removed: usize,
}

/// A signature over the chain up to the record before this one.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// Which key: the first 16 hexadecimal digits of the SHA-256 of the public key's 32 octets.
    pub key: String,
    /// Ed25519, in base64.
    pub signature: String,
}

fn display<S: Serializer>(
    value: &Option<impl std::fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn text<S: Serializer>(value: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_str(value),
        None => serializer.serialize_none(),
    }
}

/// The words of `event`, and when each is written.
pub const EVENTS: &[Item] = &[
    Item::text("start", "The process begins to serve."),
    Item::text("stop", "It ends in good order."),
    Item::text("refused", "An exchange was refused."),
    Item::text(
        "would_refuse",
        "An exchange passed that `enforce` would refuse.",
    ),
    Item::text("allowed", "An exchange passed; only with `exchanges: all`."),
    Item::text(
        "canary",
        "A placeholder stood where it does not belong; the exchange was refused.",
    ),
    Item::text(
        "credential_used",
        "A credential goes out with a request; written before the request leaves.",
    ),
    Item::text("token_call", "An agent called a token endpoint itself."),
    Item::text("token_renewal", "An OAuth token was renewed, or not."),
    Item::text("login_stored", "A command stored a login."),
    Item::text(
        "budget_alert",
        "A budget reached a threshold; 100 percent is its end.",
    ),
    Item::text("budget_raised", "An operator gave a budget more room."),
    Item::text(
        "budget_reset",
        "An operator let what was spent count no more.",
    ),
    Item::text("policy_reloaded", "New documents are in force."),
    Item::text("policy_rejected", "New documents were not taken."),
    Item::text("ca_made", "A certificate authority was made."),
    Item::text(
        "admin",
        "Somebody used the admin port for what changes or shows more than numbers, or was turned away.",
    ),
    Item::text("lost", "Records were lost before this one."),
    Item::text("rotated", "The first record of a further file."),
    Item::text(
        "torn",
        "The end of the file was no whole record; it was put aside.",
    ),
    Item::text(
        "cut",
        "Records that this process had written are gone from the file.",
    ),
    Item::text(
        "head",
        "The chain up to the record before this one, signed.",
    ),
];

/// Every field of a record, whatever its event.
pub const FIELDS: &[Item] = &[
    Item::integer(
        "seq",
        "The record's number; the first one is 1, and none is left out.",
    ),
    Item::text("time", "When it happened (RFC 3339, UTC)."),
    Item::text("event", "What happened: one of the words below."),
    Item::text(
        "prev",
        "The hash of the record before it; 64 zeros in the first.",
    ),
    Item::text("hash", "SHA-256 of the line without this field."),
    Item::text(
        "id",
        "Exchanges: the id that a refusal shows as `x-tollgate-request-id`.",
    ),
    Item::text("peer", "The address it came from."),
    Item::text("agent", "Who asked."),
    Item::text("ingress", "The door, as in the access log."),
    Item::text("method", "The method; for `admin`, that of the call."),
    Item::text("scheme", "`http` or `https`."),
    Item::text("authority", "Host and port."),
    Item::text("target", "Path and query, redacted."),
    Item::text(
        "reason",
        "Why it was refused, or what `enforce` would have refused.",
    ),
    Item::text("rule", "The deciding rule, as `file:line`."),
    Item::new(
        "credentials",
        super::vocabulary::Kind::Object,
        "What went out: a list of `name`, `version` and `placement` of each.",
    ),
    Item::text("budget", "The budget that refused, or that was changed."),
    Item::new(
        "canary",
        super::vocabulary::Kind::Object,
        "`credential`, if known, `place` and `misuse` (`elsewhere`, `misplaced`, `stranger`) of the placeholder.",
    ),
    Item::text(
        "token_call",
        "What became of an agent's own call to a token endpoint.",
    ),
    Item::integer("status", "What was answered, if that is known yet."),
    Item::text("credential", "The credential of a renewal or a login."),
    Item::text(
        "result",
        "What came of a renewal: `ok`, `adopted`, `failed`, `needs_login`.",
    ),
    Item::text("by", "The command that stored a login."),
    Item::text("who", "The operator, as they named themselves."),
    Item::text("why", "Why they did it, in their words."),
    Item::text("scope", "The group of calls that a budget counts together."),
    Item::integer("percent", "The threshold that a budget reached."),
    Item::text("spent", "What was spent, with its unit."),
    Item::text("limit", "The limit, with its unit."),
    Item::text("window", "The window of the limit."),
    Item::text(
        "old",
        "The limit before a raise; what was spent before a reset.",
    ),
    Item::text("new", "The same after it."),
    Item::text("until", "Until when a raise holds."),
    Item::text("policy", "SHA-256 over the documents in force."),
    Item::text("before", "The same of those before them."),
    Item::new(
        "changes",
        super::vocabulary::Kind::Object,
        "`hosts_added`, `hosts_removed`, and `…_changed`, `…_removed` of `policies`, `credentials` and `budgets`.",
    ),
    Item::text("version", "`start`: Tollgate's version."),
    Item::new(
        "counts",
        super::vocabulary::Kind::Object,
        "`start`: how many `hosts`, `credentials` and `budgets` the documents name.",
    ),
    Item::text(
        "ca",
        "`start`: SHA-256 of the certificate authority's certificate.",
    ),
    Item::text(
        "sha256",
        "`ca_made`: of the certificate; `torn`: of the octets put aside.",
    ),
    Item::integer(
        "names",
        "`ca_made`: how many names it may sign; absent for any.",
    ),
    Item::text(
        "kept",
        "`ca_made`: `file` or `memory`; `torn`: the file with what was put aside.",
    ),
    Item::boolean(
        "replaces",
        "`ca_made`: whether it takes the place of another one.",
    ),
    Item::text("path", "`admin`: the path's pattern."),
    Item::integer("lost", "`stop`: records lost since the start."),
    Item::integer("records", "`lost`, `cut`: how many."),
    Item::text("head", "`cut`: the hash of the last of them."),
    Item::text("previous", "`rotated`: the file before this one."),
    Item::text(
        "cause",
        "`rotated`: `size`, `age`, or `moved` by somebody else.",
    ),
    Item::integer("bytes", "`torn`: how many octets were put aside.").in_unit("By"),
    Item::text(
        "key",
        "`head`: which key, by the first 16 digits of its SHA-256.",
    ),
    Item::text("signature", "`head`: Ed25519, in base64."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::access_log::tests::record;
    use super::*;

    /// One of each, with everything in it that it can have.
    fn all() -> Vec<Event> {
        let mut full = record("scan", 403);
        full.rule = Some(RuleRef {
            policy: "p".into(),
            file: "f.yaml".into(),
            line: 1,
        });
        full.target = SafeTarget::of(Some(&"/x?y=z".parse().unwrap()), |_| false);
        full.budget = Some("b".into());
        full.token_call = Some("refresh");
        full.canary = Some(CanaryRecord {
            credential: Some("c".into()),
            place: "header",
            misuse: "elsewhere",
        });
        let used = UsedCredential {
            name: "c".into(),
            version: 1,
            placement: "bearer",
        };
        let exchange = || Exchange::of(&full, vec![used.clone()]);
        let text = String::new;
        let change = || BudgetChange {
            budget: text(),
            scope: text(),
            window: text(),
            old: text(),
            new: text(),
            until: Some(text()),
            who: text(),
            why: text(),
        };
        vec![
            Event::Start(Start {
                version: "1",
                policy: text(),
                ca: text(),
                counts: Counts::default(),
            }),
            Event::Stop { lost: 0 },
            Event::Refused(exchange()),
            Event::WouldRefuse(exchange()),
            Event::Allowed(exchange()),
            Event::Canary(exchange()),
            Event::CredentialUsed(exchange()),
            Event::TokenCall(exchange()),
            Event::TokenRenewal {
                credential: text(),
                result: "ok",
            },
            Event::LoginStored {
                credential: text(),
                by: "login",
                who: text(),
            },
            Event::BudgetAlert {
                budget: text(),
                scope: text(),
                percent: 100,
                spent: text(),
                limit: text(),
            },
            Event::BudgetRaised(change()),
            Event::BudgetReset(change()),
            Event::PolicyReloaded {
                policy: text(),
                before: text(),
                changes: Changes::default(),
            },
            Event::PolicyRejected { policy: text() },
            Event::CaMade {
                sha256: text(),
                names: Some(1),
                kept: "file",
                replaces: false,
            },
            Event::Admin {
                path: text(),
                method: "POST",
                status: 200,
            },
            Event::Lost { records: 1 },
            Event::Rotated {
                previous: text(),
                cause: "size",
            },
            Event::Torn {
                bytes: 1,
                kept: text(),
                sha256: text(),
            },
            Event::Cut {
                records: 1,
                head: text(),
            },
            Event::Head(Head {
                key: text(),
                signature: text(),
            }),
        ]
    }

    #[test]
    fn every_event_and_every_field_is_described_and_nothing_else_is() {
        let (mut events, mut fields) = (BTreeSet::new(), BTreeSet::new());
        for event in all() {
            let value = serde_json::to_value(&event).unwrap();
            events.insert(value["event"].as_str().unwrap().to_owned());
            fields.extend(value.as_object().unwrap().keys().cloned());
        }
        // What every line has besides.
        fields.extend(["seq", "time", "prev", "hash"].map(ToOwned::to_owned));
        let named = |items: &[Item]| -> BTreeSet<String> {
            items.iter().map(|item| item.name.to_owned()).collect()
        };
        assert_eq!(events, named(EVENTS));
        assert_eq!(fields, named(FIELDS));
        let text = serde_json::to_value(&all()[2]).unwrap();
        assert_eq!(text["target"], Value::from("/x?y=[redacted]"));
    }
}
