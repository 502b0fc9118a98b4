//! Owns how much memory undoing a content coding takes for its window, as its own specification bounds it.

/// The most that any takes, and `br` as long as nothing of it is known (RFC 7932, section 9.1: 2^24 octets).
pub const LARGEST: u64 = 16 << 20;

/// `zstd` where it is a content coding (RFC 9659), as a power of two.
pub const ZSTD_BITS: u32 = 23;

/// The same in octets.
pub const ZSTD: u64 = 1 << ZSTD_BITS;

/// What a `br` stream with this first octet takes: it begins with the size of its window (RFC 7932, section 9.1),
/// which is a fraction of the largest as a rule.
///
/// Nothing if no `br` stream begins so: its decoder would take it for one of "large window" Brotli, which is none of
/// HTTP's codings and may ask for 1 GiB.
pub fn brotli(first: u8) -> Option<u64> {
    let bits = match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, 1) => return None,
        (_, 0, short) => 8 + u32::from(short),
        (_, long, _) => 17 + u32::from(long),
    };
    Some(1 << bits)
}
