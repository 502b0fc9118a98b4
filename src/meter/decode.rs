//! Owns the decoding of compressed answers beside their way to the agent.

use std::fmt;
use std::sync::Arc;

use async_compression::codecs::zstd::params::DParameter;
use async_compression::codecs::{
    BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::net::room::{Room, Taken};
use crate::types::window;

/// The most octets that are decoded of one answer: what a decompression bomb may cost in time. In memory
/// a codec holds its window at most: 32 KiB (deflate), 16 MiB (br), 8 MiB (zstd).
pub(super) const MAX_DECODED: u64 = 256 << 20;

/// Beyond [`FREE_OCTETS`], the most decoded octets for each one that came. Answers of models compress to about a
/// fifth, an answer of one word over and over to a hundredth; what grows more was made to keep a decoder busy.
const MAX_RATIO: u64 = 100;

/// Decoded octets for which the ratio is not asked.
const FREE_OCTETS: u64 = 8 << 20;

/// How an answer is compressed (RFC 9110, 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all.
    Identity,
    /// `gzip` (RFC 1952).
    Gzip,
    /// `deflate`: zlib (RFC 1950), or deflate alone (RFC 1951), as some servers do it.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
    /// Several codings on top of each other, or one that is not known here.
    Unreadable,
}

impl Coding {
    /// The memory that its window may take, where that is much beside everything else that an answer has (32 KiB for
    /// deflate).
    fn window(self) -> u64 {
        match self {
            Self::Identity | Self::Unreadable | Self::Gzip | Self::Deflate => 0,
            Self::Brotli => window::LARGEST,
            Self::Zstd => window::ZSTD,
        }
    }

    /// The coding that an answer's head names.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            let Ok(value) = value.to_str() else {
                return Self::Unreadable;
            };
            for word in value.split(',') {
                let coding = match word.trim().to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "br" => Self::Brotli,
                    "zstd" => Self::Zstd,
                    _ => return Self::Unreadable,
                };
                if found != Self::Identity {
                    return Self::Unreadable;
                }
                found = coding;
            }
        }
        found
    }
}

/// Decodes an answer as its octets come.
pub(super) struct Decoder {
    coding: Coding,
    codec: Option<Box<dyn DecodeV2 + Send>>,
    /// The first octet of a `deflate` body, which alone does not tell zlib from deflate.
    held: Option<u8>,
    member_ended: bool,
    over: bool,
    /// Octets that were taken in, and that were made of them.
    read: u64,
    decoded: u64,
    room: Box<[u8]>,
    window: Taken,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Decoder")
            .field("coding", &self.coding)
            .field("decoded", &self.decoded)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder of one answer; nothing if there is nothing to decode, or no way to. Its window is taken out of
    /// `windows`; where there is no room for it, nothing is decoded.
    pub(super) fn new(coding: Coding, windows: &Arc<Room>) -> Option<Self> {
        let codec: Option<Box<dyn DecodeV2 + Send>> = match coding {
            Coding::Identity | Coding::Unreadable => return None,
            Coding::Gzip => Some(Box::new(GzipDecoder::new())),
            Coding::Deflate => None,
            Coding::Brotli => Some(Box::new(BrotliDecoder::new())),
            Coding::Zstd => {
                let window = DParameter::window_log_max(window::ZSTD_BITS);
                Some(Box::new(ZstdDecoder::new_with_params(&[window])))
            }
        };
        let mut window = windows.nothing();
        let fits = window.grow_to(coding.window());
        Some(Self {
            coding,
            codec,
            held: None,
            member_ended: false,
            over: !fits,
            window,
            read: 0,
            decoded: 0,
            room: vec![0; 16 << 10].into_boxed_slice(),
        })
    }

