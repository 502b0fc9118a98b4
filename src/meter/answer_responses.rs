//! Owns how answers of the Responses API report usage
//! (<https://platform.openai.com/docs/api-reference/responses>).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answer::{Answer, Ending, Piece, Seen, SoFar, model_name, terms_of};
use super::call::Call;
use super::count::{Count, TextLength};
use super::few::Few;
use crate::types::said::{Said, Stop};
use crate::types::usage::{Fee, ModelUse, Terms, TokenClass, Usage};

/// An answer of the Responses API, streamed or whole.
#[derive(Debug)]
pub(super) struct ResponsesAnswer {
    asked: Terms,
    model: Option<Arc<str>>,
    service_tier: Option<Box<str>>,
    told: Told,
    tools: ToolUses,
    seen: Seen,
    said: Said,
    complete: bool,
}

/// A `usage` object.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    audio_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    audio_tokens: Count,
    reasoning_tokens: Count,
}

/// An event of a stream. `delta` is a text in all kinds that carry the model's words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    delta: TextLength,
    item: Option<Item>,
    response: Option<Response>,
}

/// A whole response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    model: Option<Box<str>>,
    service_tier: Option<Box<str>>,
    usage: Option<Told>,
    output: Option<Few<Item>>,
    status: Option<Stop>,
    error: Option<IgnoredAny>,
    incomplete_details: Option<Incomplete>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Incomplete {
    reason: Option<Stop>,
}

/// A piece of output, as far as it costs something by itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    #[serde(rename = "type")]
    kind: Box<str>,
    action: Option<Action>,
    container_id: Option<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Action {
    #[serde(rename = "type")]
    kind: Box<str>,
}

/// Containers of one answer that are told apart. A real one has one or two.
const CONTAINERS: usize = 100;

/// How often the provider's tools were used.
#[derive(Clone, Debug, Default)]
struct ToolUses {
    web_searches: u64,
    file_searches: u64,
    containers: BTreeSet<Box<str>>,
    /// Calls that ran in containers which are not kept, since there are too many.
    beyond: u64,
}

impl Answer for ResponsesAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event { data, .. } if data.trim_ascii() == b"[DONE]" => {}
            Piece::Event { data, .. } => self.event(data),
            Piece::Object(body) => self.body(body),
            Piece::Closed => self.complete = true,
            Piece::Lost(octets) => self.seen.lost(octets),
        }
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            input: self.told.input(),
            reported: self.told.output_tokens.or_zero(),
            seen: self.seen.tokens(),
            at_least: self.seen.at_least(),
            complete: self.complete,
        }
    }

    fn said(&self) -> Said {
        let details = self.told.output_tokens_details.unwrap_or_default();
        self.said.reasoned(details.reasoning_tokens.known())
    }

    fn is_failure(&self) -> bool {
        self.seen.is_failure()
    }

    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        let is_final = self.complete && self.seen.is_counted() && self.told.is_readable();
        let uses = so_far.input.map(|input| {
            vec![ModelUse {
                model: self.model.clone(),
                usage: input.plus(&self.told.output()),
                fees: self.tools.fees(),
                terms: terms_of(&self.asked, self.service_tier.as_deref(), None, None),
            }]
        });
        Ending {
            uses,
            is_final,
            so_far,
        }
    }
}

impl ResponsesAnswer {
    pub(super) fn new(call: &Call) -> Self {
        Self {
            asked: call.terms.clone(),
            model: None,
            service_tier: None,
            told: Told::default(),
            tools: ToolUses::default(),
            seen: Seen::default(),
            said: Said::default(),
            complete: false,
        }
    }

    fn event(&mut self, data: &[u8]) {
        let Some(event) = self.seen.read::<Event<'_>>(data) else {
            return;
        };
        // Audio is no text; its transcript comes in events of its own.
        if !matches!(
            &*event.kind,
            "response.audio.delta" | "response.output_audio.delta"
        ) {
            self.seen.visible(event.delta.0);
        }
        match &*event.kind {
            "response.created" | "response.queued" | "response.in_progress" => {}
            "error" => self.seen.failed(),
            "response.failed" if event.response.as_ref().is_some_and(Response::is_failure) => {
                self.seen.failed();
            }
            _ => self.seen.began(),
        }
        match &*event.kind {
            "response.output_item.done" => {
                if let Some(item) = event.item {
                    self.tools.add(item);
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.complete = true;
                self.take(event.response.unwrap_or_default());
            }
            _ => self.describe(&event.response.unwrap_or_default()),
        }
    }

    fn body(&mut self, data: &[u8]) {
        let Some(response) = self.seen.read::<Response>(data) else {
            return;
        };
        if response.is_failure() {
            return self.seen.failed();
        }
        self.seen.began();
        if response.usage.is_none() {
            self.seen.lost(data.len() as u64);
        }
        self.take(response);
    }

