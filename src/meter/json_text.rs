//! Owns where the objects of a JSON text begin and end, however its octets arrive.

use std::sync::Arc;

use memchr::memchr2;

use super::answer::Piece;
use super::kept::Kept;
use crate::net::room::Room;

/// How much of each object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// All of it.
    Whole,
    /// What is inside the object and inside its members, nothing deeper: vectors of embeddings are of no
    /// interest, and the answer to one request may have 100 MB of them.
    Shallow,
}

/// Finds the objects of a JSON text: of one object, of objects one after the other, or of an array of
/// objects. It counts brackets and skips strings; whether the objects are sound is for others to say.
/// It keeps one object at a time; one that is too much to keep is [`Piece::Lost`].
#[derive(Debug)]
pub(super) struct JsonSplitter {
    keep: Keep,
    kept: Kept,
    /// Octets of the object so far, kept or not.
    octets: u64,
    too_large: bool,
    depth: u64,
    in_array: bool,
    in_string: bool,
    after_backslash: bool,
    garbage: u64,
    is_garbage: bool,
}

impl JsonSplitter {
    /// A splitter at the start of a text.
    pub(super) fn new(keep: Keep, room: &Arc<Room>) -> Self {
        Self {
            keep,
            kept: Kept::within(room),
            octets: 0,
            too_large: false,
            depth: 0,
            in_array: false,
            in_string: false,
            after_backslash: false,
            garbage: 0,
            is_garbage: false,
        }
    }

    /// Octets of an object that has not ended.
    pub(super) fn pending(&self) -> u64 {
        self.octets
    }

    /// Takes the next octets in.
    pub(super) fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(Piece<'_>)) {
        let mut at = 0;
        while at < bytes.len() && !self.is_garbage {
            match self.depth {
                0 => {
                    at += 1;
                    self.between(bytes[at - 1], each);
                }
                _ => at += self.within(&bytes[at..], each),
            }
        }
        self.garbage += (bytes.len() - at) as u64;
    }

