//! Owns how answers of the Anthropic Messages API report usage
//! (<https://platform.claude.com/docs/en/api/messages>, "Streaming messages", "Prompt caching", "Compaction").

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answer::{Answer, Ending, Piece, Seen, SoFar, model_name, terms_of, written_to_cache};
use super::call::{CacheUse, Call};
use super::count::{Count, TextLength};
use super::delta;
use super::endpoint::Operation;
use super::few::Few;
use crate::types::said::{Said, Stop};
use crate::types::usage::{Fee, ModelUse, Terms, TokenClass, Usage};

/// An answer of the Messages API, streamed or whole.
#[derive(Debug)]
pub(super) struct MessagesAnswer {
    asked: Terms,
    cache: CacheUse,
    /// Whether the answer may name its model: on Bedrock and Vertex AI the path names it, and the price goes by
    /// that name.
    names_model: bool,
    model: Option<Arc<str>>,
    told: Told,
    seen: Seen,
    /// Whether the reason why the model stopped was told, after which no count grows.
    stopped: bool,
    said: Said,
    complete: bool,
}

/// Turns of one answer that are told apart. A compaction makes two or three of them.
const ITERATIONS: usize = 64;

/// A `usage` object, or an entry of its `iterations`, which has none itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Told<I = Few<Told<IgnoredAny>, ITERATIONS>> {
    model: Option<Box<str>>,
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_creation: Option<Creation>,
    service_tier: Option<Box<str>>,
    speed: Option<Box<str>>,
    inference_geo: Option<Box<str>>,
    server_tool_use: Option<ServerTools>,
    iterations: Option<I>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Creation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct ServerTools {
    web_search_requests: Count,
    code_execution_requests: Count,
}

/// An event of a stream, or a whole message, which has the fields of `message` itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    model: Option<Box<str>>,
    usage: Option<Told>,
    message: Option<Message>,
    delta: Option<Delta>,
    content_block: Option<Block>,
    stop_reason: Option<Stop>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    model: Option<Box<str>>,
    usage: Option<Told>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    text: TextLength,
    thinking: TextLength,
    partial_json: TextLength,
    /// Of a compaction.
    content: TextLength,
    /// Of thinking that does not show (beta `thinking-token-count-2026-05-13`).
    estimated_tokens: Count,
    stop_reason: Option<Stop>,
}

/// The start of a block, which may already have content: `data` is thinking that only the provider can read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    name: TextLength,
    text: TextLength,
    thinking: TextLength,
    data: TextLength,
}

impl Answer for MessagesAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event { data, .. } => {
                self.event(data);
            }
            Piece::Object(body) => self.body(body),
            Piece::Closed => self.complete = true,
            Piece::Lost(octets) => self.seen.lost(octets),
        }
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            input: self.input(),
            reported: self.reported_output(),
            seen: self.seen.tokens(),
            at_least: self.seen.at_least(),
            complete: self.complete,
        }
    }

    fn said(&self) -> Said {
        self.said
    }

    fn is_failure(&self) -> bool {
        self.seen.is_failure()
    }

    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        let is_final = (self.complete || self.stopped)
            && self.seen.is_counted()
            && self.told.is_readable()
            && self.told.iterations().iter().all(Told::is_whole);
        Ending {
            uses: so_far.input.map(|_| self.uses()),
            is_final,
            so_far,
        }
    }
}

impl MessagesAnswer {
    pub(super) fn new(call: &Call) -> Self {
        Self {
            asked: call.terms.clone(),
            cache: call.cache,
            names_model: call.operation == Operation::Messages,
            model: None,
            told: Told::default(),
            seen: Seen::default(),
            stopped: false,
            said: Said::default(),
            complete: false,
        }
    }

    /// Whether it has told a count.
    pub(super) fn has_usage(&self) -> bool {
        self.told.input_tokens != Count::default() || self.told.output_tokens != Count::default()
    }

