//! Owns how answers of `generateContent` and `streamGenerateContent` report usage
//! (<https://ai.google.dev/api/generate-content#UsageMetadata>).

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::answer::{Answer, Ending, Piece, Seen, SoFar, model_name, terms_of};
use super::call::Call;
use super::count::{Count, TextLength};
use super::few::Few;
use crate::types::said::{Said, Stop};
use crate::types::usage::{Fee, ModelUse, Terms, TokenClass, Usage};

/// An answer of Gemini: a stream of events, an array of the same, or one of them.
#[derive(Debug)]
pub(super) struct GeminiAnswer {
    asked: Terms,
    answers: u64,
    model: Option<Arc<str>>,
    tier: Option<Box<str>>,
    told: Told,
    is_grounded: bool,
    /// Searches that grounded it.
    searches: u64,
    seen: Seen,
    /// Answers that have ended, and whether the prompt was refused.
    ended: u64,
    is_blocked: bool,
    said: Said,
    closed: bool,
}

/// A `usageMetadata` object. A zero may be left out of it, as everywhere in JSON that was protobuf.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    prompt_token_count: Count,
    cached_content_token_count: Count,
    tool_use_prompt_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    total_token_count: Count,
    #[serde(rename = "promptTokensDetails", deserialize_with = "audio_of")]
    prompt_audio: Count,
    #[serde(rename = "cacheTokensDetails", deserialize_with = "audio_of")]
    cached_audio: Count,
    #[serde(rename = "candidatesTokensDetails", deserialize_with = "audio_of")]
    candidates_audio: Count,
    service_tier: Option<Box<str>>,
    traffic_type: Option<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Modality {
    modality: Option<Box<str>>,
    token_count: Count,
}

/// One event, or a whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow)]
    candidates: Option<Few<Candidate<'a>>>,
    usage_metadata: Option<Told>,
    model_version: Option<Box<str>>,
    prompt_feedback: Option<PromptFeedback>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
    finish_reason: Option<Stop>,
    grounding_metadata: Option<Grounding>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Option<Few<Part<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Part<'a> {
    text: TextLength,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    executable_code: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Grounding {
    web_search_queries: Option<Vec<IgnoredAny>>,
    grounding_chunks: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<IgnoredAny>,
}

impl Answer for GeminiAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event { data, .. } | Piece::Object(data) => self.chunk(data),
            Piece::Closed => self.closed = true,
            Piece::Lost(octets) => self.seen.lost(octets),
        }
    }

    /// A stream of events has no last word: it is whole when every answer has ended, and that was counted.
    fn so_far(&self) -> SoFar {
        let ended = self.ended >= self.answers || self.is_blocked;
        SoFar {
            input: self.told.input(),
            reported: self.told.output().total_output(),
            seen: self.seen.tokens(),
            at_least: self.seen.at_least(),
            complete: self.closed || (ended && self.seen.is_counted()),
        }
    }

    fn said(&self) -> Said {
        self.said.reasoned(self.told.thoughts_token_count.known())
    }

    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        let uses = so_far.input.map(|input| {
            vec![ModelUse {
                model: self.model.clone(),
                usage: input.plus(&self.told.output()),
                fees: match self.is_grounded {
                    // What does not name its searches made one.
                    true => vec![
                        (Fee::Grounding, 1),
                        (Fee::GroundedSearch, self.searches.max(1)),
                    ],
                    false => Vec::new(),
                },
                terms: terms_of(&self.asked, self.tier.as_deref(), None, None),
            }]
        });
        Ending {
            uses,
            is_final: so_far.complete && self.seen.is_counted() && self.told.is_readable(),
            so_far,
        }
    }
}

impl GeminiAnswer {
    pub(super) fn new(call: &Call) -> Self {
        Self {
            asked: call.terms.clone(),
            answers: call.answers.max(1),
            model: None,
            tier: None,
            told: Told::default(),
            is_grounded: false,
            searches: 0,
            seen: Seen::default(),
            ended: 0,
            is_blocked: false,
            said: Said::default(),
            closed: false,
        }
    }

