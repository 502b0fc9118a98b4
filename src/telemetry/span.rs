//! Owns the span of an exchange: how its record and its notes are written. Only who writes it spends time on
//! it; a request hands over a pointer.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use super::access_log::{Kind, Record, Verdict};
use super::gate::SecretSearch;
use super::redact::REDACTED;
use super::semconv::{self as names, KIND_CLIENT, provider, system};
use super::span_notes::{Certainty, ModelNotes, Pieces, SpanNotes};
use super::vocabulary::Item;
use super::wire::Message;
use crate::types::usage::TokenClass;

/// Below this part of a budget its state is `low`: the default warning comes at four fifths.
const LOW: f64 = 0.2;

/// Field numbers of `Span`.
mod field {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTE: u32 = 9;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
}

/// `Span.flags`: the `sampled` flag, and that it is known whether the parent is remote.
const FLAGS: u32 = 0x01 | 0x100;
/// The same where it is: the agent's.
const REMOTE: u32 = 0x200;
/// `Status { code: STATUS_CODE_ERROR }`.
const FAILED: &[u8] = &[0x18, 0x02];

/// Writes spans, one after the other, in the same memory.
#[derive(Default)]
pub struct SpanWriter {
    span: Message,
    /// What an attribute is made up in.
    text: String,
    /// Every text of the span that a program or a person made up, for one search.
    searched: Vec<u8>,
}

/// How texts get into a span.
#[derive(Clone, Copy)]
enum Care<'a> {
    /// As they are, gathered for one search.
    Gather,
    /// Each searched by itself.
    Each(&'a SecretSearch),
}

impl SpanWriter {
    /// Writes the span of a record that has notes for one. Also says how many of its texts held a secret, and
    /// were taken out.
    pub fn write(
        &mut self,
        record: &Record,
        notes: &SpanNotes,
        search: &SecretSearch,
    ) -> (&[u8], u64) {
        self.fill(record, notes, Care::Gather);
        let found = match search(&self.searched) {
            true => self.fill(record, notes, Care::Each(search)),
            false => 0,
        };
        (self.span.bytes(), found)
    }

    fn fill(&mut self, record: &Record, notes: &SpanNotes, care: Care<'_>) -> u64 {
        self.span.clear();
        self.searched.clear();
        let mut sheet = Sheet {
            span: &mut self.span,
            text: &mut self.text,
            searched: &mut self.searched,
            care,
            found: 0,
        };
        sheet.head(record, notes);
        sheet.http(record, notes);
        if let Some(model) = &notes.model {
            sheet.model(record, notes, model);
        }
        sheet.own(record, notes);
        sheet.found
    }
}

/// One span under way.
struct Sheet<'a> {
    span: &'a mut Message,
    text: &'a mut String,
    searched: &'a mut Vec<u8>,
    care: Care<'a>,
    found: u64,
}

