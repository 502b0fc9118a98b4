//! Owns how a stream of server-sent events is taken apart, however its octets arrive.

use std::sync::Arc;

use memchr::{memchr, memchr2};

use super::answer::Piece;
use super::kept::Kept;
use crate::net::room::Room;

/// The name of an event is a word. A longer one is none that is known.
const LONGEST_NAME: usize = 256;

/// An event with no more data may be read where it stands. There is always room for so much.
const LONGEST_WHOLE: usize = 4096;

/// Takes a stream of server-sent events apart (WHATWG HTML, 9.2.6): lines end in CR, LF or both, a byte
/// order mark may come first, an event may have several lines of data. It keeps one event at a time, a line and the
/// data before it; what is too much to keep is [`Piece::Lost`].
#[derive(Debug)]
pub(super) struct SseSplitter {
    /// The start of a line whose end has not come.
    line: Kept,
    /// Octets of that line which are lost.
    lost_line: u64,
    event: Event,
    after_cr: bool,
    started: bool,
}

/// The event under way.
#[derive(Debug)]
struct Event {
    name: Vec<u8>,
    data: Kept,
    has_data: bool,
    /// Octets of an event that is too large to keep, and of its unfinished line.
    lost: u64,
}

impl SseSplitter {
    /// A splitter at the start of a stream.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self {
            line: Kept::within(room),
            lost_line: 0,
            event: Event {
                name: Vec::new(),
                data: Kept::within(room),
                has_data: false,
                lost: 0,
            },
            after_cr: false,
            started: false,
        }
    }

    /// Takes the next octets in.
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            if self.is_between_events()
                && let Some((name, data, rest)) = whole_event(bytes)
            {
                self.started = true;
                each(Piece::Event { name, data });
                bytes = rest;
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes);
                return;
            };
            self.after_cr = bytes[end] == b'\r';
            self.end_line(&bytes[..end], each);
            bytes = &bytes[end + 1..];
        }
    }

    /// The stream is over. An event whose blank line is missing was sent all the same.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        if !self.line.is_empty() || self.lost_line > 0 {
            self.end_line(&[], each);
        }
        self.event.dispatch(each);
    }

    /// Whether nothing of an event has come.
    fn is_between_events(&self) -> bool {
        let event = &self.event;
        self.line.is_empty()
            && self.lost_line == 0
            && event.lost == 0
            && !event.has_data
            && event.name.is_empty()
    }

    /// Keeps a part of a line; says whether it did.
    fn keep(&mut self, part: &[u8]) -> bool {
        if self.event.lost == 0 && self.line.extend(part) {
            return true;
        }
        let line = self.line.len() + part.len();
        self.line.clear();
        self.lost_line += line as u64;
        self.event.lose(line);
        false
    }

    fn end_line(&mut self, rest: &[u8], each: &mut dyn FnMut(Piece<'_>)) {
        // Which may come before the first line.
        let mark: &[u8] = match std::mem::replace(&mut self.started, true) {
            true => b"",
            false => b"\xEF\xBB\xBF",
        };
        if self.event.lost == 0 && self.line.is_empty() {
            let line = rest.strip_prefix(mark).unwrap_or(rest);
            return self.event.read_line(line, each);
        }
        if self.keep(rest) {
            let line = self.line.strip_prefix(mark).unwrap_or(&self.line);
            self.event.read_line(line, each);
            self.line.clear();
        } else if std::mem::take(&mut self.lost_line) == 0 {
            self.event.dispatch(each);
        }
    }
}

impl Event {
    /// Takes a whole line in.
    fn read_line(&mut self, line: &[u8], each: &mut dyn FnMut(Piece<'_>)) {
        if line.is_empty() {
            return self.dispatch(each);
        }
        let (field, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                let is_kept =
                    (!self.has_data || self.data.extend(b"\n")) && self.data.extend(value);
                self.has_data = true;
                if !is_kept {
                    self.lose(line.len());
                }
            }
            b"event" => {
                self.name.clear();
                if value.len() <= LONGEST_NAME {
                    self.name.extend_from_slice(value);
                }
            }
            _ => {}
        }
    }

    /// Gives up what there is of it, and so many octets more.
    fn lose(&mut self, more: usize) {
        self.lost += (self.data.len() + more) as u64;
        self.has_data = false;
        self.data.clear();
    }

    fn dispatch(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        if self.lost > 0 {
            each(Piece::Lost(std::mem::take(&mut self.lost)));
        } else if std::mem::take(&mut self.has_data) {
            each(Piece::Event {
                name: &self.name,
                data: &self.data,
            });
        }
        self.name.clear();
        self.data.clear();
    }
}

