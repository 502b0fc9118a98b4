//! Owns the search in what a server sends over a WebSocket (RFC 6455): in the text of each message, across
//! its fragments, in place, since every frame tells its length before it comes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::needles::{Needles, Next, Rest};
use super::stand_in::Fit;

/// A frame's head without a mask: two octets, and eight more of length.
const LONGEST_HEAD: usize = 10;
/// The longest payload of a control frame (section 5.5).
const LONGEST_CONTROL: u64 = 125;
const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;
/// Opcodes from here on are of control frames, which may stand between the fragments of a message.
const CONTROL: u8 = 8;

/// The most octets that wait for a decision: a few frames around the beginning of what may be a secret. Only a
/// server that puts frames without end between its fragments has more.
const MOST_WAITING: usize = 1 << 20;
/// The close code for what is too large to be taken (section 7.4.1), as a frame of its own.
const TOO_BIG: [u8; 4] = [0x88, 2, 0x03, 0xF1];

/// What a server must not send, or not without an extension that was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is not WebSocket.
    #[error("the origin broke the rules of WebSocket")]
    Rules,
    /// A frame is longer than allowed. The agent has been told with what was appended last.
    #[error("the origin sent a frame that is too long")]
    TooLong,
}

/// One server's side of a WebSocket.
pub struct ServerFrames {
    needles: Arc<Needles>,
    /// The head of the frame under way, until it is whole.
    head: Vec<u8>,
    /// What is left of the frame under way.
    frame: Option<Frame>,
    /// The text of the message under way that is not decided yet.
    text: Vec<u8>,
    /// Everything since the first octet of it, as it will go out.
    waiting: Vec<u8>,
    /// Where in `waiting` the text stands: begin and length of each stretch.
    stretches: VecDeque<(usize, usize)>,
    /// The payload of the control frame under way.
    control: Vec<u8>,
    /// The longest payload of a frame, in octets.
    longest: u64,
    hits: u64,
}

#[derive(Clone, Copy)]
struct Frame {
    left: u64,
    is_control: bool,
    is_final: bool,
}

impl ServerFrames {
    /// Looks for `needles` in what the server sends, in frames of at most `longest` octets.
    pub fn new(needles: Arc<Needles>, longest: u64) -> Self {
        Self {
            needles,
            head: Vec::with_capacity(LONGEST_HEAD),
            frame: None,
            text: Vec::new(),
            waiting: Vec::new(),
            stretches: VecDeque::new(),
            control: Vec::new(),
            longest,
            hits: 0,
        }
    }

    /// The next octets; what may leave is appended to `out`.
    pub fn feed(&mut self, mut octets: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        while !octets.is_empty() {
            let Some(frame) = self.frame else {
                self.head.push(octets[0]);
                octets = &octets[1..];
                self.begin(out)?;
                if self.waiting.len() > MOST_WAITING {
                    return Err(Broken::Rules);
                }
                continue;
            };
            let taken = usize::try_from(frame.left)
                .unwrap_or(usize::MAX)
                .min(octets.len());
            let (payload, behind) = octets.split_at(taken);
            octets = behind;
            let left = frame.left - taken as u64;
            self.frame = (left > 0).then_some(Frame { left, ..frame });
            let rest = match left == 0 && frame.is_final {
                true => Rest::None,
                false => Rest::ToCome,
            };
            match frame.is_control {
                true => self.control(payload, left, out),
                false => self.search(payload, rest, out),
            }
        }
        Ok(())
    }