impl Sheet<'_> {
    fn head(&mut self, record: &Record, notes: &SpanNotes) {
        self.span.octets(field::TRACE_ID, &notes.trace.0);
        self.span.octets(field::SPAN_ID, &notes.span.0);
        if let Some(state) = notes.state.as_ref().filter(|state| state.is_plain()) {
            let state = self.checked(state.as_str());
            self.span.octets(field::TRACE_STATE, state.as_bytes());
        }
        if let Some(parent) = notes.parent {
            self.span.octets(field::PARENT, &parent.0);
        }
        self.name(record, notes);
        self.span.number(field::KIND, KIND_CLIENT);
        let begun = record.time.duration_since(SystemTime::UNIX_EPOCH);
        let begun = begun.unwrap_or_default();
        let ended = begun.saturating_add(record.duration.unwrap_or_default());
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.span.fixed64(field::START, nanos(begun));
        self.span.fixed64(field::END, nanos(ended));
        if error_of(record).is_some() {
            self.span.octets(field::STATUS, FAILED);
        }
        let remote = notes.parent.map_or(0, |_| REMOTE);
        self.span.fixed32(field::FLAGS, FLAGS | remote);
    }

    /// `chat claude-sonnet-4-5`, or the method: a path would make a name for each object.
    fn name(&mut self, record: &Record, notes: &SpanNotes) {
        let model = notes.model.as_ref();
        let asked = model.and_then(|m| m.asked.as_ref().map(|asked| (m.operation, asked)));
        match asked {
            Some((operation, asked)) => {
                self.made(format_args!("{operation} {asked}"));
                let name = std::mem::take(self.text);
                let shown = self.checked(&name);
                self.span.octets(field::NAME, shown.as_bytes());
                *self.text = name;
            }
            None if model.is_some() => {
                let operation = model.map_or("", |m| m.operation);
                self.span.octets(field::NAME, operation.as_bytes());
            }
            // The conventions' name for a method that is none of the known ones.
            None => {
                let name = match method_of(record) {
                    "_OTHER" => "HTTP",
                    method => method,
                };
                self.span.octets(field::NAME, name.as_bytes());
            }
        }
    }

    fn http(&mut self, record: &Record, notes: &SpanNotes) {
        self.word(&names::METHOD, method_of(record));
        self.word(&names::SCHEME, record.scheme);
        if let Some(authority) = &record.authority {
            self.shown(&names::SERVER, &authority.host);
            self.integer(&names::PORT, u64::from(authority.port));
            if let Some(target) = &record.target {
                let scheme = record.scheme;
                let host = &authority.host;
                let bare = (scheme == "https" && authority.port == 443)
                    || (scheme == "http" && authority.port == 80);
                match bare {
                    true => self.shown(&names::URL, format_args!("{scheme}://{host}{target}")),
                    false => {
                        self.shown(&names::URL, format_args!("{scheme}://{authority}{target}"))
                    }
                }
            }
        }
        if let Some(status) = record.status {
            self.integer(&names::STATUS, u64::from(status));
        }
        match error_of(record) {
            Some(Failure::Word(word)) => self.word(&names::ERROR, word),
            Some(Failure::Status(status)) => self.shown(&names::ERROR, status),
            None => {}
        }
        if let Some(protocol) = notes.protocol {
            self.word(&names::PROTOCOL, protocol);
        }
        if record.replayed {
            self.integer(&names::RESENT, 1);
        }
        self.integer(&names::REQUEST_BODY, record.request_bytes);
        self.integer(&names::RESPONSE_BODY, record.response_bytes);
        if let Some(user_agent) = &notes.user_agent {
            self.shown(&names::USER_AGENT, user_agent);
        }
        for attribute in notes.present.attributes() {
            self.span
                .texts_attribute(field::ATTRIBUTE, attribute, &[REDACTED]);
        }
    }

    fn model(&mut self, record: &Record, notes: &SpanNotes, model: &ModelNotes) {
        self.word(&names::OPERATION, model.operation);
        self.word(&names::PROVIDER, provider(model.api));
        self.word(&names::SYSTEM, system(model.api));
        if let Some(asked) = &model.asked {
            self.shown(&names::MODEL, asked);
        }
        if let Some(answered) = &model.answered {
            self.shown(&names::ANSWERED, answered);
        }
        if let Some(id) = &notes.conversation {
            self.shown(&names::CONVERSATION, id);
        }
        if let Some(agent) = &record.agent {
            self.text(&names::AGENT_NAME, agent.name());
        }
        if notes.pieces == Pieces::Many {
            self.truth(&names::STREAM);
            if let Some(first) = notes.first_chunk {
                self.number(&names::FIRST_CHUNK, first.as_secs_f64());
            }
        }
        if model.said.stops().next().is_some() {
            self.texts(&names::FINISH, model.said.stops());
        }
        if let Some(usage) = &model.usage {
            let written =
                usage[TokenClass::CacheWrite5m].saturating_add(usage[TokenClass::CacheWrite1h]);
            self.integer(&names::INPUT, usage.total_input());
            self.integer(&names::OUTPUT, usage.total_output());
            self.integer(&names::CACHE_READ, usage[TokenClass::CacheRead]);
            self.integer(&names::CACHE_WRITE, written);
            if let Some(reasoning) = model.said.reasoning() {
                self.integer(&names::REASONING, reasoning);
            }
        }
        if let Some(cost) = model.cost {
            self.number(&names::COST, cost.0 as f64 / 1e9);
            if model.certainty == Certainty::Estimated {
                self.truth(&names::ESTIMATED);
            }
        }
        if let Some(budget) = &model.budget {
            self.text(&names::BUDGET, &budget.name);
            self.text(&names::BUDGET_LEFT, &budget.remaining);
            self.number(&names::BUDGET_RATIO, budget.ratio);
            let state = match budget.ratio {
                ratio if ratio <= 0.0 => "exhausted",
                ratio if ratio < LOW => "low",
                _ => "open",
            };
            self.word(&names::BUDGET_STATE, state);
        }
    }

    fn own(&mut self, record: &Record, notes: &SpanNotes) {
        self.shown(&names::INVOCATION, notes.invocation);
        // Made here, of a clock and a counter.
        self.word(&names::REQUEST_ID, &record.id);
        let kind = match record.kind {
            Kind::Request => "request",
            Kind::Tunnel => "tunnel",
            Kind::Connect => "connect",
        };
        self.word(&names::KIND, kind);
        self.word(&names::INGRESS, record.ingress);
        let decision = match record.decision {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Report => "report",
        };
        self.word(&names::DECISION, decision);
        if let Some(reason) = record.reason {
            self.word(&names::REASON, reason);
        }
        if let Some(rule) = &record.rule {
            self.shown(&names::RULE, rule);
            self.text(&names::POLICY, &rule.policy);
        }
        if let Some(end) = record.end {
            self.word(&names::END, end);
        }
        if let Some(agent) = &record.agent {
            self.text(&names::AGENT, agent.name());
            if let Some((namespace, _)) = agent.name().split_once('/') {
                self.text(&names::NAMESPACE, namespace);
            }
        }
        if let Some(execution) = &notes.execution {
            self.text(&names::EXECUTION, execution);
        }
        if !record.credentials.is_empty() {
            self.texts(
                &names::CREDENTIALS,
                record.credentials.iter().map(|name| &**name),
            );
            let versions: Vec<String> = notes.versions.iter().map(u64::to_string).collect();
            if versions.len() == record.credentials.len() {
                self.texts(&names::VERSIONS, versions.iter().map(String::as_str));
            }
        }
        if let Some(outcome) = record.token_call {
            self.word(&names::TOKEN_CALL, outcome);
        }
    }

    /// A text of ours: it says nothing that was made up elsewhere.
    fn word(&mut self, item: &Item, word: &str) {
        self.span.text_attribute(field::ATTRIBUTE, item.name, word);
    }

    fn integer(&mut self, item: &Item, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.span
            .integer_attribute(field::ATTRIBUTE, item.name, value);
    }

    fn number(&mut self, item: &Item, value: f64) {
        self.span
            .double_attribute(field::ATTRIBUTE, item.name, value);
    }

    fn truth(&mut self, item: &Item) {
        self.span.true_attribute(field::ATTRIBUTE, item.name);
    }

    /// A text that came from elsewhere.
    fn text(&mut self, item: &Item, text: &str) {
        let text = self.checked(text);
        self.span.text_attribute(field::ATTRIBUTE, item.name, text);
    }

    fn shown(&mut self, item: &Item, value: impl fmt::Display) {
        self.made(format_args!("{value}"));
        let made = std::mem::take(self.text);
        self.text(item, &made);
        *self.text = made;
    }

    fn texts<'t>(&mut self, item: &Item, texts: impl Iterator<Item = &'t str>) {
        let texts: Vec<&str> = texts.map(|text| self.checked(text)).collect();
        self.span
            .texts_attribute(field::ATTRIBUTE, item.name, &texts);
    }

    fn made(&mut self, text: fmt::Arguments<'_>) {
        self.text.clear();
        // Writing to a string does not fail.
        self.text.write_fmt(text).ok();
    }

    /// The text as it may be written.
    fn checked<'t>(&mut self, text: &'t str) -> &'t str {
        match self.care {
            Care::Gather => {
                self.searched.extend_from_slice(text.as_bytes());
                // No secret has it in it, so none is found across two texts.
                self.searched.push(0);
                text
            }
            Care::Each(search) if search(text.as_bytes()) => {
                self.found += 1;
                REDACTED
            }
            Care::Each(_) => text,
        }
    }
}

fn method_of(record: &Record) -> &str {
    record
        .method
        .as_ref()
        .map_or("CONNECT", http::Method::as_str)
}

/// What `error.type` says.
enum Failure {
    Word(&'static str),
    Status(u16),
}

/// Why an exchange counts as failed, if it does.
fn error_of(record: &Record) -> Option<Failure> {
    let reason = match record.decision {
        // It went through, and the reason is what another mode would say.
        Verdict::Report => None,
        Verdict::Allow | Verdict::Deny => record.reason,
    };
    if let Some(word) = reason.or(record.end) {
        return Some(Failure::Word(word));
    }
    let status = record.status.filter(|status| *status >= 400)?;
    Some(Failure::Status(status))
}