/// The name and the data of an event that stands whole at the beginning of `bytes`, written as nearly all are, and what
/// comes behind it: what providers send at a time need not be copied. Everything else goes line by line.
fn whole_event(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = match bytes.strip_prefix(b"event: ") {
        Some(rest) => line(rest)?,
        None => (&b""[..], bytes),
    };
    let (data, rest) = line(rest.strip_prefix(b"data: ")?)?;
    let rest = rest.strip_prefix(b"\n")?;
    (name.len() <= LONGEST_NAME && data.len() <= LONGEST_WHOLE).then_some((name, data, rest))
}

/// A line that ends in a line feed alone, and what comes behind it.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr2(b'\n', b'\r', text)?;
    (text[end] == b'\n').then(|| (&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meter::answer::MAX_PIECE;

    fn events(chunks: &[&[u8]]) -> Vec<(String, String)> {
        events_within(u64::MAX, chunks)
    }

    fn events_within(room: u64, chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut splitter = SseSplitter::new(&Arc::new(Room::of(room)));
        let mut found = Vec::new();
        let mut each = |piece: Piece<'_>| match piece {
            Piece::Event { name, data } => found.push((
                String::from_utf8_lossy(name).into_owned(),
                String::from_utf8_lossy(data).into_owned(),
            )),
            Piece::Lost(octets) => found.push(("lost".to_owned(), octets.to_string())),
            other => panic!("{other:?}"),
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut each);
        }
        splitter.finish(&mut each);
        found
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn all_three_ends_of_lines_end_lines() {
        let expected = [event("a", "1"), event("", "2\n3"), event("", "")];
        for end in ["\n", "\r", "\r\n"] {
            let text = [
                "event: a", "data: 1", "", "data:2", "data: 3", "", "data", "",
            ]
            .join(end);
            assert_eq!(events(&[text.as_bytes()]), expected, "{end:?}");
            let octets: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(&octets), expected, "{end:?}, octet by octet");
        }
    }

    #[test]
    fn a_byte_order_mark_comments_and_other_fields_are_no_data() {
        let text = b"\xEF\xBB\xBFdata: 1\nid: 7\nretry: 3\n: keep-alive\ndata2: no\n\n: ping\n\n";
        assert_eq!(events(&[text]), [event("", "1")]);
        let octets: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(events(&octets), [event("", "1")]);
    }

    #[test]
    fn an_event_without_its_blank_line_was_sent_all_the_same() {
        assert_eq!(events(&[b"data: [DONE]"]), [event("", "[DONE]")]);
        assert_eq!(events(&[b"data: [DONE]\n"]), [event("", "[DONE]")]);
    }

    #[test]
    fn an_event_too_large_to_keep_is_counted_and_the_next_one_is_read() {
        let part = vec![b'x'; MAX_PIECE / 4];
        let mut chunks: Vec<&[u8]> = vec![b"data: "];
        chunks.extend([&part[..]; 5]);
        chunks.extend([&b"\ndata: more\n\ndata: 1\n\n"[..]]);
        let lost = 6 + 5 * (MAX_PIECE / 4) + 10;
        assert_eq!(
            events(&chunks),
            [event("lost", &lost.to_string()), event("", "1")]
        );
    }

    #[test]
    fn an_event_without_room_is_counted_and_the_next_one_is_read() {
        let line = format!("data: {}\n", "x".repeat(40 << 10));
        // One line has room of its own; the second makes it too much.
        let text = [
            &line,
            &line,
            "event: a\ndata: 1\n\n",
            &line,
            "\ndata: 2\n\n",
        ]
        .concat();
        let lost = (40 << 10) + line.len() + "event: a".len() + "data: 1".len();
        let found = events_within(0, &[text.as_bytes()]);
        assert_eq!(found[0], event("lost", &lost.to_string()));
        assert_eq!(found[1].1.len(), 40 << 10);
        assert_eq!(found[2], event("", "2"));
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(999).collect();
        assert_eq!(events_within(0, &chunks), found);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            lines in prop::collection::vec("(data: ?|event: |: |event: [a-z]\ndata: |)[a-z]{0,4}(\r|\n|\r\n|\n\n)", 0..12),
            cuts in prop::collection::vec(0usize..80, 0..8),
        ) {
            let text = lines.concat();
            let whole = events(&[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let mut chunks = Vec::new();
            for cut in cuts {
                chunks.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            chunks.push(&text.as_bytes()[from..]);
            prop_assert_eq!(events(&chunks), whole);
        }
    }
}
