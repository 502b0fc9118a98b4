//! Owns the undoing of content codings, as an answer comes and as fast as its reader takes it.
//!
//! What is undone is handed on as it is, without being compressed again: the agent's side of the proxy is
//! near, while a compressor would cost many times what undoing costs, hold its own window for each stream,
//! and have to be flushed at every frame, or a stream would wait in it.
//!
//! In memory a codec holds its window at most (32 KiB for deflate, 16 MiB for br, 8 MiB for zstd), and one
//! piece of at most 16 KiB that nobody has taken yet: a bomb unfolds no faster than its reader reads.

use std::collections::VecDeque;

use async_compression::codecs::zstd::params::DParameter;
use async_compression::codecs::{
    BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use bytes::{Buf, Bytes, BytesMut};

use super::coding::Coding;

/// Undone at once, in octets.
const PIECE: usize = 16 << 10;
/// Pieces smaller than this are copied out of the room made for them.
const SMALL: usize = PIECE / 4;
/// The largest window that the `zstd` coding allows, as a power of two (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// A body is not what its coding says, or ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not what its content coding says")]
pub struct Undecodable;

/// Undoes the codings of one answer, the last one applied first.
pub struct Decoder {
    stages: Vec<Stage>,
}

impl Decoder {
    /// Undoes `codings`, which were applied in this order.
    pub fn new(codings: &[Coding]) -> Self {
        Self {
            stages: codings.iter().rev().map(|c| Stage::new(*c)).collect(),
        }
    }

    /// The next octets as they came. What came before must have been taken by [`Decoder::take`].
    pub fn feed(&mut self, octets: Bytes) {
        if let Some(first) = self.stages.first_mut() {
            first.input.push_back(octets);
        }
    }

    /// The next piece; nothing until more is fed.
    pub fn take(&mut self) -> Result<Option<Bytes>, Undecodable> {
        self.pull(self.stages.len())
    }

    /// Whether all of it came.
    pub fn finish(&self) -> Result<(), Undecodable> {
        match self.stages.iter().all(Stage::is_whole) {
            true => Ok(()),
            false => Err(Undecodable),
        }
    }

    /// A piece that the first `depth` stages have undone.
    fn pull(&mut self, depth: usize) -> Result<Option<Bytes>, Undecodable> {
        let Some(index) = depth.checked_sub(1) else {
            return Ok(None);
        };
        loop {
            if let Some(piece) = self.stages[index].step()? {
                return Ok(Some(piece));
            }
            match self.pull(index)? {
                Some(input) => self.stages[index].input.push_back(input),
                None => return Ok(None),
            }
        }
    }
}

struct Stage {
    coding: Coding,
    /// Made once its first octets tell which.
    codec: Option<Box<dyn DecodeV2 + Send>>,
    input: VecDeque<Bytes>,
    /// The room was filled: there may be more without more input.
    was_full: bool,
    part: Part,
}

/// `gzip` (RFC 1952, section 2.2) and `zstd` (RFC 8878, section 3) may be several parts in a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing of the body has come.
    None,
    /// In the first part, or in a later one that has given something.
    Within,
    /// At the end of one.
    Between,
    /// In one that has given nothing yet: it may be no part at all.
    Begun,
    /// What comes now belongs to none, and is dropped.
    Over,
}

impl Stage {
    fn new(coding: Coding) -> Self {
        Self {
            coding,
            codec: None,
            input: VecDeque::new(),
            was_full: false,
            part: Part::None,
        }
    }

    fn is_whole(&self) -> bool {
        self.part != Part::Within && self.input.is_empty()
    }

    fn step(&mut self) -> Result<Option<Bytes>, Undecodable> {
        loop {
            while self.input.front().is_some_and(Bytes::is_empty) {
                self.input.pop_front();
            }
            if self.part == Part::Over {
                self.input.clear();
                return Ok(None);
            }
            if self.input.is_empty() && !self.was_full {
                return Ok(None);
            }
            if !self.begin()? {
                return Ok(None);
            }
            if let Some(piece) = self.decode()? {
                return Ok(Some(piece));
            }
        }
    }

    /// Makes the codec ready; false if it takes more octets to know which.
    fn begin(&mut self) -> Result<bool, Undecodable> {
        if self.part == Part::Between {
            self.part = Part::Begun;
            let codec = self.codec.as_mut().ok_or(Undecodable)?;
            codec.reinit().map_err(|_| Undecodable)?;
        }
        if self.codec.is_some() {
            return Ok(true);
        }
        self.part = Part::Within;
        let codec: Box<dyn DecodeV2 + Send> = match self.coding {
            Coding::Gzip => Box::new(GzipDecoder::new()),
            Coding::Brotli => {
                let Some(first) = self.input.iter().flatten().next() else {
                    return Ok(false);
                };
                self.coding.window_of(*first).ok_or(Undecodable)?;
                Box::new(BrotliDecoder::new())
            }
            Coding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW);
                Box::new(ZstdDecoder::new_with_params(&[window]))
            }
            Coding::Deflate => {
                let mut octets = self.input.iter().flatten();
                let (Some(first), Some(second)) = (octets.next(), octets.next()) else {
                    return Ok(false);
                };
                match is_zlib(*first, *second) {
                    true => Box::new(ZlibDecoder::new()),
                    false => Box::new(DeflateDecoder::new()),
                }
            }
        };
        self.codec = Some(codec);
        Ok(true)
    }

    fn decode(&mut self) -> Result<Option<Bytes>, Undecodable> {
        let codec = self.codec.as_mut().ok_or(Undecodable)?;
        let mut none = Bytes::new();
        let front = self.input.front_mut().unwrap_or(&mut none);
        let is_flushed = front.is_empty();
        let mut room = BytesMut::zeroed(PIECE);
        let mut input = PartialBuffer::new(&front[..]);
        let mut output = WriteBuffer::new_initialized(&mut room);
        let step = codec.decode(&mut input, &mut output);
        let (read, written) = (input.written_len(), output.written_len());
        let is_drained = input.unwritten().is_empty();
        front.advance(read);
        self.was_full = written == PIECE;
        match step {
            Ok(true) => {
                self.was_full = false;
                self.part = match self.coding {
                    Coding::Gzip | Coding::Zstd => Part::Between,
                    Coding::Deflate | Coding::Brotli => Part::Over,
                };
            }
            Ok(false) if written > 0 => self.part = Part::Within,
            Ok(false) if read == 0 && !is_drained => return Err(Undecodable),
            Ok(false) => {}
            // A codec that is asked for more and has no input left says so this way, whether or not it still
            // had something to give.
            Err(_) if is_flushed && written > 0 => self.part = Part::Within,
            Err(_) if is_drained && written == 0 => self.was_full = false,
            // Clients take what follows the last part for padding.
            Err(_) if self.part == Part::Begun => self.part = Part::Over,
            Err(_) => return Err(Undecodable),
        }
        if written == 0 {
            return Ok(None);
        }
        if written < SMALL {
            return Ok(Some(Bytes::copy_from_slice(&room[..written])));
        }
        room.truncate(written);
        Ok(Some(room.freeze()))
    }
}

/// Whether a `deflate` body begins with zlib's header (RFC 1950, section 2.2): the method is 8, the window
/// has a legal size, and both octets together are a multiple of 31.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0F == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}