    fn chunk(&mut self, data: &[u8]) {
        let Some(chunk) = self.seen.read::<Chunk<'_>>(data) else {
            return;
        };
        let is_empty = chunk.candidates.is_none()
            && chunk.usage_metadata.is_none()
            && chunk.prompt_feedback.is_none();
        if is_empty {
            // An error, for all that is known.
            return self.seen.lost(data.len() as u64);
        }
        let mut searches = 0_u64;
        for candidate in chunk.candidates.unwrap_or_default() {
            searches = searches.saturating_add(self.candidate(candidate));
        }
        // Each chunk that names them names them all.
        self.searches = self.searches.max(searches);
        let feedback = chunk.prompt_feedback.unwrap_or_default();
        self.is_blocked |= feedback.block_reason.is_some();
        if self.model.is_none() {
            let name = chunk.model_version.as_deref();
            let name = name.map(|name| name.strip_prefix("models/").unwrap_or(name));
            self.model = name.and_then(model_name);
        }
        if let Some(usage) = chunk.usage_metadata {
            let tier = usage.service_tier.as_deref();
            if let Some(tier) = tier.or(usage.traffic_type.as_deref()) {
                self.tier = Some(plain_tier(tier));
            }
            self.told.merge(&usage);
            if self.told.knows_output() {
                self.seen.counted();
            }
        }
    }

    /// Takes in what is new of one answer; says how many searches it names.
    fn candidate(&mut self, candidate: Candidate<'_>) -> u64 {
        let parts = candidate.content.and_then(|content| content.parts);
        for part in parts.unwrap_or_default() {
            let raw = [part.function_call, part.executable_code];
            let raw = raw.into_iter().flatten().map(|raw| raw.get().len() as u64);
            self.seen.visible(part.text.0 + raw.sum::<u64>());
        }
        if let Some(stop) = candidate.finish_reason {
            self.ended += 1;
            self.said.stopped(stop);
        }
        let grounding = candidate.grounding_metadata.unwrap_or_default();
        let [searches, chunks] = [grounding.web_search_queries, grounding.grounding_chunks]
            .map(|list| list.map_or(0, |list| list.len() as u64));
        self.is_grounded |= searches > 0 || chunks > 0;
        searches
    }
}

/// The tier without the words that Google puts in front of it (`ON_DEMAND_PRIORITY`, `SERVICE_TIER_FLEX`).
fn plain_tier(tier: &str) -> Box<str> {
    let tier = tier.to_ascii_lowercase();
    if tier.ends_with("unspecified") {
        return Box::default();
    }
    let tier = tier.trim_start_matches("service_tier_");
    tier.trim_start_matches("on_demand_").into()
}

impl Told {
    fn merge(&mut self, later: &Self) {
        self.prompt_token_count.merge(later.prompt_token_count);
        self.cached_content_token_count
            .merge(later.cached_content_token_count);
        self.tool_use_prompt_token_count
            .merge(later.tool_use_prompt_token_count);
        self.candidates_token_count
            .merge(later.candidates_token_count);
        self.thoughts_token_count.merge(later.thoughts_token_count);
        self.total_token_count.merge(later.total_token_count);
        self.prompt_audio.merge(later.prompt_audio);
        self.cached_audio.merge(later.cached_audio);
        self.candidates_audio.merge(later.candidates_audio);
    }

    /// The prompt's count has cached tokens and audio in it, and not what tools have added to the prompt.
    fn input(&self) -> Option<Usage> {
        let prompt = self.prompt_token_count.known()?;
        let parts = [
            self.cached_content_token_count,
            self.tool_use_prompt_token_count,
            self.prompt_audio,
            self.cached_audio,
        ];
        if parts.into_iter().any(Count::is_unreadable) {
            return None;
        }
        let [cached, tools, audio, cached_audio] = parts.map(Count::or_zero);
        let mut usage = Usage::default();
        usage[TokenClass::CacheRead] = cached;
        usage[TokenClass::AudioInput] = audio.saturating_sub(cached_audio);
        let plain = prompt.saturating_sub(usage.total_input());
        usage[TokenClass::Input] = plain.saturating_add(tools);
        Some(usage)
    }

    /// Thoughts are beside the candidates' count, unless that and the prompt's make the total; and what the
    /// total has beyond all known parts was made as well.
    fn output(&self) -> Usage {
        let prompt = self
            .prompt_token_count
            .or_zero()
            .saturating_add(self.tool_use_prompt_token_count.or_zero());
        let candidates = self.candidates_token_count.or_zero();
        let total = self.total_token_count.or_zero();
        let thoughts = match prompt.saturating_add(candidates) == total {
            true => 0,
            false => self.thoughts_token_count.or_zero(),
        };
        let output = candidates
            .saturating_add(thoughts)
            .max(total.saturating_sub(prompt));
        let audio = self.candidates_audio.or_zero().min(output);
        let mut usage = Usage::default();
        usage[TokenClass::AudioOutput] = audio;
        usage[TokenClass::Output] = output - audio;
        usage
    }

    fn knows_output(&self) -> bool {
        let counts = [self.candidates_token_count, self.total_token_count];
        counts.into_iter().any(|count| count.known().is_some())
    }

    fn is_readable(&self) -> bool {
        let counts = [
            self.candidates_token_count,
            self.thoughts_token_count,
            self.total_token_count,
            self.candidates_audio,
        ];
        self.input().is_some() && !counts.into_iter().any(Count::is_unreadable)
    }
}

fn audio_of<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Count, D::Error> {
    let details = Option::<Few<Modality>>::deserialize(from)?;
    let mut audio = Count::default();
    for one in details.unwrap_or_default() {
        if one.modality.as_deref() == Some("AUDIO") {
            audio.merge(one.token_count);
        }
    }
    Ok(audio)
}
