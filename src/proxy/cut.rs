//! Owns how an answer is cut in the middle so that its reader takes it for an error and not for noise:
//! after a whole event, with an error event of the API's own.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap};
use memchr::memchr2;
use serde_json::json;

use crate::types::model_api::ModelApi;

/// Where events of an answer end.
#[derive(Debug)]
enum Framing {
    /// Server-sent events: at an empty line, however lines end.
    Sse(BlankLine),
    /// One JSON value a line.
    Lines { at_start: bool },
    /// AWS event stream: a length in front of each message.
    Messages(MessageEnd),
    /// Nothing can be put behind a part of it.
    Whole,
}

/// Follows the bytes that pass, and knows whether they end with a whole event.
#[derive(Debug)]
pub struct Seam {
    framing: Framing,
    api: ModelApi,
}

/// Two ends of lines, of a carriage return and a line feed each.
const LONGEST_END: usize = 4;

#[derive(Debug, Default)]
struct BlankLine {
    /// The line so far is empty.
    empty: bool,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_cr: bool,
    /// The last line that ended was empty, and nothing has begun since.
    blank: bool,
    begun: bool,
}

#[derive(Debug, Default)]
struct MessageEnd {
    head: [u8; 4],
    read: usize,
    left: u64,
}

impl Seam {
    /// For an answer with this head.
    pub fn new(api: ModelApi, headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
        let is = |prefix: &str| {
            let head = kind.get(..prefix.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        let packed = headers.contains_key(http::header::CONTENT_ENCODING);
        let framing = if packed {
            Framing::Whole
        } else if is("text/event-stream") {
            Framing::Sse(BlankLine {
                empty: true,
                ..BlankLine::default()
            })
        } else if is("application/x-ndjson") {
            Framing::Lines { at_start: true }
        } else if is("application/vnd.amazon.eventstream") {
            Framing::Messages(MessageEnd::default())
        } else {
            Framing::Whole
        };
        Self { framing, api }
    }

    /// Follows `data`, and says how many of its octets lie up to the first place where an event ends;
    /// nothing if none ends in it.
    pub fn first_end(&mut self, data: &[u8]) -> Option<usize> {
        match &mut self.framing {
            Framing::Whole => None,
            Framing::Lines { at_start } => {
                let end = data.iter().position(|b| *b == b'\n').map(|at| at + 1);
                if let Some(last) = data.last() {
                    *at_start = *last == b'\n';
                }
                end
            }
            Framing::Sse(blank) => blank.first_end(data),
            Framing::Messages(message) => message.first_end(data),
        }
    }

    /// Follows `data`. What an event ends with is short: only that is looked at.
    pub fn pass(&mut self, data: &[u8]) {
        match &mut self.framing {
            Framing::Whole => {}
            Framing::Lines { at_start } => {
                if let Some(last) = data.last() {
                    *at_start = *last == b'\n';
                }
            }
            Framing::Sse(blank) => blank.pass(data),
            Framing::Messages(message) => drop(message.first_end(data)),
        }
    }

    /// Whether what has passed ends with a whole event.
    pub fn is_at_end(&self) -> bool {
        match &self.framing {
            Framing::Whole => false,
            Framing::Lines { at_start } => *at_start,
            Framing::Sse(blank) => blank.blank || !blank.begun,
            Framing::Messages(message) => message.read == 0 && message.left == 0,
        }
    }

    /// Whether an error event can be told at all.
    pub fn can_tell(&self) -> bool {
        !matches!(self.framing, Framing::Whole)
    }

    /// The error as an event of this stream.
    pub fn error(&self, text: &str, id: &str) -> Bytes {
        if let Framing::Messages(_) = self.framing {
            return exception(&json!({"message": text}).to_string());
        }
        let line = match self.api {
            ModelApi::Anthropic => json!({
                "type": "error",
                "error": {"type": "billing_error", "message": text},
                "request_id": format!("tollgate_{id}"),
            }),
            ModelApi::OpenAI | ModelApi::Azure => json!({"error": {
                "message": text, "type": "insufficient_quota", "param": null, "code": "insufficient_quota",
            }}),
            ModelApi::Gemini | ModelApi::Vertex => json!({"error": {
                "code": 429, "message": text, "status": "RESOURCE_EXHAUSTED",
            }}),
            ModelApi::Bedrock => json!({"message": text}),
            ModelApi::Ollama => json!({"error": text}),
        };
        match &self.framing {
            Framing::Sse(_) if self.api == ModelApi::Anthropic => {
                Bytes::from(format!("event: error\ndata: {line}\n\n"))
            }
            Framing::Sse(_) => Bytes::from(format!("data: {line}\n\n")),
            _ => Bytes::from(format!("{line}\n")),
        }
    }
}

/// A message of the AWS event stream that the SDKs turn into an error.
fn exception(body: &str) -> Bytes {
    let text = |text: &'static str| HeaderValue::String(text.into());
    let message = Message::new(Bytes::copy_from_slice(body.as_bytes()))
        .add_header(Header::new(":message-type", text("exception")))
        .add_header(Header::new(":exception-type", text("throttlingException")))
        .add_header(Header::new(":content-type", text("application/json")));
    let mut bytes = Vec::new();
    match write_message_to(&message, &mut bytes) {
        Ok(()) => Bytes::from(bytes),
        // Only headers or bodies of many megabytes cannot be written.
        Err(_) => Bytes::new(),
    }
}

impl BlankLine {
    /// Follows `data` as [`Self::first_end`] does.
    fn pass(&mut self, data: &[u8]) {
        let Some(before) = data.len().checked_sub(LONGEST_END) else {
            self.first_end(data);
            return;
        };
        // Whatever the first of the last octets is to the line before it, the others tell what the last line is.
        if before > 0 {
            *self = Self {
                begun: true,
                ..Self::default()
            };
        }
        self.first_end(&data[before..]);
    }

    fn first_end(&mut self, data: &[u8]) -> Option<usize> {
        let mut first = None;
        let mut at = 0;
        while at < data.len() {
            if self.after_cr {
                self.after_cr = false;
                if data[at] == b'\n' {
                    at += 1;
                    continue;
                }
            }
            match memchr2(b'\n', b'\r', &data[at..]) {
                None => {
                    self.empty = false;
                    self.blank = false;
                    self.begun = true;
                    at = data.len();
                }
                Some(length) => {
                    self.blank = self.empty && length == 0;
                    self.begun = true;
                    self.empty = true;
                    self.after_cr = data[at + length] == b'\r';
                    at += length + 1;
                    if self.blank && first.is_none() {
                        let whole = self.after_cr && data.get(at) == Some(&b'\n');
                        first = Some(at + usize::from(whole));
                    }
                }
            }
        }
        first
    }
}

impl MessageEnd {
    fn first_end(&mut self, data: &[u8]) -> Option<usize> {
        let mut first = None;
        let mut at = 0;
        while at < data.len() {
            if self.left == 0 {
                self.head[self.read] = data[at];
                self.read += 1;
                at += 1;
                if self.read == self.head.len() {
                    self.read = 0;
                    // The length counts its own four octets.
                    self.left = u64::from(u32::from_be_bytes(self.head))
                        .saturating_sub(4)
                        .max(1);
                }
                continue;
            }
            let step = self.left.min((data.len() - at) as u64);
            self.left -= step;
            at += step as usize;
            if self.left == 0 && first.is_none() {
                first = Some(at);
            }
        }
        first
    }
}

/// The part of `data` up to the cut, and the error event behind it.
pub fn cut_at(data: &Bytes, end: usize, error: &Bytes) -> Bytes {
    let mut cut = BytesMut::with_capacity(end + error.len());
    cut.extend_from_slice(&data[..end]);
    cut.extend_from_slice(error);
    cut.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seam(kind: &str) -> Seam {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        Seam::new(ModelApi::Anthropic, &headers)
    }

    #[test]
    fn an_event_ends_at_an_empty_line_however_lines_end() {
        for text in ["a: b\n\nc", "a: b\r\n\r\nc", "a: b\r\rc", "a: b\r\n\nc"] {
            let end = text.len() - 1;
            assert_eq!(
                seam("text/event-stream; charset=utf-8").first_end(text.as_bytes()),
                Some(end),
                "{text:?}"
            );
            // Byte by byte the same, but for a line feed that only the next byte can tell.
            let mut seam = seam("text/event-stream");
            let mut passed = 0;
            for byte in text.as_bytes() {
                passed += 1;
                if seam.first_end(&[*byte]).is_some() {
                    break;
                }
            }
            assert!(
                passed == end || (text.contains("\r\n\r\n") && passed == end - 1),
                "{text:?}"
            );
            assert!(seam.is_at_end());
        }
        let mut open = seam("text/event-stream");
        assert!(open.is_at_end(), "nothing has begun");
        assert_eq!(open.first_end(b"data: {\"a\":"), None);
        assert!(!open.is_at_end());
        assert_eq!(open.first_end(b"1}\n"), None);
        assert!(!open.is_at_end());
        assert_eq!(open.first_end(b"\n"), Some(1));
        assert!(open.is_at_end());
    }

    proptest! {
        #[test]
        fn the_last_octets_tell_whether_an_event_is_whole(
            pieces in prop::collection::vec("[a\r\n]{0,9}", 0..6),
        ) {
            let (mut quick, mut slow) = (seam("text/event-stream"), seam("text/event-stream"));
            for piece in pieces {
                quick.pass(piece.as_bytes());
                slow.first_end(piece.as_bytes());
                prop_assert_eq!(quick.is_at_end(), slow.is_at_end(), "{:?}", piece);
            }
            // And goes on from there as if it had seen everything.
            prop_assert_eq!(quick.first_end(b"\n\nb"), slow.first_end(b"\n\nb"));
        }
    }

    #[test]
    fn a_message_of_the_event_stream_ends_where_its_length_says() {
        let message = exception("{}");
        let mut whole = seam("application/vnd.amazon.eventstream");
        assert_eq!(whole.first_end(&message), Some(message.len()));
        assert!(whole.is_at_end());
        let mut split = seam("application/vnd.amazon.eventstream");
        for byte in &message[..message.len() - 1] {
            assert_eq!(split.first_end(&[*byte]), None);
            assert!(!split.is_at_end());
        }
        assert_eq!(split.first_end(&message[message.len() - 1..]), Some(1));
    }

    #[test]
    fn an_answer_that_is_packed_or_one_value_cannot_be_told_an_error() {
        assert!(!seam("application/json").can_tell());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "text/event-stream".parse().unwrap());
        headers.insert("content-encoding", "gzip".parse().unwrap());
        assert!(!Seam::new(ModelApi::OpenAI, &headers).can_tell());
    }
}