    /// Takes in an event of a stream; says whether it is one of this API.
    pub(super) fn event(&mut self, data: &[u8]) -> bool {
        if let Some(octets) = delta::text_of(data) {
            self.seen.visible(octets);
            return true;
        }
        let Some(event) = self.seen.read::<Event<'_>>(data) else {
            return true;
        };
        if let Some(block) = event.content_block {
            let octets = [block.name, block.text, block.thinking, block.data];
            self.see(&octets);
        }
        if let Some(delta) = event.delta {
            self.see(&[
                delta.text,
                delta.thinking,
                delta.partial_json,
                delta.content,
            ]);
            self.seen.hint(delta.estimated_tokens.or_zero());
            if let Some(stop) = delta.stop_reason {
                self.stopped = true;
                self.said.stopped(stop);
            }
        }
        match &*event.kind {
            "message_start" => {
                if let Some(message) = event.message {
                    self.name_model(message.model);
                    self.told.merge(message.usage.unwrap_or_default());
                }
            }
            "message_delta" => {
                if let Some(usage) = event.usage {
                    self.tell(usage);
                }
            }
            "message_stop" => self.complete = true,
            _ => {}
        }
        match &*event.kind {
            // What is overloaded says so in a stream that has begun with 200 ("Errors").
            "error" => self.seen.failed(),
            "ping" => {}
            _ => self.seen.began(),
        }
        !event.kind.is_empty()
    }

    fn body(&mut self, data: &[u8]) {
        let Some(message) = self.seen.read::<Event<'_>>(data) else {
            return;
        };
        if message.kind == "error" {
            return self.seen.failed();
        }
        self.seen.began();
        let Some(usage) = message.usage else {
            return self.seen.lost(data.len() as u64);
        };
        if let Some(stop) = message.stop_reason {
            self.said.stopped(stop);
        }
        self.name_model(message.model);
        self.tell(usage);
    }

    fn see(&mut self, texts: &[TextLength]) {
        for text in texts {
            self.seen.visible(text.0);
        }
    }

    fn tell(&mut self, usage: Told) {
        if usage.output_tokens.known().is_some() {
            self.seen.counted();
        }
        self.told.merge(usage);
    }

    fn name_model(&mut self, model: Option<Box<str>>) {
        if self.names_model && self.model.is_none() {
            self.model = model.as_deref().and_then(model_name);
        }
    }

    /// The prompt's tokens of every model that worked on it.
    fn input(&self) -> Option<Usage> {
        if !self.told.knows_input() {
            return None;
        }
        let mut input = self.sum();
        input = input.plus(&self.beside(&input));
        input[TokenClass::Output] = 0;
        Some(input)
    }

    /// The tokens of all `iterations`.
    fn sum(&self) -> Usage {
        let all = self.told.iterations().iter();
        all.fold(Usage::default(), |sum, one| {
            sum.plus(&one.usage(self.cache))
        })
    }

    /// What the counts beside `iterations` have that these have not. They should have nothing: they leave out
    /// compaction and other models' work. Should they be more all the same, the rest was used as well.
    fn beside(&self, sum: &Usage) -> Usage {
        let top = self.told.usage(self.cache);
        let mut rest = Usage::default();
        for (class, count) in top.iter() {
            let short = match class.is_input() {
                true => sum.total_input() < top.total_input(),
                false => sum.total_output() < top.total_output(),
            };
            if short {
                rest[class] = count.saturating_sub(sum[class]);
            }
        }
        rest
    }

    fn reported_output(&self) -> u64 {
        let of_all = self.told.iterations().iter();
        let of_all = of_all.fold(0_u64, |sum, one| {
            sum.saturating_add(one.output_tokens.or_zero())
        });
        of_all.max(self.told.output_tokens.or_zero())
    }

    /// Each model's use; `iterations` stand for the whole answer where they are told.
    fn uses(&self) -> Vec<ModelUse> {
        let mut uses: Vec<ModelUse> = Vec::new();
        for one in self.told.iterations() {
            let named = one.model.as_deref().and_then(model_name);
            uses.push(ModelUse {
                model: named.or_else(|| self.model.clone()),
                usage: one.usage(self.cache),
                fees: Vec::new(),
                terms: self.terms(one),
            });
        }
        let rest = self.beside(&self.sum());
        if uses.is_empty() || !rest.is_zero() {
            uses.push(ModelUse {
                model: self.model.clone(),
                usage: rest,
                fees: Vec::new(),
                terms: self.terms(&self.told),
            });
        }
        let tools = self.told.server_tool_use.unwrap_or_default();
        let paid = tools.paid().map(|(fee, count)| (fee, count.or_zero()));
        let fees = &mut uses[0].fees;
        fees.extend(paid.into_iter().filter(|(_, count)| *count > 0));
        uses
    }

    fn terms<I>(&self, one: &Told<I>) -> Terms {
        let top = &self.told;
        terms_of(
            &self.asked,
            one.service_tier.as_deref().or(top.service_tier.as_deref()),
            one.speed.as_deref().or(top.speed.as_deref()),
            one.inference_geo
                .as_deref()
                .or(top.inference_geo.as_deref()),
        )
    }
}

