//! Owns how answers of the Chat Completions API report usage
//! (<https://platform.openai.com/docs/api-reference/chat>).

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answer::{Answer, Ending, Piece, Seen, SoFar, model_name, terms_of};
use super::call::Call;
use super::count::{Count, TextLength};
use super::few::Few;
use crate::types::said::{Said, Stop};
use crate::types::usage::{Fee, ModelUse, Terms, TokenClass, Usage};

/// An answer of the Chat Completions API, streamed or whole.
#[derive(Debug)]
pub(super) struct ChatAnswer {
    asked: Terms,
    /// Its search models search once for every request, and report no count of it.
    searches: bool,
    model: Option<Arc<str>>,
    service_tier: Option<Box<str>>,
    told: Told,
    seen: Seen,
    /// Whether usage came in the last chunk: the one without choices that `include_usage` asks for, or one that
    /// tells why the model stopped.
    closed_with_usage: bool,
    said: Said,
    complete: bool,
}

/// A `usage` object. DeepSeek and Moonshot report cached tokens beside the details.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_cache_hit_tokens: Count,
    cached_tokens: Count,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_creation_tokens: Count,
    audio_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    audio_tokens: Count,
    reasoning_tokens: Count,
}

/// An event of a stream, or a whole completion.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    model: Option<Box<str>>,
    service_tier: Option<Box<str>>,
    choices: Option<Few<Choice>>,
    usage: Option<Told>,
    error: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<Stop>,
}

