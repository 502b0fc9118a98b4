//! Owns how answers of Bedrock report usage: those of Converse, and those of InvokeModel, whose bodies are the
//! models' own (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html>).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use memchr::memmem;
use serde::Deserialize;

use super::answer::{Answer, Ending, Piece, Seen, SoFar, terms_of, written_to_cache};
use super::answer_anthropic::MessagesAnswer;
use super::call::{CacheUse, Call};
use super::count::{Count, TextLength};
use super::few::Few;
use crate::types::said::{Said, Stop};
use crate::types::usage::{ModelUse, Terms, TokenClass, Usage};

/// An answer of Converse or ConverseStream. It names no model: the path does.
#[derive(Debug)]
pub(super) struct ConverseAnswer {
    asked: Terms,
    cache: CacheUse,
    service_tier: Option<Box<str>>,
    latency: Option<Box<str>>,
    told: Told,
    seen: Seen,
    stopped: bool,
    said: Said,
    complete: bool,
}

/// A `usage` object. What was read from a cache or written to it is not in `inputTokens`; both have had two
/// names, and some answers use both.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_read_input_token_count: Count,
    cache_write_input_tokens: Count,
    cache_write_input_token_count: Count,
    #[serde(deserialize_with = "written_by_life")]
    cache_details: Written,
}

/// Tokens written to a cache, by its life.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    minutes: Count,
    hour: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CacheDetail {
    input_tokens: Count,
    ttl: Option<Box<str>>,
}

/// An event of a stream, or a whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    start: Option<Start>,
    delta: Option<Delta>,
    usage: Option<Told>,
    service_tier: Option<ServiceTier>,
    performance_config: Option<PerformanceConfig>,
    stop_reason: Option<Stop>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Start {
    tool_use: Option<ToolUse>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Delta {
    text: TextLength,
    tool_use: Option<ToolUse>,
    reasoning_content: Option<Reasoning>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolUse {
    name: TextLength,
    input: TextLength,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reasoning {
    text: TextLength,
    redacted_content: TextLength,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceTier {
    #[serde(rename = "type")]
    kind: Option<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PerformanceConfig {
    latency: Option<Box<str>>,
}

impl Answer for ConverseAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event { name, data } => self.event(name, data),
            Piece::Object(body) => {
                let counted = self.seen.read(body).is_some_and(|event| {
                    self.say(&event);
                    self.take(event)
                });
                if !counted {
                    self.seen.lost(body.len() as u64);
                }
            }
            Piece::Closed => self.complete = true,
            Piece::Lost(octets) => self.seen.lost(octets),
        }
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            input: self.told.input(self.cache),
            reported: self.told.output_tokens.or_zero(),
            seen: self.seen.tokens(),
            at_least: self.seen.at_least(),
            complete: self.complete,
        }
    }

    fn said(&self) -> Said {
        self.said
    }

    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        Ending {
            uses: so_far.input.map(|mut usage| {
                usage[TokenClass::Output] = self.told.output_tokens.or_zero();
                vec![ModelUse {
                    model: None,
                    usage,
                    fees: Vec::new(),
                    terms: terms_of(
                        &self.asked,
                        self.service_tier.as_deref(),
                        self.latency.as_deref(),
                        None,
                    ),
                }]
            }),
            is_final: self.seen.is_counted() && self.told.output_tokens.known().is_some(),
            so_far,
        }
    }
}

impl ConverseAnswer {
    pub(super) fn new(call: &Call) -> Self {
        Self {
            asked: call.terms.clone(),
            cache: call.cache,
            service_tier: None,
            latency: None,
            told: Told::default(),
            seen: Seen::default(),
            stopped: false,
            said: Said::default(),
            complete: false,
        }
    }

    /// `metadata` is the last event, after `messageStop`.
    fn event(&mut self, name: &[u8], data: &[u8]) {
        let Some(event) = self.seen.read::<Event>(data) else {
            return;
        };
        self.say(&event);
        match name {
            b"messageStop" => self.stopped = true,
            b"metadata" => {
                let counted = self.take(event);
                self.complete = counted && self.stopped;
            }
            _ => {
                let start = event.start.and_then(|start| start.tool_use);
                let delta = event.delta.unwrap_or_default();
                for tool in start.into_iter().chain(delta.tool_use) {
                    self.seen.visible(tool.name.0 + tool.input.0);
                }
                let reasoning = delta.reasoning_content.unwrap_or_default();
                self.seen.visible(delta.text.0);
                self.seen
                    .visible(reasoning.text.0 + reasoning.redacted_content.0);
            }
        }
    }

