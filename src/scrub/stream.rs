//! Owns the search in a text that comes in pieces: what holds no secret passes as it is, uncopied, and only
//! the octets that may be the beginning of one wait for more.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::needles::{Needles, Next, Rest};
use super::stand_in::Fit;

/// How much of the next piece is first looked at beside what was held back.
const SEAM: usize = 256;

/// One text on its way.
pub struct Scrubber {
    needles: Arc<Needles>,
    fit: Fit,
    /// What may be the beginning of a secret; never longer than [`Needles::most_held`].
    held: Zeroizing<Vec<u8>>,
    hits: u64,
}

impl Scrubber {
    /// Looks for `needles` in the text that comes.
    pub fn new(needles: Arc<Needles>, fit: Fit) -> Self {
        Self {
            needles,
            fit,
            held: Zeroizing::default(),
            hits: 0,
        }
    }

    /// The next piece; what may leave goes to `out`.
    pub fn feed(&mut self, piece: Bytes, out: &mut VecDeque<Bytes>) {
        let rest = match self.held.is_empty() {
            true => Some(piece),
            false => self.join(piece, out),
        };
        if let Some(rest) = rest {
            self.pass(rest, out);
        }
    }

    /// There is no more: what was held back was no secret.
    pub fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        let held = std::mem::take(&mut self.held);
        match self.needles.scrub(&held, self.fit) {
            Some((clean, hits)) => {
                self.hits += hits;
                push(out, Bytes::from(clean));
            }
            None => push(out, Bytes::copy_from_slice(&held)),
        }
    }

    /// How many octets are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many secrets were found since this was last asked.
    pub fn take_hits(&mut self) -> u64 {
        std::mem::take(&mut self.hits)
    }

    /// Decides about what was held back with the help of the next piece, and gives back what is left of that.
    fn join(&mut self, piece: Bytes, out: &mut VecDeque<Bytes>) -> Option<Bytes> {
        let before = self.held.len();
        let mut taken = piece.len().min(before + SEAM);
        loop {
            let seam = Zeroizing::new([&self.held, &piece[..taken]].concat());
            let (mut from, mut hits) = (0, 0);
            let mut passed = Vec::new();
            let (held_from, left) = loop {
                match self.needles.next(&seam, from, before, Rest::ToCome) {
                    Next::Nothing => {
                        passed.push(Bytes::copy_from_slice(&seam[from..before]));
                        break (None, piece.clone());
                    }
                    Next::Secret { start, end, needle } => {
                        passed.push(Bytes::copy_from_slice(&seam[from..start]));
                        let found = &seam[start..end];
                        passed.push(self.needles.stand_in(needle, found, self.fit).into());
                        (from, hits) = (end, hits + 1);
                        if end >= before {
                            break (None, piece.slice(end - before..));
                        }
                    }
                    Next::Perhaps { start } => {
                        passed.push(Bytes::copy_from_slice(&seam[from..start]));
                        break (Some(start), Bytes::new());
                    }
                }
            };
            if held_from.is_some() && taken < piece.len() {
                taken = piece.len().min(4 * taken);
                continue;
            }
            self.hits += hits;
            passed.into_iter().for_each(|text| push(out, text));
            return match held_from {
                Some(start) => {
                    self.held = Zeroizing::new(seam[start..].to_vec());
                    None
                }
                None => {
                    self.held = Zeroizing::default();
                    Some(left)
                }
            };
        }
    }

    fn pass(&mut self, piece: Bytes, out: &mut VecDeque<Bytes>) {
        let mut from = 0;
        loop {
            match self.needles.next(&piece, from, piece.len(), Rest::ToCome) {
                Next::Nothing => return push(out, piece.slice(from..)),
                Next::Secret { start, end, needle } => {
                    push(out, piece.slice(from..start));
                    let stand_in = self.needles.stand_in(needle, &piece[start..end], self.fit);
                    push(out, stand_in.into());
                    self.hits += 1;
                    from = end;
                }
                Next::Perhaps { start } => {
                    push(out, piece.slice(from..start));
                    self.held = Zeroizing::new(piece[start..].to_vec());
                    return;
                }
            }
        }
    }
}

fn push(out: &mut VecDeque<Bytes>, text: Bytes) {
    if !text.is_empty() {
        out.push_back(text);
    }
}
