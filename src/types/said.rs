//! Owns what an answer says of itself besides its counts: why it ended, and how much of it was reasoning.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Words that are told apart in one answer. One has as many as it has choices, mostly the same.
const MOST: usize = 4;
/// What stands for a word that no provider is known to use: an answer may say anything there.
const OTHER: &str = "_OTHER";
/// Why a model stopped, as providers write it: Anthropic's `stop_reason`, OpenAI's `finish_reason`, the end of a
/// Response (`status`, or the reason why it is incomplete), Gemini's `finishReason`, Bedrock's `stopReason` and
/// Ollama's `done_reason`.
const WORDS: [&str; 38] = [
    "end_turn",
    "stop",
    "STOP",
    "tool_use",
    "tool_calls",
    "max_tokens",
    "length",
    "MAX_TOKENS",
    "stop_sequence",
    "completed",
    "pause_turn",
    "refusal",
    "compaction",
    "model_context_window_exceeded",
    "content_filter",
    "content_filtered",
    "function_call",
    "guardrail_intervened",
    "malformed_model_output",
    "malformed_tool_use",
    "max_output_tokens",
    "incomplete",
    "failed",
    "cancelled",
    "load",
    "unload",
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "IMAGE_SAFETY",
    "NO_IMAGE",
    "FINISH_REASON_UNSPECIFIED",
];

/// What an answer said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    stops: [Option<&'static str>; MOST],
    reasoning: Option<u64>,
}

impl Said {
    /// The words that it gave for its end, each once, as they came.
    pub fn stops(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.stops.into_iter().flatten()
    }

    /// Tokens of the answer that were reasoning, where it tells them apart.
    pub fn reasoning(&self) -> Option<u64> {
        self.reasoning
    }

    /// The same, with so many tokens of reasoning.
    #[must_use]
    pub fn reasoned(self, reasoning: Option<u64>) -> Self {
        Self { reasoning, ..self }
    }

    /// It gave this word. Of more than can be told apart the first ones stay.
    pub fn stopped(&mut self, stop: Stop) {
        for place in &mut self.stops {
            match place {
                Some(known) if *known == stop.0 => return,
                Some(_) => {}
                None => {
                    *place = Some(stop.0);
                    return;
                }
            }
        }
    }
}

/// Why a model stopped: one of the known words, or that it was another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop(&'static str);

impl Stop {
    /// The word as an answer has it.
    pub fn of(word: &str) -> Self {
        let known = WORDS.into_iter().find(|known| *known == word);
        Self(known.unwrap_or(OTHER))
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StopVisitor)
    }
}

struct StopVisitor;

/// What is no text is a reason all the same: only that one is there counts elsewhere.
impl<'de> Visitor<'de> for StopVisitor {
    type Value = Stop;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a reason")
    }

    fn visit_str<E>(self, word: &str) -> Result<Stop, E> {
        Ok(Stop::of(word))
    }

    fn visit_unit<E>(self) -> Result<Stop, E> {
        Ok(Stop(OTHER))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Stop, E> {
        Ok(Stop(OTHER))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Stop, E> {
        Ok(Stop(OTHER))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Stop, E> {
        Ok(Stop(OTHER))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Stop, E> {
        Ok(Stop(OTHER))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Stop(OTHER))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stop, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Stop(OTHER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_nobody_is_known_to_use_is_another() {
        for (text, word) in [
            ("\"end_turn\"", "end_turn"),
            ("\"\\u0073top\"", "stop"),
            ("\"sk-ant-secret\"", OTHER),
            ("7", OTHER),
            ("-7", OTHER),
            ("0.5", OTHER),
            ("true", OTHER),
            ("[\"stop\"]", OTHER),
            ("{\"stop\":1}", OTHER),
        ] {
            let stop: Option<Stop> = serde_json::from_str(text).unwrap();
            assert_eq!(stop.map(Stop::as_str), Some(word), "{text}");
        }
        assert_eq!(serde_json::from_str::<Option<Stop>>("null").unwrap(), None);
    }

    #[test]
    fn each_word_is_told_once_and_of_many_the_first() {
        let mut said = Said::default();
        for word in ["stop", "length", "stop", "SAFETY", "end_turn", "load"] {
            said.stopped(Stop::of(word));
        }
        let told: Vec<_> = said.stops().collect();
        assert_eq!(told, ["stop", "length", "SAFETY", "end_turn"]);
    }
}