    /// The server has closed: what waited for more leaves.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.decide(Rest::None, out);
        out.append(&mut self.head);
    }

    /// How many secrets were found since this was last asked.
    pub fn take_hits(&mut self) -> u64 {
        std::mem::take(&mut self.hits)
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        let [first, second, long @ ..] = self.head.as_slice() else {
            return Ok(());
        };
        if first & RESERVED != 0 || second & MASKED != 0 {
            return Err(Broken::Rules);
        }
        let left = match (second & 0x7F, long) {
            (126, [high, low]) => u64::from(u16::from_be_bytes([*high, *low])),
            (127, [a, b, c, d, e, f, g, h]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            (126 | 127, _) => return Ok(()),
            (short, _) => u64::from(short),
        };
        let frame = Frame {
            left,
            is_control: first & OPCODE >= CONTROL,
            is_final: first & FINAL != 0,
        };
        if frame.is_control && left > LONGEST_CONTROL {
            return Err(Broken::Rules);
        }
        let head = std::mem::take(&mut self.head);
        if left > self.longest {
            // Between two frames it may be told (section 10.4), once what waits has left.
            self.finish(out);
            out.extend_from_slice(&TOO_BIG);
            return Err(Broken::TooLong);
        }
        self.pass(&head, out);
        if left > 0 {
            self.frame = Some(frame);
        } else if frame.is_final && !frame.is_control {
            self.search(&[], Rest::None, out);
        }
        Ok(())
    }

    /// A control frame is searched by itself, once it is whole: it has 125 octets at most (RFC 6455, section 5.5),
    /// and a reason to close may repeat a secret as well as any text.
    fn control(&mut self, payload: &[u8], left: u64, out: &mut Vec<u8>) {
        self.control.extend_from_slice(payload);
        if left > 0 {
            return;
        }
        let payload = std::mem::take(&mut self.control);
        match self.needles.scrub(&payload, Fit::Same) {
            Some((text, hits)) => {
                self.hits += hits;
                self.pass(&text, out);
            }
            None => self.pass(&payload, out),
        }
    }

    /// Octets that are not searched keep their place behind those that are not decided.
    fn pass(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        match self.text.is_empty() {
            true => out.extend_from_slice(octets),
            false => self.waiting.extend_from_slice(octets),
        }
    }

    fn search(&mut self, payload: &[u8], rest: Rest, out: &mut Vec<u8>) {
        if !payload.is_empty() {
            self.stretches
                .push_back((self.waiting.len(), payload.len()));
            self.waiting.extend_from_slice(payload);
            self.text.extend_from_slice(payload);
        }
        self.decide(rest, out);
    }

    fn decide(&mut self, rest: Rest, out: &mut Vec<u8>) {
        let mut from = 0;
        let decided = loop {
            match self.needles.next(&self.text, from, self.text.len(), rest) {
                Next::Nothing => break self.text.len(),
                Next::Perhaps { start } => break start,
                Next::Secret { start, end, needle } => {
                    let found = &self.text[start..end];
                    let stand_in = self.needles.stand_in(needle, found, Fit::Same);
                    for (at, byte) in (start..end).zip(stand_in) {
                        if let Some(place) = self.place(at) {
                            self.waiting[place] = byte;
                        }
                    }
                    self.hits += 1;
                    from = end;
                }
            }
        };
        let leaves = match decided == self.text.len() {
            true => self.waiting.len(),
            false => self.place(decided).unwrap_or(self.waiting.len()),
        };
        out.extend(self.waiting.drain(..leaves));
        self.text.drain(..decided);
        self.forget(decided, leaves);
    }

    /// Where the octet of the text at `at` waits.
    fn place(&self, at: usize) -> Option<usize> {
        let mut before = 0;
        for (begin, length) in &self.stretches {
            if at < before + length {
                return Some(begin + at - before);
            }
            before += length;
        }
        None
    }

    /// The first `decided` octets of the text have left, and with them `left` of what waited.
    fn forget(&mut self, mut decided: usize, left: usize) {
        while let Some((begin, length)) = self.stretches.front_mut() {
            if *length > decided {
                *begin += decided;
                *length -= decided;
                break;
            }
            decided -= *length;
            self.stretches.pop_front();
        }
        for (begin, _) in &mut self.stretches {
            *begin -= left;
        }
    }
}