    /// Takes in a response at its end. It holds all of the output, so its tools are counted anew.
    fn take(&mut self, response: Response) {
        self.describe(&response);
        let incomplete = response.incomplete_details.unwrap_or_default();
        if let Some(stop) = incomplete.reason.or(response.status) {
            self.said.stopped(stop);
        }
        let mut tools = ToolUses::default();
        for item in response.output.unwrap_or_default() {
            tools.add(item);
        }
        self.tools.raise(tools);
        if let Some(usage) = response.usage {
            self.told.merge(usage);
            if self.told.output_tokens.known().is_some() {
                self.seen.counted();
            }
        }
    }

    fn describe(&mut self, response: &Response) {
        if self.model.is_none() {
            self.model = response.model.as_deref().and_then(model_name);
        }
        if let Some(tier) = &response.service_tier {
            self.service_tier = Some(tier.clone());
        }
    }
}

impl Response {
    /// Whether it is an error, with neither output nor usage.
    fn is_failure(&self) -> bool {
        let output = self.output.as_deref().unwrap_or_default();
        self.error.is_some() && self.usage.is_none() && output.is_empty()
    }
}

impl ToolUses {
    /// A web search call may also open a page or look something up in it, which costs nothing by itself;
    /// code runs in a container that is paid for once.
    fn add(&mut self, item: Item) {
        match &*item.kind {
            "web_search_call" => {
                let action = item.action.unwrap_or_default().kind;
                self.web_searches += u64::from(matches!(&*action, "" | "search"));
            }
            "file_search_call" => self.file_searches += 1,
            "code_interpreter_call" => {
                let container = item.container_id.unwrap_or_default();
                if self.containers.len() < CONTAINERS {
                    self.containers.insert(container);
                } else if !self.containers.contains(&container) {
                    self.beyond = self.beyond.saturating_add(1);
                }
            }
            _ => {}
        }
    }

    fn raise(&mut self, later: Self) {
        self.web_searches = self.web_searches.max(later.web_searches);
        self.file_searches = self.file_searches.max(later.file_searches);
        if later.ran_in() > self.ran_in() {
            self.containers = later.containers;
            self.beyond = later.beyond;
        }
    }

    /// In how many containers code ran, at most.
    fn ran_in(&self) -> u64 {
        self.beyond.saturating_add(self.containers.len() as u64)
    }

    fn fees(&self) -> Vec<(Fee, u64)> {
        let fees = [
            (Fee::WebSearch, self.web_searches),
            (Fee::FileSearch, self.file_searches),
            (Fee::CodeExecution, self.ran_in()),
        ];
        fees.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

impl Told {
    fn merge(&mut self, later: Self) {
        self.input_tokens.merge(later.input_tokens);
        self.output_tokens.merge(later.output_tokens);
        if let Some(later) = later.input_tokens_details {
            let told = self.input_tokens_details.get_or_insert_default();
            told.cached_tokens.merge(later.cached_tokens);
            told.cache_write_tokens.merge(later.cache_write_tokens);
            told.audio_tokens.merge(later.audio_tokens);
        }
        if let Some(later) = later.output_tokens_details {
            let told = self.output_tokens_details.get_or_insert_default();
            told.audio_tokens.merge(later.audio_tokens);
            told.reasoning_tokens.merge(later.reasoning_tokens);
        }
    }

    /// Cached tokens, tokens written to a cache and audio are parts of `input_tokens`.
    fn input(&self) -> Option<Usage> {
        let input = self.input_tokens.known()?;
        let details = self.input_tokens_details.unwrap_or_default();
        let parts = [
            (TokenClass::CacheRead, details.cached_tokens),
            (TokenClass::CacheWrite5m, details.cache_write_tokens),
            (TokenClass::AudioInput, details.audio_tokens),
        ];
        let mut usage = Usage::default();
        for (class, count) in parts {
            if count.is_unreadable() {
                return None;
            }
            usage[class] = count.or_zero();
        }
        usage[TokenClass::Input] = input.saturating_sub(usage.total_input());
        Some(usage)
    }

    /// Reasoning is a part of `output_tokens`.
    fn output(&self) -> Usage {
        let output = self.output_tokens.or_zero();
        let details = self.output_tokens_details.unwrap_or_default();
        let audio = details.audio_tokens.or_zero().min(output);
        let mut usage = Usage::default();
        usage[TokenClass::AudioOutput] = audio;
        usage[TokenClass::Output] = output - audio;
        usage
    }

    fn is_readable(&self) -> bool {
        let details = self.output_tokens_details.unwrap_or_default();
        self.input().is_some()
            && self.output_tokens.known().is_some()
            && !details.audio_tokens.is_unreadable()
    }
}