/// What is new of an answer. Audio itself is no text; its transcript is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: TextLength,
    refusal: TextLength,
    reasoning: TextLength,
    reasoning_content: TextLength,
    function_call: Option<Function>,
    tool_calls: Option<Few<ToolCall>>,
    audio: Option<Audio>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCall {
    function: Option<Function>,
    custom: Option<Custom>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function {
    name: TextLength,
    arguments: TextLength,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Custom {
    name: TextLength,
    input: TextLength,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Audio {
    transcript: TextLength,
}

impl Answer for ChatAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event { data, .. } if data.trim_ascii() == b"[DONE]" => self.complete = true,
            Piece::Event { data, .. } => self.event(data),
            Piece::Object(body) => self.body(body),
            Piece::Closed => self.complete = true,
            Piece::Lost(octets) => self.seen.lost(octets),
        }
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            input: self.told.input(),
            reported: self.told.output().total_output(),
            seen: self.seen.tokens(),
            at_least: self.seen.at_least(),
            complete: self.complete,
        }
    }

    fn said(&self) -> Said {
        let details = self.told.completion_tokens_details.unwrap_or_default();
        self.said.reasoned(details.reasoning_tokens.known())
    }

    fn is_failure(&self) -> bool {
        self.seen.is_failure()
    }

    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        let is_final = (self.complete || self.closed_with_usage)
            && self.seen.is_counted()
            && self.told.is_readable();
        let uses = so_far.input.map(|input| {
            vec![ModelUse {
                model: self.model.clone(),
                usage: input.plus(&self.told.output()),
                fees: self
                    .searches
                    .then_some((Fee::WebSearch, 1))
                    .into_iter()
                    .collect(),
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

impl ChatAnswer {
    pub(super) fn new(call: &Call) -> Self {
        Self {
            asked: call.terms.clone(),
            searches: call.tools.iter().any(|(fee, _)| *fee == Fee::WebSearch),
            model: None,
            service_tier: None,
            told: Told::default(),
            seen: Seen::default(),
            closed_with_usage: false,
            said: Said::default(),
            complete: false,
        }
    }

    fn event(&mut self, data: &[u8]) {
        let Some(chunk) = self.seen.read::<Chunk>(data) else {
            return;
        };
        self.note(&chunk);
        let choices = chunk.choices.as_deref().unwrap_or_default();
        for delta in choices.iter().filter_map(|choice| choice.delta.as_ref()) {
            self.seen.visible(delta.octets());
        }
        let is_last = choices.iter().all(|choice| choice.finish_reason.is_some());
        self.closed_with_usage |= self.take(chunk) && is_last;
    }

    fn body(&mut self, data: &[u8]) {
        let Some(completion) = self.seen.read::<Chunk>(data) else {
            return;
        };
        self.note(&completion);
        let is_error = completion.error.is_some();
        if !self.seen.is_failure() && (is_error || !self.take(completion)) {
            self.seen.lost(data.len() as u64);
        }
    }

    /// Azure begins with a chunk that has no choice, and tells nothing of an answer.
    fn note(&mut self, chunk: &Chunk) {
        let choices = chunk.choices.as_deref().unwrap_or_default();
        match (choices.is_empty() && chunk.usage.is_none(), &chunk.error) {
            (true, Some(_)) => self.seen.failed(),
            (true, None) => {}
            (false, _) => self.seen.began(),
        }
    }

    /// Takes in what a chunk says about usage; says whether it did. Azure's first chunk names no model.
    fn take(&mut self, chunk: Chunk) -> bool {
        if self.model.is_none() {
            self.model = chunk.model.as_deref().and_then(model_name);
        }
        self.service_tier = chunk.service_tier.or(self.service_tier.take());
        let choices = chunk.choices.unwrap_or_default();
        for stop in choices.iter().filter_map(|choice| choice.finish_reason) {
            self.said.stopped(stop);
        }
        let Some(usage) = chunk.usage else {
            return false;
        };
        self.told.merge(usage);
        if self.told.knows_output() {
            self.seen.counted();
        }
        true
    }
}

impl Delta {
    fn octets(&self) -> u64 {
        let function = |function: &Option<Function>| {
            function
                .as_ref()
                .map_or(0, |function| function.name.0 + function.arguments.0)
        };
        let calls = self.tool_calls.as_deref().unwrap_or_default();
        let calls = calls.iter().fold(0, |sum, call| {
            let custom = call.custom.as_ref();
            sum + function(&call.function)
                + custom.map_or(0, |custom| custom.name.0 + custom.input.0)
        });
        let audio = self.audio.as_ref();
        self.content.0
            + self.refusal.0
            + self.reasoning.0
            + self.reasoning_content.0
            + function(&self.function_call)
            + calls
            + audio.map_or(0, |audio| audio.transcript.0)
    }
}

impl Told {
    fn merge(&mut self, later: Self) {
        self.prompt_tokens.merge(later.prompt_tokens);
        self.completion_tokens.merge(later.completion_tokens);
        self.total_tokens.merge(later.total_tokens);
        self.prompt_cache_hit_tokens
            .merge(later.prompt_cache_hit_tokens);
        self.cached_tokens.merge(later.cached_tokens);
        if let Some(later) = later.prompt_tokens_details {
            let told = self.prompt_tokens_details.get_or_insert_default();
            told.cached_tokens.merge(later.cached_tokens);
            told.cache_write_tokens.merge(later.cache_write_tokens);
            told.cache_creation_tokens
                .merge(later.cache_creation_tokens);
            told.audio_tokens.merge(later.audio_tokens);
        }
        if let Some(later) = later.completion_tokens_details {
            let told = self.completion_tokens_details.get_or_insert_default();
            told.audio_tokens.merge(later.audio_tokens);
            told.reasoning_tokens.merge(later.reasoning_tokens);
        }
    }

    /// Cached tokens, tokens written to a cache and audio are parts of `prompt_tokens`.
    fn input(&self) -> Option<Usage> {
        let prompt = self.prompt_tokens.known()?;
        let details = self.prompt_tokens_details.unwrap_or_default();
        let mut cached = details.cached_tokens;
        cached.merge(self.cached_tokens);
        cached.merge(self.prompt_cache_hit_tokens);
        let mut written = details.cache_write_tokens;
        written.merge(details.cache_creation_tokens);
        let audio = details.audio_tokens;
        if [cached, written, audio]
            .into_iter()
            .any(Count::is_unreadable)
        {
            return None;
        }
        let (cached, written, audio) = (cached.or_zero(), written.or_zero(), audio.or_zero());
        let mut usage = Usage::default();
        usage[TokenClass::CacheRead] = cached;
        usage[TokenClass::CacheWrite5m] = written;
        usage[TokenClass::AudioInput] = audio;
        usage[TokenClass::Input] = prompt.saturating_sub(usage.total_input());
        Some(usage)
    }

    /// Reasoning and rejected predictions are parts of `completion_tokens`; only where the total is more than both
    /// its parts (xAI), the rest is reasoning that they leave out.
    fn output(&self) -> Usage {
        let beside = self.total_tokens.or_zero();
        let beside = beside.saturating_sub(self.prompt_tokens.or_zero());
        let completion = self.completion_tokens.or_zero().max(beside);
        let details = self.completion_tokens_details.unwrap_or_default();
        let audio = details.audio_tokens.or_zero().min(completion);
        let mut usage = Usage::default();
        usage[TokenClass::AudioOutput] = audio;
        usage[TokenClass::Output] = completion - audio;
        usage
    }

    fn knows_output(&self) -> bool {
        self.completion_tokens.known().is_some()
    }

    fn is_readable(&self) -> bool {
        let details = self.completion_tokens_details.unwrap_or_default();
        self.input().is_some()
            && self.knows_output()
            && !self.total_tokens.is_unreadable()
            && !details.audio_tokens.is_unreadable()
    }
}
