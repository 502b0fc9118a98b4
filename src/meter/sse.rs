//! Owns how a stream of server-sent events is taken apart, however its octets arrive.

use memchr::{memchr, memchr2};

use super::answer::{MAX_PIECE, Piece};

/// Takes a stream of server-sent events apart (WHATWG HTML, 9.2.6): lines end in CR, LF or both, a byte
/// order mark may come first, an event may have several lines of data. It keeps one event at a time,
/// [`MAX_PIECE`] octets at most; a larger one is [`Piece::Lost`].
#[derive(Debug, Default)]
pub(super) struct SseSplitter {
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// Octets of an event that is too large to keep, and of its unfinished line.
    lost: u64,
    lost_line: u64,
    after_cr: bool,
    started: bool,
}

impl SseSplitter {
    /// Takes the next octets in.
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
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
        self.dispatch(each);
    }

    fn has_room(&self, more: usize) -> bool {
        self.lost == 0 && self.data.len() + self.line.len() + more <= MAX_PIECE
    }

    fn keep(&mut self, part: &[u8]) {
        if self.has_room(part.len()) {
            self.line.extend_from_slice(part);
        } else {
            self.lose(part.len());
        }
    }

    fn lose(&mut self, more: usize) {
        let line = self.line.len() + more;
        self.lost += (self.data.len() + line) as u64;
        self.lost_line += line as u64;
        self.has_data = false;
        self.data = Vec::new();
        self.line = Vec::new();
    }

    fn end_line(&mut self, rest: &[u8], each: &mut dyn FnMut(Piece<'_>)) {
        if !self.has_room(rest.len()) {
            self.lose(rest.len());
            self.started = true;
            let blank = std::mem::take(&mut self.lost_line) == 0;
            if blank {
                self.dispatch(each);
            }
            return;
        }
        if self.line.is_empty() {
            return self.read_line(rest, each);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(rest);
        self.read_line(&line, each);
        line.clear();
        self.line = line;
    }

    fn read_line(&mut self, line: &[u8], each: &mut dyn FnMut(Piece<'_>)) {
        let line = match std::mem::replace(&mut self.started, true) {
            true => line,
            false => line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line),
        };
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
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            _ => {}
        }
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
        // One large event does not hold its memory for the rest of the stream.
        self.data.shrink_to(64 << 10);
        self.line.shrink_to(64 << 10);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut splitter = SseSplitter::default();
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

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            lines in prop::collection::vec("(data: ?|event: |: |)[a-z]{0,4}(\r|\n|\r\n|\n\n)", 0..12),
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