    fn say(&mut self, event: &Event) {
        if let Some(stop) = event.stop_reason {
            self.said.stopped(stop);
        }
    }

    /// Takes in what an event says about usage; says whether it did.
    fn take(&mut self, event: Event) -> bool {
        if let Some(tier) = event.service_tier.and_then(|tier| tier.kind) {
            self.service_tier = Some(tier);
        }
        if let Some(latency) = event.performance_config.and_then(|config| config.latency) {
            self.latency = Some(latency);
        }
        let Some(usage) = event.usage else {
            return false;
        };
        self.told.merge(usage);
        if self.told.output_tokens.known().is_some() {
            self.seen.counted();
        }
        true
    }
}

impl Told {
    fn merge(&mut self, later: Self) {
        self.input_tokens.merge(later.input_tokens);
        self.output_tokens.merge(later.output_tokens);
        self.cache_read_input_tokens
            .merge(later.cache_read_input_tokens);
        self.cache_read_input_token_count
            .merge(later.cache_read_input_token_count);
        self.cache_write_input_tokens
            .merge(later.cache_write_input_tokens);
        self.cache_write_input_token_count
            .merge(later.cache_write_input_token_count);
        self.cache_details
            .minutes
            .merge(later.cache_details.minutes);
        self.cache_details.hour.merge(later.cache_details.hour);
    }

    fn input(&self, cache: CacheUse) -> Option<Usage> {
        let (mut read, mut written) = (self.cache_read_input_tokens, self.cache_write_input_tokens);
        read.merge(self.cache_read_input_token_count);
        written.merge(self.cache_write_input_token_count);
        let Written { minutes, hour } = self.cache_details;
        if [read, written, minutes, hour]
            .into_iter()
            .any(Count::is_unreadable)
        {
            return None;
        }
        let mut usage =
            written_to_cache(written.or_zero(), minutes.or_zero(), hour.or_zero(), cache);
        usage[TokenClass::Input] = self.input_tokens.known()?;
        usage[TokenClass::CacheRead] = read.or_zero();
        Some(usage)
    }
}

fn written_by_life<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Written, D::Error> {
    let details = Option::<Few<CacheDetail>>::deserialize(from)?;
    let mut written = Written::default();
    for detail in details.unwrap_or_default() {
        let life = match detail.ttl.as_deref() {
            Some("1h") => &mut written.hour,
            _ => &mut written.minutes,
        };
        let mut sum = Count::from(life.or_zero().saturating_add(detail.input_tokens.or_zero()));
        if life.is_unreadable() || detail.input_tokens.is_unreadable() {
            sum.merge(*life);
            sum.merge(detail.input_tokens);
        }
        *life = sum;
    }
    Ok(written)
}

/// An answer of InvokeModel or InvokeModelWithResponseStream. Models of Anthropic report usage in their own way;
/// of all others Bedrock itself tells the counts, in headers or at the end of the stream.
#[derive(Debug)]
pub(super) struct InvokeAnswer {
    asked: Terms,
    cache: CacheUse,
    /// Whether the model makes no text, only vectors.
    is_embedding: bool,
    messages: Box<MessagesAnswer>,
    counts: Counts,
    /// What was seen of an answer that is none of Anthropic's.
    seen: Seen,
    octets: Vec<u8>,
    complete: bool,
}

/// Bedrock's own counts.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Counts {
    input_token_count: Count,
    output_token_count: Count,
    cache_read_input_token_count: Count,
    cache_write_input_token_count: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LastChunk {
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Option<Counts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk<'a> {
    #[serde(borrow)]
    bytes: Cow<'a, str>,
}

