//! Owns how answers of Ollama's own API report usage (<https://docs.ollama.com/api/usage>).

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Answer, Ending, Piece, Seen, SoFar, model_name};
use super::call::Call;
use super::count::{Count, TextLength};
use crate::types::said::{Said, Stop};
use crate::types::usage::{ModelUse, Terms, TokenClass, Usage};

/// An answer of `/api/chat` or `/api/generate`: lines of JSON, or the last of them alone.
#[derive(Debug)]
pub(super) struct OllamaAnswer {
    asked: Terms,
    model: Option<Arc<str>>,
    prompt: Count,
    output: Count,
    seen: Seen,
    said: Said,
    complete: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    model: Option<Box<str>>,
    response: TextLength,
    thinking: TextLength,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    done: Option<bool>,
    done_reason: Option<Stop>,
    prompt_eval_count: Count,
    eval_count: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    content: TextLength,
    thinking: TextLength,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
}

impl Answer for OllamaAnswer {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Event { data, .. } | Piece::Object(data) => self.line(data),
            Piece::Closed => {}
            Piece::Lost(octets) => self.seen.lost(octets),
        }
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            input: self.prompt.known().map(|prompt| {
                let mut usage = Usage::default();
                usage[TokenClass::Input] = prompt;
                usage
            }),
            reported: self.output.or_zero(),
            seen: self.seen.tokens(),
            at_least: self.seen.at_least(),
            complete: self.complete,
        }
    }

    fn said(&self) -> Said {
        self.said
    }

    /// Either count may be missing: older servers leave out the prompt's when they had it in their cache.
    fn ending(self: Box<Self>) -> Ending {
        let so_far = self.so_far();
        Ending {
            uses: so_far.input.map(|mut usage| {
                usage[TokenClass::Output] = self.output.or_zero();
                vec![ModelUse {
                    model: self.model.clone(),
                    usage,
                    fees: Vec::new(),
                    terms: self.asked.clone(),
                }]
            }),
            is_final: self.complete && self.seen.is_counted() && self.output.known().is_some(),
            so_far,
        }
    }
}

impl OllamaAnswer {
    pub(super) fn new(call: &Call) -> Self {
        Self {
            asked: call.terms.clone(),
            model: None,
            prompt: Count::default(),
            output: Count::default(),
            seen: Seen::default(),
            said: Said::default(),
            complete: false,
        }
    }

    fn line(&mut self, data: &[u8]) {
        let Some(line) = self.seen.read::<Line<'_>>(data) else {
            return;
        };
        if self.model.is_none() {
            self.model = line.model.as_deref().and_then(model_name);
        }
        let message = line.message.unwrap_or_default();
        let calls = message
            .tool_calls
            .map_or(0, |calls| calls.get().len() as u64);
        self.seen.visible(line.response.0 + line.thinking.0);
        self.seen
            .visible(message.content.0 + message.thinking.0 + calls);
        self.prompt.merge(line.prompt_eval_count);
        self.output.merge(line.eval_count);
        if let Some(stop) = line.done_reason {
            self.said.stopped(stop);
        }
        if line.done == Some(true) {
            self.complete = true;
            if line.eval_count.known().is_some() {
                self.seen.counted();
            }
        }
    }
}
