//! Owns the reading of an answer beside its way to the agent: which parser reads it, and its octets' way there.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::answer::{Answer, Piece};
use super::answer_anthropic::MessagesAnswer;
use super::answer_bedrock::{ConverseAnswer, InvokeAnswer};
use super::answer_chat::ChatAnswer;
use super::answer_embeddings::EmbeddingsAnswer;
use super::answer_gemini::GeminiAnswer;
use super::answer_ollama::OllamaAnswer;
use super::answer_responses::ResponsesAnswer;
use super::call::Call;
use super::decode::{Coding, Decoder};
use super::endpoint::Operation;
use super::frames::FrameSplitter;
use super::json_text::{JsonSplitter, Keep};
use super::reading::{Progress, Reading};
use super::sse::SseSplitter;
use crate::net::room::Room;
use crate::types::said::Said;

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, as the provider sent them.
    pub headers: &'a HeaderMap,
}

/// The memory for reading one answer.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'r> {
    /// For pieces that have not ended, of all answers together.
    pub pieces: &'r Arc<Room>,
    /// For the windows of codings, of all answers together.
    pub windows: &'r Arc<Room>,
}

impl<'r> Memory<'r> {
    /// Pieces and windows out of one room.
    pub fn of(room: &'r Arc<Room>) -> Self {
        Self {
            pieces: room,
            windows: room,
        }
    }
}

/// Reads the usage out of one answer, as its octets pass. It keeps at most one event or JSON object (32 MiB), as far as
/// there is room, and a codec's window; what is larger, or cannot be decoded, makes the reading less sure and never
/// smaller.
pub struct Reader {
    /// Nothing for an answer that says by its status that nothing was done.
    answer: Option<Box<dyn Answer>>,
    decoder: Option<Decoder>,
    carrier: Carrier,
    keep: Keep,
    /// Octets that could not be decoded, or are in no known shape.
    blind: u64,
    /// For pieces that have not ended, of all answers together.
    room: Arc<Room>,
}

/// How the pieces of an answer are carried.
enum Carrier {
    /// Text whose first significant octet has not come; this came before it.
    Undecided(Vec<u8>),
    Events(SseSplitter),
    Json(JsonSplitter),
    Frames(FrameSplitter),
    /// Nothing in it can be read.
    Opaque,
}

/// White space in front of a text is kept up to this many octets, to find out what it is.
const MAX_BLANK: usize = 64 << 10;

impl fmt::Debug for Reader {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Reader")
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader of the answer to a call. The operation decides what the answer says, its media type and first
    /// octets how it is carried: servers send errors as JSON where events were asked for, and clients
    /// read what they asked for whatever the media type says. An answer that there is no memory to decode passes unread.
    pub fn new(call: &Call, head: &AnswerHead<'_>, memory: Memory<'_>) -> Self {
        let coding = Coding::of(head.headers);
        let carrier = match coding {
            Coding::Unreadable => Carrier::Opaque,
            _ => Carrier::Undecided(Vec::new()),
        };
        Self {
            answer: head
                .status
                .is_success()
                .then(|| answer_to(call, head.headers)),
            decoder: Decoder::new(coding, memory.windows),
            carrier,
            keep: kept_of(call.operation),
            blind: 0,
            room: memory.pieces.clone(),
        }
    }

    /// Takes the next octets in, as they came over the wire. Any split of them gives the same reading.
    pub fn feed(&mut self, data: &[u8]) {
        let Some(answer) = self.answer.as_deref_mut() else {
            return;
        };
        let carrier = &mut self.carrier;
        let (keep, room) = (self.keep, &self.room);
        let mut blind = 0;
        let mut pass = |decoded: &[u8]| blind += carrier.feed(decoded, keep, room, answer);
        let undecoded = match self.decoder.as_mut() {
            Some(decoder) => decoder.feed(data, &mut pass),
            None => {
                pass(data);
                0
            }
        };
        self.blind = self.blind.saturating_add(blind).saturating_add(undecoded);
    }

    /// How far the answer has come. Cheap enough to ask after every frame.
    pub fn progress(&self) -> Progress {
        match &self.answer {
            Some(answer) => answer.so_far().progress(self.unread_tokens()),
            None => Progress {
                complete: true,
                ..Progress::default()
            },
        }
    }