impl Answer for InvokeAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event {
                name: b"chunk",
                data,
            } => self.chunk(data),
            Piece::Event { .. } => {}
            Piece::Object(_) => self.messages.piece(piece),
            Piece::Closed => {
                self.messages.piece(piece);
                self.complete = true;
            }
            Piece::Lost(octets) => self.seen.lost(octets),
        }
        if self.messages.has_usage() {
            self.complete |= self.messages.so_far().complete;
        }
    }

    fn so_far(&self) -> SoFar {
        let messages = self.messages.so_far();
        let seen = messages.seen.saturating_add(self.seen.tokens());
        SoFar {
            input: messages.input.or_else(|| self.input()),
            reported: messages
                .reported
                .max(self.counts.output_token_count.or_zero()),
            seen: if self.is_embedding { 0 } else { seen },
            at_least: match self.is_embedding {
                true => 0,
                false => messages.at_least.saturating_add(self.seen.at_least()),
            },
            complete: self.complete,
        }
    }

    fn said(&self) -> Said {
        self.messages.said()
    }

    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        let by_headers = self.input();
        if self.messages.has_usage() {
            let ending = self.messages.ending();
            if ending.is_final || by_headers.is_none() {
                let is_final = ending.is_final && !self.seen.has_lost();
                return Ending {
                    so_far,
                    is_final,
                    ..ending
                };
            }
        }
        let output = match self.is_embedding {
            true => Some(0),
            false => self.counts.output_token_count.known(),
        };
        Ending {
            uses: by_headers.map(|mut usage| {
                usage[TokenClass::Output] = output.unwrap_or_default();
                vec![ModelUse {
                    model: None,
                    usage,
                    fees: Vec::new(),
                    terms: terms_of(&self.asked, None, None, None),
                }]
            }),
            is_final: output.is_some(),
            so_far,
        }
    }
}

impl InvokeAnswer {
    pub(super) fn new(call: &Call, headers: &HeaderMap) -> Self {
        Self {
            asked: call.terms.clone(),
            cache: call.cache,
            is_embedding: call.model.contains("embed"),
            messages: Box::new(MessagesAnswer::new(call)),
            counts: Counts::of(headers),
            seen: Seen::default(),
            octets: Vec::new(),
            complete: false,
        }
    }

    /// A chunk holds an event of the model's own in base64. The last one also has Bedrock's counts.
    fn chunk(&mut self, data: &[u8]) {
        let Some(chunk) = self.seen.read::<Chunk<'_>>(data) else {
            return;
        };
        self.octets.clear();
        if STANDARD
            .decode_vec(chunk.bytes.as_bytes(), &mut self.octets)
            .is_err()
        {
            return self.seen.lost(data.len() as u64);
        }
        if !self.messages.event(&self.octets) {
            // How much of it is text its maker knows.
            self.seen.unknown(self.octets.len() as u64);
        }
        if memmem::find(&self.octets, b"amazon-bedrock-invocationMetrics").is_none() {
            return;
        }
        if let Ok(LastChunk {
            metrics: Some(metrics),
        }) = serde_json::from_slice(&self.octets)
        {
            self.counts = metrics;
            self.complete = true;
        }
    }

    fn input(&self) -> Option<Usage> {
        let counts = &self.counts;
        let (read, written) = (
            counts.cache_read_input_token_count,
            counts.cache_write_input_token_count,
        );
        if read.is_unreadable() || written.is_unreadable() {
            return None;
        }
        let mut usage = written_to_cache(written.or_zero(), 0, 0, self.cache);
        usage[TokenClass::Input] = counts.input_token_count.known()?;
        usage[TokenClass::CacheRead] = read.or_zero();
        Some(usage)
    }
}

impl Counts {
    fn of(headers: &HeaderMap) -> Self {
        let count = |name: &str| -> Option<u64> {
            let name = format!("x-amzn-bedrock-{name}-token-count");
            let mut values = headers.get_all(name).iter();
            let (Some(value), None) = (values.next(), values.next()) else {
                return None;
            };
            value.to_str().ok()?.parse().ok()
        };
        let count = |name| count(name).map(Count::from).unwrap_or_default();
        Self {
            input_token_count: count("input"),
            output_token_count: count("output"),
            cache_read_input_token_count: count("cache-read-input"),
            cache_write_input_token_count: count("cache-write-input"),
        }
    }
}