    /// The text is over.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        if self.is_garbage {
            each(Piece::Lost(self.garbage));
        }
    }

    fn between(&mut self, octet: u8, each: &mut dyn FnMut(Piece<'_>)) {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF => {}
            b'{' => {
                self.depth = 1;
                self.octets = 1;
                self.keep(&[octet]);
            }
            b'[' if !self.in_array => self.in_array = true,
            b',' if self.in_array => {}
            b']' if self.in_array => {
                self.in_array = false;
                each(Piece::Closed);
            }
            _ => {
                self.is_garbage = true;
                self.garbage = 1;
            }
        }
    }

    /// Reads on to the end of the object, or of the octets; says how far it came.
    fn within(&mut self, bytes: &[u8], each: &mut dyn FnMut(Piece<'_>)) -> usize {
        // Where octets begin that are to be kept, if this is such a place.
        let mut run = (self.depth <= self.deepest()).then_some(0);
        let mut at = 0;
        while let Some(next) = self.next_mark(bytes, at) {
            at = next + 1;
            match bytes[next] {
                b'{' | b'[' => {
                    self.depth += 1;
                    if let Some(from) = run.take_if(|_| self.depth > self.deepest()) {
                        self.keep(&bytes[from..at]);
                    }
                }
                _ => {
                    self.depth -= 1;
                    if run.is_none() && self.depth <= self.deepest() {
                        run = Some(next);
                    }
                }
            }
            if self.depth == 0 {
                break;
            }
        }
        let end = if self.depth == 0 { at } else { bytes.len() };
        self.octets += end as u64;
        if let Some(from) = run {
            self.keep(&bytes[from..end]);
        }
        if self.depth == 0 {
            self.end_object(each);
        }
        end
    }

    fn deepest(&self) -> u64 {
        match self.keep {
            Keep::Whole => u64::MAX,
            Keep::Shallow => 2,
        }
    }

    /// Where the next bracket is that is no part of a string.
    fn next_mark(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        while at < bytes.len() {
            if std::mem::take(&mut self.after_backslash) {
                at += 1;
                continue;
            }
            if self.in_string {
                at += memchr2(b'"', b'\\', &bytes[at..])?;
                self.in_string = bytes[at] == b'\\';
                self.after_backslash = self.in_string;
                at += 1;
                continue;
            }
            let mark = |octet: &u8| matches!(octet, b'"' | b'{' | b'}' | b'[' | b']');
            at += bytes[at..].iter().position(mark)?;
            if bytes[at] != b'"' {
                return Some(at);
            }
            self.in_string = true;
            at += 1;
        }
        None
    }

    fn keep(&mut self, part: &[u8]) {
        if !self.too_large && !self.kept.extend(part) {
            self.too_large = true;
            self.kept.clear();
        }
    }

    fn end_object(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        let octets = std::mem::take(&mut self.octets);
        if std::mem::take(&mut self.too_large) {
            each(Piece::Lost(octets));
        } else {
            each(Piece::Object(&self.kept));
        }
        self.kept.clear();
        if !self.in_array {
            each(Piece::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meter::answer::MAX_PIECE;

    fn pieces(keep: Keep, chunks: &[&[u8]]) -> (Vec<String>, u64) {
        let mut splitter = JsonSplitter::new(keep, &Arc::new(Room::of(u64::MAX)));
        let mut found = Vec::new();
        let mut each = |piece: Piece<'_>| {
            found.push(match piece {
                Piece::Object(text) => String::from_utf8_lossy(text).into_owned(),
                Piece::Closed => "closed".to_owned(),
                Piece::Lost(octets) => format!("lost {octets}"),
                Piece::Event { .. } => panic!("{piece:?}"),
            });
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut each);
        }
        splitter.finish(&mut each);
        (found, splitter.pending())
    }

    #[test]
    fn objects_are_found_alone_in_lines_and_in_arrays() {
        for (text, expected) in [
            (" \n{\"a\":[{}]}\n", vec!["{\"a\":[{}]}", "closed"]),
            (
                "{\"a\":1}\n{\"b\":2}",
                vec!["{\"a\":1}", "closed", "{\"b\":2}", "closed"],
            ),
            ("[{\"a\":1}\n,\r\n{}]", vec!["{\"a\":1}", "{}", "closed"]),
            ("[]", vec!["closed"]),
            (r#"{"}\"{":"\\"}"#, vec![r#"{"}\"{":"\\"}"#, "closed"]),
            ("{} oops", vec!["{}", "closed", "lost 4"]),
            ("null", vec!["lost 4"]),
        ] {
            let octets: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(
                pieces(Keep::Whole, &[text.as_bytes()]),
                (expected.iter().map(|s| (*s).to_owned()).collect(), 0)
            );
            assert_eq!(pieces(Keep::Whole, &octets).0, expected);
        }
    }

    #[test]
    fn an_unfinished_object_is_no_object() {
        assert_eq!(pieces(Keep::Whole, &[b"{\"a\":{}"]), (vec![], 7));
    }

    #[test]
    fn vectors_are_left_out_and_the_counts_beside_them_are_kept() {
        let text = r#"{"data":[{"embedding":[0.1,-2e-3,{}]},{"embedding":"AAA]}"}],"usage":{"prompt_tokens":8}}"#;
        let expected = r#"{"data":[{},{}],"usage":{"prompt_tokens":8}}"#;
        let octets: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(
            pieces(Keep::Shallow, &[text.as_bytes()]).0,
            [expected, "closed"]
        );
        assert_eq!(pieces(Keep::Shallow, &octets).0, [expected, "closed"]);
    }

    #[test]
    fn an_object_too_large_to_keep_is_counted() {
        let part = vec![b'x'; MAX_PIECE / 2];
        let (found, _) = pieces(Keep::Whole, &[b"{\"a\":\"", &part, &part, &part, b"\"}{}"]);
        let lost = format!("lost {}", 3 * (MAX_PIECE / 2) + 8);
        assert_eq!(found, [&*lost, "closed", "{}", "closed"]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_objects(text in r#"[\[{}\]", \\a:1]{0,40}"#, cut in 0usize..40, keep in 0..2) {
            let keep = [Keep::Whole, Keep::Shallow][keep as usize];
            let cut = cut.min(text.len());
            let (left, right) = text.as_bytes().split_at(cut);
            prop_assert_eq!(pieces(keep, &[left, right]), pieces(keep, &[text.as_bytes()]));
        }
    }
}
