//! Owns what may be wrong with an agent's HTTP/1.1, in words, and the bounds that no setting moves.

use crate::types::limits::RequestLimits;
use crate::types::reached::{Limit, Reached};

/// What makes a request ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndEncoding = 1,
    /// `Content-Length` twice, not a plain number or a number past [`LONGEST_BODY`], or in another spelling.
    ContentLength,
    /// `Transfer-Encoding` twice, other than `chunked`, in HTTP/1.0, or in another spelling.
    TransferEncoding,
    /// No `Host`, or more than one.
    Host,
    /// A header line that continues the one before (obs-fold).
    Folding,
    /// A line that ends without CRLF, or a CR, NUL or other control character within one.
    LineEnd,
    /// A chunk size that is not plain hexadecimal, or a chunk without its CRLF.
    Chunk,
    /// A header's name that is no token, or none at all.
    Name,
    /// Not `METHOD TARGET HTTP/1.x`, or behind too many empty lines.
    RequestLine,
    /// A target that is no URI in any of the forms of RFC 9112, section 3.2.
    Target,
    /// More than [`RequestLimits::head_size`].
    HeadTooLarge,
    /// More than [`RequestLimits::head_fields`].
    TooManyFields,
    /// A CONNECT that announces a body (RFC 9110, section 9.3.6).
    ConnectBody,
    /// A head that took longer than [`RequestLimits::head_time`] to arrive.
    SlowHead,
    /// A body of which nothing came for [`RequestLimits::body_idle`].
    SlowBody,
    /// A header's name that is longer than [`LONGEST_NAME`].
    LongName,
    /// A target that is longer than [`LONGEST_TARGET`].
    LongTarget,
    /// Chunk extensions of a body that are longer than [`LONGEST_EXTENSIONS`].
    LongExtensions,
    /// Trailers that are larger than [`LONGEST_TRAILERS`].
    LongTrailers,
}

/// The largest `Content-Length` that the library knows: the two above stand for something else there.
pub const LONGEST_BODY: u64 = u64::MAX - 2;
/// The longest name of a field that `http` makes.
pub const LONGEST_NAME: usize = (1 << 16) - 1;
/// The longest target that `http` makes.
pub const LONGEST_TARGET: usize = (1 << 16) - 2;
/// The chunk extensions of one body that the library passes over.
pub const LONGEST_EXTENSIONS: usize = (16 << 10) - 1;
/// The trailers that the library reads, with the line that ends them.
pub const LONGEST_TRAILERS: usize = (16 << 10) - 1;

impl Violation {
    /// What is wrong, for the one who sent it.
    pub fn message(self) -> &'static str {
        match self {
            Self::LengthAndEncoding => "the request has both Content-Length and Transfer-Encoding",
            Self::ContentLength => {
                "Content-Length stands twice, is not a plain number below 2^64 - 2, or is spelt with `_`"
            }
            Self::TransferEncoding => {
                "Transfer-Encoding must be `chunked`, once, in HTTP/1.1, and spelt with `-`"
            }
            Self::Host => "the request must have exactly one Host field",
            Self::Folding => "a header line is folded over two lines",
            Self::LineEnd => "a line does not end with CRLF, or holds a control character",
            Self::Chunk => "the chunked body is malformed",
            Self::Name => "a header line does not begin with a plain name and a colon",
            Self::RequestLine => "the request line is not `METHOD TARGET HTTP/1.1`",
            Self::Target => "the request's target is not a valid URI",
            Self::ConnectBody => "a CONNECT has no body, and this one announces one",
            Self::HeadTooLarge => "the request line and headers, or the trailers, are too large",
            Self::TooManyFields => "the request has too many header fields",
            Self::SlowHead => "the request line and headers took too long to arrive",
            Self::SlowBody => "the request's body took too long to arrive",
            Self::LongName => "a header's name is longer than 65535 octets",
            Self::LongTarget => "the request's target is longer than 65534 octets",
            Self::LongExtensions => "the body's chunk extensions are longer than 16383 octets",
            Self::LongTrailers => "the trailers are larger than 16383 octets",
        }
    }

    /// The limit that was reached, where that is what is wrong.
    pub fn reached(self, limits: &RequestLimits) -> Option<Reached> {
        match self {
            Self::HeadTooLarge => Some(Limit::HeadSize.bytes(limits.head_size as u64)),
            Self::TooManyFields => Some(Limit::HeadFields.count(limits.head_fields)),
            Self::SlowHead => Some(Limit::HeadTime.time(limits.head_time)),
            Self::SlowBody => Some(Limit::BodyIdle.time(limits.body_idle)),
            _ => None,
        }
    }

    /// From the number [`Violation`] is stored as.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [
            Self::LengthAndEncoding,
            Self::ContentLength,
            Self::TransferEncoding,
            Self::Host,
            Self::Folding,
            Self::LineEnd,
            Self::Chunk,
            Self::Name,
            Self::RequestLine,
            Self::Target,
            Self::HeadTooLarge,
            Self::TooManyFields,
            Self::ConnectBody,
            Self::SlowHead,
            Self::SlowBody,
            Self::LongName,
            Self::LongTarget,
            Self::LongExtensions,
            Self::LongTrailers,
        ]
        .into_iter()
        .find(|v| *v as u8 == code)
    }
}