impl Told {
    fn merge(&mut self, mut later: Self) {
        let iterations = later.iterations.take();
        self.merge_counts(later);
        if let Some(later) = iterations {
            let told = self.iterations.get_or_insert_default();
            for (at, later) in later.into_iter().enumerate() {
                match told.get_mut(at) {
                    Some(told) => told.merge_counts(later),
                    None => told.push(later),
                }
            }
        }
    }

    fn iterations(&self) -> &[Told<IgnoredAny>] {
        self.iterations.as_ref().map_or(&[], |told| &told[..])
    }
}

impl ServerTools {
    /// How often each tool that is paid for was used.
    fn paid(self) -> [(Fee, Count); 2] {
        [
            (Fee::WebSearch, self.web_search_requests),
            (Fee::CodeExecution, self.code_execution_requests),
        ]
    }

    fn is_unreadable(self) -> bool {
        self.paid().iter().any(|(_, count)| count.is_unreadable())
    }
}

impl<I> Told<I> {
    fn merge_counts(&mut self, later: Self) {
        self.input_tokens.merge(later.input_tokens);
        self.output_tokens.merge(later.output_tokens);
        self.cache_read_input_tokens
            .merge(later.cache_read_input_tokens);
        self.cache_creation_input_tokens
            .merge(later.cache_creation_input_tokens);
        if let Some(later) = later.cache_creation {
            let told = self.cache_creation.get_or_insert_default();
            told.ephemeral_5m_input_tokens
                .merge(later.ephemeral_5m_input_tokens);
            told.ephemeral_1h_input_tokens
                .merge(later.ephemeral_1h_input_tokens);
        }
        if let Some(later) = later.server_tool_use {
            let told = self.server_tool_use.get_or_insert_default();
            told.web_search_requests.merge(later.web_search_requests);
            told.code_execution_requests
                .merge(later.code_execution_requests);
        }
        self.model = later.model.or(self.model.take());
        self.service_tier = later.service_tier.or(self.service_tier.take());
        self.speed = later.speed.or(self.speed.take());
        self.inference_geo = later.inference_geo.or(self.inference_geo.take());
    }

    fn knows_input(&self) -> bool {
        let creation = self.cache_creation.unwrap_or_default();
        let parts = [
            self.cache_read_input_tokens,
            self.cache_creation_input_tokens,
            creation.ephemeral_5m_input_tokens,
            creation.ephemeral_1h_input_tokens,
        ];
        self.input_tokens.known().is_some() && !parts.into_iter().any(Count::is_unreadable)
    }

    fn is_readable(&self) -> bool {
        self.knows_input()
            && !self.output_tokens.is_unreadable()
            && !self.server_tool_use.is_some_and(ServerTools::is_unreadable)
    }

    fn is_whole(&self) -> bool {
        self.is_readable() && self.output_tokens.known().is_some()
    }

    /// Tokens by class.
    fn usage(&self, cache: CacheUse) -> Usage {
        let creation = self.cache_creation.unwrap_or_default();
        let mut usage = written_to_cache(
            self.cache_creation_input_tokens.or_zero(),
            creation.ephemeral_5m_input_tokens.or_zero(),
            creation.ephemeral_1h_input_tokens.or_zero(),
            cache,
        );
        usage[TokenClass::Input] = self.input_tokens.or_zero();
        usage[TokenClass::CacheRead] = self.cache_read_input_tokens.or_zero();
        usage[TokenClass::Output] = self.output_tokens.or_zero();
        usage
    }
}