    /// Decodes the next octets; says how many of them could not be read.
    pub(super) fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(&[u8])) -> u64 {
        if let (Coding::Brotli, 0, [first, ..]) = (self.coding, self.read, bytes) {
            match window::brotli(*first) {
                Some(window) => self.window.shrink_to(window),
                None => self.over = true,
            }
        }
        if self.codec.is_some() {
            return self.decode(bytes, each);
        }
        let (first, rest) = match (self.held, bytes) {
            (_, []) => return 0,
            (None, [only]) => {
                self.held = Some(*only);
                return 0;
            }
            (None, [first, rest @ ..]) => (*first, rest),
            (Some(first), rest) => (first, rest),
        };
        self.codec = Some(match is_zlib(first, rest[0]) {
            true => Box::new(ZlibDecoder::new()),
            false => Box::new(DeflateDecoder::new()),
        });
        self.decode(&[first], each) + self.decode(rest, each)
    }

    fn decode(&mut self, bytes: &[u8], each: &mut dyn FnMut(&[u8])) -> u64 {
        let mut input = PartialBuffer::new(bytes);
        let mut was_full = false;
        while !self.over && (was_full || !input.unwritten().is_empty()) {
            let Some(codec) = self.codec.as_mut() else {
                break;
            };
            // Both `gzip` (RFC 1952, 2.2) and `zstd` (RFC 8878, 3) may be several parts in a row.
            if std::mem::take(&mut self.member_ended) && codec.reinit().is_err() {
                self.over = true;
                break;
            }
            let mut output = WriteBuffer::new_initialized(&mut self.room);
            let step = codec.decode(&mut input, &mut output);
            let written = output.written_len();
            was_full = written == self.room.len();
            self.decoded += written as u64;
            each(&self.room[..written]);
            let read = self.read + input.written_len() as u64;
            let fair = read.saturating_mul(MAX_RATIO).max(FREE_OCTETS);
            self.over = self.decoded > fair.min(MAX_DECODED);
            match step {
                Ok(true) if matches!(self.coding, Coding::Gzip | Coding::Zstd) => {
                    self.member_ended = true;
                    was_full = false;
                }
                Ok(true) => self.over = true,
                Ok(false) => {}
                // A codec that is asked for more and has neither input nor output left says so this way.
                Err(_) if input.unwritten().is_empty() && written == 0 => break,
                Err(_) => self.over = true,
            }
        }
        self.read += input.written_len() as u64;
        match self.over {
            true => input.unwritten().len() as u64,
            false => 0,
        }
    }
}

/// Whether a `br` body begins as none may.
pub(super) fn is_large_window(body: &[u8]) -> bool {
    body.first()
        .is_some_and(|first| window::brotli(*first).is_none())
}

/// Whether a `deflate` body begins with zlib's header (RFC 1950, 2.2): the method is 8, the window has a
/// legal size, and both octets together are a multiple of 31.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0F == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

#[cfg(test)]
mod tests {
    use async_compression::codecs::{EncodeV2, ZstdEncoder};

    use super::*;

    #[test]
    fn what_there_is_no_memory_to_decode_is_not_decoded() {
        let mut made = vec![0; 1 << 10];
        let mut output = WriteBuffer::new_initialized(&mut made);
        let mut encoder = ZstdEncoder::new(1);
        let said = &b"what was said"[..];
        encoder
            .encode(&mut PartialBuffer::new(said), &mut output)
            .unwrap();
        assert!(encoder.finish(&mut output).unwrap());
        let packed = output.written();
        let windows = Arc::new(Room::of(window::LARGEST + window::ZSTD));
        let read = |decoder: &mut Decoder| {
            let mut text = Vec::new();
            let lost = decoder.feed(packed, &mut |octets| text.extend_from_slice(octets));
            (lost, text)
        };
        let mut first = Decoder::new(Coding::Zstd, &windows).unwrap();
        assert_eq!(read(&mut first), (0, said.to_vec()));
        let second = Decoder::new(Coding::Brotli, &windows).unwrap();
        assert_eq!(windows.free(), 0);
        let mut third = Decoder::new(Coding::Zstd, &windows).unwrap();
        assert_eq!(read(&mut third), (packed.len() as u64, Vec::new()));
        drop(second);
        let mut fourth = Decoder::new(Coding::Zstd, &windows).unwrap();
        assert_eq!(read(&mut fourth), (0, said.to_vec()));
        // A small window is told by the first octet.
        let mut small = Decoder::new(Coding::Brotli, &Arc::new(Room::of(window::LARGEST))).unwrap();
        small.feed(&[0], &mut |_| {});
        assert_eq!(
            small.window.missing(window::LARGEST),
            window::LARGEST - (1 << 16)
        );
        drop((first, third, fourth));
        assert_eq!(windows.free(), windows.most());
    }

    #[test]
    fn however_honestly_it_grows_decoding_ends_at_its_bound() {
        let mut encoder = ZstdEncoder::new(1);
        let windows = Arc::new(Room::of(window::ZSTD));
        let mut decoder = Decoder::new(Coding::Zstd, &windows).unwrap();
        // It grows about sixtyfold.
        let mut piece = vec![0; 128 << 10];
        let mut packed = vec![0; 256 << 10];
        let mut noise: u64 = 1;
        let (mut decoded, mut lost) = (0, 0);
        for _ in 0..MAX_DECODED / piece.len() as u64 + 8 {
            for word in piece[..2048].chunks_mut(8) {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                word.copy_from_slice(&noise.to_le_bytes());
            }
            let mut input = PartialBuffer::new(&piece[..]);
            let mut output = WriteBuffer::new_initialized(&mut packed);
            encoder.encode(&mut input, &mut output).unwrap();
            assert!(input.unwritten().is_empty());
            assert!(encoder.flush(&mut output).unwrap());
            lost += decoder.feed(output.written(), &mut |octets| {
                decoded += octets.len() as u64;
            });
        }
        assert!(lost > 0);
        let room = decoder.room.len() as u64;
        assert!((MAX_DECODED..=MAX_DECODED + room).contains(&decoded));
    }
}
