//! Owns decoding compressed request bodies, within bounds, so that what they ask for can be read.
//!
//! Clients rarely compress requests (Codex does, with zstd). Servers differ in what they take for the end
//! of a compressed body and in how much they decode, so only one coding, one stream of it and nothing
//! after it is accepted.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use tokio::io::{AsyncRead, ReadBuf};

use super::decode::is_large_window;

/// The most octets of a decoded body, unless the caller wants less.
pub const MAX_UNPACKED: u64 = 64 << 20;

/// Beyond [`FREE_OCTETS`], the most decoded octets for each one that was sent. Conversations compress
/// to about a fifth; only what was made to grow passes a hundred.
pub const MAX_RATIO: u64 = 100;

/// Decoded octets for which the ratio is not asked.
const FREE_OCTETS: u64 = 1 << 20;

/// Decoding needs no more memory than this window besides its result (RFC 9659, section 3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// Why a body cannot be decoded. The answer is 415 (RFC 9110, section 15.5.16), or 413 where
/// [`UnpackError::is_too_large`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// A coding that is not known here.
    #[error(
        "the request's content-encoding is none of gzip, deflate, br and zstd; send the body plain"
    )]
    UnknownCoding,
    /// More than one coding.
    #[error("the request has several content-encodings; send the body plain or with one")]
    SeveralCodings,
    /// The octets are not what the coding says, or are cut off.
    #[error("the request body is not whole {0} data; send it plain")]
    Broken(&'static str),
    /// Octets follow the end of the compressed stream.
    #[error(
        "something follows the {0} data of the request body; servers differ in whether they read it"
    )]
    Trailing(&'static str),
    /// Larger than allowed once decoded.
    #[error("the request body is larger than {0} octets once decoded")]
    TooLarge(u64),
    /// It grows as no honest body does.
    #[error("the request body grows more than {MAX_RATIO} times when it is decoded; send it plain")]
    Ratio,
}

impl UnpackError {
    /// One word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownCoding => "unknown_coding",
            Self::SeveralCodings => "several_codings",
            Self::Broken(_) => "broken_coding",
            Self::Trailing(_) => "trailing_coding",
            Self::TooLarge(_) => "too_large",
            Self::Ratio => "ratio",
        }
    }

    /// Whether its size is what is wrong with it.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::Ratio)
    }
}

/// Whether the request's body is compressed, or said to be.
pub fn is_packed(headers: &HeaderMap) -> bool {
    !matches!(coding(headers), Ok(None))
}

/// The body as it is meant; the same one if it is not compressed. `limit` is in octets.
///
/// It works until it is done: tens of milliseconds for bodies near the limit.
pub fn unpacked(headers: &HeaderMap, body: &Bytes, limit: u64) -> Result<Bytes, UnpackError> {
    let limit = limit.min(MAX_UNPACKED);
    let Some(coding) = coding(headers)? else {
        return match body.len() as u64 > limit {
            true => Err(UnpackError::TooLarge(limit)),
            false => Ok(body.clone()),
        };
    };
    let packed: &[u8] = body;
    let (bytes, rest) = match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(packed);
            (
                drain(&mut decoder, coding, packed, limit),
                decoder.into_inner(),
            )
        }
        Coding::Deflate => {
            let mut decoder = ZlibDecoder::new(packed);
            (
                drain(&mut decoder, coding, packed, limit),
                decoder.into_inner(),
            )
        }
        Coding::Brotli if is_large_window(packed) => {
            return Err(UnpackError::Broken(coding.as_str()));
        }
        Coding::Brotli => {
            let mut decoder = BrotliDecoder::new(packed);
            (
                drain(&mut decoder, coding, packed, limit),
                decoder.into_inner(),
            )
        }
        Coding::Zstd => {
            let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            let mut decoder = ZstdDecoder::with_params(packed, &window);
            (
                drain(&mut decoder, coding, packed, limit),
                decoder.into_inner(),
            )
        }
    };
    let bytes = bytes?;
    match rest.is_empty() {
        true => Ok(bytes),
        false => Err(UnpackError::Trailing(coding.as_str())),
    }
}

#[derive(Clone, Copy)]
enum Coding {
    Gzip,
    /// The zlib format (RFC 9110, section 8.4.1.2), not the bare one that some send.
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate (zlib)",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

fn coding(headers: &HeaderMap) -> Result<Option<Coding>, UnpackError> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| UnpackError::UnknownCoding)?;
        for name in value.split(',').map(str::trim) {
            let coding = match name.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                _ => return Err(UnpackError::UnknownCoding),
            };
            if found.replace(coding).is_some() {
                return Err(UnpackError::SeveralCodings);
            }
        }
    }
    Ok(found)
}

/// Reads a decoder whose input is in memory, so that it never has to wait.
fn drain(
    decoder: &mut (impl AsyncRead + Unpin),
    coding: Coding,
    packed: &[u8],
    limit: u64,
) -> Result<Bytes, UnpackError> {
    let broken = UnpackError::Broken(coding.as_str());
    let ratio = (packed.len() as u64)
        .saturating_mul(MAX_RATIO)
        .max(FREE_OCTETS);
    let mut context = Context::from_waker(Waker::noop());
    let mut piece = vec![0; 64 << 10];
    let mut bytes = BytesMut::with_capacity(packed.len().saturating_mul(4).min(1 << 20));
    loop {
        let mut room = ReadBuf::new(&mut piece);
        match Pin::new(&mut *decoder).poll_read(&mut context, &mut room) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) | Poll::Pending => return Err(broken),
        }
        if room.filled().is_empty() {
            return Ok(bytes.freeze());
        }
        bytes.extend_from_slice(room.filled());
        let length = bytes.len() as u64;
        if length > limit {
            return Err(UnpackError::TooLarge(limit));
        }
        if length > ratio {
            return Err(UnpackError::Ratio);
        }
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