    /// What the answer has said, when it is over, however it ended. An answer that is no success used nothing.
    /// Where a part could not be decoded and the rest says nothing, what was seen of it is no measure of it:
    /// that reads as nothing seen.
    pub fn finish(self) -> Reading {
        self.conclude().0
    }

    /// The same, and what the answer said of itself besides.
    pub fn conclude(mut self) -> (Reading, Said) {
        let Some(mut answer) = self.answer.take() else {
            return (Reading::Exact(Vec::new()), Said::default());
        };
        self.carrier.finish(&mut *answer);
        let said = answer.said();
        let unread = self.unread_tokens();
        if unread == 0 && answer.is_failure() {
            return (Reading::Failed, said);
        }
        let reading = match answer.ending().reading(unread) {
            Reading::Unknown { .. } if self.blind > 0 => Reading::Unknown { produced: 0 },
            reading => reading,
        };
        (reading, said)
    }

    /// Tokens of what went by unread: one for every octet of what is compressed or has no known shape,
    /// one for three of a JSON body that has not ended.
    fn unread_tokens(&self) -> u64 {
        let pending = match &self.carrier {
            Carrier::Json(splitter) if self.keep == Keep::Whole => splitter.pending().div_ceil(3),
            _ => 0,
        };
        self.blind.saturating_add(pending)
    }
}

impl Carrier {
    /// Takes text in; says how much of it is in no known shape.
    fn feed(&mut self, data: &[u8], keep: Keep, room: &Arc<Room>, answer: &mut dyn Answer) -> u64 {
        let mut each = |piece: Piece<'_>| answer.piece(piece);
        match self {
            Self::Events(splitter) => splitter.feed(data, &mut each),
            Self::Json(splitter) => splitter.feed(data, &mut each),
            Self::Frames(splitter) => return splitter.feed(data, &mut each),
            Self::Opaque => return data.len() as u64,
            Self::Undecided(blank) => {
                let significant = data.iter().find(|octet| !is_blank(**octet));
                let Some(first) = significant else {
                    blank.extend_from_slice(data);
                    if blank.len() > MAX_BLANK {
                        *self = Self::Opaque;
                    }
                    return 0;
                };
                let mut decided = match first {
                    // The length of the first message is far below 16 MB, and no text begins so.
                    0 => Self::Frames(FrameSplitter::new(room)),
                    b'{' | b'[' => Self::Json(JsonSplitter::new(keep, room)),
                    _ => Self::Events(SseSplitter::new(room)),
                };
                decided.feed(blank, keep, room, answer);
                let unread = decided.feed(data, keep, room, answer);
                *self = decided;
                return unread;
            }
        }
        0
    }

    fn finish(&mut self, answer: &mut dyn Answer) {
        let mut each = |piece: Piece<'_>| answer.piece(piece);
        match self {
            Self::Events(splitter) => splitter.finish(&mut each),
            Self::Json(splitter) => splitter.finish(&mut each),
            Self::Undecided(_) | Self::Frames(_) | Self::Opaque => {}
        }
    }
}

/// White space, and the octets of a byte order mark.
fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF)
}

fn answer_to(call: &Call, headers: &HeaderMap) -> Box<dyn Answer> {
    match call.operation {
        Operation::Messages | Operation::RawPredict => Box::new(MessagesAnswer::new(call)),
        Operation::ChatCompletions => Box::new(ChatAnswer::new(call)),
        Operation::Responses => Box::new(ResponsesAnswer::new(call)),
        Operation::GenerateContent => Box::new(GeminiAnswer::new(call)),
        Operation::Converse | Operation::ConverseStream => Box::new(ConverseAnswer::new(call)),
        Operation::InvokeModel | Operation::InvokeModelStream => {
            Box::new(InvokeAnswer::new(call, headers))
        }
        Operation::OllamaGenerate => Box::new(OllamaAnswer::new(call)),
        Operation::Embeddings | Operation::EmbedContent | Operation::OllamaEmbed => {
            Box::new(EmbeddingsAnswer::new(call))
        }
    }
}

/// Of answers with embeddings, the vectors are not kept.
fn kept_of(operation: Operation) -> Keep {
    match operation {
        Operation::Embeddings | Operation::EmbedContent | Operation::OllamaEmbed => Keep::Shallow,
        _ => Keep::Whole,
    }
}
