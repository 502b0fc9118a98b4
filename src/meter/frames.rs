//! Owns how an AWS event stream is taken apart, however its octets arrive.

use std::sync::Arc;

use aws_smithy_eventstream::frame::read_message_from;

use super::answer::{MAX_PIECE, Piece};
use super::kept::Kept;
use crate::net::room::Room;

/// What comes first of a message: its length.
const LENGTH: usize = 4;
/// The smallest message: two lengths and two checksums.
const MIN_MESSAGE: usize = 16;

/// Takes an event stream (`application/vnd.amazon.eventstream`) apart: each message says its length first, and
/// has a checksum of that and one of all of it. After a message that does not agree with them nothing more can
/// be told apart, nor after one that there is no room for. It keeps one message at a time, [`MAX_PIECE`] octets at most;
/// AWS sends 24 MB at most.
#[derive(Debug)]
pub(super) struct FrameSplitter {
    /// The start of a message whose end has not come.
    kept: Kept,
    is_broken: bool,
}

impl FrameSplitter {
    /// A splitter at the start of a stream.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self {
            kept: Kept::within(room),
            is_broken: false,
        }
    }

    /// Takes the next octets in; says how many of them cannot be read any more.
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Piece<'_>)) -> u64 {
        while !bytes.is_empty() && !self.is_broken {
            let told = match self.kept.is_empty() {
                true => first_length(bytes),
                false => first_length(&self.kept),
            };
            if told.is_some_and(|length| !(MIN_MESSAGE..=MAX_PIECE).contains(&length)) {
                self.lose(each);
                break;
            }
            let wanted = told.unwrap_or(LENGTH);
            if self.kept.is_empty() && told.is_some() && bytes.len() >= wanted {
                self.is_broken = !message(&bytes[..wanted], each);
                bytes = &bytes[wanted..];
                continue;
            }
            let taken = bytes.len().min(wanted - self.kept.len());
            if !self.kept.extend(&bytes[..taken]) {
                self.lose(each);
                break;
            }
            bytes = &bytes[taken..];
            if told.is_some() && self.kept.len() == wanted {
                self.is_broken = !message(&self.kept, each);
                self.kept.clear();
            }
        }
        bytes.len() as u64
    }

    fn lose(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        self.is_broken = true;
        each(Piece::Lost(self.kept.len() as u64));
        self.kept.clear();
    }
}

/// Reads a whole message; says whether it agrees with its checksums.
fn message(octets: &[u8], each: &mut dyn FnMut(Piece<'_>)) -> bool {
    let Ok(message) = read_message_from(octets) else {
        each(Piece::Lost(octets.len() as u64));
        return false;
    };
    let header = |wanted: &str| {
        let found = message.headers().iter();
        let found = found.filter(|header| header.name().as_str() == wanted);
        found.last()?.value().as_string().ok()
    };
    // An exception ends the stream; its name is that of no event.
    let name = header(":event-type").or_else(|| header(":exception-type"));
    each(Piece::Event {
        name: name.map_or(&[][..], |name| name.as_str().as_bytes()),
        data: message.payload(),
    });
    true
}

fn first_length(octets: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*octets.first_chunk()?);
    usize::try_from(length).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// CRC-32 as of IEEE 802.3, bit by bit.
    fn crc(octets: &[u8]) -> u32 {
        !octets.iter().fold(u32::MAX, |crc, octet| {
            (0..8).fold(crc ^ u32::from(*octet), |crc, _| {
                (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }

    /// A message with headers of text, as AWS writes it.
    pub(crate) fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in headers {
            head.push(name.len() as u8);
            head.extend_from_slice(name.as_bytes());
            head.push(7);
            head.extend_from_slice(&(value.len() as u16).to_be_bytes());
            head.extend_from_slice(value.as_bytes());
        }
        let length = MIN_MESSAGE + head.len() + payload.len();
        let mut message = (length as u32).to_be_bytes().to_vec();
        message.extend_from_slice(&(head.len() as u32).to_be_bytes());
        message.extend_from_slice(&crc(&message).to_be_bytes());
        message.extend_from_slice(&head);
        message.extend_from_slice(payload);
        message.extend_from_slice(&crc(&message).to_be_bytes());
        message
    }

    fn pieces(chunks: &[&[u8]]) -> (Vec<String>, u64) {
        let mut splitter = FrameSplitter::new(&Arc::new(Room::of(0)));
        let mut found = Vec::new();
        let mut each = |piece: Piece<'_>| {
            found.push(match piece {
                Piece::Event { name, data } => format!(
                    "{} {}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(data)
                ),
                other => format!("{other:?}"),
            });
        };
        let mut unread = 0;
        for chunk in chunks {
            unread += splitter.feed(chunk, &mut each);
        }
        (found, unread)
    }

    #[test]
    fn messages_are_found_in_any_split() {
        let mut stream = message(&[(":message-type", "event"), (":event-type", "a")], b"{}");
        stream.extend(message(&[], b""));
        stream.extend(message(&[(":exception-type", "throttlingException")], b"x"));
        let expected = ["a {}", " ", "throttlingException x"];
        assert_eq!(pieces(&[&stream]).0, expected);
        for size in 1..20 {
            let chunks: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(pieces(&chunks).0, expected, "{size}");
        }
    }

    #[test]
    fn nothing_is_read_after_a_wrong_checksum_or_length() {
        let good = message(&[(":event-type", "a")], b"{}");
        for at in [4, 9, 20, good.len() - 5, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad.extend_from_slice(&good);
            let (found, unread) = pieces(&[&bad]);
            assert_eq!(found, [format!("Lost({})", good.len())], "{at}");
            assert_eq!(unread, good.len() as u64);
            let octets: Vec<&[u8]> = bad.chunks(1).collect();
            assert_eq!(pieces(&octets), (found, unread));
        }
        // No message is as long as its length alone, or as the two lengths and one checksum.
        for length in [0, 3, 4, 5, 12, 15] {
            let bad = [0, 0, 0, length, 9];
            let octets: Vec<&[u8]> = bad.chunks(1).collect();
            assert_eq!(pieces(&[&bad]), (vec!["Lost(0)".to_owned()], 5));
            assert_eq!(pieces(&octets), (vec!["Lost(4)".to_owned()], 1));
        }
        assert_eq!(pieces(&[&[0xFF, 0xFF, 0xFF, 0xFF, 9]]).1, 5);
    }
}
